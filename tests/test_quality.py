"""Quality: known defects of real files are found, planted ones too, and clean history raises no alarm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lstm_strategy.bars import Timeframe
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.files import read_file
from lstm_strategy.sources.instruments import infer_instrument
from lstm_strategy.sources.quality import Gap, QualityReport, check
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import Columns, columns_of

HOUR = Timeframe.parse("1h")
DAY = Timeframe.parse("1d")
CONFIG = SimulationConfig(bars=2_000)
BARS = simulate(CONFIG)


def columns() -> Columns:
    return {name: column.copy() for name, column in columns_of(BARS).items()}


def look(found: Columns) -> QualityReport:
    return check(found, HOUR, simulated_instrument(CONFIG))


def real(folder: Path, file: str, instrument_id: str, timeframe: Timeframe) -> QualityReport:
    bars = read_file(folder / file, instrument_id, timeframe, "open")
    return check(columns_of(bars), timeframe, infer_instrument(bars))


def test_clean_bars_raise_nothing() -> None:
    report = look(columns())
    assert report.bars == 2_000
    assert report.errors == []
    assert report.warnings == report.outliers
    assert check({name: column[:1] for name, column in columns().items()}, HOUR).errors == []


def test_no_bars_is_an_error() -> None:
    assert look({name: column[:0] for name, column in columns().items()}).errors == ["there are no bars"]


def test_holes_are_counted() -> None:
    rows = np.delete(np.arange(2_000), [10, *range(500, 533)])
    report = look({name: column[rows] for name, column in columns().items()})
    assert (report.gaps, report.missing_bars, report.largest_gap_bars) == (2, 34, 33)
    assert report.gap_list[0] == Gap("2020-01-01T10:00:00Z", "2020-01-01T12:00:00Z", 1)
    assert report.errors == []


@pytest.mark.parametrize(
    ("name", "value", "counter", "told"),
    [
        ("close", np.nan, "bad_values", "not a finite number"),
        ("volume", np.inf, "bad_values", "not a finite number"),
        ("low", -1.0, "bad_values", "a price is not positive, or volume is negative"),
        ("volume", -1.0, "bad_values", "volume is negative"),
        ("high", 1.0, "ohlc_violations", "does not enclose open and close"),
        ("low", 1e9, "ohlc_violations", "does not enclose open and close"),
    ],
)
def test_corruption_is_named_by_its_stamp(name: str, value: float, counter: str, told: str) -> None:
    found = columns()
    found[name][[7, 9]] = value
    report = look(found)
    assert getattr(report, counter) == 2
    assert len(report.errors) == 1
    assert report.errors[0].startswith("2 rows: ")
    assert told in report.errors[0]
    assert report.errors[0].endswith("first at 2020-01-01T08:00:00Z")


def test_stamps_out_of_order_are_errors() -> None:
    rows = np.arange(2_000)
    rows[[5, 6]] = rows[[6, 5]]
    swapped = look({name: column[rows] for name, column in columns().items()})
    assert (swapped.unsorted, swapped.duplicates, swapped.gaps) == (1, 0, 0)
    rows = np.insert(np.arange(2_000), 5, 5)
    repeated = look({name: column[rows] for name, column in columns().items()})
    assert (repeated.unsorted, repeated.duplicates, repeated.gaps) == (0, 1, 0)
    assert repeated.errors == ["1 rows: the stamp is a duplicate, first at 2020-01-01T06:00:00Z"]
    off = columns()
    off["ts_close"][5] += 1
    assert "not on the 1h grid" in look(off).errors[0]


def test_silence_is_counted_in_runs() -> None:
    found = columns()
    found["volume"][[3, *range(100, 140)]] = 0.0
    report = look(found)
    assert report.zero_volume_bars == 41
    assert [(run.start, run.bars) for run in report.zero_volume_runs] == [("2020-01-05T05:00:00Z", 40)]


def test_a_bad_tick_is_an_outlier_and_no_split() -> None:
    found = columns()
    for name in ("open", "high", "low", "close"):
        found[name][1_000] /= 2.0
    report = look(found)
    assert {"2020-02-11T17:00:00Z", "2020-02-11T18:00:00Z"} <= {outlier.ts for outlier in report.outlier_list}
    assert report.split_suspects == []
    assert report.errors == []


@pytest.mark.parametrize("ratio", [2.0, 3.0, 7.0, 20.0, 1 / 10])
def test_a_planted_split_is_suspected(ratio: float) -> None:
    found = columns()
    for name in ("open", "high", "low", "close"):
        found[name][1_000:] /= ratio
    found["volume"][1_000:] *= ratio
    report = look(found)
    assert [(split.ts, split.ratio) for split in report.split_suspects] == [("2020-02-11T17:00:00Z", ratio)]


def test_outliers_do_not_depend_on_later_bars() -> None:
    found = columns()
    found["close"][1_500] *= 1.3
    found["high"][1_500] *= 1.3
    whole = [outlier for outlier in look(found).outlier_list if outlier.ts < "2020-03-04"]
    cut = look({name: column[:1_510] for name, column in found.items()}).outlier_list
    assert whole == cut
    assert len(cut) == 2


def daily(days: np.ndarray) -> Columns:
    ts = (days.astype("datetime64[D]").astype(np.int64) + 1) * DAY.ns
    return {"ts_close": ts, **{name: np.full(len(ts), 10.0) for name in ("open", "high", "low", "close", "volume")}}


def test_shares_rest_at_weekends_and_holidays() -> None:
    dates = np.arange("2001-01-01", "2001-12-31", dtype="datetime64[D]")
    dates = dates[np.is_busday(dates)]
    closed = (dates >= np.datetime64("2001-09-11")) & (dates < np.datetime64("2001-09-17"))
    share = Instrument(id="A.NYSE", kind="equity", base="A", quote="USD", tick="0.01", lot="1")
    report = check(daily(dates[~closed]), DAY, share)
    assert (report.gaps, report.missing_bars) == (0, 0)
    assert check(daily(dates[~closed]), DAY).gaps == 0  # told by the weekdays
    shifted = daily(dates[~closed])
    shifted["ts_close"] -= DAY.ns  # stamped with the date itself
    assert check(shifted, DAY, share).gaps == 0
    hole = (dates >= np.datetime64("2001-05-07")) & (dates < np.datetime64("2001-05-19"))
    report = check(daily(dates[~hole]), DAY, share)
    assert [gap.missing for gap in report.gap_list] == [10]
    coin = Instrument(id="A.X", kind="spot", base="A", quote="USD", tick="0.01", lot="1")
    assert check(daily(dates), DAY, coin).gaps == 51


@pytest.mark.parametrize(
    ("file", "timeframe", "expected"),
    [
        ("crypto/BTCUSDT-1h.parquet", HOUR, (64_524, 28, 128, 33)),
        ("crypto/ETHUSDT-1h.parquet", HOUR, (61_246, 27, 122, 33)),
        ("crypto/BTCUSDT-1m.parquet", Timeframe.parse("1m"), (525_520, 1, 80, 80)),
    ],
)
def test_real_holes_are_found(data_folder: Path, file: str, timeframe: Timeframe, expected: tuple[int, ...]) -> None:
    report = real(data_folder, file, "BTCUSDT.BINANCE", timeframe)
    assert (report.bars, report.gaps, report.missing_bars, report.largest_gap_bars) == expected
    assert report.split_suspects == []
    assert report.errors == []
    assert 0 < report.outliers < report.bars / 1_000
    assert report.zero_volume_bars > 0


def test_real_splits_are_suspected(data_folder: Path) -> None:
    report = real(data_folder, "equity/AAPL_raw_lean-1d.parquet", "AAPL.NASDAQ", DAY)
    # close stamps: each session's bar closes at 00:00 of the next day; the profit warning of 2000-09-29 (-52 %) is none
    assert [(split.ts[:10], split.ratio) for split in report.split_suspects] == [
        ("2000-06-22", 2.0),
        ("2005-03-01", 2.0),
        ("2014-06-10", 7.0),
        ("2020-09-01", 4.0),
    ]
    assert report.gaps == 0


def test_a_hole_of_years_is_one_gap(data_folder: Path) -> None:
    report = real(data_folder, "equity/QQQ_raw_lean-1d.parquet", "QQQ.NASDAQ", DAY)
    assert [(gap.start[:10], gap.end[:10]) for gap in report.gap_list] == [("2004-12-01", "2011-03-24")]
    assert report.largest_gap_bars == 1_645  # business days of 2,304 days
    assert [split.ts[:10] for split in report.split_suspects] == ["2000-03-21"]


@pytest.mark.parametrize("name", ["SPY", "MSFT", "AAPL", "GSPC"])
def test_adjusted_shares_have_no_splits(data_folder: Path, name: str) -> None:
    report = real(data_folder, f"equity/{name}-1d.parquet", f"{name}.NYSE", DAY)
    assert report.split_suspects == []
    assert report.errors == []
    assert report.gaps == (1 if name == "GSPC" else 0)  # the bank holiday of March 1933
