"""A rate of orders that is used up forbids new ones; it calls back none that was sent while it was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, LOOSE, NORMAL, PERPETUAL, SCALE, run, tell

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, Decision, PortfolioState, RiskState, SizingConfig, Trained, decide
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.nautilus.backtest import BacktestRun
from lstm_strategy.sizing import Shrinkage

FLAT = (100.0, 100.0, 100.0, 100.0)


def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], **limits: Any) -> BacktestRun:
    """Want to be fully long from the first close on, by post-only orders 1 % below it, crossed after two bars."""
    tell(monkeypatch, lambda _: 1e-3)
    columns = np.array(rows, float).T
    stamps = (np.arange(len(rows)) + 1) * HOUR.ns
    bars = Bars(PERPETUAL.id, HOUR, stamps, *columns, np.full(len(rows), 1e6))
    execution = ExecutionConfig(mode="post_only", offset=0.01, deadline_bars=2)
    capped = msgspec.structs.replace(LOOSE, **limits)
    return run(tmp_path, bars, PERPETUAL, account="margin", execution=execution, limits=capped)


def test_an_order_that_rests_when_the_rate_is_used_up_stays_and_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [FLAT, FLAT, (100.0, 101.0, 98.9, 100.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, orders_per_day=1)
    (order,) = finished.tables["orders"].to_pylist()
    assert order["status"] == "filled"
    (fill,) = finished.tables["fills"].to_pylist()
    assert (fill["price"], -(-fill["ts_filled"].value // HOUR.ns)) == (99.0, 3)
    decisions = finished.tables["decisions"].to_pylist()
    assert "orders_per_day" in decisions[1]["bound"]
    assert decisions[1]["action"] == "awaiting_order"


def test_patience_that_is_over_sends_no_order_beyond_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crossing would be a second order: it has to wait for the next day, and what rests may rest on."""
    rows = [FLAT] * 27
    finished = played(tmp_path, monkeypatch, rows, orders_per_day=1)
    orders = finished.tables["orders"].to_pylist()
    assert [order["ts_sent"].value // HOUR.ns for order in orders] == [1, 25]  # bar 24 ends the day
    assert [order["status"] for order in orders] == ["canceled", "filled"]
    actions = finished.tables["decisions"]["action"].to_pylist()
    assert actions[1:24] == ["awaiting_order"] * 23
    assert actions[24] == "cancelling"


def _decide(held: float, pending: float, mean: float, **limits: Any) -> Decision:
    forecast = Forecast(
        HOUR.ns, (1,), (0.01, 0.1, 0.5, 0.9, 0.99), (mean + NORMAL * SCALE).astype(np.float32)[None], SCALE
    )
    risk = msgspec.structs.replace(RiskState.start(HOUR.ns, 1000.0), orders_hour=1, orders_day=1)
    return decide(
        forecast,
        PortfolioState(HOUR.ns, 1000.0, held, risk, pending),
        SizingConfig(mode="mean_variance", kelly_fraction=1e6, no_trade_band=0.0),
        LimitsConfig(side="long_short", max_step=2.0, drift_tolerance=1.0, **limits),
        Costs(fee=0.0),
        trained=Trained({1: Shrinkage(1.0, 0.0, 0.0)}),
        bars_per_year=8760.0,
    )


@pytest.mark.parametrize(
    ("held", "pending", "mean", "target", "cancel"),
    [
        (0.0, 0.0, 1e-3, 0.0, False),  # nothing may be sent
        (0.0, 0.6, 1e-3, 0.6, False),  # what was sent may fill, no more
        (0.2, 0.6, 1e-3, 0.8, False),
        (0.2, 0.6, -1e-3, 0.0, False),  # turned: closed, not opened on the other side
        (0.2, -0.6, -1e-3, -0.4, False),  # an order under way through zero leads where it leads
        (-0.2, -0.3, -1e-3, -0.5, False),
        (0.5, -0.2, 1e-3, 0.5, False),  # a reduction under way is no increase
    ],
)
def test_a_used_up_rate_lets_open_orders_lead_on(
    held: float, pending: float, mean: float, target: float, cancel: bool
) -> None:
    decision = _decide(held, pending, mean, orders_per_hour=1)
    assert decision.target == pytest.approx(target)
    assert decision.cancel_opening is cancel
    assert "orders_per_hour" in decision.bound


def test_any_other_limit_beside_it_calls_them_back() -> None:
    decision = _decide(0.2, 0.6, 1e-3, orders_per_hour=1, max_volatility=1e-6)
    assert (decision.target, decision.cancel_opening) == (0.2, True)
    assert {"orders_per_hour", "max_volatility"} <= set(decision.bound)
