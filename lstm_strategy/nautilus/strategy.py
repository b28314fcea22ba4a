"""The strategy: closed bars in, one decision each, at most one working order; the same in backtest, paper and live."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.bars import Bar, format_ns
from lstm_strategy.decision import (
    Costs,
    Decision,
    LimitsConfig,
    PortfolioState,
    RiskState,
    SizingConfig,
    advance,
    decide,
)
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.account import Holdings, look
from lstm_strategy.nautilus.engine import (
    AccountType,
    BarType,
    EngineBar,
    InstrumentId,
    Order,
    OrderSide,
)
from lstm_strategy.nautilus.history import History, on_grid, timeframe_of, to_bar, to_bars
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.model import open_model
from lstm_strategy.nautilus.orders import Action, Rules, plan_order
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


def _loud[T](handler: Callable[[LSTMStrategy, T], None]) -> Callable[[LSTMStrategy, T], None]:
    """Turn an exception in a handler into a stop of the strategy: the engines differ in what they would do with it."""

    @functools.wraps(handler)
    def guarded(self: LSTMStrategy, event: T, /) -> None:
        try:
            handler(self, event)
        except Exception as error:
            self.fail(handler.__name__, error)

    return guarded


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
        self._history: History | None = None
        self._restored: bytes | None = None
        self._armed = False
        self._last_order: Order | None = None
        self._bars_since_trade = 0

    # -- starting ---------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Verify model and instrument, then ask for history; a problem here is raised, before any order."""
        settings = self.settings
        self._instrument = self.cache.instrument(settings.instrument_id)
        if self._instrument is None:
            raise LSTMStrategyError(f"{settings.instrument_id} is not known to the engine; nothing can be traded")
        if settings.bar_type.instrument_id != settings.instrument_id:
            raise LSTMStrategyError(f"bar_type {settings.bar_type} is not of instrument {settings.instrument_id}")
        neutral = from_engine(self._instrument)
        self._spot, self._rules = neutral.kind == "spot", Rules.of(neutral)
        self._timeframe = timeframe_of(settings.bar_type)
        account = self.portfolio.account(settings.instrument_id.venue)
        if account is not None and account.type == AccountType.CASH and settings.limits.side == "long_short":
            raise LSTMStrategyError(f"limits.side is long_short; a cash account on {account.id} cannot short")
        self._model = open_model(
            Path(settings.model), settings.instrument_id.value, self._timeframe, settings.sizing.horizon
        )
        if self._restored is not None:
            self._restore_forecaster(self._restored)
        self._history = History()
        self.subscribe_bars(settings.bar_type)
        self._request_history()
        if self._history is not None:  # not answered at once, as it is in a backtest
            interval = timedelta(seconds=settings.history_timeout_s)
            self.clock.set_timer(f"{self.id}-history", interval, callback=self._on_history_timeout)
        if self.failure is not None:
            raise self.failure

    def _request_history(self) -> None:
        needed = self._model.forecaster.warmup_bars * _HISTORY_FACTOR + _HISTORY_SLACK_BARS
        start = datetime.fromtimestamp(max(self.clock.timestamp_ns() - needed * self._timeframe.ns, 0) / 1e9, UTC)
        self.request_bars(self.settings.bar_type, start=start, callback=self._on_history)

    def on_historical_data(self, data: Any) -> None:
        """Keep a bar of the requested history; everything else, and everything later, is somebody else's."""
        if self._history is not None and isinstance(data, EngineBar) and data.bar_type == self.settings.bar_type:
            ts_close = on_grid(data.ts_event, self._timeframe)
            # A venue's newest bar may still be forming: it is no bar yet.
            if ts_close is not None and ts_close <= self.clock.timestamp_ns():
                self._history.add_past(to_bar(data, ts_close))

    @_loud
    def _on_history(self, _request_id: Any) -> None:
        if self._history is not None:
            self._finish_warm_up()

    @_loud
    def _on_history_timeout(self, _event: Any) -> None:
        if self._history is not None:
            self.log.warning(f"No history of {self.settings.bar_type} yet; asking again")
            self._request_history()

    def _finish_warm_up(self) -> None:
        """Take the history and the live bars that came before it; only the newest bar may lead to an order."""
        assert self._history is not None  # noqa: S101
        forecaster = self._model.forecaster
        past, live = self._history.merged(forecaster.last_ts)
        self._history = None
        self.clock.cancel_timers()
        if past:
            forecaster.warm_up(to_bars(self.settings.instrument_id.value, self._timeframe, past))
        missing = forecaster.warmup_bars - len(past) - len(live)
        if not forecaster.ready and missing > 0:
            self.log.warning(f"History is too short: {missing} more bars of {self._timeframe} until the first forecast")
        for bar in live:
            self._take(bar, may_trade=bar is live[-1])

    # -- bar by bar -------------------------------------------------------------------------------------------------

    @_loud
    def on_bar(self, bar: EngineBar) -> None:
        """Decide on a closed bar; put it aside while history is on its way."""
        if bar.bar_type != self.settings.bar_type or self.failure is not None:
            return
        ts_close = on_grid(bar.ts_event, self._timeframe)
        if ts_close is None:
            self.log.warning(f"Ignored a bar stamped {format_ns(bar.ts_event)}: not a close of {self._timeframe}")
            return
        if self._history is None:
            self._take(to_bar(bar, ts_close), may_trade=True)
            return
        self._history.add_live(to_bar(bar, ts_close))
        if self._history.live_bars > self._model.forecaster.warmup_bars:
            self._finish_warm_up()

    def _take(self, bar: Bar, *, may_trade: bool) -> None:
        """Forecast, mark to market, decide, act, record."""
        forecaster, settings = self._model.forecaster, self.settings
        if forecaster.last_ts is not None and bar.ts_close <= forecaster.last_ts:
            self.log.debug(f"Ignored a repeated or late bar of {format_ns(bar.ts_close)}")
            return
        forecast = forecaster.update(bar)
        self._armed = self._armed or forecaster.ready
        self._bars_since_trade += 1
        held = self._look(bar.close)
        risk = self.risk or RiskState.start(bar.ts_close, held.equity)
        self.risk = advance(risk, bar.ts_close, held.equity, settings.limits) if math.isfinite(held.equity) else risk
        unit = bar.close / held.equity if held.equity else math.nan
        state = PortfolioState(
            ts_close=bar.ts_close,
            equity=held.equity,
            exposure=float(held.position) * unit,
            working_exposure=float(held.pending) * unit,
            risk=self.risk,
            bars_since_trade=self._bars_since_trade,
        )
        decision = decide(
            forecast,
            state,
            settings.sizing,
            settings.limits,
            settings.costs,
            shrinkage=self._model.shrinkage,
            bars_per_year=self._timeframe.bars_per_year,
        )
        quantity, action = Decimal(0), Action.NOT_READY
        if self._armed and may_trade:
            quantity, action = self._act(decision, held, bar.close)
        if self.record is not None:
            self.record.add(decision, forecast, action, float(quantity), bar.close, held.equity)

    def _look(self, price: float) -> Holdings:
        return look(self.cache, self.portfolio, self._instrument, self.id, price, self._last_order, spot=self._spot)

    def _act(self, decision: Decision, held: Holdings, price: float) -> tuple[Decimal, Action]:
        """Send, cancel or wait: no order is sent while another may still fill."""
        settings = self.settings
        if held.working:
            moved = decision.target * held.equity - float(held.position + held.pending) * price
            if abs(moved) <= settings.retarget_tolerance * held.equity:
                return Decimal(0), Action.AWAITING_ORDER
            cancellable = [order for order in held.working if order.is_open and not order.is_pending_cancel]
            for order in cancellable:
                self.cancel_order(order)
            return Decimal(0), Action.CANCELLING if cancellable else Action.AWAITING_ORDER
        if decision.target == decision.exposure:
            return Decimal(0), Action.HELD
        spendable = held.spendable
        if spendable is not None:
            spendable /= 1.0 + settings.costs.per_side + settings.cash_buffer
        quantity, action = plan_order(
            decision.target,
            held.equity,
            price,
            held.position,
            self._rules,
            can_short=settings.limits.side == "long_short" and not held.cash,
            sellable=held.sellable,
            spendable=spendable,
        )
        if quantity:
            self._send(quantity, closes=quantity == -held.position)
        return quantity, action

    def _send(self, quantity: Decimal, *, closes: bool) -> None:
        self._last_order = self.order_factory.market(
            self.settings.instrument_id,
            OrderSide.BUY if quantity > 0 else OrderSide.SELL,
            self._instrument.make_qty(abs(quantity)),
            reduce_only=closes and not self._spot,
        )
        self.submit_order(self._last_order)

    # -- what the venue answers ------------------------------------------------------------------------------------

    @_loud
    def on_order_filled(self, event: Any) -> None:
        """Count bars since the last trade from here."""
        self._bars_since_trade = 0

    @_loud
    def on_order_rejected(self, event: Any) -> None:
        """Say so; the next bar decides anew."""
        self._refused(event)

    @_loud
    def on_order_denied(self, event: Any) -> None:
        """Say so; the next bar decides anew."""
        self._refused(event)

    @_loud
    def on_order_cancel_rejected(self, event: Any) -> None:
        """Say so; the order still counts as working until it is closed."""
        self._refused(event)

    def _refused(self, event: Any) -> None:
        text = f"{type(event).__name__} {event.client_order_id}: {event.reason}"
        self.log.error(text)
        if self.record is not None:
            self.record.refusals.append(text)

    # -- stopping and surviving ------------------------------------------------------------------------------------

    def fail(self, where: str, error: Exception) -> None:
        """Remember the first exception, log it whole, and stop: `on_stop` cancels, and flattens if so configured."""
        self.failure = self.failure or error
        self.log.error(f"Stopped by an exception in {where}:\n{''.join(traceback.format_exception(error))}")
        if self.is_running:
            self.stop()

    def on_stop(self) -> None:
        """Cancel our orders; close the position, less what working sales would still take, if so configured."""
        settings = self.settings
        self.clock.cancel_timers()
        if not hasattr(self, "_instrument") or self._instrument is None:
            return
        held = self._look(0.0)
        self.cancel_all_orders(settings.instrument_id)
        if settings.flatten_on_stop and held.position:
            # What working orders may still sell is not sold twice.
            side = 1 if held.position > 0 else -1
            closing = max(Decimal(0), -side * held.pending)
            left = abs(held.position) - closing
            if left > 0:
                self._send(-side * left, closes=not closing)

    def on_save(self) -> dict[str, bytes]:
        """Return the forecaster's snapshot and the halts; the engine takes keys such as "time" for stamps."""
        state = {}
        if hasattr(self, "_model") and self._model.forecaster.last_ts is not None:
            state["forecaster"] = self._model.forecaster.state()
        if self.risk is not None:
            state["risk"] = msgspec.msgpack.encode(self.risk)
        return state

    def on_load(self, state: dict[str, bytes]) -> None:
        """Take back what `on_save` gave; the forecaster follows in `on_start`, when its model is known."""
        self._restored = state.get("forecaster")
        if "risk" in state:
            self.risk = msgspec.msgpack.decode(state["risk"], type=RiskState)

    def _restore_forecaster(self, state: bytes) -> None:
        try:
            self._model.forecaster.restore(state)
        except LSTMStrategyError as error:
            self.log.warning(f"{error}; warming up from history")
