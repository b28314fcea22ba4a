"""The strategy: closed bars in, one decision each, at most one working order; the same in backtest, paper and live."""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.bars import Bar, Timeframe, format_ns
from lstm_strategy.decision import (
    Costs,
    LimitsConfig,
    PortfolioState,
    RiskState,
    SizingConfig,
    advance,
    decide,
)
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.desk import Desk
from lstm_strategy.nautilus.engine import (
    AccountType,
    BarType,
    EngineBar,
    InstrumentId,
    loud,
)
from lstm_strategy.nautilus.history import History, on_grid, timeframe_of, to_bar, to_bars
from lstm_strategy.nautilus.model import Model, open_model
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.record import RunRecord

__all__ = ["LSTMStrategy", "LSTMStrategyConfig"]

# More than the warm-up is asked for, since weekends and outages leave holes in a span of time.
_HISTORY_FACTOR, _HISTORY_SLACK_BARS = 1.7, 72


class LSTMStrategyConfig(StrategyConfig, frozen=True, kw_only=True):
    """Settings of `LSTMStrategy`.

    Parameters
    ----------
    instrument_id, bar_type : str
        Such as ``BTCUSDT.BINANCE`` and ``BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL``.
    model : str
        The artefact's folder, ``models/<name>/<version>``.
    sizing, limits, costs
        As in `lstm_strategy.decision`.
    cash_buffer : float
        Share of a purchase's price set aside, beside its costs, for a higher fill (cash accounts).
    retarget_tolerance : float
        How far, as a fraction of equity, the target may move before a working order is cancelled.
    flatten_on_stop : bool
        Whether a stop closes the position; orders are cancelled in any case.
    history_timeout_s : float
        Wall seconds after which an unanswered request for history is repeated.
    record : bool
        Whether to keep every bar's decision in memory (backtests).
    """

    instrument_id: InstrumentId
    bar_type: BarType
    model: str
    sizing: SizingConfig = SizingConfig()
    limits: LimitsConfig = LimitsConfig()
    costs: Costs = Costs()
    cash_buffer: float = 0.002
    retarget_tolerance: float = 0.02
    flatten_on_stop: bool = False
    history_timeout_s: float = 30.0
    record: bool = False


@dataclass(frozen=True, slots=True)
class _Session:
    """What exists from start on."""

    timeframe: Timeframe
    model: Model
    desk: Desk


class LSTMStrategy(Strategy):  # type: ignore[misc]
    """Trades one instrument on an artefact's forecasts.

    Attributes
    ----------
    failure : Exception or None
        What stopped the strategy, if anything did.
    record : RunRecord or None
        Every bar's decision, where the configuration asks for it.
    """

    def __init__(self, config: LSTMStrategyConfig) -> None:
        super().__init__(config)
        self.settings = config
        self.failure: Exception | None = None
        self.record = RunRecord(config.instrument_id.value) if config.record else None
        self.risk: RiskState | None = None
        self._session: _Session | None = None
        self._history: History | None = None
        self._restored: bytes | None = None
        self._armed = False
        self._bars_since_trade = 0

    def on_start(self) -> None:
        """Verify model and instrument, then ask for history; a problem here is raised, before any order."""
        settings = self.settings
        self._session = session = self._open_session()
        if self._restored is not None:
            try:
                session.model.forecaster.restore(self._restored)
            except LSTMStrategyError as error:
                self.log.warning(f"{error}; warming up from history")
        self._history = History()
        self.subscribe_bars(settings.bar_type)
        self._request_history(session)
        if self._history is not None:  # not answered at once, as it is in a backtest
            interval = timedelta(seconds=settings.history_timeout_s)
            self.clock.set_timer(f"{self.id}-history", interval, callback=self._on_history_timeout)
        if self.failure is not None:
            raise self.failure

    def _open_session(self) -> _Session:
        settings = self.settings
        instrument = self.cache.instrument(settings.instrument_id)
        if instrument is None:
            raise LSTMStrategyError(f"{settings.instrument_id} is not known to the engine; nothing can be traded")
        if settings.bar_type.instrument_id != settings.instrument_id:
            raise LSTMStrategyError(f"bar_type {settings.bar_type} is not of instrument {settings.instrument_id}")
        may_short = settings.limits.side == "long_short"
        account = self.portfolio.account(settings.instrument_id.venue)
        if may_short and account is not None and account.type == AccountType.CASH:
            raise LSTMStrategyError(f"limits.side is long_short; the cash account {account.id} cannot short")
        desk = Desk(
            self,
            instrument,
            may_short=may_short,
            costs=settings.costs,
            cash_buffer=settings.cash_buffer,
            tolerance=settings.retarget_tolerance,
        )
        timeframe = timeframe_of(settings.bar_type)
        model = open_model(Path(settings.model), settings.instrument_id.value, timeframe, settings.sizing.horizon)
        return _Session(timeframe, model, desk)

    def _request_history(self, session: _Session) -> None:
        needed = session.model.forecaster.warmup_bars * _HISTORY_FACTOR + _HISTORY_SLACK_BARS
        start = datetime.fromtimestamp(max(self.clock.timestamp_ns() - needed * session.timeframe.ns, 0) / 1e9, UTC)
        self.request_bars(self.settings.bar_type, start=start, callback=self._on_history)

    def on_historical_data(self, data: Any) -> None:
        """Keep a bar of the requested history; everything else, and everything later, is somebody else's."""
        session = self._session
        if session is None or self._history is None:
            return
        if isinstance(data, EngineBar) and data.bar_type == self.settings.bar_type:
            ts_close = on_grid(data.ts_event, session.timeframe)
            # A venue's newest bar may still be forming: it is no bar yet.
            if ts_close is not None and ts_close <= self.clock.timestamp_ns():
                self._history.add_past(to_bar(data, ts_close))

    @loud
    def _on_history(self, _request_id: Any) -> None:
        if self._session is not None and self._history is not None:
            self._finish_warm_up(self._session, self._history)

    @loud
    def _on_history_timeout(self, _event: Any) -> None:
        if self._session is not None and self._history is not None:
            self.log.warning(f"No history of {self.settings.bar_type} yet; asking again")
            self._request_history(self._session)

    def _finish_warm_up(self, session: _Session, history: History) -> None:
        """Take the history and the live bars that came before it; only the newest bar may lead to an order."""
        forecaster = session.model.forecaster
        past, live = history.merged(forecaster.last_ts)
        self._history = None
        self.clock.cancel_timers()
        if past:
            forecaster.warm_up(to_bars(self.settings.instrument_id.value, session.timeframe, past))
        if not forecaster.ready:
            self.log.warning(f"History is too short: {len(past)} bars; the warm-up takes {forecaster.warmup_bars}")
        for bar in live:
            self._take(session, bar, may_trade=bar is live[-1])

    @loud
    def on_bar(self, bar: EngineBar) -> None:
        """Decide on a closed bar; put it aside while history is on its way."""
        session = self._session
        if session is None or bar.bar_type != self.settings.bar_type or self.failure is not None:
            return
        ts_close = on_grid(bar.ts_event, session.timeframe)
        if ts_close is None:
            self.log.warning(f"Ignored a bar stamped {format_ns(bar.ts_event)}: not a close of {session.timeframe}")
            return
        if self._history is None:
            self._take(session, to_bar(bar, ts_close), may_trade=True)
            return
        self._history.add_live(to_bar(bar, ts_close))
        if self._history.live_bars > session.model.forecaster.warmup_bars:
            self._finish_warm_up(session, self._history)

    def _take(self, session: _Session, bar: Bar, *, may_trade: bool) -> None:
        """Forecast, mark to market, decide, act, record."""
        forecaster, settings = session.model.forecaster, self.settings
        if forecaster.last_ts is not None and bar.ts_close <= forecaster.last_ts:
            self.log.debug(f"Ignored a repeated or late bar of {format_ns(bar.ts_close)}")
            return
        forecast = forecaster.update(bar)
        self._armed = self._armed or forecaster.ready
        self._bars_since_trade += 1
        held = session.desk.look(bar.close)
        risk = self.risk or RiskState.start(bar.ts_close, held.equity)
        if math.isfinite(held.equity):
            self.risk = risk = advance(risk, bar.ts_close, held.equity, settings.limits)
        unit = bar.close / held.equity if held.equity else math.nan
        state = PortfolioState(
            ts_close=bar.ts_close,
            equity=held.equity,
            exposure=float(held.position) * unit,
            working_exposure=float(held.pending) * unit,
            risk=risk,
            bars_since_trade=self._bars_since_trade,
        )
        decision = decide(
            forecast,
            state,
            settings.sizing,
            settings.limits,
            settings.costs,
            shrinkage=session.model.shrinkage,
            bars_per_year=session.timeframe.bars_per_year,
        )
        quantity, action = Decimal(0), Action.NOT_READY
        if self._armed and may_trade:
            quantity, action = session.desk.act(decision, held, bar.close)
        if self.record is not None:
            self.record.add(decision, forecast, action, float(quantity), bar.close, held.equity)

    @loud
    def on_order_filled(self, event: Any) -> None:
        """Count bars since the last trade from here."""
        self._bars_since_trade = 0

    @loud
    def _on_refusal(self, event: Any) -> None:
        """Say so; the next bar decides anew. An order whose cancel was refused still counts as working."""
        text = f"{type(event).__name__} {event.client_order_id}: {event.reason}"
        self.log.error(text)
        if self.record is not None:
            self.record.refusals.append(text)

    on_order_rejected = on_order_denied = on_order_cancel_rejected = _on_refusal

    def fail(self, where: str, error: Exception) -> None:
        """Remember the first exception, log it whole, and stop: `on_stop` cancels, and flattens if so configured."""
        self.failure = self.failure or error
        self.log.error(f"Stopped by an exception in {where}:\n{''.join(traceback.format_exception(error))}")
        if self.is_running:
            self.stop()

    def on_stop(self) -> None:
        """Cancel our orders, and close the position if so configured."""
        self.clock.cancel_timers()
        if self._session is not None:
            self._session.desk.close(flatten=self.settings.flatten_on_stop)

    def on_save(self) -> dict[str, bytes]:
        """Return the forecaster's snapshot and the halts; the engine takes keys such as "time" for stamps."""
        state = {}
        if self._session is not None and self._session.model.forecaster.last_ts is not None:
            state["forecaster"] = self._session.model.forecaster.state()
        if self.risk is not None:
            state["risk"] = msgspec.msgpack.encode(self.risk)
        return state

    def on_load(self, state: dict[str, bytes]) -> None:
        """Take back what `on_save` gave; the forecaster follows in `on_start`, when its model is known."""
        self._restored = state.get("forecaster")
        if "risk" in state:
            self.risk = msgspec.msgpack.decode(state["risk"], type=RiskState)
