"""Files of bars: the usual shapes are read alike, and every defect is one clear line."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lstm_strategy.bars import Bars, BarsError, Timeframe, format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.files import read_file
from lstm_strategy.sources.instruments import decimals_of, infer_instrument, on_grid
from lstm_strategy.sources.simulate import SimulationConfig, simulate

HOUR = Timeframe.parse("1h")
BARS = simulate(SimulationConfig(bars=50))


def frame() -> pd.DataFrame:
    """The 50 bars, stamped at the open."""
    return pd.DataFrame(
        {
            "ts": pd.to_datetime(BARS.ts_close - HOUR.ns, utc=True),
            "open": BARS.open,
            "high": BARS.high,
            "low": BARS.low,
            "close": BARS.close,
            "volume": BARS.volume,
        }
    )


def read(path: Path, stamp: Any = "open", timeframe: Timeframe = HOUR) -> Bars:
    return read_file(path, "SIM.SIM", timeframe, stamp)


def csv(tmp_path: Path, table: pd.DataFrame, name: str = "bars.csv", **how: Any) -> Path:
    path = tmp_path / name
    table.to_csv(path, **({"index": False} | how))
    return path


def assert_same(bars: Bars, expected: Bars = BARS) -> None:
    assert list(bars) == list(expected)


def refused(path: Path, told: str, stamp: Any = "open", timeframe: Timeframe = HOUR) -> None:
    with pytest.raises(BarsError, match=told) as error:
        read(path, stamp, timeframe)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".feather", ".PARQUET"])
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bars{suffix}"
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    if suffix.lower() == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".feather":
        pyarrow.feather.write_feather(table, path)
    else:
        csv(tmp_path, frame(), path.name)
    assert_same(read(path))


NS = BARS.ts_close - HOUR.ns
STAMPS: dict[str, Callable[[], Any]] = {
    "ISO with zone": lambda: frame()["ts"].map(lambda ts: ts.isoformat()),
    "ISO with Z": lambda: [format_ns(ts) for ts in NS],
    "naive": lambda: frame()["ts"].dt.tz_localize(None),
    "another zone": lambda: frame()["ts"].dt.tz_convert("Asia/Tokyo").map(lambda ts: ts.isoformat()),
    "s": lambda: NS // 10**9,
    "ms": lambda: NS // 10**6,
    "us": lambda: NS // 10**3,
    "ns": lambda: NS,
    "float s": lambda: NS / 1e9,
}


@pytest.mark.parametrize("shape", STAMPS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_way_to_write_a_stamp_is_read(tmp_path: Path, shape: str, suffix: str) -> None:
    table = frame().assign(ts=STAMPS[shape]())
    path = tmp_path / f"bars.{suffix}"
    if suffix == "csv":
        csv(tmp_path, table)
    else:
        table.to_parquet(path)
    assert_same(read(path))


def test_daily_dates_are_stamps(tmp_path: Path) -> None:
    daily = simulate(SimulationConfig(bars=30, timeframe="1d"))
    table = frame().iloc[:30].assign(ts=pd.to_datetime(daily.ts_close).date)
    assert np.array_equal(read(csv(tmp_path, table), "close", daily.timeframe).ts_close, daily.ts_close)


def test_dates_before_1970_are_stamps(tmp_path: Path) -> None:
    stamps = parse_ns("1927-12-30") // 10**9 + 86_400 * np.arange(20_000)
    table = pd.DataFrame({name: np.ones(len(stamps)) for name in "ohlcv"})
    for factor in (1, 1_000, 1_000_000, 1_000_000_000):
        bars = read(csv(tmp_path, table.assign(t=stamps * factor)), "close", Timeframe.parse("1d"))
        assert np.array_equal(bars.ts_close, stamps * 10**9)


@pytest.mark.parametrize(
    "names",
    [
        ["Timestamp", "Open", "High", "Low", "Close", "Volume"],
        ["t", "o", "h", "l", "c", "v"],
        ["Open time", "Open", "High", "Low", "Close", "Volume"],
        ["DATE", "OPEN", "HIGH", "LOW", "CLOSE", "VOL"],
    ],
)
def test_usual_names_are_known(tmp_path: Path, names: list[str]) -> None:
    assert_same(read(csv(tmp_path, frame().set_axis(names, axis=1))))


def test_adjusted_close_is_not_close(tmp_path: Path) -> None:
    table = frame().rename(columns={"close": "Adj Close"})
    refused(csv(tmp_path, table), "column 'close' is missing; found .*Adj Close")
    assert_same(read(csv(tmp_path, frame().assign(**{"Adj Close": 1.0}))))


def test_an_exchange_dump_without_header_is_read(tmp_path: Path) -> None:
    table = frame().assign(ts=NS // 10**6, close_time=BARS.ts_close // 10**6 - 1, quote_volume=1.0, trades=3)
    assert_same(read(csv(tmp_path, table, header=False)))


def test_the_column_that_fits_the_stamp_is_taken(tmp_path: Path) -> None:
    table = frame().rename(columns={"ts": "open_time"}).assign(close_time=BARS.ts_close // 10**6 - 1)
    assert_same(read(csv(tmp_path, table), "open"))
    assert_same(read(csv(tmp_path, table), "close"))
    refused(csv(tmp_path, table.drop(columns="close_time")), "'open_time' .* pass --stamp open", "close")
    refused(csv(tmp_path, table.drop(columns="open_time")), "'close_time' .* pass --stamp close", "open")


def test_an_index_holds_stamps_too(tmp_path: Path) -> None:
    table = frame().set_index("ts")
    table.index.name = None
    assert_same(read(csv(tmp_path, table, index=True)))
    table.to_parquet(tmp_path / "bars.parquet")
    assert_same(read(tmp_path / "bars.parquet"))


def test_semicolons_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    assert_same(read(csv(tmp_path, frame(), sep=";", encoding="utf-8-sig")))


def test_numbers_written_as_text_are_numbers(tmp_path: Path) -> None:
    frame().astype({"close": str}).to_parquet(tmp_path / "bars.parquet")
    assert_same(read(tmp_path / "bars.parquet"))


def test_rounding_of_adjusted_prices_is_mended(tmp_path: Path) -> None:
    high = np.maximum(BARS.open, BARS.close) * (1 - 1e-15)
    bars = read(csv(tmp_path, frame().assign(high=high), float_format="%.17g"))
    assert (bars.high >= bars.close).all()
    refused(csv(tmp_path, frame().assign(high=high * 0.999)), "high is below open or close")


def with_cell(column: str, row: int, value: Any) -> pd.DataFrame:
    table = frame().astype({column: object})
    table.loc[row, column] = value
    return table


def with_rows(rows: list[int]) -> pd.DataFrame:
    return frame().iloc[rows]


NOW = time.time_ns() // HOUR.ns * HOUR.ns
UNFINISHED = NOW + HOUR.ns * np.r_[-49:0, 24]  # opens, the last in a day's time: not over however long the tests take
DEFECTS: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "no rows": (lambda: frame().iloc[:0], "the file has no rows"),
    "missing column": (lambda: frame().drop(columns="volume"), "column 'volume' is missing; found ts, open, high"),
    "no stamps": (lambda: frame().drop(columns="ts"), "no column of stamps"),
    "ambiguous": (lambda: frame().assign(Close=1.0), "close and Close could both be 'close'"),
    "text": (lambda: with_cell("close", 7, "n.a."), r"'close' holds 'n\.a\.', .*row 7, bar closing 2020-01-01T08:00"),
    "NaN": (lambda: with_cell("close", 7, float("nan")), "close is not a finite number at 2020-01-01T08:00:00Z"),
    "infinite": (lambda: with_cell("high", 7, float("inf")), "high is not a finite number"),
    "negative": (lambda: with_cell("volume", 7, -1.0), "volume is negative at 2020-01-01T08:00:00Z"),
    "unsorted": (lambda: with_rows([0, 1, 3, 2, 4, 5]), "row 3, bar closing .* is earlier than the row before"),
    "newest first": (lambda: frame()[::-1], "newest bar comes first; sort"),
    "duplicate": (lambda: with_rows([0, 1, 1, 2, 3]), r"row 2, bar closing 2020-01-01T02:00:00Z, is a duplicate \(1 "),
    "two hours": (lambda: with_rows([0, 2, 4, 6]), "commonest step is 2h, not 1h"),
    "off grid": (lambda: with_cell("ts", 7, "2020-01-01T06:30:00+00:00"), "row 7, .* not on the 1h grid"),
    "no date": (lambda: with_cell("ts", 7, "yesterday"), "row 7 of column 'ts' is 'yesterday', not a date"),
    "no stamp": (lambda: with_cell("ts", 7, None), "row 7"),
    "mixed units": (lambda: with_cell("ts", 7, 1577860200).assign(ts=mixed_units()), "mixes units of time, row 7"),
    "counts": (lambda: frame().assign(ts=range(50)), "no count of s, ms, us or ns since 1970"),
    "before 1900": (lambda: frame().assign(ts=[f"1850-01-01T{i % 24:02}:00" for i in range(50)]), "outside 1900"),
    "far future": (lambda: frame().assign(ts=[f"2250-01-01T{i % 24:02}:00" for i in range(50)]), "outside 1900"),
    "unfinished": (
        lambda: frame().assign(ts=pd.to_datetime(UNFINISHED, utc=True)),
        "row 49 closes at .*, in the future; drop the unfinished bar",
    ),
}


def mixed_units() -> list[int]:
    return [int(ts) // (10**9 if row == 7 else 10**6) for row, ts in enumerate(NS)]


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_clear_line(tmp_path: Path, defect: str) -> None:
    make, told = DEFECTS[defect]
    refused(csv(tmp_path, make()), told)


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "there is no such file")
    refused(tmp_path / "bars.xlsx", r"suffix is not one of \.csv")
    for suffix in (".csv", ".parquet", ".feather", ".csv.gz"):
        path = tmp_path / f"empty{suffix}"
        path.touch()
        refused(path, "the file is empty")
    (tmp_path / "blank.csv").write_text("\n\n")
    refused(tmp_path / "blank.csv", "the file is empty")
    (tmp_path / "empty.csv.gz").write_bytes(gzip.compress(b""))
    refused(tmp_path / "empty.csv.gz", "the file is empty")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "there is no such file")


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv.gz"])
def test_a_cut_or_foreign_file_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bars{suffix}"
    if suffix == ".parquet":
        frame().to_parquet(path)
    elif suffix == ".feather":
        pyarrow.feather.write_feather(pa.Table.from_pandas(frame()), path)
    else:
        csv(tmp_path, frame(), path.name)
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, "cannot be read")
    path.write_bytes(bytes(range(256)) * 4)
    refused(path, "cannot be read")


def test_ragged_and_binary_csv_is_told(tmp_path: Path) -> None:
    path = csv(tmp_path, frame())
    path.write_text(path.read_text() + "2020-01-03T02:00:00Z,1,2\n")
    refused(path, "cannot be read .*columns")
    path.write_bytes(bytes(range(256)) * 4)
    refused(path, "bars")


def test_prices_tell_the_instrument() -> None:
    spot = infer_instrument(renamed("ETHUSDT.BINANCE"))
    assert (spot.kind, spot.base, spot.quote, spot.tick, spot.lot) == ("spot", "ETH", "USDT", "0.01", "0.001")
    assert (spot.maker_fee, spot.taker_fee) == (0.001, 0.001)
    swap = infer_instrument(renamed("BTCUSDT-PERP.BINANCE"), tick="0.01", taker_fee=0.0004, min_notional=5.0)
    assert (swap.kind, swap.base, swap.quote, swap.taker_fee, swap.min_notional) == (
        "perpetual",
        "BTC",
        "USDT",
        0.0004,
        5,
    )
    share = infer_instrument(renamed("AAPL.NASDAQ"))
    assert (share.kind, share.base, share.quote, share.tick, share.lot) == ("equity", "AAPL", "USD", "0.01", "1")
    assert infer_instrument(renamed("USDT.X")).kind == "equity"
    assert infer_instrument(renamed("ETH-BTC.X")).base == "ETH"
    with pytest.raises(LSTMStrategyError, match=r"tick 0\.1 is coarser than prices with 2 decimals"):
        infer_instrument(BARS, tick="0.1")


def renamed(instrument_id: str) -> Bars:
    return Bars(instrument_id, HOUR, BARS.ts_close, BARS.open, BARS.high, BARS.low, BARS.close, BARS.volume)


def test_decimals_are_counted() -> None:
    assert decimals_of(np.array([1.0, 250.0])) == 0
    assert decimals_of(np.array([1.5, 0.1 + 0.2])) == 1
    assert decimals_of(np.array([1 / 3])) == 8
    assert decimals_of(np.array([0.0000081234])) == 10


def test_prices_finer_than_any_tick_are_rounded_and_counted() -> None:
    assert on_grid(BARS)[1] == 0
    fine = Bars("X.Y", HOUR, *(BARS.ts_close, BARS.open / 3, BARS.high / 3, BARS.low / 3, BARS.close / 3, BARS.volume))
    rounded, moved = on_grid(fine)
    assert moved > 100
    assert decimals_of(rounded.close) == 8
    assert on_grid(rounded)[1] == 0


def test_real_files_are_read(data_folder: Path) -> None:
    bars = read_file(data_folder / "crypto" / "BTCUSDT-1h.parquet", "BTCUSDT.BINANCE", HOUR, "open")
    assert len(bars) == 64_524
    assert format_ns(bars.ts_close[0]) == "2017-08-17T05:00:00Z"
    assert infer_instrument(bars).tick == "0.01"
    shares = read_file(data_folder / "equity" / "GSPC-1d.parquet", "GSPC.INDEX", Timeframe.parse("1d"), "open")
    assert len(shares) == 24_115
