"""Several instruments in one strategy on the engine: one decision a close, shared cash and limits, absent names."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from engine_support import HOUR, LOOSE
from panel_support import AAA, BBB, FUTURE, SEPARATE, run_on, tell_each, walks, without

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, Decision, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.panel_backtest import PanelRun
from lstm_strategy.nautilus.seat import Seat
from lstm_strategy.portfolio import PortfolioConfig

HALF = SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0)
RISK = PortfolioConfig(method="equal_risk", span=60, scale_span=20)
TARGET = SizingConfig(mode="volatility_target", target_volatility=0.5, no_trade_band=0.0)


def up_and_down(name: str, ts: int) -> float:
    return 0.001 if (ts // HOUR.ns + 3 * ord(name[0])) % 7 < 4 else -0.001


def rows_of(done: PanelRun, name: str) -> list[dict[str, Any]]:
    return [row for row in done.tables["decisions"].to_pylist() if row["instrument"] == name]


def matrix(done: PanelRun, column: str) -> np.ndarray:
    """A column of the decisions, [S, T]."""
    return done.tables["decisions"][column].to_numpy().reshape(len(done.records), -1)


def test_every_name_fills_at_its_own_next_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, up_and_down)
    panel = walks(60)
    panel[1] = without(panel[1], 20, 21, 33)
    done = run_on(tmp_path, panel, sizing=HALF)
    opened = {
        (bars.instrument_id, ts - HOUR.ns): price
        for bars in panel
        for ts, price in zip(bars.ts_close.tolist(), bars.open.tolist(), strict=True)
    }
    orders = done.tables["orders"]
    sent = dict(zip(orders["order_id"].to_pylist(), orders["ts_sent"].cast("int64").to_pylist(), strict=True))
    fills = done.tables["fills"].to_pylist()
    assert len(fills) > 40
    for fill in fills:
        decided = sent[fill["order_id"]] // HOUR.ns * HOUR.ns
        assert fill["price"] == opened[(fill["instrument"], decided)], fill
    # An order into a hole finds no market, rather than one that was.
    refusals = [text for record in done.records.values() for text in record.refusals]
    assert refusals
    assert all("no market" in text and BBB.id in text for text in refusals)


def without_ids(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name == "order_id"])


def test_the_order_in_which_bars_arrive_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, lambda name, ts: 0.01 * up_and_down(name, ts))
    panel = walks(1500, seed=2)
    panel[0] = without(panel[0], 100, 101, 700, 1499)
    panel[2] = without(panel[2], 100, 640)
    limits = LimitsConfig(max_exposure=0.6, max_gross=0.9, daily_loss=0.03, max_drawdown=0.9)
    orders = (panel, [panel[2], panel[0], panel[1]])
    # A band keeps the orders few: it is they that take the engine's time.
    options = {
        "limits": limits,
        "costs": Costs(fee=0.0005),
        "sizing": msgspec.structs.replace(TARGET, no_trade_band=0.2, holding_bars=48),
    }
    one, other = (run_on(tmp_path, order, RISK, **options) for order in orders)
    assert one.tables["orders"].num_rows > 60
    for name in ("decisions", "equity"):
        assert one.tables[name].equals(other.tables[name]), name
    for name in ("orders", "fills"):
        assert without_ids(one.tables[name]).equals(without_ids(other.tables[name])), name
    assert {"rebalance", "stale_data", "halt_daily_loss"} <= set(one.tables["decisions"]["reason"].to_pylist())
    # Whose bar was missing held; the others were decided at the same closes.
    for name, rows in ((AAA.id, (100, 101, 700, 1499)), ("CCCUSDT.BINANCE", (100, 640))):
        own = rows_of(one, name)
        for row in rows:
            assert own[row]["reason"] in ("stale_data", "halt_daily_loss")
            assert own[row]["target"] in (own[row]["exposure"], 0.0)
    assert rows_of(one, BBB.id)[700]["reason"] != "stale_data"
    assert len(one.tables["equity"]) == 1500


def test_equity_is_that_of_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, up_and_down)
    panel = walks(80, seed=3)
    done = run_on(tmp_path, panel, sizing=HALF)
    cash, held = 100_000.0, {bars.instrument_id: 0.0 for bars in panel}
    fills = done.tables["fills"].to_pylist()
    stamps = done.tables["fills"]["ts_filled"].cast("int64").to_pylist()
    equity = done.tables["equity"]["equity"].to_numpy()
    number = 0
    for row, ts_close in enumerate(panel[0].ts_close.tolist()):
        while number < len(fills) and stamps[number] <= ts_close:
            fill = fills[number]
            size = fill["quantity"] if fill["side"] == "buy" else -fill["quantity"]
            cash -= size * fill["price"] + fill["fee"]
            held[fill["instrument"]] += size
            number += 1
        worth = cash + sum(held[bars.instrument_id] * bars.close[row] for bars in panel)
        assert equity[row] == pytest.approx(worth, abs=1e-6)
    assert number > 50
    gained = sum(part["result"] for part in done.summary["instruments"])
    assert gained == pytest.approx(equity[-1] - 100_000.0, abs=1e-6)


def test_cash_that_names_share_is_never_spent_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, lambda name, ts: 0.001 if name.startswith("C") or ts // HOUR.ns % 9 < 5 else -0.001)
    big = SizingConfig(mode="fixed_fraction", fraction=0.8, no_trade_band=0.0)
    done = run_on(tmp_path, walks(200, jump=0.0), sizing=big)
    assert matrix(done, "target").sum(axis=0).max() > 1.5  # each would spend it all
    assert done.summary["lowest_cash"] >= 0.0
    assert done.summary["lowest_cash"] < 1_000.0
    first = done.tables["fills"].slice(0, 3).to_pylist()
    spent = [fill["price"] * fill["quantity"] for fill in first]
    assert spent == pytest.approx([100_000.0 / 1.002 / 3] * 3, rel=1e-4)  # in equal parts, less the reserve
    assert done.summary["refusals"] == 0


@pytest.mark.parametrize("portfolio", [SEPARATE, RISK], ids=["separate", "equal risk"])
def test_the_accounts_limits_hold_at_every_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portfolio: PortfolioConfig
) -> None:
    rng = np.random.default_rng(7)
    tell_each(monkeypatch, lambda *_: float(rng.choice([-0.004, 0.004])))
    limits = LimitsConfig(
        side="long_short",
        max_exposure=0.5,
        max_gross=0.9,
        max_net=0.5,
        max_step=2.0,
        daily_loss=1.0,
        max_drawdown=1.0,
        drift_tolerance=0.02,
    )
    panel = walks(200, seed=5)
    wild = SizingConfig(mode="mean_variance", kelly_fraction=1.0, no_trade_band=0.0)
    done = run_on(tmp_path, panel, portfolio, FUTURE, limits=limits, sizing=wild, account="margin", funding=False)
    targets = matrix(done, "target")
    assert np.abs(targets).sum(axis=0).max() <= 0.9 * 1.02 + 1e-9
    assert np.abs(targets.sum(axis=0)).max() <= 0.5 * 1.02 + 1e-9
    assert np.abs(targets).max() <= 0.51 + 1e-9
    assert np.abs(targets).sum(axis=0).max() > 0.85  # they did bind
    assert targets.min() < -0.2
    bounds = set(pc.list_flatten(done.tables["decisions"]["bound"]).to_pylist())
    assert bounds & {"max_gross", "max_net", "max_exposure"}


def test_trouble_with_one_name_keeps_no_other_from_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    seats: list[Seat] = []
    opened, act = Seat.__init__, Seat.act

    def opening(self: Seat, *given: Any, **named: Any) -> None:
        opened(self, *given, **named)
        seats.append(self)

    def acting(self: Seat, decision: Decision, spendable: float | None) -> tuple[Decimal, Action]:
        if self.name == AAA.id and decision.reason == "halt_drawdown":
            raise ZeroDivisionError("planted")
        return act(self, decision, spendable)

    monkeypatch.setattr(Seat, "__init__", opening)
    monkeypatch.setattr(Seat, "act", acting)
    panel = []
    for bars in walks(40, jump=0.0):
        fall = np.where(np.arange(40) < 20, 1.0, 0.5)
        columns = (bars.open * np.roll(fall, 1), bars.high * fall.max(), bars.low * 0.4, bars.close * fall)
        opens = np.round(columns[0], 2)
        opens[0] = bars.open[0]
        panel.append(
            Bars(
                bars.instrument_id,
                HOUR,
                bars.ts_close,
                opens,
                np.round(columns[1], 2),
                np.round(columns[2], 2),
                np.round(columns[3], 2),
                bars.volume,
            )
        )
    limits = LimitsConfig(daily_loss=1.0, max_drawdown=0.3, drift_tolerance=10.0, max_step=2.0)
    with pytest.raises(ZeroDivisionError, match="planted"):
        run_on(
            tmp_path, panel, sizing=SizingConfig(mode="fixed_fraction", fraction=0.3, no_trade_band=0.0), limits=limits
        )
    last = {
        seat.name: (seat.record.decisions[-1], seat.record.actions[-1], seat.record.quantities[-1]) for seat in seats
    }
    for name, (decision, action, quantity) in last.items():
        assert decision.reason == "halt_drawdown"
        assert (action, quantity < 0) == ((Action.NOT_READY, False) if name == AAA.id else (Action.SENT, True))


def test_an_instrument_that_begins_later_joins_when_enough_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    panel = walks(260, seed=8)
    panel[1] = panel[1][120:]
    limits = LimitsConfig(max_exposure=0.6, max_gross=1.0, daily_loss=1.0, max_drawdown=1.0, max_step=2.0)
    done = run_on(tmp_path, panel, RISK, sizing=TARGET, limits=limits)
    late = rows_of(done, BBB.id)
    assert {row["reason"] for row in late[:120]} == {"stale_data"}
    assert all(row["target"] == 0.0 for row in late[:140])
    assert late[122]["reason"] == "warm_up_unproved"
    assert max(row["target"] for row in late[160:]) > 0.1
    assert max(row["target"] for row in rows_of(done, AAA.id)[:100]) > 0.1
    assert done.summary["instruments"][1]["absent"] == 120


@pytest.mark.parametrize("method", ["mean_cvar", "hierarchical_risk_parity"])
def test_a_solver_that_fails_gives_way_to_equal_risk_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    pytest.importorskip("skfolio")
    tell_each(monkeypatch, lambda *_: 0.0001)
    panel = walks(150, seed=9)
    portfolio = PortfolioConfig(method=method, span=60, scale_span=20, scenarios=50, every=10)
    limits = LimitsConfig(max_exposure=0.6, max_gross=1.0, daily_loss=1.0, max_drawdown=1.0, max_step=2.0)
    plain = run_on(tmp_path, panel, portfolio, sizing=TARGET, limits=limits)
    solved = matrix(plain, "target")[:, -1]
    from lstm_strategy import portfolio_solvers

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no solution\nwas found")

    monkeypatch.setattr(portfolio_solvers, "solve", fails)
    fallen = run_on(tmp_path, panel, portfolio, sizing=TARGET, limits=limits)
    equal = run_on(tmp_path, panel, RISK, sizing=TARGET, limits=limits)
    bounds = [row["bound"] for row in rows_of(fallen, AAA.id)]
    assert sum("portfolio_fallback" in bound for bound in bounds) >= 10
    assert any("equal risk took its place" in note for note in fallen.summary["notes"])
    assert matrix(fallen, "target")[:, 149] == pytest.approx(matrix(equal, "target")[:, 149], abs=0.02)
    assert np.isfinite(solved).all()
    assert solved.sum() > 0.3


def test_two_venues_or_two_of_a_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, up_and_down)
    panel = walks(30)
    with pytest.raises(LSTMStrategyError, match="name each instrument once"):
        run_on(tmp_path, [panel[0], panel[0]], limits=LOOSE)
    with pytest.raises(LSTMStrategyError, match="cannot short"):
        run_on(tmp_path, panel, limits=LimitsConfig(side="long_short"))
    with pytest.raises(LSTMStrategyError, match=r"is a perpetual; it needs backtest\.account"):
        run_on(tmp_path, panel, kind=FUTURE)
