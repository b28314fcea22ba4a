"""A seat: what a strategy of several instruments keeps for one of them, with the parts a strategy of one is made of."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import msgspec

from lstm_strategy.bars import Bar
from lstm_strategy.decision import Decision, PortfolioState, RiskState, Seen, advance, count_order
from lstm_strategy.decision_log import Entry
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.nautilus.account import Holdings
from lstm_strategy.nautilus.closing import Closing
from lstm_strategy.nautilus.engine import OrderFilled
from lstm_strategy.nautilus.exits import QUIET
from lstm_strategy.nautilus.feed import Closed, Feed
from lstm_strategy.nautilus.flows import Flows
from lstm_strategy.nautilus.idle import Idle
from lstm_strategy.nautilus.keeper import Keeper
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.record import RunRecord, open_journal, step_of
from lstm_strategy.nautilus.rounds import Arrival, Speaker
from lstm_strategy.nautilus.seat_memory import SeatMemory
from lstm_strategy.nautilus.session import open_session
from lstm_strategy.nautilus.turns import Turns
from lstm_strategy.nautilus.view import View
from lstm_strategy.panel import Member, Weighed

if TYPE_CHECKING:
    from lstm_strategy.nautilus.strategy import LSTMStrategy
    from lstm_strategy.nautilus.strategy_config import LSTMStrategyConfig

__all__ = ["Seat"]


class Seat:
    """One instrument of several: its feed, desk, limits' memory, and what its trades alone have brought.

    Attributes
    ----------
    bar : Bar or None
        The last one that closed, waiting ones included.
    latest : Forecast or None
        The last one made.
    risk : RiskState or None
        Its own orders, sides and losses; equity and halts are the account's.
    """

    def __init__(
        self,
        strategy: Any,
        settings: LSTMStrategyConfig,
        *,
        on_closed: Closed,
        on_past: Any,
        least_ns: int,
        turns: Turns,
        idle: Idle,
        phase: int,
    ) -> None:
        self.name, self.settings = settings.instrument_id.value, settings
        self.record = RunRecord(self.name) if settings.record else None
        self.bar: Bar | None = None
        self.latest: Forecast | None = None
        self._spoke: Speaker | None = None  # with the latest
        self.risk: RiskState | None = None
        self.held: Holdings | None = None
        self.state: PortfolioState | None = None
        self.closing: Closing | None = None
        self._flows = Flows()
        self._keeper: Keeper = strategy.keeper
        self._view = cast("LSTMStrategy", View(strategy, settings, self.record))
        self.session = open_session(self._view)
        self.desk = self.session.desk
        together = strategy.settings.portfolio, idle, len(strategy.settings.members)
        self.journal = open_journal(self._view, self.session, *together)
        self.feed = Feed(
            self._view,
            self.session,
            settings.bar_type,
            settings,
            on_closed=on_closed,
            on_past=on_past,
            least_ns=least_ns,
            turns=turns,
            phase=phase,
        )
        self._memory = SeatMemory(self.name, self.session, self.feed, self._flows)

    @property
    def price(self) -> float:
        """The last close; the price the position was entered at where there is none yet; NaN without either."""
        if self.bar is not None:
            return self.bar.close
        for position in self._positions():
            return float(position.avg_px_open)
        return math.nan

    @property
    def set_aside(self) -> float:
        """What a purchase keeps back for its costs and a higher fill, as a fraction of its value."""
        return self.desk.set_aside(self._scale())

    def arrival(self, bar: Bar, forecast: Forecast | None, *, waiting: bool) -> Arrival:
        """Return its bar for a round, with all that the forecaster knows at this bar alone."""
        step = None if self.journal is None else step_of(self.session.model, waiting=waiting)
        return Arrival(bar, forecast, waiting, self.session.outside_range(forecast), step, self._speaker())

    def _speaker(self) -> Speaker:
        model = self.session.model
        return Speaker(model.version, model.trained, model.bars_per_year, model.closed_ns)

    def look(self, balance: float) -> float:
        """Read what is held; return what it adds to the account's balance."""
        price = self.price
        if not math.isfinite(price):
            self.held = None
            return 0.0
        self.held = held = self.desk.look(price)
        if self._flows.value is None:
            self._flows.value = -float(held.position) * price
        return held.equity - balance

    def mark(self, ts_close: int, equity: float, limits: LimitsConfig, arrival: Arrival | None) -> None:
        """Advance the limits' memory by one close; an absent name's remembers its last bar."""
        held, session = self.held, self.session
        position = 0.0 if held is None else float(held.position)
        result = self._result(position)
        before = self.risk
        if before is None:
            before = msgspec.structs.replace(RiskState.start(ts_close, equity, position), trade_equity=result)
        if arrival is None:
            risk = msgspec.structs.replace(advance(before, ts_close, equity, limits), ts_close=before.ts_close)
        else:
            scale = math.nan if arrival.forecast is None else arrival.forecast.scale
            closed_ns = (arrival.speaker or self._speaker()).closed_ns
            seen = Seen(position, arrival.bar.close, scale, session.timeframe.ns, closed_ns, result)
            risk = advance(before, ts_close, equity, limits, seen)
        if math.isfinite(risk.equity):  # it was known once
            self.risk = self._keeper.halted_by_order(risk)
        self.count_orders()
        unit = self.price / equity if equity else math.nan
        exposure, pending = 0.0, 0.0
        if held is not None:
            self.held = msgspec.structs.replace(held, equity=equity)
            exposure, pending = position * unit, float(held.pending) * unit
        self.state = PortfolioState(ts_close, equity, exposure, self.risk or risk, pending)

    def member(self, arrival: Arrival | None, latest_since: int, **others: float) -> Member:
        """Return what it brings to the decision; ``others``: gross and net exposure of the other names."""
        assert self.state is not None  # noqa: S101 - marked before
        forecast = None if arrival is None or arrival.waiting else arrival.forecast
        if arrival is not None and forecast is not None:
            self.latest, self._spoke = forecast, arrival.speaker
        speaker = self._spoke or self._speaker()
        latest = self.latest if self.latest is not None and self.latest.ts_close >= latest_since else None
        stale = arrival is None or arrival.waiting
        watch = QUIET
        if arrival is not None and self.held is not None:
            desk, bar = self.desk, arrival.bar
            watch = desk.watch(self.held, bar.ts_close, bar.close, forecast, speaker.closed_ns)
        conditions = watch.conditions(
            ready=forecast is None or self.feed.armed,
            parity=forecast is None or self.feed.proved,
            outside_range=arrival is not None and arrival.outside_range,
            stale=stale,
        )
        return Member(
            state=msgspec.structs.replace(self.state, **others),
            trained=speaker.trained,
            bars_per_year=speaker.bars_per_year,
            costs=self.settings.costs,
            forecast=forecast,
            latest=latest,
            conditions=conditions,
        )

    def act(self, decision: Decision, spendable: float | None) -> tuple[Decimal, Action]:
        """Send, cancel or wait, spending no more than this name's part of the cash."""
        held = self.held
        if held is None:
            return Decimal(0), Action.NOT_READY
        quantity, action = self.desk.act(decision, held, self.price, self._scale(), spendable)
        self.count_orders()
        return quantity, action

    def note(
        self, arrival: Arrival | None, weighed: Weighed, decision: Decision, action: Action, quantity: Decimal
    ) -> None:
        """Keep what came of one close: in memory for a backtest's tables, on disk for whoever asks why."""
        if arrival is None:  # its bar is missing: the last close before it, and nothing else
            bar = Bar(decision.ts_close, math.nan, math.nan, math.nan, self.price, math.nan)
            arrival = Arrival(bar, None, step=(None, None, (self._spoke or self._speaker()).version))
        forecast = None if arrival.waiting else arrival.forecast
        if self.record is not None:
            equity = weighed.state.equity
            self.record.add(decision, forecast, action, float(quantity), self.price, equity)
        if self.journal is not None:
            x_F, raw_HQ, version = arrival.step
            self.journal.add(
                Entry(
                    arrival.bar,
                    forecast,
                    x_F,
                    raw_HQ,
                    version,
                    conditions=weighed.conditions,
                    state=weighed.state,
                    position=0.0 if self.held is None else float(self.held.position),
                    decision=decision,
                    waiting=arrival.waiting,
                    action=action,
                    quantity=float(quantity),
                    worth=weighed.worth,
                )
            )

    def tend(self) -> None:
        """Keep the exit in line with the position."""
        if self.held is not None:
            self.desk.tend()

    def count_orders(self) -> None:
        """Note the orders sent since the last time, those that had to wait for the venue included."""
        for _ in range(self.desk.newly_sent()):
            if self.risk is not None:
                self.risk = count_order(self.risk)

    def on_event(self, event: Any, *, running: bool) -> None:
        """Keep count of what fills cost; go on closing, or with what waited for the venue."""
        self.desk.learn(event)
        if isinstance(event, OrderFilled):
            self._flows.count(event, cast("Any", self._view).cache.order(event.client_order_id))
        if self.closing is not None:
            self.closing.on_event(event)
        elif running and self.desk.attentive:
            self.desk.on_event(event)

    def close(self, *, flatten: bool) -> None:
        """Wind up: cancel, and flatten where asked for."""
        self.feed.stop()
        if self.journal is not None:
            self.journal.flush()
        if not self._view.left:
            self.closing = Closing(self._view, self.desk, flatten=flatten)
            self.closing.go_on()

    @property
    def model_label(self) -> str:
        """Name and version of its model."""
        return self.session.model.label

    def light(self) -> tuple[Any, ...]:
        """What an event may change of its state."""
        return self._memory.light(self.risk)

    def flatten(self) -> None:
        """Cancel and close, whether the strategy runs on or has been stopped."""
        if self._view.left:
            return
        if self.closing is None or not self.closing.flattens or self.closing.gave_up:
            self.end_closing()
            self.closing = Closing(self._view, self.desk, flatten=True)
            self.closing.go_on()

    def end_closing(self) -> None:
        """Trade again."""
        if self.closing is not None:
            self.closing.end()
            self.closing = None

    def encode(self) -> bytes:
        """Return what a restart must know."""
        return self._memory.encode(self.risk)

    def restore(self, content: bytes) -> bytes | None:
        """Take back what `encode` gave; return the forecaster's part."""
        self.risk, forecaster = self._memory.restore(content)
        return forecaster

    def _positions(self) -> list[Any]:
        view: Any = self._view
        return list(view.cache.positions_open(instrument_id=self.settings.instrument_id, strategy_id=view.id))

    def _result(self, position: float) -> float:
        flows = self._flows.value
        return 0.0 if flows is None else flows + position * self.price

    def _scale(self) -> float:
        return 0.0 if self.latest is None else self.latest.scale
