"""The data commands from end to end: files to raw store and catalog, and what check says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.cli_data import data_app
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.catalog import read_catalog, read_instrument
from lstm_strategy.sources.agreement import aggregate
from lstm_strategy.sources.simulate import SimulationConfig, simulate
from lstm_strategy.sources.store import RawStore, columns_of

HOUR = Timeframe.parse("1h")
DAY = Timeframe.parse("1d")
TOTALS = {
    *("bars", "gaps", "missing_bars", "largest_gap_bars", "duplicates", "ohlc_violations"),
    *("zero_volume_bars", "outliers", "errors"),
}


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(data_app, [str(argument) for argument in arguments])
    if isinstance(result.exception, LSTMStrategyError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def told(*arguments: object, code: int = 0) -> dict[str, Any]:
    found = json.loads(run(*arguments, "--json", code=code).stdout)
    assert isinstance(found, dict)
    return found


def write_csv(path: Path, bars: Bars) -> Path:
    rows = "\n".join(",".join(map(repr, bar)) for bar in bars)
    path.write_text(f"ts_close,open,high,low,close,volume\n{rows}\n")
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


def simulated(n: int = 300, **changed: Any) -> Bars:
    return simulate(SimulationConfig(instrument_id="ABCUSDT.SIM", bars=n, **changed))


def import_bars(catalog: Path, bars: Bars, *options: object) -> dict[str, Any]:
    file = write_csv(catalog.parent / "bars.csv", bars)
    market = ("--instrument", "ABCUSDT.SIM", "--timeframe", bars.timeframe, "--stamp", "close", "--catalog", catalog)
    return told("import", file, *market, *options)


def test_import_fills_store_and_catalog(catalog: Path) -> None:
    bars = simulated()
    first = import_bars(catalog, bars[:200], "--taker-fee", "0.0007", "--min-notional", "5")
    assert (first["added"], first["total"], first["start"]) == (200, 200, "2020-01-01T01:00:00Z")
    second = import_bars(catalog, bars)
    assert (second["added"], second["unchanged"], second["total"]) == (100, 200, 300)
    assert list(RawStore(catalog).read("ABCUSDT.SIM", HOUR)) == list(bars)
    assert list(read_catalog(catalog, "ABCUSDT.SIM", HOUR)) == list(bars)
    instrument = read_instrument(catalog, "ABCUSDT.SIM")
    assert instrument == RawStore(catalog).read_instrument("ABCUSDT.SIM")
    assert (instrument.tick, instrument.taker_fee, instrument.maker_fee, instrument.min_notional) == (
        *("0.01", 0.0007, 0.001, 5.0),
    )
    assert told("check", "--catalog", catalog)["errors"] == []


def test_a_finer_tick_reaches_every_length_of_bar(catalog: Path) -> None:
    import_bars(catalog, simulated())
    import_bars(catalog, simulated(timeframe="1d", tick="0.001", lot="0.00001"))
    assert RawStore(catalog).read_instrument("ABCUSDT.SIM").tick == "0.001"
    assert read_instrument(catalog, "ABCUSDT.SIM").tick == "0.001"
    assert told("check", "--catalog", catalog, "ABCUSDT.SIM")["errors"] == []
    with pytest.raises(LSTMStrategyError, match=r"tick 0\.01 is coarser"):
        import_bars(catalog, simulated(timeframe="4h"), "--tick", "0.01")
    assert [str(length) for _, length in RawStore(catalog).entries()] == ["1h", "1d"]


def test_importing_again_keeps_the_venues_rules(catalog: Path) -> None:
    import_bars(catalog, simulated(), "--lot", "0.1", "--min-notional", "5")
    import_bars(catalog, simulated())
    held = RawStore(catalog).read_instrument("ABCUSDT.SIM")
    assert (held.lot, held.min_notional) == ("0.1", 5.0)
    assert read_instrument(catalog, "ABCUSDT.SIM").lot == "0.1"


def test_other_values_need_replace(catalog: Path) -> None:
    import_bars(catalog, simulated())
    with pytest.raises(LSTMStrategyError, match="--replace"):
        import_bars(catalog, simulated(seed=2))
    assert list(read_catalog(catalog, "ABCUSDT.SIM", HOUR)) == list(simulated())
    assert import_bars(catalog, simulated(seed=2), "--replace")["replaced"] == 300
    assert list(read_catalog(catalog, "ABCUSDT.SIM", HOUR)) == list(simulated(seed=2))


def test_a_length_of_bar_that_the_engine_has_not_is_refused_first(catalog: Path) -> None:
    with pytest.raises(LSTMStrategyError, match="7h"):
        import_bars(catalog, simulated(timeframe="7h"))
    assert RawStore(catalog).entries() == []


def test_wrong_calls_are_usage_errors(tmp_path: Path) -> None:
    run("import", tmp_path / "x.csv", "--timeframe", "1h", code=2)
    run("import", tmp_path / "x.csv", "--instrument", "A.B", "--timeframe", "1h", "--stamp", "middle", code=2)
    with pytest.raises(LSTMStrategyError, match="no such file"):
        run("import", tmp_path / "x.csv", "--instrument", "A.B", "--timeframe", "1h")
    with pytest.raises(LSTMStrategyError, match=r"is not SYMBOL\.VENUE"):
        run("import", write_csv(tmp_path / "x.csv", simulated(9)), "--instrument", "A", "--timeframe", "1h")


def test_check_counts_and_warns(catalog: Path) -> None:
    bars = simulated()
    rows = np.delete(np.arange(300), range(50, 60))
    holed = Bars("ABCUSDT.SIM", HOUR, **{name: column[rows] for name, column in columns_of(bars).items()})
    import_bars(catalog, holed)
    run("simulate", "--bars", 100, "--timeframe", "1d", "--catalog", catalog)
    report = told("check", "--catalog", catalog)
    assert set(report) == TOTALS | {"entries", "holes", "agreements", "comparison"}
    assert (report["bars"], report["gaps"], report["missing_bars"], report["largest_gap_bars"]) == (390, 1, 10, 10)
    assert [(entry["instrument"], entry["timeframe"]) for entry in report["entries"]] == [
        ("ABCUSDT.SIM", "1h"),
        ("SIM.SIM", "1d"),
    ]
    for entry in report["entries"]:
        assert set(entry) >= TOTALS
        assert {"split_suspects", "gap_list", "coverage", "covered", "stale_runs", "holes", "warnings"} <= set(entry)
    assert report["entries"][0]["gap_list"] == [
        {"start": "2020-01-03T02:00:00Z", "end": "2020-01-03T13:00:00Z", "missing": 10}
    ]
    result = run("check", "--catalog", catalog, "--strict", code=1)
    assert result.stdout == ""
    assert "10 bars closing 2020-01-03T03:00:00Z to 2020-01-03T12:00:00Z" in result.stderr
    assert told("check", "SIM.SIM", "--catalog", catalog, "--strict")["bars"] == 100
    assert told("check", "--timeframe", "1d", "--catalog", catalog)["bars"] == 100


def test_check_of_nothing_is_told(catalog: Path) -> None:
    with pytest.raises(LSTMStrategyError, match=r"holds nothing; .*data import"):
        run("check", "--catalog", catalog)
    import_bars(catalog, simulated())
    with pytest.raises(LSTMStrategyError, match=r"does not hold X\.Y, nor is that a file; it holds ABCUSDT\.SIM 1h"):
        run("check", "X.Y", "--catalog", catalog)


def test_corruption_fails(catalog: Path) -> None:
    import_bars(catalog, simulated())
    file = RawStore(catalog).path("ABCUSDT.SIM", HOUR)
    intact = file.read_bytes()
    table = pq.read_table(file, partitioning=None)
    high = np.asarray(table["high"]).copy()
    high[7] = 1.0
    pq.write_table(table.set_column(2, "high", [high]).take([0, 1, 1, *range(2, 300)]), file)
    report = told("check", "--catalog", catalog, code=1)
    assert (report["ohlc_violations"], report["duplicates"]) == (1, 1)
    assert len(report["errors"]) == 2
    assert report["errors"][0].startswith("ABCUSDT.SIM 1h: 1 rows: high or low does not enclose")
    file.write_bytes(intact[:-100])
    assert "cannot be read" in told("check", "--catalog", catalog, code=1)["errors"][0]
    file.write_bytes(intact)
    assert told("check", "--catalog", catalog)["errors"] == []


def test_a_catalog_that_differs_from_the_raw_bars_fails(catalog: Path) -> None:
    bars = simulated()
    import_bars(catalog, bars)
    store = RawStore(catalog)
    store.merge(simulated(310))
    assert "first different at 2020-01-13T13:00:00Z" in told("check", "--catalog", catalog, code=1)["errors"][0]
    volume = bars.volume.copy()
    volume[5] += 1.0
    columns = columns_of(bars) | {"volume": volume}
    store.path("ABCUSDT.SIM", HOUR).unlink()
    store.merge(Bars("ABCUSDT.SIM", HOUR, **columns))
    assert "1 bars of the catalog differ" in told("check", "--catalog", catalog, code=1)["errors"][0]
    import_bars(catalog, bars, "--replace")
    assert told("check", "--catalog", catalog)["errors"] == []
    for copy in (catalog / "data" / "bar").rglob("*.parquet"):
        copy.unlink()
    assert "ABCUSDT.SIM 1h" in told("check", "--catalog", catalog, code=1)["errors"][0]
    (catalog / "raw" / "SIM" / "ABCUSDT" / "instrument.json").unlink()
    assert "instrument ABCUSDT.SIM" in told("check", "--catalog", catalog, code=1)["errors"][0]


def test_a_file_is_checked_where_it_lies(tmp_path: Path) -> None:
    bars = simulated()
    file = write_csv(tmp_path / "bars.csv", bars)
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")
    report = told("check", file, "--stamp", "close", code=1)
    assert (report["bars"], report["duplicates"], report["entries"][0]["timeframe"]) == (301, 1, "1h")
    with pytest.raises(LSTMStrategyError, match="no such file"):
        run("check", tmp_path / "none.csv")


def test_two_sources_are_compared(catalog: Path, tmp_path: Path) -> None:
    bars = simulated()
    import_bars(catalog, bars)
    columns = columns_of(bars) | {"close": bars.close.copy()}
    columns["close"][7] = bars.low[7]
    rows = np.delete(np.arange(300), [50, 51])
    other = Bars("ABCUSDT.SIM", HOUR, **{name: column[rows] for name, column in columns.items()})
    file = write_csv(tmp_path / "other.csv", other)
    closes = ("--stamp", "close", "--catalog", catalog)
    found = told("check", file, "--against", "ABCUSDT.SIM", *closes)["comparison"]
    assert (found["compared"], found["differing_bars"], found["only_in_second"]) == (298, 1, 2)
    assert found["mismatches"][0]["ts"] == "2020-01-01T08:00:00Z"
    assert found["only_in_second_list"] == ["2020-01-03T03:00:00Z", "2020-01-03T04:00:00Z"]
    run("check", file, "--against", "ABCUSDT.SIM", *closes, "--strict", code=1)
    unsaid = tmp_path / "unsaid.csv"
    unsaid.write_text(file.read_text().replace("ts_close", "ts"))
    late = run("check", "ABCUSDT.SIM", "--against", unsaid, *closes, "--against-stamp", "open")
    assert "the second seems 1 bar late; see --stamp" in late.stderr
    with pytest.raises(LSTMStrategyError, match="--against x needs something to compare"):
        run("check", "--against", "x", *closes)
    with pytest.raises(LSTMStrategyError, match=r"does not hold X\.SIM"):
        run("check", file, "--against", "X.SIM", *closes)
    with pytest.raises(LSTMStrategyError, match="no such file"):
        run("check", file, "--against", tmp_path / "none.csv", *closes)
    import_bars(catalog, simulated(timeframe="4h"))
    with pytest.raises(LSTMStrategyError, match=r"holds ABCUSDT\.SIM as 1h, 4h; pass --timeframe"):
        run("check", "ABCUSDT.SIM", "--against", file, *closes)


def test_lengths_of_bar_held_are_compared(catalog: Path) -> None:
    hours = simulated(400)
    columns, _ = aggregate(columns_of(hours), HOUR, Timeframe.parse("4h"))
    import_bars(catalog, Bars("ABCUSDT.SIM", Timeframe.parse("4h"), **columns))
    assert told("check", "--catalog", catalog)["agreements"] == []
    import_bars(catalog, hours)
    for only in ((), ("--timeframe", "4h"), ("ABCUSDT.SIM",)):
        (found,) = told("check", *only, "--catalog", catalog)["agreements"]
        assert (found["first_timeframe"], found["second_timeframe"]) == ("1h", "4h")
        assert (found["compared"], found["incomplete"], found["differing_bars"]) == (100, 0, 0)
    low = columns["low"].copy()
    low[3] /= 2
    import_bars(catalog, Bars("ABCUSDT.SIM", Timeframe.parse("4h"), **(columns | {"low": low})), "--replace")
    (found,) = told("check", "--catalog", catalog)["agreements"]
    assert [(one["ts"], one["columns"]) for one in found["mismatches"]] == [("2020-01-01T16:00:00Z", ["low"])]
    assert "low" in run("check", "--catalog", catalog, "--strict", code=1).stderr


def test_check_draws_a_report(catalog: Path, tmp_path: Path) -> None:
    import_bars(catalog, simulated())
    page = tmp_path / "coverage.html"
    assert f"report: {page}" in run("check", "--catalog", catalog, "--report", page).stderr
    assert "ABCUSDT.SIM 1h" in page.read_text(encoding="utf-8")


def test_simulate_is_repeatable(catalog: Path) -> None:
    options = ("simulate", "--instrument", "E.SIM", "--bars", 500, "--edge", "0.2", "--seed", 4, "--catalog", catalog)
    assert told(*options)["added"] == 500
    assert told(*options)["unchanged"] == 500
    with pytest.raises(LSTMStrategyError, match="edge"):
        told(*options[:-2], "--noise", "--catalog", catalog)


@pytest.mark.parametrize("command", ["import", "check", "simulate"])
def test_help_shows_examples(command: str) -> None:
    assert f"lstm-strategy data {command}" in " ".join(run(command, "--help").stdout.split())


def test_real_bars_make_the_whole_way(data_folder: Path, catalog: Path) -> None:
    crypto, share = data_folder / "crypto" / "BTCUSDT-1h.parquet", data_folder / "equity" / "AAPL-1d.parquet"
    into = ("--catalog", catalog)
    assert told("import", crypto, "--instrument", "BTCUSDT.BINANCE", "--timeframe", "1h", *into)["added"] == 64_524
    assert told("import", share, "--instrument", "AAPL.NASDAQ", "--timeframe", "1d", *into)["added"] == 10_853
    again = told("import", share, "--instrument", "AAPL.NASDAQ", "--timeframe", "1d", *into)
    assert again["unchanged"] == 10_853
    report = told("check", *into)
    assert report["errors"] == []
    assert (report["bars"], report["gaps"], report["missing_bars"]) == (75_377, 28, 128)
    assert [hole["kind"] for hole in report["holes"]] == ["only_symbol"] * 28
