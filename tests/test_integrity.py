"""Integrity: coverage, stale prices, whose a hole is, and agreement of sources; planted faults and real history."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import browse, find_chromium
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_strategy.bars import Timeframe, format_ns, parse_ns
from lstm_strategy.cli_data_check import Checked, check_catalog
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.report.coverage_page import write_coverage_page
from lstm_strategy.sources.agreement import Agreement, Side, aggregate, compare
from lstm_strategy.sources.files import read_columns, read_file
from lstm_strategy.sources.instruments import infer_instrument
from lstm_strategy.sources.integrity import (
    Hole,
    KnownHoles,
    Month,
    StaleRun,
    Timeline,
    clean,
    coverage,
    find_holes,
    gaps_at_fault,
    stale_runs,
    timeline,
)
from lstm_strategy.sources.quality import check
from lstm_strategy.sources.simulate import SimulationConfig, simulate
from lstm_strategy.sources.store import COLUMNS, Columns, RawStore, columns_of

MINUTE, HOUR, DAY = map(Timeframe.parse, ("1m", "1h", "1d"))
START = parse_ns("2020-01-01")


def market(instrument_id: str, kind: Any = "spot") -> Instrument:
    return Instrument(id=instrument_id, kind=kind, base="B", quote="Q", tick="0.01", lot="0.001")


def simulated(n: int = 2_000, timeframe: Timeframe = HOUR, seed: int = 1) -> Columns:
    bars = simulate(SimulationConfig(bars=n, timeframe=timeframe.text, seed=seed))
    return {name: column.copy() for name, column in columns_of(bars).items()}


def without(columns: Columns, *missing: int) -> Columns:
    return {name: np.delete(column, missing) for name, column in columns.items()}


def line(name: str, *missing: int, first: int = 0, last: int = 200, timeframe: Timeframe = HOUR) -> Timeline:
    """Bars numbered from ``first`` to ``last`` by the hour, less the missing."""
    kept = [number for number in range(first, last) if number not in missing]
    ts = START + (np.array(kept, dtype=np.int64) + 1) * timeframe.ns
    columns: Columns = {"ts_close": ts, **{column: np.ones(len(ts)) for column in COLUMNS[1:]}}
    kind = "perpetual" if "PERP" in name else "spot"
    found = timeline(name, columns, timeframe, market(name, kind))
    assert found is not None
    return found


def told(holes: list[Hole]) -> list[tuple[str, int, str]]:
    """Kind, bars, and symbols' first letters of each hole."""
    return [(hole.kind, hole.missing, "".join(name[0] for name in hole.instruments)) for hole in holes]


# coverage


def test_months_count_what_opened_in_them() -> None:
    columns = without(simulated(), 100, 101, 800)
    months = coverage(columns, HOUR)
    assert months[0] == Month("2020-01", 744 - 2, 744, 2)
    assert months[1] == Month("2020-02", 696 - 1, 696, 1)
    assert months[-1] == Month("2020-03", 2_000 - 744 - 696, 560, 0)
    assert sum(month.bars for month in months) == len(columns["ts_close"])


def test_a_month_without_a_bar_is_told() -> None:
    months = coverage(without(simulated(2_500), *range(700, 1_500)), HOUR)
    assert [(month.month, month.bars, month.missing) for month in months[:3]] == [
        *(("2020-01", 700, 44), ("2020-02", 0, 696), ("2020-03", 684, 60)),
    ]


@given(missing=st.sets(st.integers(1, 398)), n=st.just(400), length=st.sampled_from(["1h", "4h", "1d", "7d", "45m"]))
@settings(max_examples=40, deadline=None)
def test_months_agree_with_gaps(missing: set[int], n: int, length: str) -> None:
    timeframe = Timeframe.parse(length)
    columns = without(simulated(n, timeframe), *missing)
    months = coverage(columns, timeframe, market("A.V"))
    assert (
        sum(month.missing for month in months) == check(columns, timeframe, market("A.V")).missing_bars == len(missing)
    )
    assert sum(month.expected for month in months) == n


def test_shares_expect_business_days() -> None:
    days = np.arange(np.datetime64("2023-01-02"), np.datetime64("2023-04-01"))
    days = days[np.is_busday(days) & (days != np.datetime64("2023-01-16"))]
    days = days[(days < np.datetime64("2023-02-06")) | (days > np.datetime64("2023-02-17"))]
    ts = (days + np.timedelta64(1, "D")).astype("datetime64[ns]").astype(np.int64)
    columns: Columns = {"ts_close": ts, **{column: np.ones(len(ts)) for column in COLUMNS[1:]}}
    share = market("A.V", "equity")
    assert coverage(columns, DAY, share) == [
        Month("2023-01", 21, 22, 0),  # a holiday is no hole
        Month("2023-02", 10, 20, 10),
        Month("2023-03", 23, 23, 0),
    ]
    hole = find_holes([timeline("A.V", columns, DAY, share)])  # type: ignore[list-item]
    assert [(one.first, one.last, one.missing) for one in hole] == [
        ("2023-02-05T00:00:00Z", "2023-02-20T00:00:00Z", 10)
    ]


def test_what_is_no_bar_is_left_out() -> None:
    columns = simulated(50)
    columns["ts_close"][10] += 1
    columns["ts_close"][20] = columns["ts_close"][19]
    columns["close"][30] = np.nan
    shuffled = {name: column[::-1] for name, column in columns.items()}
    assert len(clean(columns, HOUR)["ts_close"]) == 47
    np.testing.assert_array_equal(clean(shuffled, HOUR)["ts_close"], clean(columns, HOUR)["ts_close"])
    assert coverage({name: column[:0] for name, column in columns.items()}, HOUR) == []
    assert timeline("A.V", {name: column[:0] for name, column in columns.items()}, HOUR) is None


# stale prices


def test_stale_prices_are_found() -> None:
    columns = simulated()
    columns["close"][100:130] = columns["close"][100]
    for name in ("open", "high", "low", "close"):
        columns[name][501:520] = columns["close"][500]
    columns["volume"][501:520] = 0.0
    columns["close"][900:903] = columns["close"][900]
    assert stale_runs(columns, HOUR) == [
        StaleRun(format_ns(columns["ts_close"][100]), format_ns(columns["ts_close"][129]), 30, False, True),
        StaleRun(format_ns(columns["ts_close"][500]), format_ns(columns["ts_close"][519]), 20, True, False),
    ]


def test_a_run_does_not_reach_over_a_hole() -> None:
    columns = simulated()
    columns["close"][100:112] = columns["close"][100]
    assert [run.bars for run in stale_runs(columns, HOUR)] == [12]
    assert stale_runs(without(columns, 105, 106), HOUR) == []
    assert stale_runs({name: column[:1] for name, column in columns.items()}, HOUR) == []


def test_a_coarse_tick_is_not_stale() -> None:
    rng = np.random.default_rng(3)
    columns = simulated(20_000)
    for name in ("open", "high", "low", "close"):
        columns[name] = 10.0 + 0.01 * (rng.random(20_000) < 0.4).cumsum()  # most closes repeat the one before
    assert stale_runs(columns, HOUR) == []
    columns["close"][:] = 10.0
    assert [run.bars for run in stale_runs(columns, HOUR)] == [20_000]


# holes


def test_an_outage_is_told_from_a_fault() -> None:
    lines = [
        line("A.V", 10, 11, 12, 50, 90),
        line("B.V", 10, 11, 12, 90),
        line("C.V", 10, 11, 12, 13, first=5),
        line("D.V", first=100),
    ]
    holes = find_holes(lines)
    assert told(holes) == [
        *(("venue_wide", 3, "ABC"), ("one_symbol", 1, "C"), ("one_symbol", 1, "A"), ("several_symbols", 1, "AB"))
    ]
    assert (holes[0].first, holes[0].last) == ("2020-01-01T11:00:00Z", "2020-01-01T13:00:00Z")
    assert (holes[0].venue, holes[0].market, holes[0].timeframe) == ("V", "spot", "1h")
    assert [gaps_at_fault(one, holes) for one in lines] == [3, 2, 1, 0]


def test_venues_markets_and_lengths_stand_apart() -> None:
    assert told(find_holes([line("A.V", 10), line("B.W")])) == [("only_symbol", 1, "A")]
    assert told(find_holes([line("A.V", 10), line("BPERP.V")])) == [("only_symbol", 1, "A")]
    assert told(find_holes([line("A.V", 10), line("B.V", first=20)])) == [("only_symbol", 1, "A")]
    assert told(find_holes([line("A.V", 10), line("B.V")])) == [("one_symbol", 1, "A")]
    assert find_holes([]) == []


def test_an_outage_seen_in_other_bars_explains_the_only_symbol() -> None:
    coarse = [line("A.V", 10), line("B.V", 10)]
    fine = line("A.V", *range(590, 660), 700, last=1_000, timeframe=MINUTE)
    assert told(find_holes([fine, *coarse])) == [
        ("venue_wide", 70, "A"),
        ("only_symbol", 1, "A"),
        ("venue_wide", 1, "AB"),
    ]
    beside = line("A.V", *range(590, 600), last=1_000, timeframe=MINUTE)
    assert told(find_holes([beside, *coarse]))[0] == ("only_symbol", 10, "A")


def close_of(number: int) -> int:
    return START + (number + 1) * HOUR.ns


def test_a_hole_that_the_venue_has_is_no_fault() -> None:
    lines = [line("A.V", 10, 11, 12, 50), line("B.V", 10, 11), line("C.V", 10, 11)]
    known: KnownHoles = {("A.V", HOUR): [(close_of(10), close_of(12)), (close_of(190), close_of(400))]}
    holes = find_holes(lines, known)
    assert told(holes) == [("venue_own", 2, "ABC"), ("venue_own", 1, "A"), ("one_symbol", 1, "A")]
    assert [gaps_at_fault(one, holes) for one in lines] == [1, 0, 0]
    half = find_holes([line("A.V", 10, 11, 12), line("B.V")], {("A.V", HOUR): [(close_of(11), close_of(11))]})
    assert told(half) == [("one_symbol", 1, "A"), ("venue_own", 1, "A"), ("one_symbol", 1, "A")]
    assert told(find_holes([line("A.V", 10)], {("A.V", MINUTE): [(close_of(0), close_of(99))]})) == [
        ("only_symbol", 1, "A")
    ]


@given(st.lists(st.sets(st.integers(1, 28)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_missing_bar_is_told_once(missing: list[set[int]]) -> None:
    names = [f"{letter}.V" for letter, _ in zip("ABCD", missing, strict=False)]
    lines = [line(name, *gone, last=30) for name, gone in zip(names, missing, strict=True)]
    holes = find_holes(lines)
    for name, gone in zip(names, missing, strict=True):
        bars: list[int] = []
        for hole in holes:
            if name in hole.instruments:
                bars += range((parse_ns(hole.first) - START) // HOUR.ns - 1, (parse_ns(hole.last) - START) // HOUR.ns)
        assert bars == sorted(gone)
    for hole in holes:
        number = (parse_ns(hole.first) - START) // HOUR.ns - 1
        sharing = sum(number in gone for gone in missing)
        expected = {1: "one_symbol", len(missing): "venue_wide"}.get(sharing, "several_symbols")
        assert hole.kind == ("only_symbol" if len(missing) == 1 else expected)


# agreement


def test_bars_put_together() -> None:
    minutes = simulated(60 * 30, MINUTE)
    hours, incomplete = aggregate(without(minutes, 75, *range(600, 660)), MINUTE, HOUR)
    assert incomplete.tolist() == [START + 2 * HOUR.ns, START + 11 * HOUR.ns]
    assert len(hours["ts_close"]) == 28
    third = slice(120, 180)
    row = hours["ts_close"].tolist().index(START + 3 * HOUR.ns)
    assert hours["open"][row] == minutes["open"][120]
    assert hours["high"][row] == minutes["high"][third].max()
    assert hours["low"][row] == minutes["low"][third].min()
    assert hours["close"][row] == minutes["close"][179]
    assert hours["volume"][row] == pytest.approx(minutes["volume"][third].sum())
    with pytest.raises(LSTMStrategyError, match="1h do not make up bars of 90m"):
        aggregate(hours, HOUR, Timeframe.parse("90m"))


def fine_and_coarse() -> tuple[Columns, Columns]:
    minutes = simulated(60 * 50, MINUTE)
    return minutes, {name: column.copy() for name, column in aggregate(minutes, MINUTE, HOUR)[0].items()}


def test_finer_bars_agree_with_coarser_ones() -> None:
    minutes, hours = fine_and_coarse()
    hours["volume"] *= 1 + 1e-14  # sums in another order
    found = compare(Side("m", MINUTE, without(minutes, 75)), Side("h", HOUR, hours))
    assert (found.compared, found.incomplete, found.differing_bars, found.warnings) == (49, 1, 0, 0)
    assert found.timeframe == "1h"
    hours["high"][7] += 0.01
    hours["volume"][9] *= 1.001
    found = compare(Side("m", MINUTE, minutes), Side("h", HOUR, without(hours, 20)))
    assert (found.compared, found.differing_bars, found.only_in_first, found.only_in_second) == (49, 2, 1, 0)
    assert [(one.ts, one.columns) for one in found.mismatches] == [
        *(("2020-01-01T08:00:00Z", ("high",)), ("2020-01-01T10:00:00Z", ("volume",)))
    ]
    assert found.mismatches[0].second[0] == hours["high"][7]
    assert found.only_in_first_list == ["2020-01-01T21:00:00Z"]
    high = next(column for column in found.columns if column.column == "high")
    assert high.max_absolute == pytest.approx(0.01)
    assert (high.differing_bars, high.at) == (1, "2020-01-01T08:00:00Z")


def test_two_sources_are_compared_where_both_are() -> None:
    columns = simulated(300)
    first = {name: column[:200] for name, column in columns.items()}
    second = without(columns, *range(50), 120, 121)
    found = compare(Side("a", HOUR, first), Side("b", HOUR, second))
    assert (found.compared, found.only_in_first, found.only_in_second, found.shifted_bars) == (148, 2, 0, 0)
    assert (found.start, found.end) == (format_ns(second["ts_close"][0]), format_ns(first["ts_close"][-1]))
    apart = compare(Side("a", HOUR, first), Side("b", HOUR, {name: column[250:] for name, column in columns.items()}))
    assert (apart.compared, apart.start, apart.warnings) == (0, None, 1)
    none = compare(Side("a", HOUR, first), Side("b", HOUR, {name: column[:0] for name, column in columns.items()}))
    assert none.compared == 0
    spoilt = {name: column.copy() for name, column in first.items()}
    spoilt["open"][3] = np.inf
    assert compare(Side("a", HOUR, first), Side("b", HOUR, spoilt)).unusable_in_second == 1


@pytest.mark.parametrize("late", [-1, 1])
def test_stamps_taken_for_others_are_suspected(late: int) -> None:
    columns = simulated(300)
    moved = columns | {"ts_close": columns["ts_close"] + late * HOUR.ns}
    assert compare(Side("a", HOUR, columns), Side("b", HOUR, moved)).shifted_bars == late


# the page


def entries_and_holes(tmp_path: Path) -> Checked:
    store = RawStore(tmp_path / "catalog")
    for name, missing in zip(("AAA", "BBB"), ((500, 501, 900), (500, 501)), strict=True):
        bars = simulate(SimulationConfig(instrument_id=f"{name}.SIM", bars=20_000))
        rows = np.delete(np.arange(20_000), missing)
        store.merge(type(bars)(f"{name}.SIM", HOUR, **{key: column[rows] for key, column in columns_of(bars).items()}))
        store.write_instrument(market(f"{name}.SIM"))
    return check_catalog(store, None, None, {("AAA.SIM", HOUR): [(close_of(900), close_of(900))]})


def evil_agreement() -> Agreement:
    minutes, hours = fine_and_coarse()
    hours["close"][3] = hours["high"][3]
    hours["low"][3] *= 0.5
    return compare(Side("<script>alert(1)</script>.csv", MINUTE, minutes), Side("b", HOUR, hours))


def test_the_page_tells_and_escapes(tmp_path: Path) -> None:
    checked = entries_and_holes(tmp_path)
    assert [entry["holes"] for entry in checked.entries] == [{"venue_wide": 1, "venue_own": 1}, {"venue_wide": 1}]
    page = write_coverage_page(tmp_path / "page.html", checked.entries, checked.holes, [evil_agreement()])
    html = page.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "1 hole is on record as the venue&#39;s own" in html
    assert re.search(r'class="month most wide" data-tip="2020-01: 742 of 744 bars', html)
    assert re.search(r'class="month most own" data-tip="2020-02', html)
    assert "49 of 50 bars compared" in html
    nothing = write_coverage_page(tmp_path / "none.html", [], [], [])
    assert "nothing to put side by side" in nothing.read_text(encoding="utf-8")


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    browser = find_chromium()
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    checked = entries_and_holes(tmp_path)
    page = write_coverage_page(tmp_path / "page.html", checked.entries, checked.holes, [evil_agreement()])
    with browse(browser, tmp_path / "profile") as tab:
        for width, dark in itertools.product((1280, 390), (False, True)):
            tab.open(page, width, dark=dark)
            assert tab.errors == []
            assert [url for url in tab.requests if not url.startswith("file:")] == []
            assert tab.ask("document.documentElement.scrollWidth") <= width
            assert tab.ask("document.querySelectorAll('.year').length") == 6
            narrowest = "Math.min(...[...document.querySelectorAll('.months .month')].map(cell => cell.clientWidth))"
            assert tab.ask(narrowest) >= 5
            tip = tab.ask(
                "(() => { document.querySelector('.months .own').dispatchEvent(new PointerEvent('pointerdown',"
                " {bubbles: true})); const box = document.getElementById('tip').getBoundingClientRect();"
                " return [document.getElementById('tip').textContent, box.left, box.right]; })()"
            )
            assert tip[0].startswith("2020-02: 695 of 696 bars")
            assert "venue's own" in tip[0]
            assert tip[1] >= 0
            assert tip[2] <= width


# real history


def real(folder: Path, file: str, timeframe: Timeframe) -> Columns:
    return clean(read_columns(folder / f"{file}.parquet", timeframe, "open"), timeframe)


def test_real_minutes_make_up_real_hours(data_folder: Path) -> None:
    minutes, hours = (real(data_folder, f"crypto/BTCUSDT-{length}", length) for length in (MINUTE, HOUR))
    found = compare(Side("BTCUSDT", MINUTE, minutes), Side("BTCUSDT", HOUR, hours))
    assert (found.compared, found.incomplete, found.differing_bars) == (8_758, 2, 0)
    assert (found.only_in_first, found.only_in_second) == (0, 0)
    assert [column.max_absolute for column in found.columns[:4]] == [0.0] * 4
    assert found.columns[4].max_relative < 1e-15
    assert stale_runs(minutes, MINUTE) == [
        StaleRun("2023-03-24T11:28:00Z", "2023-03-24T12:40:00Z", 73, True, False)  # the exchange stood still, then shut
    ]


def test_real_outages_are_the_venues(data_folder: Path) -> None:
    files = {f"{coin}USDT.BINANCE": f"crypto/{coin}USDT-1h" for coin in ("BTC", "ETH", "LTC", "XRP", "SOL")}
    files["BTCUSDT_PERP.BINANCE"] = "perp/BTCUSDT_PERP-1h"
    lines = []
    for name, file in files.items():
        bars = read_file(data_folder / f"{file}.parquet", name, HOUR, "open")
        columns, instrument = columns_of(bars), infer_instrument(bars)
        lines.append(timeline(name, columns, HOUR, instrument))
        assert sum(month.missing for month in coverage(columns, HOUR, instrument)) == sum(
            (end - start) // HOUR.ns
            for start, end in lines[-1].holes.tolist()  # type: ignore[union-attr]
        )
        assert stale_runs(columns, HOUR, instrument) == []
    holes = find_holes([one for one in lines if one])
    assert [(hole.first, hole.missing) for hole in holes if hole.kind != "venue_wide"] == [
        ("2017-09-06T18:00:00Z", 6)  # bitcoin alone is held for 2017
    ]
    assert len(holes) == 28
    assert max(holes, key=lambda hole: hole.missing).first == "2018-02-08T02:00:00Z"
    assert {hole.market for hole in holes} == {"spot"}
