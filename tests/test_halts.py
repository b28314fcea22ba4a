"""What a halt bounds and what it cost: numbers made by hand, runs on the engine, three real crashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from catalog_support import bring_in
from engine_support import FREE, HOUR, PERPETUAL, SIGN, make_bars, run, tell
from panel_support import AAA, BBB, run_on, tell_each

from lstm_strategy.bars import Bars, Timeframe, parse_ns
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.halts import Charges, Fills, find_halts
from lstm_strategy.instrument import Instrument
from lstm_strategy.report.halts_section import halts_section
from lstm_strategy.report.page import write_report
from lstm_strategy.report.summary_types import HaltTold
from lstm_strategy.sources.files import read_file
from lstm_strategy.sources.funding import keep_funding

DAY = 24
LIMITS = LimitsConfig(daily_loss=0.03, max_drawdown=0.1)
NONE = Charges(np.array([], np.int64), np.array([]))


def account(rows: list[tuple[float, str]], first: int = 1) -> tuple[Any, Any, list[str]]:
    """Hourly closes from equity and reason."""
    stamps = (np.arange(len(rows)) + first) * HOUR.ns
    return stamps, np.array([equity for equity, _ in rows]), [reason for _, reason in rows]


def fills(*rows: tuple[float, float, float, float], name: int = 0, late: int = 0) -> Fills:
    """From bars (a little after a close), signed quantity, price, fee; sent ``late`` bars before that close."""
    columns = np.array(rows, float).reshape(-1, 4).T
    ts = (columns[0] * HOUR.ns).astype(np.int64) + 2
    return Fills(ts, np.full(len(ts), name), columns[1], columns[2], columns[3], ts - 2 - late * HOUR.ns)


def test_a_daily_loss_is_taken_apart() -> None:
    # 10 coins at 100 bought at the open after bar 1; 96 at bar 3 is 4 % down, of 3 % allowed; sold at 95, 1 of fees.
    rows = [(1000.0, "rebalance"), (1000.0, "at_target"), (960.0, "halt_daily_loss"), (949.0, "halt_daily_loss")]
    prices = np.array([[100.0, 100.0, 96.0, 94.0]])
    (halt,) = find_halts(*account(rows), prices, fills((1, 10.0, 100.0, 0.0), (3, -10.0, 95.0, 1.0)), NONE, LIMITS)
    assert (halt.kind, halt.ts_close, halt.ts_flat, halt.bars) == ("daily_loss", 3 * HOUR.ns, 4 * HOUR.ns, 1)
    assert (halt.reference, halt.limit, halt.allowed) == (1000.0, 0.03, pytest.approx(30.0))
    assert (halt.loss_at_close, halt.gap) == (40.0, pytest.approx(10.0))
    assert (halt.exposure, halt.moved, halt.move) == (960.0, pytest.approx(10.0), pytest.approx(10.0 / 960.0))
    assert (halt.costs, halt.loss, halt.bound) == (1.0, 51.0, pytest.approx(51.0))
    assert halt.held
    assert halt.words == "Held: lost 51.00, at most 51.00 was possible."


@pytest.mark.parametrize(("equity", "held"), [(949.0, True), (948.0, False), (980.0, True)])
def test_a_loss_beyond_the_bound_is_called_broken(equity: float, held: bool) -> None:
    rows = [(1000.0, "rebalance"), (960.0, "halt_daily_loss"), (equity, "halt_daily_loss")]
    prices = np.array([[100.0, 96.0, 94.0]])
    given = fills((0, 10.0, 100.0, 0.0), (2, -10.0, 95.0, 1.0))
    (halt,) = find_halts(*account(rows), prices, given, NONE, LIMITS)
    assert halt.held is held
    assert halt.words.startswith("Held: " if held else "BROKEN: ")


def test_what_is_added_after_the_breach_breaks_it() -> None:
    """A purchase sent at the breach fills at 96 after it, twice as much is sold at 90: no bound covers that."""
    rows = [(1000.0, "rebalance"), (960.0, "halt_daily_loss"), (840.0, "halt_daily_loss")]
    given = fills((0, 10.0, 100.0, 0.0), (2, 10.0, 96.0, 0.0), (2, -20.0, 90.0, 0.0))
    prices = np.array([[100.0, 96.0, 90.0]])
    (halt,) = find_halts(*account(rows), prices, given, NONE, LIMITS)
    assert halt.moved == pytest.approx(60.0)  # of the position that was there
    assert not halt.held
    assert (
        halt.words
        == "BROKEN: lost 160.00, at most 100.00 was possible; orders sent after the breach had added 960.00 to"
        " the position."
    )


def test_what_was_under_way_at_the_breach_is_exposure_as_well() -> None:
    """The same purchase, sent a bar before: no limit can recall it; 10 lose 4 + 6 a coin, 10 more lose 6, fees of 3."""
    rows = [(1000.0, "rebalance"), (960.0, "halt_daily_loss"), (840.0, "halt_daily_loss")]
    rows[2] = (837.0, "halt_daily_loss")
    given = fills((0, 10.0, 100.0, 0.0), (2, 10.0, 96.0, 1.0), (2, -20.0, 90.0, 2.0), late=1)
    given = given._replace(sent=np.array([0, 1, 2], np.int64) * HOUR.ns)
    prices = np.array([[100.0, 96.0, 90.0]])
    (halt,) = find_halts(*account(rows), prices, given, NONE, LIMITS)
    assert (halt.exposure, halt.under_way, halt.added) == (1920.0, 960.0, 0.0)
    assert (halt.moved, halt.costs, halt.loss) == (pytest.approx(120.0), 3.0, 163.0)
    assert (halt.bound, halt.held) == (pytest.approx(163.0), True)
    assert halt.words == (
        "Held: lost 163.00, at most 163.00 was possible, with 960.00 that earlier orders still added to the position."
    )
    rows[2] = (836.0, "halt_daily_loss")  # and nothing is to spare
    assert not find_halts(*account(rows), prices, given, NONE, LIMITS)[0].held


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_an_order_under_way_may_open_or_turn_a_position_that_then_must_be_closed(side: float) -> None:
    """Flat, or on the other side, at the breach: the order fills a bar later, and only then is there one to close."""
    rows = [(1000.0, "at_target"), (960.0, "halt_daily_loss"), (960.0, "halt_daily_loss"), (940.0, "halt_daily_loss")]
    prices = np.array([[100.0, 100.0, 100.0, 100.0 - 2 * side]])
    given = fills((2, 10.0 * side, 100.0, 0.0), (3, -10.0 * side, 100.0 - 2 * side, 0.0), late=1)
    (halt,) = find_halts(*account(rows), prices, given, NONE, LIMITS, under_way=2)
    assert (halt.ts_flat, halt.exposure, halt.moved) == (4 * HOUR.ns, 1000.0, pytest.approx(20.0))
    assert halt.held
    turned = fills((0, -5.0 * side, 100.0, 0.0), (2, 15.0 * side, 100.0, 0.0), (3, -10.0 * side, 100.0 - 2 * side, 0.0))
    turned = turned._replace(sent=np.array([0, 1, 3], np.int64) * HOUR.ns)
    (halt,) = find_halts(*account(rows), prices, turned, NONE, LIMITS, under_way=2)
    assert (halt.exposure, halt.under_way, halt.moved) == (1500.0, 1000.0, pytest.approx(20.0))
    assert halt.held


def test_a_favourable_move_lowers_no_bound_and_a_short_is_measured_the_other_way() -> None:
    rows = [(1000.0, "rebalance"), (960.0, "halt_daily_loss"), (970.0, "halt_daily_loss")]
    given = fills((0, -10.0, 100.0, 0.0), (2, 10.0, 103.0, 0.0))
    prices = np.array([[100.0, 104.0, 90.0]])
    (halt,) = find_halts(*account(rows), prices, given, NONE, LIMITS)
    assert (halt.exposure, halt.moved, halt.loss) == (1040.0, 0.0, 30.0)
    assert halt.bound == pytest.approx(40.0)
    worse = fills((0, -10.0, 100.0, 0.0), (2, 10.0, 106.0, 0.0))
    rows[2] = (940.0, "halt_daily_loss")
    (halt,) = find_halts(*account(rows), prices, worse, NONE, LIMITS)
    assert (halt.moved, halt.loss, halt.held) == (pytest.approx(20.0), 60.0, True)


def test_days_begin_anew_and_a_drawdown_is_measured_from_the_peak() -> None:
    rows = [(1000.0, "at_target")] * 23 + [(1100.0, "at_target"), (1060.0, "halt_daily_loss")]  # bar 25 is day 1
    rows += [(1060.0, "halt_daily_loss")] * 23 + [(1020.0, "halt_daily_loss"), (980.0, "halt_drawdown")]
    rows += [(980.0, "halt_drawdown")] * 30
    stamps, equity, reasons = account(rows)
    prices = np.full((1, len(rows)), 100.0)
    found = find_halts(stamps, equity, reasons, prices, fills(), NONE, LIMITS)
    assert [(halt.kind, halt.ts_close // HOUR.ns, halt.reference) for halt in found] == [
        ("daily_loss", 25, 1100.0),
        ("daily_loss", 49, 1060.0),
        ("drawdown", 50, 1100.0),
    ]
    assert all(halt.exposure == halt.moved == 0.0 and halt.bars == 0 and halt.held for halt in found)


def test_a_breach_at_the_last_close_of_a_day_is_followed_into_the_next() -> None:
    rows = [(1000.0, "at_target")] * 23 + [(960.0, "halt_daily_loss"), (950.0, "at_target"), (950.0, "rebalance")]
    given = fills((0, 10.0, 100.0, 0.0), (24, -10.0, 95.0, 0.0))
    prices = np.array([[100.0] * 23 + [96.0, 90.0, 90.0]])
    (halt,) = find_halts(*account(rows), prices, given, NONE, LIMITS)
    assert (halt.ts_flat, halt.loss, halt.held) == (25 * HOUR.ns, 50.0, True)
    never = fills((0, 10.0, 100.0, 0.0))
    (halt,) = find_halts(*account(rows), prices, never, NONE, LIMITS)
    assert (halt.ts_flat, halt.held) == (None, False)
    assert halt.words.startswith("Not closed while the halt lasted: ")


def test_funding_paid_meanwhile_is_a_cost_and_several_names_are_summed() -> None:
    rows = [(1000.0, "rebalance"), (960.0, "halt_daily_loss"), (945.0, "halt_daily_loss")]
    prices = np.array([[100.0, 96.0, 96.0], [10.0, 10.0, 10.0]])
    long, short = (
        fills((0, 10.0, 100.0, 0.0), (2, -10.0, 95.0, 0.0)),
        fills((0, -20.0, 10.0, 0.0), (2, 20.0, 10.1, 0.0), name=1),
    )
    order = np.argsort(np.concatenate([long.ts, short.ts]), kind="stable")
    given = Fills(*(np.concatenate(pair)[order] for pair in zip(long, short, strict=True)))
    charged = Charges(np.array([HOUR.ns, 2 * HOUR.ns + 2, 3 * HOUR.ns + 2]), np.array([7.0, 3.0, 9.0]))
    (halt,) = find_halts(*account(rows), prices, given, charged, LIMITS)
    assert (halt.exposure, halt.moved, halt.costs) == (1160.0, pytest.approx(12.0), 3.0)
    assert (halt.bound, halt.held) == (pytest.approx(55.0), True)


# on the engine


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("participation", [None, 0.25])
def test_halts_of_a_run_hold_and_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: int, participation: float | None
) -> None:
    """A long that falls by 1 % an hour, with a funding due between the breach and the fill."""
    tell(monkeypatch, lambda _: 1e-3)
    closes = np.round(1000.0 * 0.99 ** np.maximum(np.arange(40) - 4, 0), 1)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes, PERPETUAL)
    bars = Bars(*(getattr(bars, name) for name in ("instrument_id", "timeframe", "ts_close", "open", "high", "low")),
                bars.close, np.full(40, 200.0))  # fmt: skip
    store = bring_in(tmp_path / "catalog", bars, PERPETUAL)
    keep_funding(store, PERPETUAL.id, np.arange(1, 40) * HOUR.ns, np.full(39, 1e-4))
    limits = LimitsConfig(daily_loss=0.03, max_drawdown=0.06, max_step=2.0)
    finished = run(
        tmp_path,
        bars,
        PERPETUAL,
        SIGN,
        account="margin",
        limits=limits,
        costs=Costs(fee=0.001, slippage=0.0005),
        delay=delay,
        participation=participation,
    )
    halts = finished.summary["halts"]
    assert [halt["kind"] for halt in halts] == ["daily_loss", "drawdown"]
    for halt in halts:
        assert halt["held"], halt["words"]
        if participation is not None and delay and halt["kind"] == "daily_loss":
            # A purchase in parts was under way, and could not be recalled.
            assert halt["under_way"] > 0.0
            assert "that earlier orders still added" in halt["words"]
        assert halt["added"] == 0.0
        assert halt["exposure"] > 50_000
        assert halt["gap"] > 0
        assert halt["costs"] > halt["exposure"] * 0.0009
        # Prices only fell: nothing of the bound is to spare, so every part of it is needed.
        assert halt["loss"] == pytest.approx(halt["bound"], abs=0.5)
        assert halt["bars"] >= 1


def test_one_account_halts_once_for_all_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, lambda *_: 1e-3)
    closes = np.round(1000.0 * 0.985 ** np.maximum(np.arange(20) - 4, 0), 2)
    opens = np.concatenate([[1000.0], closes[:-1]])
    panel = [make_bars(opens, closes, AAA), make_bars(np.full(20, 500.0), np.full(20, 500.0), BBB)]
    limits = LimitsConfig(daily_loss=0.03, max_drawdown=0.5)
    half = SizingConfig(mode="fixed_fraction", fraction=0.45)
    done = run_on(tmp_path, panel, sizing=half, limits=limits, costs=Costs(fee=0.001))
    (halt,) = done.summary["halts"]
    assert halt["held"], halt["words"]
    assert halt["kind"] == "daily_loss"
    assert 85_000 < halt["exposure"] < 95_000  # both names'
    assert halt["costs"] == pytest.approx(0.001 * halt["exposure"], rel=0.02)


# on real crashes

CRASHES = {
    "2021-05-19": ("2021-05-18", "2021-05-21"),
    "2022-11-08": ("2022-11-07", "2022-11-10"),
    "2024-08-05": ("2024-08-04", "2024-08-07"),
}


def _crash(data_folder: Path, symbol: str, start: str, end: str) -> tuple[Bars, Instrument]:
    name = f"{symbol}.BINANCE"
    instrument = Instrument(
        id=name, kind="spot", base=symbol.removesuffix("USDT"), quote="USDT", tick="0.001", lot="0.00001",
        min_notional=5.0,
    )  # fmt: skip
    whole = read_file(data_folder / "crypto" / f"{symbol}-1h.parquet", name, Timeframe.parse("1h"), "open")
    bars = whole.between(parse_ns(start), parse_ns(end))
    return bars, instrument


@pytest.mark.parametrize("crash", sorted(CRASHES))
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
def test_real_crashes_lose_no_more_than_limit_move_and_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_folder: Path, crash: str, symbol: str
) -> None:
    """Fully invested from the first close on, whatever comes, and again on each new day; 3 % a day."""
    start, end = CRASHES[crash]
    bars, instrument = _crash(data_folder, symbol, start, end)
    tell(monkeypatch, lambda _: 1e-3)
    limits = LimitsConfig(daily_loss=0.03, max_drawdown=0.3)
    finished = run(
        tmp_path, bars, instrument, SIGN, limits=limits, costs=Costs(fee=0.001, spread=1e-4, slippage=2e-4),
        participation=0.25, run_folder=tmp_path / "run",
    )  # fmt: skip
    halts = json.loads((tmp_path / "run" / "summary.json").read_text())["halts"]
    assert any(halt["ts_close"].startswith(crash) for halt in halts), "the limits never met the crash"
    equity = dict(zip(finished.record.ts_close.tolist(), finished.record.equities, strict=True))
    for halt in halts:
        assert halt["held"], halt["words"]
        assert halt["bars"] <= 1
        # The inequality itself, from the account's own curve.
        flat = equity[parse_ns(halt["ts_flat"])]
        lost = halt["reference"] - flat
        allowed = halt["limit"] * halt["reference"] + halt["gap"]
        assert lost <= allowed + halt["exposure"] * halt["move"] + halt["costs"] + 1e-2
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert f"{len(halts)} of {len(halts)} halts lost no more than their bound." in page
    table = page.split('<table id="halts">')[1].split("</table>")[0]
    assert table.count(">held<") == len(halts)
    assert all(halt["ts_close"][:10] in table for halt in halts)


def test_a_free_run_without_a_halt_tells_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    flat = make_bars(np.full(30, 1000.0), np.full(30, 1000.0), PERPETUAL)
    limits = msgspec.structs.replace(LIMITS)
    finished = run(tmp_path, flat, PERPETUAL, SIGN, account="margin", limits=limits, costs=FREE)
    assert finished.summary["halts"] == []


def test_a_broken_bound_is_said_first_and_never_left_out() -> None:
    def halt(loss: float, held: bool) -> HaltTold:
        figures = {name: 0.0 for name in HaltTold.__struct_fields__ if name not in _TEXTS} | {"loss": loss}
        texts = {"kind": "drawdown", "ts_close": "2024-01-01T00:00:00Z", "ts_flat": None, "bars": 3}
        return HaltTold(**figures, **texts, held=held, words="Held." if held else "BROKEN.")

    told = halts_section(tuple(halt(float(loss), loss != 0) for loss in range(100)))
    assert told["verdict"] == "BROKEN: only 99 of 100 halts lost no more than their bound."
    assert (len(told["rows"]), told["left_out"]) == (60, 40)
    assert [row[2] for row in told["rows"]].count("not closed") == 1
    assert told["rows"][0][-1] == "never"
    assert told["broken"] == ["2024-01-01T00:00:00Z: BROKEN."]
    assert halts_section(()) == {}


def test_a_halt_that_was_ordered_is_on_the_page_beside_those_that_a_limit_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no limit to break, so it is in no table: a node's summary says what was told of it."""
    tell(monkeypatch, lambda _: 1e-3)
    flat = make_bars(np.full(30, 1000.0), np.full(30, 1000.0), PERPETUAL)
    run(tmp_path, flat, PERPETUAL, SIGN, account="margin", limits=LIMITS, costs=FREE, run_folder=tmp_path / "run")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Halts that somebody ordered" not in page
    file = tmp_path / "run" / "summary.json"
    told = [
        "a halt was ordered by the kill file (<b>)",
        "A.X: halt by order: 3 filled at 100; flat, result -30.32 USDT",
    ]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"halts_ordered": told}))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    listed = page.split('<ul id="halts-ordered">')[1].split("</ul>")[0]
    assert listed.split("\n")[1:3] == [f"<li>{told[0].replace('<b>', '&lt;b&gt;')}</li>", f"<li>{told[1]}</li>"]
    assert '<table id="halts">' not in page


_TEXTS = ("kind", "ts_close", "ts_flat", "held", "words", "bars")
