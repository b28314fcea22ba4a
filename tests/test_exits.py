"""The exits: their levels, that at most one rests and never too much of it, and what halts and refusals leave."""

from __future__ import annotations

import itertools
import math
import re
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, LEVELS, LOOSE, NORMAL, PERPETUAL, SCALE, SPOT, run, tell
from hypothesis import given
from hypothesis import strategies as st

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Conditions, Costs, PortfolioState, Reason, RiskState, SizingConfig, Trained, decide
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig, limit_price, shortfall
from lstm_strategy.exits import ExitsConfig, ExitState, deviation, due, open_exits, take_bar
from lstm_strategy.experiment import load_experiment
from lstm_strategy.forecast import Forecast
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import strategy as strategy_module
from lstm_strategy.nautilus.account import Holdings, is_exit
from lstm_strategy.nautilus.engine import Currency, Money, OrderSide, Price, name_of_status
from lstm_strategy.nautilus.exits import Guard
from lstm_strategy.nautilus.instruments import to_engine
from lstm_strategy.nautilus.session import open_session
from lstm_strategy.nautilus.strategy import LSTMStrategy
from lstm_strategy.nautilus.venues import VENUES, rules_at
from lstm_strategy.reasons import EXITS

PARTS = SizingConfig(mode="mean_variance", kelly_fraction=0.05, no_trade_band=0.0)
BOTH = msgspec.structs.replace(LOOSE, side="long_short")


# levels


def test_levels_by_hand() -> None:
    config = ExitsConfig(stop=2.0, take_profit=3.0)
    state = open_exits(1, 100.0, 0.01, config, 0)
    assert (state.stop, state.take_profit) == pytest.approx((98.0198673, 103.0454534))
    short = open_exits(-1, 100.0, 0.01, config, 0)
    assert (short.stop, short.take_profit) == pytest.approx((102.0201340, 97.0445534))
    assert math.isnan(open_exits(1, 100.0, 0.01, ExitsConfig(take_profit=1.0), 0).stop)


def test_the_deviation_is_that_of_the_stated_horizon() -> None:
    quantiles = np.array([NORMAL * 0.01, NORMAL * 0.03], np.float32)
    forecast = Forecast(0, (1, 24), LEVELS, quantiles, SCALE)
    assert deviation(forecast, 24) == pytest.approx(3 * deviation(forecast, 1))
    assert math.isnan(deviation(forecast, 4))
    assert math.isnan(deviation(None, 1))


@given(
    st.sampled_from([1, -1]),
    st.lists(st.tuples(st.floats(50, 200), st.one_of(st.floats(1e-4, 0.1), st.just(math.nan))), max_size=30),
)
def test_a_trailing_stop_only_ever_tightens(side: int, bars: list[tuple[float, float]]) -> None:
    config = ExitsConfig(stop=2.0, trailing=True)
    state = open_exits(side, 100.0, 0.02, config, 0)
    for row, (close, spread) in enumerate(bars):
        moved = take_bar(state, (row + 1) * HOUR.ns, close, spread, config, bar_ns=HOUR.ns)
        assert side * (moved.stop - state.stop) >= 0.0
        assert moved.stop == state.stop or side * (close - moved.stop) > 0.0  # never through the price
        assert moved.bars == row + 1
        state = moved


def test_bars_are_counted_by_close_and_once() -> None:
    config = ExitsConfig(max_bars=5)
    state = open_exits(1, 100.0, math.nan, config, HOUR.ns)

    def later(hours: int, closed_hours: int = 0) -> ExitState:
        close = {"bar_ns": HOUR.ns, "closed_ns": closed_hours * HOUR.ns}
        return take_bar(state, (1 + hours) * HOUR.ns, 100.0, math.nan, config, **close)

    assert later(0) == state
    assert later(1).bars == 1
    assert later(4).bars == 4  # missing bars count
    assert later(16, closed_hours=20).bars == 1  # a night does not
    assert due(later(4), 100.0, config, resting=False) is None
    assert due(later(5), 100.0, config, resting=False) == Reason.TIME_STOP


def test_when_a_stop_that_was_reached_gives_way() -> None:
    config = ExitsConfig(stop=1.0, watchdog_bars=2)
    state = ExitState(1, 95.0, math.nan)
    reached = take_bar(state, HOUR.ns, 95.0, 0.01, config, bar_ns=HOUR.ns)
    assert due(reached, 95.0, config, resting=True, limit=94.5) is None
    assert due(reached, 95.0, config, resting=False) == Reason.STOP_UNFILLED
    assert due(reached, 94.4, config, resting=True, limit=94.5) == Reason.STOP_UNFILLED
    again = take_bar(reached, 2 * HOUR.ns, 95.0, 0.01, config, bar_ns=HOUR.ns)
    assert due(again, 95.0, config, resting=True, limit=94.5) == Reason.STOP_UNFILLED
    triggered = take_bar(state, HOUR.ns, 99.0, 0.01, config, bar_ns=HOUR.ns, triggered=True)
    assert triggered.beyond == 1  # the venue knows better than the close
    assert take_bar(triggered, 2 * HOUR.ns, 99.0, 0.01, config, bar_ns=HOUR.ns).beyond == 0


@pytest.mark.parametrize("reason", sorted(EXITS))
def test_an_exit_closes_whatever_the_forecast_and_a_halt_comes_first(reason: Reason) -> None:
    quantiles = (0.05 + NORMAL * SCALE).astype(np.float32)[None]
    forecast = Forecast(HOUR.ns, (1,), LEVELS, quantiles, SCALE)
    start = RiskState.start(HOUR.ns, 1000.0)
    for risk, expected in ((start, reason), (msgspec.structs.replace(start, daily_halt=True), Reason.HALT_DAILY_LOSS)):
        decision = decide(
            forecast,
            PortfolioState(HOUR.ns, 1000.0, 0.5, risk),
            PARTS,
            LOOSE,
            Costs(fee=0.0),
            trained=Trained({}),
            bars_per_year=8760.0,
            conditions=Conditions(exit=reason),
        )
        assert (decision.target, decision.reason, decision.cancel_opening) == (0.0, expected, True)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (ExitsConfig, {"stop": 0.0}, r"exits\.stop is 0\.0; it must be above 0"),
        (ExitsConfig, {"trailing": True}, r"exits\.trailing is True; it must be false without exits\.stop"),
        (ExitsConfig, {"max_bars": 0}, r"exits\.max_bars is 0"),
        (ExitsConfig, {"stop": math.nan}, r"exits\.stop is nan"),
        (ExecutionConfig, {"offset": -0.1}, r"execution\.offset is -0\.1"),
        (ExecutionConfig, {"rests": True}, r"execution\.rests is True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LSTMStrategyError, match=message) as refusal:
        section(**changes)
    assert "\n" not in str(refusal.value)


def test_limits_and_shortfall_by_hand() -> None:
    through, away = (
        ExecutionConfig(mode="marketable_limit", offset=0.01),
        ExecutionConfig(mode="post_only", offset=0.01),
    )
    assert [limit_price(100.0, side, through) for side in (1, -1)] == [101.0, 99.0]
    assert [limit_price(100.0, side, away) for side in (1, -1)] == [99.0, 101.0]
    assert math.isnan(limit_price(100.0, 1, ExecutionConfig()))
    assert shortfall(101.0, 100.0, 1) == pytest.approx(0.01)
    assert shortfall(101.0, 100.0, -1) == pytest.approx(-0.01)


# in the engine


class Watched(LSTMStrategy):
    """Looks at what is alive after every event; keeps what was sent beside which exits."""

    seen: list[tuple[int, Decimal, Decimal]]
    sent: list[tuple[bool, bool, int]]

    def on_start(self) -> None:
        self.seen, self.sent = [], []
        type(self).last = self
        super().on_start()

    def _alive(self) -> tuple[list[Any], Decimal]:
        wanted = {"instrument_id": self.settings.instrument_id, "strategy_id": self.id}
        orders = {
            o.client_order_id: o for o in (*self.cache.orders_open(**wanted), *self.cache.orders_inflight(**wanted))
        }
        position = sum((p.signed_decimal_qty() for p in self.cache.positions_open(**wanted)), Decimal(0))
        return [order for order in orders.values() if is_exit(order)], position

    def submit_order(self, order: Any, *arguments: Any, **named: Any) -> None:
        exits, position = self._alive()
        takes = position != 0 and (order.side == OrderSide.SELL) == (position > 0)
        self.sent.append((is_exit(order), takes, len(exits)))
        super().submit_order(order, *arguments, **named)

    def handle_event(self, event: Any) -> None:
        super().handle_event(event)
        if "Position" in type(event).__name__ or "Accepted" in type(event).__name__:
            exits, position = self._alive()
            size = sum((order.leaves_qty.as_decimal() for order in exits), Decimal(0))
            self.seen.append((len(exits), size, abs(position)))


def wild_bars(n: int, instrument: Instrument, seed: int, volume: float) -> Bars:
    """A random walk with wicks, jumps between bars, and volumes that orders exhaust."""
    random = np.random.default_rng(seed)
    decimals = len(instrument.tick.partition(".")[2])
    closes = 100.0 * np.exp(np.cumsum(random.normal(0, 0.01, n)))
    opens = np.concatenate([[100.0], closes[:-1]]) * np.exp(random.normal(0, 0.01, n) * (random.random(n) < 0.2))
    low = np.minimum(opens, closes) * np.exp(-np.abs(random.normal(0, 0.01, n)))
    high = np.maximum(opens, closes) * np.exp(np.abs(random.normal(0, 0.01, n)))
    stamps = (np.arange(n) + 1) * HOUR.ns
    prices = [np.round(column, decimals) for column in (opens, high, low, closes)]
    return Bars(instrument.id, HOUR, stamps, *prices, random.uniform(0.2, 2.0, n) * volume)


CASES = [
    (PERPETUAL, ExitsConfig(stop=1.5, trailing=True), ExecutionConfig(), {}),
    (
        PERPETUAL,
        ExitsConfig(stop=1.0, take_profit=2.0, max_bars=7),
        ExecutionConfig(mode="post_only", offset=0.002),
        {},
    ),
    (PERPETUAL, ExitsConfig(take_profit=1.0), ExecutionConfig(mode="marketable_limit", rests=True), {}),
    (PERPETUAL, ExitsConfig(stop=1.0), ExecutionConfig(), {"delay": 2}),
    (SPOT, ExitsConfig(stop=1.5, trailing=True, least_move=0.0), ExecutionConfig(), {}),
    (SPOT, ExitsConfig(stop=1.0, limit_offset=0.0), ExecutionConfig(mode="post_only", offset=0.002), {}),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_exit_at_most_never_more_than_the_position_and_gone_before_anything_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    instrument, exits, execution, changes = CASES[case]
    means = np.random.default_rng(case).normal(2e-4, 1e-3, 1000)
    tell(monkeypatch, lambda ts: float(means[ts // HOUR.ns]))
    monkeypatch.setattr(strategy_module, "LSTMStrategy", Watched)
    options: dict[str, Any] = {"account": "margin", "limits": BOTH} if instrument is PERPETUAL else {}
    finished = run(
        tmp_path,
        wild_bars(250, instrument, case, 2_000.0),
        instrument,
        PARTS,
        exits=exits,
        execution=execution,
        **options,
        **changes,
    )
    strategy = Watched.last
    assert max(count for count, _, _ in strategy.seen) == 1
    assert all(size <= position for _, size, position in strategy.seen)
    placed = [row for row in strategy.sent if row[0]]
    assert len(placed) > 10
    assert all(alive == 0 for _, _, alive in placed)
    assert all(alive == 0 for _, takes, alive in strategy.sent if takes)
    fills = finished.tables["fills"].to_pylist()
    assert sum(fill["exit"] for fill in fills) > 5
    for fill in fills:
        if fill["exit"] and exits.stop is not None:
            assert (
                fill["shortfall"] >= 0.0 or instrument is SPOT
            )  # a jumped stop-limit may fill as the price comes back
    assert finished.summary["execution"]["exits"] == sum(fill["exit"] for fill in fills)


def test_stops_are_resized_with_the_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {1: 5e-4, 2: 1e-3, 3: 2e-3, 4: 1e-3}
    tell(monkeypatch, lambda ts: steps.get(ts // HOUR.ns, 1e-3))
    monkeypatch.setattr(strategy_module, "LSTMStrategy", Watched)
    flat = np.full(7, 100.0)
    columns = ((np.arange(7) + 1) * HOUR.ns, flat, flat, flat, flat, np.full(7, 1e6))
    finished = run(
        tmp_path, Bars(PERPETUAL.id, HOUR, *columns), PERPETUAL, PARTS, account="margin", exits=ExitsConfig(stop=3.0)
    )
    rows = finished.tables["orders"].to_pylist()
    stops = [row["quantity"] for row in rows if row["average_price"] is None]
    position = list(
        itertools.accumulate(row["quantity"] * (1 if row["side"] == "buy" else -1) for row in rows if row["filled"])
    )
    assert stops == pytest.approx(position)
    assert len(stops) == 4


def test_halts_that_forbid_an_increase_keep_the_stop_and_those_that_flatten_take_it_off_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 1e-3)
    monkeypatch.setattr(strategy_module, "LSTMStrategy", Watched)
    n = 12
    closes = np.array([100.0] * 6 + [96.0] * 6)
    opens = np.concatenate([[100.0], closes[:-1]])
    low, high = np.minimum(opens, closes), np.maximum(opens, closes)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(n) + 1) * HOUR.ns, opens, high, low, closes, np.full(n, 1e6))
    far = ExitsConfig(stop=20.0)
    blocked = msgspec.structs.replace(LOOSE, orders_per_day=1)
    finished = run(tmp_path / "a", bars, PERPETUAL, PARTS, account="margin", exits=far, limits=blocked)
    orders = finished.tables["orders"].to_pylist()
    assert [row["status"] for row in orders] == ["filled", "accepted"]  # the stop still rests at the end
    assert "orders_per_day" in finished.tables["decisions"]["bound"].to_pylist()[4]
    halting = msgspec.structs.replace(LOOSE, daily_loss=0.01)
    finished = run(tmp_path / "b", bars, PERPETUAL, PARTS, account="margin", exits=far, limits=halting)
    orders = finished.tables["orders"].to_pylist()
    assert [row["status"] for row in orders] == ["filled", "canceled", "filled"]
    assert finished.tables["decisions"].to_pylist()[6]["reason"] == "halt_daily_loss"
    assert orders[1]["ts_last"] <= orders[2]["ts_sent"]
    assert finished.tables["decisions"].to_pylist()[-1]["exposure"] == 0.0


def refuse_stops(kind: str) -> type[LSTMStrategy]:
    """A strategy whose first three stops its own engine denies (a price too fine), or the venue rejects (too high)."""

    class Refused(Watched):
        tries = 0

        def submit_order(self, order: Any, *arguments: Any, **named: Any) -> None:
            if is_exit(order) and self.tries < 3:
                self.tries += 1
                price = Price(97.0, 7) if kind == "denied" else Price(500.0, 1)
                order = self.order_factory.stop_market(
                    order.instrument_id, order.side, order.quantity, price, reduce_only=True, tags=order.tags
                )
                self._session.desk._guard.order = order
            super().submit_order(order, *arguments, **named)

    return Refused


@pytest.mark.parametrize("kind", ["denied", "rejected"])
@pytest.mark.parametrize("required", [True, False])
def test_a_refused_stop_is_told_tried_again_and_stops_new_risk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, required: bool
) -> None:
    tell(monkeypatch, lambda ts: 5e-4 * (ts // HOUR.ns))  # it wants more at every bar
    monkeypatch.setattr(strategy_module, "LSTMStrategy", refuse_stops(kind))
    flat = np.full(8, 100.0)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(8) + 1) * HOUR.ns, flat, flat, flat, flat, np.full(8, 1e6))
    exits = ExitsConfig(stop=3.0, required=required)
    finished = run(tmp_path, bars, PERPETUAL, PARTS, account="margin", exits=exits)
    reasons = finished.tables["decisions"]["reason"].to_pylist()
    assert len(finished.record.refusals) == 3
    assert all(("Denied" if kind == "denied" else "Rejected") in text for text in finished.record.refusals)
    assert reasons[0] == "rebalance"
    bought = [row["ts_sent"].value // HOUR.ns for row in finished.tables["orders"].to_pylist() if row["side"] == "buy"]
    if required:
        assert reasons[1:4] == ["unprotected"] * 3
        assert bought == [1, 5]  # once a stop rested
    else:
        assert bought[:2] == [1, 2]


@pytest.mark.parametrize(
    ("flatten", "left"), [(False, ["filled", "accepted"]), (True, ["filled", "canceled", "filled"])]
)
def test_an_exception_leaves_the_exit_at_the_venue_unless_the_position_is_flattened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flatten: bool, left: list[str]
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    flat = np.full(8, 100.0)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(8) + 1) * HOUR.ns, flat, flat, flat, flat, np.full(8, 1e6))
    seen: list[str] = []

    class Stopped(LSTMStrategy):
        def __init__(self, config: Any) -> None:
            super().__init__(msgspec.structs.replace(config, flatten_on_stop=flatten))

        def on_bar(self, bar: Any) -> None:
            super().on_bar(bar)
            if bar.ts_event == 5 * HOUR.ns:
                self.fail("a test", RuntimeError("gone"))

        def handle_event(self, event: Any) -> None:
            super().handle_event(event)
            seen[:] = [name_of_status(order) for order in self.cache.orders()]

    monkeypatch.setattr(strategy_module, "LSTMStrategy", Stopped)
    with pytest.raises(RuntimeError, match="gone"):
        run(tmp_path, bars, PERPETUAL, PARTS, account="margin", exits=ExitsConfig(stop=3.0))
    assert seen == left


@pytest.mark.parametrize("halted", [False, True])
def test_who_leaves_for_another_node_neither_sends_nor_cancels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halted: bool
) -> None:
    """The other moves the stop, and somebody orders a halt: it is the other's to obey."""
    tell(monkeypatch, lambda _: 1e-3)
    flat = np.full(8, 100.0)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(8) + 1) * HOUR.ns, flat, flat, flat, flat, np.full(8, 1e6))
    seen: list[str] = []
    asked: list[Any] = []

    class Leaves(LSTMStrategy):
        def on_bar(self, bar: Any) -> None:
            super().on_bar(bar)
            if bar.ts_event == 5 * HOUR.ns:
                if halted:
                    self.keeper.ordered = "somebody"
                self.leave(LSTMStrategyError("another node"))
                (stop,) = [order for order in self.cache.orders_open() if is_exit(order)]
                super().cancel_order(stop)

        def submit_order(self, order: Any, *arguments: Any, **named: Any) -> None:
            asked.extend([order] if self.left else [])
            super().submit_order(order, *arguments, **named)

        def cancel_order(self, order: Any, *arguments: Any, **named: Any) -> None:
            asked.extend([order] if self.left else [])
            super().cancel_order(order, *arguments, **named)

        def handle_event(self, event: Any) -> None:
            super().handle_event(event)
            if self.left:
                self.order_halt("by hand")
            seen[:] = [name_of_status(order) for order in self.cache.orders()]

    monkeypatch.setattr(strategy_module, "LSTMStrategy", Leaves)
    with pytest.raises(LSTMStrategyError, match="another node"):
        run(tmp_path, bars, PERPETUAL, PARTS, account="margin", exits=ExitsConfig(stop=3.0))
    assert not asked
    assert seen == ["filled", "canceled"]


@pytest.mark.parametrize("resting", [False, True])
def test_while_another_node_may_trade_nothing_is_added_and_the_stop_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resting: bool
) -> None:
    """From the fourth bar to the eighth; the forecast asks for more at the fifth, and the price never comes."""
    tell(monkeypatch, lambda ts: 1e-3 if ts < 5 * HOUR.ns else 2e-3)
    flat = np.full(12, 100.0)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(12) + 1) * HOUR.ns, flat, flat, flat, flat, np.full(12, 1e6))
    sent: list[tuple[int, bool]] = []
    statuses: dict[int, list[str]] = {}

    class Adrift(LSTMStrategy):
        hour = 0

        def on_start(self) -> None:
            self.adrift = lambda: 4 <= self.hour < 8
            super().on_start()

        def on_bar(self, bar: Any) -> None:
            self.hour = bar.ts_event // HOUR.ns
            if self.hour == 4:
                self.recall("a test")
            super().on_bar(bar)
            statuses[self.hour] = [name_of_status(order) for order in self.cache.orders()]

        def submit_order(self, order: Any, *arguments: Any, **named: Any) -> None:
            sent.append((self.hour, is_exit(order)))
            super().submit_order(order, *arguments, **named)

    monkeypatch.setattr(strategy_module, "LSTMStrategy", Adrift)
    options: dict[str, Any] = {"exits": ExitsConfig(stop=3.0), "account": "margin"}
    if resting:
        options["execution"] = ExecutionConfig(mode="post_only", offset=0.01, deadline_bars=30)
    done = run(tmp_path, bars, PERPETUAL, PARTS, **options)
    assert not [hour for hour, _ in sent if 4 <= hour < 8]
    assert (8, False) in sent, "it goes on"
    if resting:
        assert (statuses[3], statuses[7]) == (["accepted"], ["canceled"])
    else:
        assert statuses[7] == ["filled", "accepted"], "the entry, and the stop"
        reasons = done.tables["decisions"]["reason"].to_pylist()
        assert reasons[4:7] == ["unprotected"] * 3


def test_exits_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved state keeps its level; without one, the stop that is found at the venue is taken over."""
    tell(monkeypatch, lambda _: 1e-3)
    closes = np.array([100.0, 100.0, 110.0, 110.0, 105.0, 105.0, 105.0, 105.0])
    opens = np.concatenate([[100.0], closes[:-1]])
    low, high = np.minimum(opens, closes), np.maximum(opens, closes)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(8) + 1) * HOUR.ns, opens, high, low, closes, np.full(8, 1e6))
    exits = ExitsConfig(stop=6.0, trailing=True, max_bars=6)
    left: list[Any] = []
    for saved in (True, False):

        class Restarted(LSTMStrategy):
            keeps = saved

            def on_bar(self, bar: Any) -> None:
                if bar.ts_event == 5 * HOUR.ns:
                    state = self.on_save()
                    self._session = open_session(self)
                    if self.keeps:
                        self._session.desk.restore_exits(state["exits"])
                super().on_bar(bar)

        monkeypatch.setattr(strategy_module, "LSTMStrategy", Restarted)
        once = msgspec.structs.replace(LOOSE, orders_per_day=1)
        finished = run(tmp_path / str(saved), bars, PERPETUAL, PARTS, account="margin", exits=exits, limits=once)
        orders = finished.tables["orders"].to_pylist()
        stops = [row["status"] for row in orders if not row["filled"]]
        assert stops == ["canceled", "canceled" if saved else "accepted"]  # the second one rose with the close of 110
        left.append(finished.tables["decisions"]["reason"].to_pylist().count("time_stop"))
    assert left == [1, 0]  # bars that nobody saved are counted anew

    guard = open_guard()
    with pytest.raises(LSTMStrategyError, match="the saved exits are damaged"):
        guard.restore(b"\xff\x00")


def test_coins_that_cannot_be_sold_are_not_taken_for_dust() -> None:
    """Somebody has sold or locked them: the position has no stop, and is not to grow."""
    config = ExitsConfig(stop=2.0, horizon=1)
    sale = SimpleNamespace(side=OrderSide.SELL)

    def watched(position: str, free: str, *working: Any) -> bool:
        guard = Guard(SimpleNamespace(), to_engine(SPOT), config, HOUR.ns)
        money = Money(Decimal(free), Currency.from_str("BTC"))
        held = Holdings(Decimal(position), [*working], Decimal(0), 1e5, True, True, money, 1e5, [], 100.0)
        told = Forecast(0, (1,), LEVELS, np.array([NORMAL * 0.01], np.float32), SCALE)
        return guard.on_bar(held, HOUR.ns, 100.0, told, HOUR.ns).unprotected

    assert watched("0.3", "0"), "all of them"
    assert watched("0.3", "0.3"), "they are there, and nothing rests"
    assert not watched("0.3", "0", sale), "an order of ours sells them"
    assert not watched("0.05", "0"), "dust is dust"


def open_guard() -> Guard:
    return Guard(SimpleNamespace(), to_engine(PERPETUAL), ExitsConfig(stop=1.0), HOUR.ns)


# documentation


def test_the_table_of_venues_is_the_codes() -> None:
    text = (Path(__file__).parents[1] / "docs" / "exits.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| (`[A-Z_]+`|any other) \|", line)]
    yes = {True: "yes", False: "no"}
    expected = [
        f"| {'any other' if venue == '*' else f'`{venue}`'} | {kind} | {rules.stop} | {', '.join(rules.orders)} |"
        f" {yes[rules.reduce_only]} | {yes[rules.linked]} | {yes[rules.amends_stops]} | {yes[rules.verified]} |"
        for (venue, kind), rules in VENUES.items()
    ]
    assert rows == expected
    assert rules_at("NOWHERE", "perpetual") == VENUES["*", "perpetual"]
    for rules in VENUES.values():
        assert rules.stop in rules.orders
        assert not rules.linked or rules.verified


def test_every_reason_and_setting_of_the_exits_is_told() -> None:
    text = (Path(__file__).parents[1] / "docs" / "exits.md").read_text(encoding="utf-8")
    told_of = set(re.findall(r"`([a-z_]+)`", text))
    assert {*ExitsConfig.__struct_fields__, *ExecutionConfig.__struct_fields__} <= told_of
    assert {reason.value for reason in (*EXITS, Reason.UNPROTECTED, Reason.EXIT_PAUSE)} <= told_of


def test_the_experiment_takes_both_sections_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "backtests" / "btcusdt_1h.toml").read_text(encoding="utf-8")
    path = tmp_path / "e.toml"

    def with_sections(exits: str, execution: str = "") -> Any:
        path.write_text(f"{text}\n[exits]\n{exits}\n[execution]\n{execution}\n", encoding="utf-8")
        return load_experiment(path)

    setup = with_sections("stop = 3.0\nhorizon = 24\ntrailing = true", 'mode = "post_only"\ndeadline_bars = 3')
    assert (setup.exits.stop, setup.exits.horizon, setup.execution.deadline_bars) == (3.0, 24, 3)
    for exits, message in (
        ("stop = 3.0\nhorizon = 7", r"exits\.horizon is 7; it must be one of target\.horizons"),
        ("stopp = 3.0", "stopp"),
        ("stop = -1.0", r"exits\.stop is -1\.0"),
    ):
        with pytest.raises(LSTMStrategyError, match=message) as refusal:
            with_sections(exits)
        assert "\n" not in str(refusal.value)
