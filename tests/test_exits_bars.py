"""Where resting orders fill inside a backtest's bars, bar by bar with literal prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, LOOSE, NORMAL, PERPETUAL, SCALE, SPOT, run, tell

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, SizingConfig
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.backtest import BacktestRun

# The told forecast's deviation, and a stop 5 % below the entry.
DEVIATION = math.sqrt(((NORMAL[:-1] ** 2 + NORMAL[:-1] * NORMAL[1:] + NORMAL[1:] ** 2) / 3) @ [0.09, 0.4, 0.4, 0.09]
                      + 0.01 * NORMAL[0] ** 2 + 0.01 * NORMAL[-1] ** 2) * SCALE  # fmt: skip
FIVE_PERCENT = -math.log(0.95) / DEVIATION
STOP = ExitsConfig(stop=FIVE_PERCENT, pause_bars=100)


def market(rows: Sequence[tuple[float, float, float, float]], instrument: Instrument = SPOT) -> Bars:
    """Hourly bars from literal open, high, low, close."""
    columns = np.array(rows, float).T
    stamps = (np.arange(len(rows)) + 1) * HOUR.ns
    return Bars(instrument.id, HOUR, stamps, *columns, np.full(len(rows), 1e6))


def trades(finished: BacktestRun) -> list[tuple[int, str, float, bool]]:
    """Bar in which it filled (from 1), side, price, whether it was an exit."""
    rows = finished.tables["fills"].to_pylist()
    return [(-(-row["ts_filled"].value // HOUR.ns), row["side"], row["price"], row["exit"]) for row in rows]


FLAT = (100.0, 100.0, 100.0, 100.0)
KINDS = pytest.mark.parametrize("instrument", [SPOT, PERPETUAL], ids=["spot", "perpetual"])


def played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], instrument: Instrument = SPOT, **changes: Any
) -> BacktestRun:
    """Buy on the first bar's close, at 100; hold."""
    tell(monkeypatch, lambda _: 1e-3)
    account = {"account": "margin"} if instrument is PERPETUAL else {}
    once = msgspec.structs.replace(LOOSE, orders_per_day=1)  # no topping up
    return run(tmp_path, market(rows, instrument), instrument, **{"exits": STOP, "limits": once, **account, **changes})


@KINDS
def test_a_touched_stop_fills_inside_the_bar_at_its_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instrument: Instrument
) -> None:
    rows = [FLAT, FLAT, FLAT, (100.0, 101.0, 95.0, 100.0), FLAT]
    assert trades(played(tmp_path, monkeypatch, rows, instrument)) == [
        (2, "buy", 100.0, False),
        (4, "sell", 95.0, True),
    ]


@KINDS
def test_a_stop_that_the_bar_goes_through_fills_at_its_price_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instrument: Instrument
) -> None:
    rows = [FLAT, FLAT, (100.0, 101.0, 90.0, 91.0), FLAT]
    assert trades(played(tmp_path, monkeypatch, rows, instrument))[1:] == [(3, "sell", 95.0, True)]


@KINDS
def test_a_stop_that_is_missed_by_a_tick_does_not_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instrument: Instrument
) -> None:
    low = 95.0 + float(instrument.tick)
    rows = [FLAT, FLAT, (100.0, 101.0, low, 100.0), FLAT]
    assert len(trades(played(tmp_path, monkeypatch, rows, instrument))) == 1


def test_a_stop_market_that_the_open_lies_beyond_fills_at_the_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [FLAT, FLAT, FLAT, (90.0, 99.0, 89.0, 98.0), FLAT]
    assert trades(played(tmp_path, monkeypatch, rows, PERPETUAL))[1:] == [(4, "sell", 90.0, True)]


def test_a_stop_limit_that_the_open_lies_beyond_fills_at_the_open_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [FLAT, FLAT, FLAT, (94.8, 94.9, 90.0, 90.0), FLAT]  # the limit is 94.52
    assert trades(played(tmp_path, monkeypatch, rows))[1:] == [(4, "sell", 94.8, True)]


def test_a_stop_limit_that_is_jumped_is_closed_at_market_by_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [FLAT, FLAT, FLAT, (90.0, 94.0, 89.0, 91.0), (88.0, 88.0, 88.0, 88.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows)
    assert trades(finished)[1:] == [(5, "sell", 88.0, False)]
    decision = finished.tables["decisions"].to_pylist()[3]
    assert (decision["reason"], decision["action"]) == ("stop_unfilled", "releasing_exit")


def test_a_jumped_stop_limit_fills_at_its_limit_when_the_price_comes_back_in_the_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [FLAT, FLAT, FLAT, (90.0, 97.0, 89.0, 91.0), FLAT]
    assert trades(played(tmp_path, monkeypatch, rows))[1:] == [(4, "sell", 94.52, True)]


def test_an_entry_at_the_open_is_stopped_in_its_own_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [FLAT, (100.0, 101.0, 90.0, 99.0), FLAT]
    assert trades(played(tmp_path, monkeypatch, rows, PERPETUAL)) == [
        (2, "buy", 100.0, False),
        (2, "sell", 95.0, True),
    ]


def test_an_entry_never_sees_the_stop_or_the_low_of_the_bar_it_was_decided_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(100.0, 100.0, 50.0, 100.0), (100.0, 100.0, 96.0, 100.0), FLAT]
    assert len(trades(played(tmp_path, monkeypatch, rows, PERPETUAL))) == 1


def test_a_stop_that_fills_before_its_cancel_arrives_leaves_nothing_to_reduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 1e-3 if ts < 3 * HOUR.ns else 3e-4)
    rows = [FLAT, FLAT, FLAT, (90.0, 91.0, 89.0, 90.0), FLAT]
    sizing = SizingConfig(mode="mean_variance", kelly_fraction=0.05, no_trade_band=0.0)
    finished = run(tmp_path, market(rows, PERPETUAL), PERPETUAL, sizing, account="margin", exits=STOP, limits=LOOSE)
    assert trades(finished) == [(2, "buy", 100.0, False), (4, "sell", 90.0, True)]
    assert finished.tables["decisions"].to_pylist()[2]["action"] == "releasing_exit"
    assert finished.summary["refusals"] <= 1  # the cancel came too late


def test_a_short_is_stopped_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: -1e-3)
    above = round(100.0 / 0.95, 1)
    rows = [FLAT, FLAT, (100.0, 107.0, 99.0, 100.0), FLAT, (108.0, 108.0, 108.0, 108.0)]
    finished = run(
        tmp_path,
        market(rows, PERPETUAL),
        PERPETUAL,
        exits=STOP,
        account="margin",
        limits=msgspec.structs.replace(LOOSE, side="long_short"),
    )
    assert trades(finished) == [(2, "sell", 100.0, False), (3, "buy", above, True)]


def test_a_stop_pays_spread_and_slippage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [FLAT, FLAT, (100.0, 101.0, 90.0, 91.0), FLAT]
    costs = Costs(fee=0.0, spread=0.002, slippage=0.001)
    finished = played(tmp_path, monkeypatch, rows, PERPETUAL, costs=costs)
    fill = finished.tables["fills"].to_pylist()[-1]
    entry = finished.tables["fills"].to_pylist()[0]["price"]
    level = round(entry * 0.95, 1)
    assert fill["decided_price"] == level
    assert fill["price"] == pytest.approx(level * 0.998, abs=0.1)
    assert fill["shortfall"] == pytest.approx(0.002, abs=0.0011)


def test_a_trailing_stop_follows_closes_and_fills_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [FLAT, FLAT, (100.0, 120.0, 100.0, 110.0), (110.0, 110.0, 104.5, 106.0), FLAT]
    exits = ExitsConfig(stop=FIVE_PERCENT, trailing=True, pause_bars=100)
    # 95 % of the close of 110, not of the high of 120
    assert trades(played(tmp_path, monkeypatch, rows, PERPETUAL, exits=exits))[1:] == [(4, "sell", 104.5, True)]


def test_a_lone_take_profit_rests_and_needs_more_than_a_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exits = ExitsConfig(take_profit=math.log(1.05) / DEVIATION, pause_bars=100)
    rows = [FLAT, FLAT, (100.0, 105.0, 100.0, 100.0), (100.0, 105.1, 90.0, 100.0), FLAT]
    assert trades(played(tmp_path, monkeypatch, rows, PERPETUAL, exits=exits))[1:] == [(4, "sell", 105.0, True)]


def test_a_take_profit_beside_a_stop_is_taken_at_the_next_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exits = ExitsConfig(stop=FIVE_PERCENT, take_profit=math.log(1.05) / DEVIATION, pause_bars=100)
    rows = [FLAT, FLAT, (100.0, 106.0, 100.0, 106.0), (107.0, 107.0, 80.0, 107.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, PERPETUAL, exits=exits)
    assert trades(finished)[1:] == [(4, "sell", 107.0, False)]  # and the stop was gone before the bar fell
    assert finished.tables["decisions"].to_pylist()[2]["reason"] == "take_profit"


def test_time_is_up_after_so_many_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exits = ExitsConfig(max_bars=3, pause_bars=2)
    finished = played(tmp_path, monkeypatch, [FLAT] * 12, PERPETUAL, exits=exits, limits=LOOSE)
    assert [(bar, side) for bar, side, _, _ in trades(finished)] == [(2, "buy"), (5, "sell"), (8, "buy"), (11, "sell")]
    reasons = finished.tables["decisions"]["reason"].to_pylist()
    assert reasons[3] == "time_stop"
    assert reasons[4:6] == ["exit_pause"] * 2


# limit orders


def test_a_post_only_purchase_fills_only_below_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = ExecutionConfig(mode="post_only", offset=0.01, deadline_bars=4)
    rows = [FLAT, (100.0, 101.0, 99.0, 100.0), (100.0, 101.0, 98.9, 100.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, PERPETUAL, execution=execution, exits=ExitsConfig(), limits=LOOSE)
    assert trades(finished) == [(3, "buy", 99.0, False)]
    assert finished.tables["fills"].to_pylist()[0]["shortfall"] == pytest.approx(-0.01)


def test_a_post_only_order_crosses_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = ExecutionConfig(mode="post_only", offset=0.01, deadline_bars=2)
    rows = [FLAT, FLAT, FLAT, (103.0, 103.0, 103.0, 103.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, PERPETUAL, execution=execution, exits=ExitsConfig(), limits=LOOSE)
    assert trades(finished)[:1] == [(4, "buy", 103.0, False)]  # decided at bar 1, given up at the close of bar 3
    assert finished.tables["orders"]["status"].to_pylist()[:2] == ["canceled", "filled"]


def test_a_post_only_order_that_filled_gives_the_next_one_patience_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = ExecutionConfig(mode="post_only", offset=0.01, deadline_bars=3)
    dip, far = (100.0, 100.0, 98.9, 100.0), ExitsConfig()
    rows = [FLAT, FLAT, dip, FLAT, FLAT, FLAT, FLAT, FLAT]  # decided at 1 and 3: crossed at 6, not at 4
    tell(monkeypatch, lambda ts: 5e-4 if ts <= 3 * HOUR.ns else 1e-3)
    sizing = SizingConfig(mode="mean_variance", kelly_fraction=0.05, no_trade_band=0.0)
    limits = msgspec.structs.replace(LOOSE, max_step=0.2)
    finished = run(
        tmp_path,
        market(rows, PERPETUAL),
        PERPETUAL,
        sizing,
        account="margin",
        execution=execution,
        exits=far,
        limits=limits,
    )
    assert [(bar, price) for bar, _, price, _ in trades(finished)] == [(3, 99.0), (7, 100.0)]


def test_a_marketable_limit_fills_within_its_limit_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = ExecutionConfig(mode="marketable_limit", offset=0.01)
    rows = [FLAT, (101.5, 101.5, 100.0, 101.0), (102.0, 102.0, 102.0, 102.0), (103.1, 103.1, 90.0, 103.1), FLAT]
    finished = played(tmp_path, monkeypatch, rows, PERPETUAL, execution=execution, exits=ExitsConfig(), limits=LOOSE)
    assert trades(finished)[:1] == [(3, "buy", 102.0, False)]  # 102 is within 1 % of 101, 101.5 not of 100
    resting = ExecutionConfig(mode="marketable_limit", offset=0.01, rests=True)
    finished = played(
        tmp_path / "r", monkeypatch, rows, PERPETUAL, execution=resting, exits=ExitsConfig(), limits=LOOSE
    )
    assert trades(finished)[:1] == [(2, "buy", 101.0, False)]


def test_an_entry_inside_a_bar_is_stopped_on_the_rest_of_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = ExecutionConfig(mode="post_only", offset=0.02)
    rows = [FLAT, (100.0, 101.0, 90.0, 100.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, PERPETUAL, execution=execution)
    assert trades(finished) == [(2, "buy", 98.0, False), (2, "sell", 93.1, True)]
