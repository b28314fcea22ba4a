"""The strategy on the engine, with the surprises of live data: late history, repeats, odd stamps, restarts."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import FREE, HOUR, LOOSE, PERPETUAL, SIGN, SPOT, ToldForecaster, make_bars, random_bars, tell
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar as EngineBar
from nautilus_trader.model.enums import AccountType, OmsType, OrderStatus, TradingState
from nautilus_trader.model.events import OrderDenied
from nautilus_trader.model.identifiers import ClientOrderId, InstrumentId, StrategyId, TraderId, Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.test_kit.stubs.events import TestEventStubs
from nautilus_trader.test_kit.stubs.identifiers import TestIdStubs
from nautilus_trader.trading.config import ImportableStrategyConfig, StrategyConfig, StrategyFactory
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.bars import Bar, Bars, BarsError
from lstm_strategy.decision import LimitsConfig, RiskState
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import closing
from lstm_strategy.nautilus.actor import ForecastActor, ForecastActorConfig
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.fills import open_quotes
from lstm_strategy.nautilus.history import History, on_grid, timeframe_of, to_bar
from lstm_strategy.nautilus.instruments import to_engine
from lstm_strategy.nautilus.orders import Action, Rules, plan_order
from lstm_strategy.nautilus.portfolio_config import LSTMPortfolioStrategyConfig
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
from lstm_strategy.nautilus.strategy import LSTMStrategy, LSTMStrategyConfig

RULES = Rules(Decimal("0.001"), Decimal("0.001"), Decimal(100), Decimal(10))


def config(**changes: Any) -> LSTMStrategyConfig:
    settings = {
        "instrument_id": to_engine(SPOT).id,
        "bar_type": bar_type(SPOT.id, HOUR),
        "model": "models/told/1",
        "sizing": SIGN,
        "limits": LOOSE,
        "costs": FREE,
        "record": True,
    }
    return LSTMStrategyConfig(**{**settings, **changes})


def engine_bars(bars: Bars, early_ns: int = 0) -> list[EngineBar]:
    instrument = to_engine(SPOT if bars.instrument_id == SPOT.id else PERPETUAL)
    return [
        EngineBar(
            bar_type(bars.instrument_id, HOUR),
            instrument.make_price(bar.open),
            instrument.make_price(bar.high),
            instrument.make_price(bar.low),
            instrument.make_price(bar.close),
            instrument.make_qty(bar.volume),
            bar.ts_close - early_ns,
            bar.ts_close - early_ns,
        )
        for bar in bars
    ]


def play(
    engines: list[BacktestEngine],
    strategy: LSTMStrategy,
    data: list[EngineBar],
    instrument: Instrument = SPOT,
    account: AccountType = AccountType.CASH,
    quotes: Bars | None = None,
) -> None:
    """Run the strategy over bars as they are, without a catalog: requests for history find nobody."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engines.append(engine)
    engine.add_venue(
        Venue("BINANCE"),
        OmsType.NETTING,
        account,
        [Money(100_000, USDT)],
        bar_execution=False,
        latency_model=LatencyModel(base_latency_nanos=1),
    )
    engine.add_instrument(to_engine(instrument))
    engine.add_strategy(strategy)
    engine.add_data(data, sort=False)
    if quotes is not None:
        engine.add_data(
            open_quotes(quotes, to_engine(instrument), spread=0.0, slippage=0.0, volume_share=0.5), sort=False
        )
    engine.sort_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's own use of pandas
        engine.run()


class LateHistory(LSTMStrategy):
    """History that is answered when a given live bar arrives, or never."""

    answer_at = 0
    answer: tuple[EngineBar, ...] = ()

    def request_bars(self, *_: Any, start: datetime, callback: Any, **__: Any) -> None:
        self.callbacks = [*getattr(self, "callbacks", []), callback]
        self.asked_from = [*getattr(self, "asked_from", []), int(start.timestamp()) * 10**9]

    def on_bar(self, bar: EngineBar) -> None:
        if bar.ts_event == self.answer_at:
            for past in self.answer:
                self.on_historical_data(past)
            self.callbacks[0](None)
        super().on_bar(bar)


# -- stamps and values -------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.integers(-(HOUR.ns // 100), HOUR.ns // 100))
def test_stamps_close_to_the_grid_are_put_on_it(hour: int, off: int) -> None:
    assert on_grid(hour * HOUR.ns + off, HOUR) == hour * HOUR.ns


@pytest.mark.parametrize("off", [-HOUR.ns // 50, HOUR.ns // 50, HOUR.ns // 2])
def test_other_stamps_are_not(off: int) -> None:
    assert on_grid(5 * HOUR.ns + off, HOUR) is None


def test_a_live_bar_equals_the_raw_one_to_the_last_bit() -> None:
    bars = random_bars(2000)
    assert [to_bar(bar, bar.ts_event) for bar in engine_bars(bars)] == list(bars)
    assert timeframe_of(bar_type(SPOT.id, HOUR)) == HOUR


def test_history_is_sorted_and_unique() -> None:
    def bar(hour: int, close: float = 1.0) -> Bar:
        return Bar(hour * HOUR.ns, close, close, close, close, 0.0)

    history = History()
    for hour in (3, 1, 2, 2):
        history.add_past(bar(hour))
    for hour in (5, 3, 4, 5):
        history.add_live(bar(hour))
    past, live = history.merged(after=1 * HOUR.ns)
    assert [b.ts_close // HOUR.ns for b in past] == [2, 3]
    assert [b.ts_close // HOUR.ns for b in live] == [4, 5]
    history.add_past(bar(5, 9.0))  # the newest live bar is there to be decided upon
    assert [b.ts_close // HOUR.ns for b in history.merged(None)[1]] == [4, 5]


# -- orders ------------------------------------------------------------------------------------------------------------


@given(st.floats(-2, 2), st.floats(100, 1e6), st.floats(0.01, 1e5), st.decimals(-50, 50, places=3), st.booleans())
def test_planned_orders_never_pass_the_target_or_a_rule(
    target: float, equity: float, price: float, position: Decimal, can_short: bool
) -> None:
    if not can_short:
        position = abs(position)
    quantity, action = plan_order(target, equity, price, position, RULES, can_short=can_short)
    assert (quantity != 0) == (action == Action.SENT)
    wanted = Decimal(0) if target == 0 else Decimal(target * equity / price)
    if not can_short:
        wanted = max(wanted, Decimal(0))
    if quantity:
        assert quantity % RULES.lot == 0
        assert RULES.min_quantity <= abs(quantity) <= RULES.max_quantity
        assert abs(quantity) * Decimal(price) >= RULES.min_notional
        slack = Decimal("1e-20")  # decimals have 28 digits
        assert min(position, wanted) - slack <= position + quantity <= max(position, wanted) + slack
    if not can_short:
        assert position + quantity >= 0


def test_closing_closes_all_and_funds_are_respected() -> None:
    held = Decimal("1.234")
    assert plan_order(0.0, 1e5, 100.0, held, RULES, can_short=False) == (-held, Action.SENT)
    less = plan_order(0.0, 1e5, 100.0, held, RULES, can_short=False, sellable=Decimal("1.2327"))
    assert less == (Decimal("-1.232"), Action.SENT)
    assert plan_order(-1.0, 1e5, 100.0, Decimal(0), RULES, can_short=False)[1] == Action.SHORT_REFUSED
    assert plan_order(1.0, 1e3, 100.0, Decimal(0), RULES, can_short=False, spendable=500.0)[0] == Decimal(5)
    none = plan_order(1.0, 1e3, 100.0, Decimal(0), RULES, can_short=False, spendable=-1.0)
    assert none == (Decimal(0), Action.NOT_ENOUGH_FUNDS)


def test_an_order_near_the_minimum_notional_leaves_room_for_the_venues_own_price() -> None:
    for target, sent in ((0.101, Action.BELOW_MINIMUM), (0.103, Action.SENT)):
        assert plan_order(target, 100.0, 10.0, Decimal(0), RULES, can_short=False)[1] == sent
    # To be rid of all of a position is worth the try.
    assert plan_order(0.0, 100.0, 10.0, Decimal("1.01"), RULES, can_short=False) == (Decimal("-1.01"), Action.SENT)


def test_closing_before_any_price_is_known_asks_no_notional() -> None:
    assert plan_order(0.0, 0.0, np.inf, Decimal("0.002"), RULES, can_short=False)[1] == Action.SENT
    assert plan_order(0.0, 0.0, np.inf, Decimal("0.0001"), RULES, can_short=False)[1] == Action.BELOW_MINIMUM


@pytest.mark.parametrize("held", ["0.5", "-0.5"])
def test_closing_on_margin_before_any_price_is_known_asks_no_margin(held: str) -> None:
    found = plan_order(0.0, np.inf, np.inf, Decimal(held), RULES, can_short=True, max_position=np.inf)
    assert found == (-Decimal(held), Action.SENT)


class Refusing:
    """A desk whose closing orders are all denied, and the clock that it is tried again by."""

    name = "BTCUSDT.BINANCE"

    def __init__(self) -> None:
        self.sent, self.waits, self.errors = 0, [], []
        self.id, self.clock, self.log = "S-1", self, self

    def close(self, *, flatten: bool) -> Action:
        assert flatten
        self.sent += 1
        return Action.SENT

    def note(self, event: object) -> None: ...

    def error(self, text: str) -> None:
        self.errors.append(text)

    def utc_now(self) -> datetime:
        return datetime(2024, 1, 1, tzinfo=UTC)

    def set_time_alert(self, name: str, when: datetime, callback: object, override: bool) -> None:
        self.waits.append((when - self.utc_now()).total_seconds())
        self.again = callback


def test_what_the_engine_denies_of_a_closing_is_tried_again_ever_later_and_can_be_ordered_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closing, "on_loop", lambda clock, call: call)
    desk = Refusing()
    denied = OrderDenied(
        TraderId("A-1"), StrategyId("S-1"), InstrumentId.from_str("X.Y"), ClientOrderId("1"), "rate", UUID4(), 0
    )
    winding = closing.Closing(desk, desk, flatten=True)
    winding.go_on()
    while not winding.gave_up:
        winding.on_event(denied)
        if not winding.gave_up:
            desk.again()
    assert desk.sent == 13
    assert desk.waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(desk.waits) == 600.0
    assert "left open" in desk.errors[-1]
    halted = SimpleNamespace(
        _session=SimpleNamespace(desk=desk), _closing=winding, end_closing=lambda: None, id="S-1", left=False
    )
    LSTMStrategy.flatten(halted)
    assert desk.sent == 14
    assert halted._closing is not winding


# -- the strategy on the engine ----------------------------------------------------------------------------------------


def test_late_history_and_early_live_bars_are_used_once_each(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=25)
    bars = random_bars(40)
    data = engine_bars(bars)
    strategy = LateHistory(config(history_timeout_s=7200.0))
    strategy.answer_at = int(bars.ts_close[29])
    strategy.answer = (*data[10:26], *data[:12])  # pages in the wrong order, overlapping, with bars also seen live
    play(engines, strategy, data[20:])
    assert strategy.failure is None
    assert made[0].seen == bars.ts_close.tolist()
    actions = strategy.record.actions
    assert [decision.ts_close for decision in strategy.record.decisions] == bars.ts_close[20:].tolist()
    assert actions[:8] == [Action.NOT_READY] * 8  # watched while the history is on its way
    assert actions[8] == Action.SENT  # decided anew, being the newest


def test_a_bar_that_still_forms_is_no_history(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=25)
    bars = random_bars(40)
    data = engine_bars(bars)
    strategy = LateHistory(config(history_timeout_s=7200.0))
    strategy.answer_at = int(bars.ts_close[29])
    strategy.answer = tuple(data[:31])  # at the close of bar 29 venues add bar 30, which has only begun
    play(engines, strategy, data[25:])
    assert made[0].seen == bars.ts_close.tolist()
    assert int(bars.ts_close[30]) in [decision.ts_close for decision in strategy.record.decisions]


def test_unanswered_history_is_asked_for_again_and_live_bars_suffice_in_the_end(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=5)
    strategy = LateHistory(config(history_timeout_s=3600.0))
    bars = random_bars(12)
    play(engines, strategy, engine_bars(bars))
    assert len(strategy.callbacks) >= 3
    assert made[0].seen == bars.ts_close.tolist()
    assert strategy.record.actions[-1] != Action.NOT_READY


def test_repeated_late_and_odd_bars_are_ignored(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(20)
    data = engine_bars(bars, early_ns=1_000_001)  # a venue that stamps 59.999
    odd = engine_bars(bars[5:6], early_ns=HOUR.ns // 3)

    class Bursts(LSTMStrategy):
        def on_bar(self, bar: EngineBar) -> None:
            super().on_bar(bar)
            super().on_bar(bar)
            super().on_bar(data[0])
            super().on_bar(odd[0])

    strategy = Bursts(config())
    play(engines, strategy, data)
    assert made[0].seen == bars.ts_close.tolist()
    assert strategy.record.ts_close.tolist() == bars.ts_close.tolist()


def test_an_exception_stops_it_loudly(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(ts: int) -> float:
        if ts == 8 * HOUR.ns:
            raise ZeroDivisionError("planted")
        return 0.001

    tell(monkeypatch, mean)
    bars = random_bars(20)
    strategy = LSTMStrategy(config(flatten_on_stop=True))
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert isinstance(strategy.failure, ZeroDivisionError)
    assert strategy.is_stopped
    assert len(strategy.record) == 7
    # Flattened on the way out: the position is closed at the next open.
    assert not engines[0].cache.positions_open()
    assert len(engines[0].cache.positions_closed()) == 1


def test_refused_orders_are_recorded_and_tried_anew(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(10)
    strategy = LSTMStrategy(config())
    play(engines, strategy, engine_bars(bars))  # no quotes: the venue has no market
    assert strategy.failure is None
    assert len(strategy.record.refusals) >= 5
    assert "no market" in strategy.record.refusals[0]


# -- stops, halts, holes ----------------------------------------------------------------------------------------------


class Breaks(LSTMStrategy):
    """Breaks down right after its decision on one bar."""

    breaks_at = 0

    def _decide(self, session: Any, bar: Bar, forecast: Any, *, waiting: bool = False) -> None:
        super()._decide(session, bar, forecast, waiting=waiting)
        if bar.ts_close == self.breaks_at:
            raise ZeroDivisionError("planted")


class Holds(LateHistory):
    """Bought 50 at the first bar, as if the position were left from an earlier run."""

    def on_bar(self, bar: EngineBar) -> None:
        if self._session and not self.cache.orders():
            self._session.desk._send(Decimal(50), closes=False)
        super().on_bar(bar)


def position(engine: BacktestEngine) -> Decimal:
    return sum((held.signed_decimal_qty() for held in engine.cache.positions_open()), Decimal(0))


def told(strategy: LSTMStrategy) -> list[tuple[str, Action]]:
    return [(d.reason.value, a) for d, a in zip(strategy.record.decisions, strategy.record.actions, strict=True)]


def test_a_purchase_in_flight_at_the_stop_is_sold_again(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts >= 3 * HOUR.ns else -0.001)
    bars = random_bars(20)
    strategy = Breaks(config(flatten_on_stop=True))
    strategy.breaks_at = 3 * HOUR.ns
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert strategy.is_stopped
    assert isinstance(strategy.failure, ZeroDivisionError)
    bought, sold = engines[0].cache.orders()
    assert bought.filled_qty == sold.filled_qty > 0
    assert position(engines[0]) == 0
    kept = Breaks(config(flatten_on_stop=False))
    kept.breaks_at = 3 * HOUR.ns
    play(engines, kept, engine_bars(bars), quotes=bars)
    assert position(engines[1]) > 0  # as configured


def test_closing_takes_as_many_orders_as_the_venue_asks_for(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 0.001)
    small = msgspec.structs.replace(SPOT, max_quantity="10")
    bars = random_bars(60, volatility=1e-4)
    strategy = Breaks(config(flatten_on_stop=True))
    strategy.breaks_at = 20 * HOUR.ns
    play(engines, strategy, engine_bars(bars), instrument=small, quotes=bars)
    sold = [order for order in engines[0].cache.orders() if order.is_sell]
    assert len(sold) == 10
    assert all(earlier.ts_last <= later.ts_init for earlier, later in pairwise(sold))  # one at a time
    assert position(engines[0]) == 0
    assert not engines[0].cache.orders_open()


def test_a_halt_closes_over_as_many_bars_as_the_venue_asks_for(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 0.001)
    small = msgspec.structs.replace(SPOT, max_quantity="20")
    closes = np.round(1000.0 * np.where(np.arange(40) < 12, 1.0, 0.8), 2)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    strategy = LSTMStrategy(config(limits=LimitsConfig(daily_loss=1.0, max_drawdown=0.1, drift_tolerance=10.0)))
    play(engines, strategy, engine_bars(bars), instrument=small, quotes=bars)
    halted = [(d.exposure, a) for d, a in zip(strategy.record.decisions, strategy.record.actions, strict=True)][12:]
    assert [action for _, action in halted[:5]] == [Action.SENT] * 5
    assert position(engines[0]) == halted[5][0] == 0


@pytest.mark.parametrize("refusals", [3, 99])
def test_closing_orders_that_the_venue_rejects_are_tried_again_a_few_times(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts >= 3 * HOUR.ns else -0.001)
    bars = random_bars(40)

    class Refused(Breaks):
        seen = 0

        def on_stop(self) -> None:
            engines[0].kernel.risk_engine.set_trading_state(TradingState.HALTED)
            super().on_stop()

        def handle_event(self, event: Any) -> None:
            if isinstance(event, OrderDenied):  # as if the venue had said so
                self.seen += 1
                if self.seen == refusals:
                    engines[0].kernel.risk_engine.set_trading_state(TradingState.ACTIVE)
                order = self.cache.order(event.client_order_id)
                event = TestEventStubs.order_rejected(order, account_id=TestIdStubs.account_id())
            super().handle_event(event)

    strategy = Refused(config(flatten_on_stop=True))
    strategy.breaks_at = 3 * HOUR.ns
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert strategy.seen == min(refusals, 14)  # the fill, the new position, and twelve more
    assert (position(engines[0]) == 0) == (refusals == 3)


def test_a_closing_order_that_our_own_engine_denies_is_not_repeated(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 0.001)
    bars = random_bars(20)

    class Refused(Breaks):
        def on_stop(self) -> None:
            engines[0].kernel.risk_engine.set_trading_state(TradingState.HALTED)
            super().on_stop()

    strategy = Refused(config(flatten_on_stop=True))
    strategy.breaks_at = 5 * HOUR.ns
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert [order.status for order in engines[0].cache.orders()].count(OrderStatus.DENIED) == 1
    assert position(engines[0]) > 0


TIGHT = LimitsConfig(max_drawdown=0.01, daily_loss=0.01, drift_tolerance=10.0)


def falling(n: int) -> Bars:
    closes = np.round(1000.0 * 0.995 ** np.arange(n), 2)
    return make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)


@pytest.mark.parametrize("answered", [True, False], ids=["history too short", "history never comes"])
def test_a_halt_flattens_before_the_warm_up_is_over(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    tell(monkeypatch, lambda ts: 0.001, warmup_bars=500)
    bars = falling(30)
    settings = {"limits": TIGHT, "sizing": msgspec.structs.replace(SIGN, without_forecast="hold")}
    strategy = Holds(config(**settings, history_timeout_s=1e6))
    strategy.answer_at = int(bars.ts_close[0]) if answered else 0
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert strategy.risk.drawdown_halt
    assert position(engines[0]) == 0
    assert ("halt_drawdown", Action.SENT) in told(strategy)
    assert len(strategy.record) == 30
    assert [order.is_sell for order in engines[0].cache.orders()] == [False, True]


def test_while_history_is_on_its_way_a_position_is_held_and_then_given_up_as_configured(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda ts: 0.001, warmup_bars=20)
    bars = random_bars(40, volatility=1e-4)
    strategy = Holds(config(history_timeout_s=3.5 * 3600.0, history_attempts=3))
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert len(strategy.callbacks) == 3  # then it went on with what came by itself
    rows = told(strategy)
    assert rows[:9] == [("no_forecast", Action.NOT_READY)] * 9
    assert rows[9] == ("no_forecast", Action.SENT)  # half a bar on it gave up: without_forecast = "flatten"
    assert strategy.record.decisions[9].exposure == pytest.approx(0.5, abs=0.01)
    assert made[0].seen == bars.ts_close.tolist()
    assert position(engines[0]) > 0  # forecasts came with the 20th bar


def without(data: list[EngineBar], *missing: int) -> list[EngineBar]:
    return [bar for row, bar in enumerate(data) if row not in missing]


def test_a_hole_in_the_live_bars_is_asked_for_and_filled_before_features_move_on(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=5)
    bars = random_bars(40)
    data = engine_bars(bars)

    class Fills(LateHistory):
        def on_bar(self, bar: EngineBar) -> None:
            if bar.ts_event == bars.ts_close[24]:
                self.callbacks[0](None)  # an answer to the question at the start: too late, and not this one's
            if bar.ts_event == bars.ts_close[25]:
                for past in data[18:26]:
                    self.on_historical_data(past)
                self.callbacks[-1](None)
            super().on_bar(bar)

    strategy = Fills(config(history_timeout_s=4 * 3600.0))
    strategy.answer_at = int(bars.ts_close[1])
    play(engines, strategy, without(data, 20, 21), quotes=bars)
    assert made[0].seen == bars.ts_close.tolist()
    assert len(strategy.callbacks) == 2
    assert strategy.asked_from[1] == bars.ts_close[18]
    decided = dict(zip(strategy.record.ts_close.tolist(), told(strategy), strict=True))
    assert [decided[ts] for ts in bars.ts_close[[22, 23]].tolist()] == [("no_forecast", Action.NOT_READY)] * 2
    assert decided[int(bars.ts_close[26])][0] == "at_target"  # the forecasts are back, and ask for no change
    assert len(strategy.record) == 38


def test_a_hole_that_nobody_fills_is_waited_for_a_bounded_time(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=30)
    bars = random_bars(80)
    strategy = LateHistory(config(history_timeout_s=1.5 * 3600.0, history_attempts=2))
    strategy.answer_at = int(bars.ts_close[0])
    play(engines, strategy, without(engine_bars(bars), 40, 41, 60), quotes=bars)
    assert len(strategy.callbacks) == 1 + 2 + 2
    assert made[0].seen == np.delete(bars.ts_close, [40, 41, 60]).tolist()
    assert strategy.failure is None
    assert strategy.record.actions[-1] != Action.NOT_READY


def test_a_malformed_bar_is_skipped_and_asked_for_again(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=5)
    bars = random_bars(30)
    data, true = engine_bars(bars), engine_bars(bars)
    zero = to_engine(SPOT).make_price(0.0)
    bad = data[15]
    data[15] = EngineBar(bad.bar_type, bad.open, bad.high, zero, bad.close, bad.volume, bad.ts_event, bad.ts_init)

    class Fills(LateHistory):
        def on_bar(self, bar: EngineBar) -> None:
            if bar.ts_event == bars.ts_close[17]:
                for past in (data[15], true[15]):
                    self.on_historical_data(past)
                self.callbacks[-1](None)
            super().on_bar(bar)

    strategy = Fills(config(history_timeout_s=9 * 3600.0))
    strategy.answer_at = int(bars.ts_close[1])
    play(engines, strategy, data, quotes=bars)
    assert strategy.failure is None
    assert made[0].seen == bars.ts_close.tolist()
    assert len(strategy.record) == 29


def test_a_bar_that_the_forecaster_refuses_is_skipped(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(20)
    update = ToldForecaster.update

    def refuse(self: ToldForecaster, bar: Bar) -> Any:
        if bar.ts_close == bars.ts_close[9]:
            raise BarsError("impossible values")
        return update(self, bar)

    monkeypatch.setattr(ToldForecaster, "update", refuse)
    strategy = LSTMStrategy(config())
    play(engines, strategy, engine_bars(bars), quotes=bars)
    assert strategy.failure is None
    assert made[0].seen == np.delete(bars.ts_close, 9).tolist()


def test_a_reset_forgets_everything(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda ts: 0.001)
    bars = random_bars(20)
    strategy = Breaks(config())
    play(engines, strategy, engine_bars(bars), quotes=bars)
    first = told(strategy)
    strategy.risk = RiskState(0, 50_000.0, 50_000.0, 100_000.0, drawdown_halt=True)
    strategy.failure = ZeroDivisionError("old")
    engines[0].reset()
    assert (strategy.risk, strategy.failure, len(strategy.record)) == (None, None, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engines[0].run()
    assert told(strategy) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limits": LimitsConfig(side="long_short")}, "cannot short"),
        ({"instrument_id": to_engine(PERPETUAL).id}, "not known to the engine"),
        ({"bar_type": bar_type(PERPETUAL.id, HOUR)}, "is not of instrument"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_start(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    tell(monkeypatch, lambda _: 0.001)
    with pytest.raises(LSTMStrategyError, match=message):
        play(engines, LSTMStrategy(config(**changes)), engine_bars(random_bars(5)))


def test_a_missing_artefact_is_refused_at_the_start(engines: list[BacktestEngine]) -> None:
    with pytest.raises(LSTMStrategyError, match="models"):
        play(engines, LSTMStrategy(config()), engine_bars(random_bars(5)))


def test_state_survives(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(20)
    first = LSTMStrategy(config())
    play(engines, first, engine_bars(bars[:10]))
    state = first.on_save()
    assert not any(key in "expire_time_ns" or key.startswith("ts_") for key in state)
    second = LSTMStrategy(config())
    second.on_load(state)
    assert second.risk == first.risk
    play(engines, second, engine_bars(bars[8:]))
    assert made[1].seen == bars.ts_close[10:].tolist()
    damaged = LSTMStrategy(config())
    damaged.on_load({"forecaster": b"rubbish"})
    play(engines, damaged, engine_bars(bars[8:]))
    assert made[2].seen == bars.ts_close[8:].tolist()


def test_a_start_that_failed_gives_back_what_it_began_with(engines: list[BacktestEngine]) -> None:
    """Whoever saves it, as a node with a database does at its end, must not write thin state over the good one."""
    state = {
        "forecaster": b"a snapshot",
        "exits": b"exits",
        "uncounted": b"2",
        "risk": RiskState(0, 50_000.0, 50_000.0, 100_000.0, drawdown_halt=True).encode(),
    }
    for made in (LSTMStrategy(config()), LSTMPortfolioStrategy(LSTMPortfolioStrategyConfig(members=()))):
        assert made.on_save() == {}
        made.on_load(state)
        assert made.on_save() == state, "before it has started"
    strategy = LSTMStrategy(config())
    strategy.on_load(state)
    with pytest.raises(LSTMStrategyError, match="models"):
        play(engines, strategy, engine_bars(random_bars(5)))
    assert strategy.on_save() == state, "a start that failed"
    actor = ForecastActor(
        ForecastActorConfig(instrument_id=config().instrument_id, bar_type=config().bar_type, model=config().model)
    )
    actor.on_load(state)
    assert actor.on_save() == {"forecaster": b"a snapshot"}


def test_a_latched_halt_survives(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(5)
    strategy = LSTMStrategy(config())
    strategy.risk = RiskState(0, 50_000.0, 50_000.0, 100_000.0, drawdown_halt=True)
    reborn = LSTMStrategy(config())
    reborn.on_load(strategy.on_save())
    play(engines, reborn, engine_bars(bars), quotes=bars)
    assert {decision.reason.value for decision in reborn.record.decisions} == {"halt_drawdown"}
    assert not engines[0].cache.orders()


def test_it_can_be_imported_from_a_plain_dictionary() -> None:
    path = "lstm_strategy.nautilus.strategy"
    strategy = StrategyFactory.create(
        ImportableStrategyConfig(
            strategy_path=f"{path}:LSTMStrategy",
            config_path=f"{path}:LSTMStrategyConfig",
            config={
                "instrument_id": SPOT.id,
                "bar_type": str(bar_type(SPOT.id, HOUR)),
                "model": "models/x/1",
                "sizing": {"horizon": 4, "target_volatility": 0.2},
                "limits": {"max_exposure": 0.5},
                "costs": {"fee": 0.0005},
            },
        )
    )
    assert isinstance(strategy, LSTMStrategy)
    assert strategy.settings.sizing.horizon == 4
    assert strategy.settings.limits.max_exposure == 0.5


def test_the_stub_refuses_what_the_forecaster_refuses() -> None:
    stub = ToldForecaster(lambda _: 0.0)
    bar = next(iter(random_bars(1)))
    stub.update(bar)
    with pytest.raises(LSTMStrategyError):
        stub.update(bar)
    assert np.isfinite(stub.last_ts)


class Idle(Strategy):
    """Another strategy of the same trader."""


@pytest.mark.parametrize("account", [AccountType.CASH, AccountType.MARGIN])
@pytest.mark.parametrize("others", [0, 1])
def test_another_strategy_on_a_cash_account_is_warned_of_by_name(
    others: int, account: AccountType, engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    said: list[str] = []
    monkeypatch.setattr("lstm_strategy.nautilus.session._warn", lambda _, text: said.append(text))
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engines.append(engine)
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, account, [Money(100_000, USDT)])
    engine.add_instrument(to_engine(SPOT))
    ours = LSTMStrategy(config(order_id_tag="A"))
    engine.add_strategy(ours)
    for _ in range(others):
        engine.add_strategy(Idle(StrategyConfig(order_id_tag="B")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        engine.run()
    assert ours.failure is None
    if others and account == AccountType.CASH:
        (text,) = said
        assert text.startswith(f"Idle-B beside {ours.id}: on the cash account")
    else:
        assert not said
