"""Several instruments with exits and orders that rest at the venue: each on its own way, all within the account."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import FREE, HOUR, LOOSE, SPOT, run, tell
from panel_support import AAA, BBB, CCC, FUTURE, SEPARATE, run_on, tell_each, walks, without
from test_exits_bars import DEVIATION, STOP

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, Decision, LimitsConfig, PortfolioState, Reason, RiskState, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.joint_limits import Resting, join
from lstm_strategy.nautilus import portfolio_strategy as portfolio_module
from lstm_strategy.nautilus.account import is_exit
from lstm_strategy.nautilus.panel_backtest import PanelRun
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
from lstm_strategy.sources.funding import keep_funding
from lstm_strategy.sources.store import RawStore

THIRD = SizingConfig(mode="fixed_fraction", fraction=0.3, no_trade_band=0.0)
ONCE = msgspec.structs.replace(LOOSE, orders_per_day=3)  # one order a name, no topping up
MARGIN = {"account": "margin", "funding": False}
FLAT = (100.0, 100.0, 100.0, 100.0)


def market(rows: list[tuple[float, float, float, float]], instrument: Instrument) -> Bars:
    columns = np.array(rows, float).T
    stamps = (np.arange(len(rows)) + 1) * HOUR.ns
    return Bars(instrument.id, HOUR, stamps, *columns, np.full(len(rows), 1e6))


def fills_of(done: Any, name: str = "") -> list[tuple[int, str, float, bool]]:
    """Bar in which it filled (from 1), side, price, whether it was an exit."""
    rows = [row for row in done.tables["fills"].to_pylist() if row["instrument"] == (name or row["instrument"])]
    return [(-(-row["ts_filled"].value // HOUR.ns), row["side"], row["price"], row["exit"]) for row in rows]


def wicked(bars: Bars, seed: int) -> Bars:
    """The same bars with wicks, on the grid of the tick."""
    rng = np.random.default_rng(seed)
    high = np.round(np.maximum(bars.open, bars.close) * (1.0 + np.abs(rng.normal(0.0, 0.01, len(bars)))), 2)
    low = np.round(np.minimum(bars.open, bars.close) * (1.0 - np.abs(rng.normal(0.0, 0.01, len(bars)))), 2)
    return Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, high, low, bars.close, bars.volume)


def up_and_down(name: str, ts: int) -> float:
    return 0.001 if (ts // HOUR.ns + 3 * ord(name[0])) % 9 < 6 else -0.001


@pytest.mark.parametrize("kind", [SPOT, FUTURE], ids=["spot", "perpetual"])
@pytest.mark.parametrize(
    "changes",
    [
        {"exits": ExitsConfig(stop=1.5, trailing=True, pause_bars=2)},
        {"exits": ExitsConfig(take_profit=1.0, max_bars=9)},
        {"execution": ExecutionConfig(mode="post_only", offset=0.004, deadline_bars=3)},
        {"execution": ExecutionConfig(mode="marketable_limit", offset=0.002), "exits": ExitsConfig(stop=2.0)},
        {"exits": ExitsConfig(stop=1.5), "delay": 1},
    ],
    ids=["trailing stop", "take-profit", "post only", "limit and stop", "late stop"],
)
def test_a_panel_of_one_does_what_a_strategy_of_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Instrument, changes: dict[str, Any]
) -> None:
    bars = wicked(walks(70, seed=3)[0], 5)
    account = MARGIN if kind is FUTURE else {}
    limits = LOOSE if kind is SPOT else msgspec.structs.replace(LOOSE, side="long_short")
    options = {"limits": limits, "costs": Costs(fee=0.0005, spread=0.0004, slippage=0.0002), **account, **changes}
    instrument = msgspec.structs.replace(kind, id=AAA.id, base="AAA")
    tell(monkeypatch, lambda ts: up_and_down(AAA.id, ts))
    alone = run(tmp_path / "alone", bars, instrument, THIRD, **options)
    tell_each(monkeypatch, up_and_down)
    joint = run_on(tmp_path, [bars], SEPARATE, kind, sizing=THIRD, **options)
    assert len(fills_of(alone)) > 6
    if "delay" not in changes:
        assert any(exit_ for *_, exit_ in fills_of(alone)) == ("exits" in changes)
    assert fills_of(joint) == fills_of(alone)
    np.testing.assert_allclose(
        joint.tables["equity"]["equity"].to_numpy(), alone.tables["equity"]["equity"].to_numpy(), rtol=1e-12
    )


def played(tmp_path: Path, panel: list[Bars], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> PanelRun:
    """Buy all names on the first bar's close, at 100; hold."""
    tell_each(monkeypatch, lambda *_: 1e-3)
    options = {"sizing": THIRD, "limits": ONCE, "exits": STOP, **MARGIN, **changes}
    return run_on(tmp_path, panel, SEPARATE, FUTURE, **options)


def test_each_name_is_stopped_inside_its_own_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = [
        market([FLAT, FLAT, FLAT, (100.0, 101.0, 95.0, 100.0), FLAT], AAA),
        market([FLAT, FLAT, FLAT, (90.0, 99.0, 89.0, 98.0), FLAT], BBB),  # opens beyond its stop
        market([FLAT, FLAT, FLAT, (100.0, 101.0, 95.01, 100.0), FLAT], CCC),  # missed by a tick
    ]
    done = played(tmp_path, panel, monkeypatch)
    assert fills_of(done, AAA.id) == [(2, "buy", 100.0, False), (4, "sell", 95.0, True)]
    assert fills_of(done, BBB.id) == [(2, "buy", 100.0, False), (4, "sell", 90.0, True)]
    # The third grew beside the loss of the others: it is brought back, and its stop follows what is left.
    assert fills_of(done, CCC.id) == [(2, "buy", 100.0, False), (5, "sell", 100.0, False)]
    orders = [row for row in done.tables["orders"].to_pylist() if row["instrument"] == CCC.id]
    assert [row["quantity"] for row in orders] == [300.0, 300.0, 13.5, 286.5]
    assert [row["status"] for row in orders] == ["filled", "canceled", "filled", "accepted"]
    assert done.summary["refusals"] == 0


def test_a_hole_shows_no_price_that_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trailing stop above the last open: the quote of nothing that a missing bar has must not meet it."""
    rising = [FLAT, FLAT, (100.0, 112.0, 100.0, 112.0), FLAT, FLAT, (111.0, 112.0, 107.0, 111.0), (105.0,) * 4]
    exits = ExitsConfig(stop=-math.log(0.95) / DEVIATION, trailing=True, pause_bars=100)
    other = market([FLAT] * 7, BBB)
    panel = [without(market(rising, AAA), 3, 4), other]
    done = played(tmp_path, panel, monkeypatch, exits=exits)
    assert fills_of(done, AAA.id) == [(2, "buy", 100.0, False), (7, "sell", 105.0, True)]  # the stop lay at 106.4


def test_an_entry_is_stopped_in_its_own_bar_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fallen = (100.0, 101.0, 90.0, 99.0)
    panel = [market([FLAT, fallen, FLAT], coin) for coin in (AAA, BBB, CCC)]
    done = played(tmp_path, panel, monkeypatch)
    for coin in (AAA, BBB, CCC):
        assert fills_of(done, coin.id) == [(2, "buy", 100.0, False), (2, "sell", 95.0, True)]


@pytest.mark.parametrize("kind", [SPOT, FUTURE], ids=["spot", "perpetual"])
@pytest.mark.parametrize("mode", ["market", "post_only"])
def test_whatever_rests_and_fills_the_account_stays_within_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Instrument, mode: Any
) -> None:
    """Random markets: at every close, positions are within the caps, whichever exits and orders had filled."""
    rng = np.random.default_rng(7)
    tell_each(monkeypatch, lambda *_: float(rng.choice([-0.004, 0.004, 0.002])))
    shorts = kind is FUTURE
    limits = LimitsConfig(
        side="long_short" if shorts else "long_only",
        max_exposure=0.5,
        max_gross=0.9,
        max_net=0.5 if shorts else None,
        max_step=2.0,
        daily_loss=1.0,
        max_drawdown=1.0,
        drift_tolerance=0.02,
    )
    panel = [wicked(bars, seed) for seed, bars in enumerate(walks(100, seed=5, jump=0.0))]
    account = MARGIN if shorts else {}
    done = run_on(
        tmp_path,
        panel,
        SEPARATE,
        kind,
        limits=limits,
        sizing=SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0),
        exits=ExitsConfig(stop=1.2, pause_bars=1),
        execution=ExecutionConfig(mode=mode, offset=0.002, deadline_bars=2),
        costs=FREE,
        **account,
    )
    exposure_ST = done.tables["decisions"]["exposure"].to_numpy().reshape(3, -1)
    fills = fills_of(done)
    assert sum(exit_ for *_, exit_ in fills) > 8
    drift = 1.1  # what a bar moves prices, from the decision's close on
    assert np.abs(exposure_ST).sum(axis=0).max() <= 0.9 * drift
    assert np.abs(exposure_ST).sum(axis=0).max() > 0.6
    if shorts:
        assert np.abs(exposure_ST.sum(axis=0)).max() <= 0.5 * drift
        for side in (np.maximum(exposure_ST, 0.0), np.maximum(-exposure_ST, 0.0)):
            assert side.sum(axis=0).max() <= 0.5 * drift  # with the other side stopped as well
        assert exposure_ST.min() < -0.2
    else:
        assert done.summary["lowest_cash"] >= 0.0
        assert exposure_ST.min() >= 0.0


def state(exposure: float, pending: float = 0.0) -> PortfolioState:
    return PortfolioState(HOUR.ns, 1000.0, exposure, RiskState.start(HOUR.ns, 1000.0), pending)


def decided(exposure: float, target: float) -> Decision:
    return Decision(HOUR.ns, exposure, target, Reason.REBALANCE)


def test_whoever_leaves_for_another_node_leaves_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other moves the stops, and somebody orders a halt: it is the other's to obey."""
    asked: list[Any] = []

    class Leaves(LSTMPortfolioStrategy):
        def on_bar(self, bar: Any) -> None:
            super().on_bar(bar)
            stops = [order for order in self.cache.orders_open() if is_exit(order)]
            if len(stops) == 2 and not self.left:
                self.leave(LSTMStrategyError("another node"))
                for stop in stops:
                    super().cancel_order(stop)
                self.order_halt("by hand")

        def submit_order(self, order: Any, *arguments: Any, **named: Any) -> None:
            asked.extend([order] if self.left else [])
            super().submit_order(order, *arguments, **named)

        def cancel_order(self, order: Any, *arguments: Any, **named: Any) -> None:
            asked.extend([order] if self.left else [])
            super().cancel_order(order, *arguments, **named)

    monkeypatch.setattr(portfolio_module, "LSTMPortfolioStrategy", Leaves)
    with pytest.raises(LSTMStrategyError, match="another node"):
        played(tmp_path, [market([FLAT] * 6, AAA), market([FLAT] * 6, BBB)], monkeypatch)
    assert not asked


def test_nothing_counts_on_another_orders_filling() -> None:
    limits = LimitsConfig(side="long_short", max_exposure=0.5, max_gross=2.0, max_net=0.5, drift_tolerance=0.1)

    def targets(pairs: list[tuple[float, float]], resting: Resting) -> list[float]:
        """Two long names of the first pair, two short ones of the second."""
        four = [pair for pair in pairs for _ in range(2)]
        joined = join([decided(*pair) for pair in four], [state(held) for held, _ in four], limits, resting)
        return [round(decision.target, 6) for decision in joined[::2]]

    hedged = [(0.0, 0.4), (0.0, -0.3)]
    assert targets(hedged, Resting()) == [0.4, -0.3]
    assert targets(hedged, Resting(exits=True)) == [0.25, -0.1875]  # 0.5 of the one side: by one factor
    assert targets(hedged, Resting(orders=True)) == [0.25, -0.1875]
    # A hedge that is held counts for the long side only as long as no stop can take it away.
    assert targets([(0.15, 0.4), (-0.15, -0.15)], Resting()) == [0.4, -0.15]
    assert targets([(0.15, 0.4), (-0.15, -0.15)], Resting(exits=True)) == [0.25, -0.15]
    assert targets([(0.35, 0.35), (-0.3, -0.3)], Resting()) == [0.35, -0.3]
    assert targets([(0.35, 0.35), (-0.3, -0.3)], Resting(exits=True)) == [0.25, -0.25]
    # What is being sold counts as held until it has been.
    tight = msgspec.structs.replace(limits, max_net=None, max_exposure=0.6, max_gross=0.6)
    pairs = [(0.6, 0.2), (0.0, 0.4)]
    states = [state(held) for held, _ in pairs]
    both = [
        [round(decision.target, 6) for decision in join([decided(*pair) for pair in pairs], states, tight, resting)]
        for resting in (Resting(), Resting(orders=True))
    ]
    assert both == [[0.2, 0.4], [0.2, 0.0]]


def test_the_account_says_what_of_its_funding_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three perpetuals: rates of all bars, of the first day alone, of none."""
    tell_each(monkeypatch, lambda *_: 1e-3)
    panel = [market([FLAT] * 96, coin) for coin in (AAA, BBB, CCC)]
    for coin, days in ((AAA, 4), (BBB, 1)):
        ts = np.arange(1, 3 * days + 1, dtype=np.int64) * 8 * HOUR.ns
        keep_funding(RawStore(tmp_path / "catalog"), coin.id, ts, np.full(len(ts), 0.001))
    options = {"sizing": THIRD, "limits": ONCE, "account": "margin"}
    summary = run_on(tmp_path, panel, SEPARATE, FUTURE, **options).summary
    notes = [note for note in summary["notes"] if "Funding" in note]
    assert [note.partition(":")[0] for note in notes] == [BBB.id, CCC.id]
    assert "1970-01-02T00:00:00Z alone" in notes[0]
    assert "Funding is not included" in notes[1]
    parts = {part["instrument"]: part["result"] for part in summary["instruments"]}
    paid = {name: round(-result / 30.0) for name, result in parts.items()}  # 0.001 of about 30,000 each time
    assert paid == {AAA.id: 11, BBB.id: 3, CCC.id: 0}  # the last is due after the last event
    assert summary["carry"]["funding_paid"] == pytest.approx(-sum(parts.values()), rel=1e-9)
    assert [room["participation"] for room in summary["capacity"]] == [0.01, 0.05, 0.1]
    parts_room = [part["capacity"][0]["equity"] for part in summary["instruments"]]
    assert summary["capacity"][0]["equity"] == min(parts_room)
    none = run_on(tmp_path / "none", panel, SEPARATE, FUTURE, **options).summary
    assert sum("Funding is not included" in note for note in none["notes"]) == 1
    assert not any(note.startswith("AAA") for note in none["notes"])
