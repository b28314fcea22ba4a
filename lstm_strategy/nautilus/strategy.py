"""The strategy: closed bars in, one decision each, at most one working order; the same in backtest, paper and live."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec

from lstm_strategy.bars import Bar, format_ns
from lstm_strategy.decision import (
    EXITS,
    HALTS,
    PortfolioState,
    Reason,
    RiskState,
    Seen,
    advance,
    count_order,
    decide,
)
from lstm_strategy.decision_log import Entry
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.closing import Closing
from lstm_strategy.nautilus.desk import Desk
from lstm_strategy.nautilus.engine import EngineBar, loud
from lstm_strategy.nautilus.feed import Feed
from lstm_strategy.nautilus.kept_strategy import KeptStrategy
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.record import Journal, RunRecord, open_journal, step_of
from lstm_strategy.nautilus.session import Session, open_session
from lstm_strategy.nautilus.strategy_config import LSTMStrategyConfig

__all__ = ["LSTMStrategy", "LSTMStrategyConfig"]


class LSTMStrategy(KeptStrategy):
    """Trades one instrument on an artefact's forecasts.

    Attributes
    ----------
    record : RunRecord or None
        Every bar's decision, where the configuration asks for it.
    """

    def __init__(self, config: LSTMStrategyConfig) -> None:
        super().__init__(config)
        self.record = RunRecord(config.instrument_id.value) if config.record else None
        self.risk: RiskState | None = None
        self._session: Session | None = None
        self._feed: Feed | None = None
        self._restored: bytes | None = None
        self._restored_exits: bytes | None = None
        self._uncounted = 0
        self._loaded: dict[str, bytes] = {}  # what was kept of an earlier run, until this one has started
        self._closing: Closing | None = None
        self._journal: Journal | None = None
        self._marked_ts = 0
        self._told: Reason | None = None  # the last bar's reason

    def on_start(self) -> None:
        """Verify model and instrument, then ask for history; a problem here is raised, before any order."""
        settings = self.settings
        self.end_closing()
        self._session = session = open_session(self)
        if kept := self.keeper.open():
            self.on_load(kept)
        session.desk.count_as_sent(self._uncounted)
        self._uncounted = 0
        if self._restored_exits is not None:
            session.desk.restore_exits(self._restored_exits)
        self._journal = open_journal(self, session)
        self._feed = feed = Feed(self, session, settings.bar_type, settings, on_closed=self._on_closed)
        feed.start(self._restored)
        if self.failure is not None:
            raise self.failure
        self._loaded = {}
        self.keeper.begin()

    def on_historical_data(self, data: Any) -> None:
        """Keep a bar of the requested history; everything else, and everything later, is somebody else's."""
        if self._feed is not None:
            self._feed.add_past(data)

    @loud
    def on_bar(self, bar: EngineBar) -> None:
        """Decide on a closed bar; while earlier ones are on their way, put it aside and watch the halts."""
        if self._feed is not None and self.failure is None:
            self.keeper.look()
            self._feed.add(bar)

    def _on_closed(self, bar: Bar, forecast: Forecast | None, *, waiting: bool) -> None:
        if self._session is not None:
            with self.keeper:
                self._decide(self._session, bar, forecast, waiting=waiting)

    def _decide(self, session: Session, bar: Bar, forecast: Forecast | None, *, waiting: bool = False) -> None:
        """Mark to market, run the halts, decide, act, record; while ``waiting`` for bars hold, unless halted."""
        if bar.ts_close < self._marked_ts:
            return
        self._marked_ts = bar.ts_close
        settings, desk, model, price = self.settings, session.desk, session.model, bar.close
        held = desk.look(price)
        equity, position = held.equity, float(held.position)
        scale = math.nan if forecast is None else forecast.scale
        seen = Seen(position, price, scale, session.timeframe.ns, model.closed_ns)
        before = self.risk or RiskState.start(bar.ts_close, equity, position)
        risk = advance(before, bar.ts_close, equity, settings.limits, seen)
        if math.isfinite(risk.equity):  # it was known once
            self.risk = self.keeper.halted_by_order(risk)
        self._count_orders(session)  # those that waited for the venue since the last bar
        risk = self.risk or risk
        unit = price / equity if equity else math.nan
        state = PortfolioState(bar.ts_close, equity, position * unit, risk, float(held.pending) * unit)
        armed = self._feed is not None and self._feed.armed
        watch = desk.watch(held, bar.ts_close, price, forecast, model.closed_ns)
        conditions = watch.conditions(
            ready=forecast is None or armed,
            parity=forecast is None or self._feed is None or self._feed.proved,
            outside_range=session.outside_range(forecast),
        )
        decision = decide(
            forecast,
            state,
            settings.sizing,
            settings.limits,
            settings.costs,
            trained=model.trained,
            bars_per_year=model.bars_per_year,
            conditions=conditions,
        )
        halted = decision.reason in HALTS or decision.reason in EXITS
        if decision.reason != self._told and (halted or decision.reason == Reason.INVALID_FORECAST):
            told = f"{format_ns(bar.ts_close)}: {decision.reason.value} at an equity of {held.equity:.10g}"
            self.log.warning(f"{told}. {risk.halt_text}")
        self._told = decision.reason
        if waiting and not halted:
            decision = msgspec.structs.replace(decision, target=decision.exposure)
        quantity, action = Decimal(0), Action.NOT_READY
        if halted or (not waiting and (armed or abs(decision.target) < abs(decision.exposure))):
            quantity, action = desk.act(decision, held, price, 0.0 if forecast is None else scale)
        self._count_orders(session)
        desk.tend()
        if self.record is not None:
            self.record.add(decision, forecast, action, float(quantity), price, equity)
        if self._journal is not None:
            step, sent = step_of(model, waiting=waiting), float(quantity)
            row = Entry(bar, forecast, *step, conditions, state, position, decision, waiting, action, sent)
            self._journal.add(row)

    def _count_orders(self, session: Session) -> None:
        for _ in range(session.desk.newly_sent()):
            if self.risk is not None:
                self.risk = count_order(self.risk)

    def on_stop(self) -> None:
        """Cancel our orders, and close the position if so configured; `handle_event` sees to what still arrives."""
        if self._feed is not None:
            self._feed.stop()
        if self._journal is not None:
            self._journal.flush()
        if self._session is not None:
            self.end_closing()
            if not self.left:
                flatten = self.settings.flatten_on_stop or self.keeper.halted
                self._closing = Closing(self, self._session.desk, flatten=flatten)
                self._closing.go_on()
        self.keeper.pause()

    def on_resume(self) -> None:
        """Trade again; bars missed meanwhile show as a hole."""
        self.end_closing()
        self.keeper.begin()

    @property
    def collecting(self) -> bool:
        """Whether history, or bars that were missing, are on their way."""
        return self._feed is not None and self._feed.collecting

    @property
    def progress(self) -> tuple[int | None, int, int]:
        """The last bar taken, the bars of a warm-up, and how many of them are still to come."""
        return (None, 0, 0) if self._feed is None else self._feed.progress

    def holders(self) -> dict[str, LSTMStrategy]:
        """Whose halts the keeper latches and lifts."""
        return {self.settings.instrument_id.value: self}

    @property
    def desk(self) -> Desk | None:
        """Its desk, from the start on."""
        return None if self._session is None else self._session.desk

    @property
    def feed(self) -> Feed | None:
        """Its bars, from the start on."""
        return self._feed

    @property
    def model_label(self) -> str:
        """Name and version of the model."""
        return "" if self._session is None else self._session.model.label

    def light(self) -> tuple[Any, ...]:
        """What an event may change of the state."""
        desk = self.desk
        return self.risk, desk and desk.exits_state(), desk and desk.uncounted

    def encode(self) -> None:
        """Nothing: its state is written whole."""

    def flatten(self) -> None:
        """Cancel our orders and close the position, whether the strategy runs on or has been stopped."""
        closing = self._closing
        if self.left:
            return
        if self._session is not None and (closing is None or not closing.flattens or closing.gave_up):
            self.end_closing()
            self._closing = Closing(self, self._session.desk, flatten=True)
            self._closing.go_on()

    def handle_event(self, event: Any) -> None:
        """Go on closing after a stop, when the engine calls no other handler."""
        super().handle_event(event)
        if self._session is not None:
            self._session.desk.learn(event)
        if self._closing is not None:
            self._closing.on_event(event)
        elif self._session is not None and self._session.desk.attentive and self.is_running:
            self._tend(event)
        self.keeper.note(event)
        self.hears(event)

    @loud
    def _tend(self, event: Any) -> None:
        """Send what waited for the venue, and keep the exit in line with the position."""
        if self._session is not None:
            self._session.desk.on_event(event)

    def end_closing(self) -> None:
        """Trade on."""
        if self._closing is not None:
            self._closing.end()
            self._closing = None

    def on_reset(self) -> None:
        """Forget everything but the settings."""
        self.end_closing()
        self.failure = self.risk = self._session = self._feed = self._restored = self._restored_exits = (
            self._journal
        ) = None
        self.record = RunRecord(self.settings.instrument_id.value) if self.settings.record else None
        self._marked_ts, self._told, self._uncounted, self._loaded, self.left = 0, None, 0, {}, False
        self.keeper.forget()

    def on_save(self) -> dict[str, bytes]:
        """Return the forecaster's snapshot and the halts; of a start that failed what it began with.

        The engine takes keys such as "time" for stamps.
        """
        if self._loaded:
            return dict(self._loaded)
        state = {}
        if self._session is not None and self._session.model.forecaster.last_ts is not None:
            state["forecaster"] = self._session.model.forecaster.state()
        if self.risk is not None:
            state["risk"] = self.risk.encode()
        if self._session is not None and (exits := self._session.desk.exits_state()) is not None:
            state["exits"] = exits
        if self._session is not None and self._session.desk.uncounted:
            state["uncounted"] = str(self._session.desk.uncounted).encode()
        return state

    def on_load(self, state: dict[str, bytes]) -> None:
        """Take back what `on_save` gave; the forecaster follows in `on_start`, when its model is known."""
        self._loaded = dict(state)
        self._restored, self._restored_exits = state.get("forecaster"), state.get("exits")
        self._uncounted = int(state.get("uncounted", b"0"))
        if "risk" in state:
            self.risk = RiskState.decode(state["risk"])
