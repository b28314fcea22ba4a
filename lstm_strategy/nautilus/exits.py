"""The one exit order that rests at the venue: placed, resized, moved, taken off, and missed when it is not there."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

import msgspec
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.decision import FINE, Conditions
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.exits import ExitsConfig, ExitState, deviation, due, level_reached, open_exits, take_bar
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.account import EXIT_TAG, Holdings, is_exit, own
from lstm_strategy.nautilus.engine import (
    EngineInstrument,
    Order,
    OrderAccepted,
    OrderDenied,
    OrderFilled,
    OrderRejected,
    OrderSide,
    OrderType,
)
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.orders import Rules
from lstm_strategy.nautilus.venues import rules_at
from lstm_strategy.reasons import Reason

__all__ = ["QUIET", "Guard", "Watch"]


class Watch(NamedTuple):
    """What a bar's close says of the exits, for `decision.Conditions`."""

    exit: Reason | None = None
    unprotected: bool = False
    paused: bool = False

    def conditions(self, *, ready: bool, parity: bool, outside_range: bool = False, stale: bool = False) -> Conditions:
        """Return it beside what else the driver knows of a bar; `FINE` where nothing is wrong."""
        if ready and parity and not (outside_range or stale or any(self)):
            return FINE
        return Conditions(ready, parity, stale, outside_range, self.unprotected, self.paused, self.exit)


QUIET = Watch()


class _Wanted(NamedTuple):
    quantity: Decimal
    level: Decimal  # the stop's trigger, or the take-profit's limit


class _Kept(msgspec.Struct, frozen=True):
    """What a restart must not forget."""

    state: ExitState | None
    pause: int
    refused: bool
    exiting: bool = False
    spread: float = math.nan
    ts_close: int = 0


class Guard:
    """Keeps at most one exit order at the venue, never larger than the position.

    Everything happens in `sync`, called at each event and each bar: what rests and is wrong is cancelled, and only when
    the venue has said that it is gone the right one follows.

    Attributes
    ----------
    order : Order or None
        The last exit sent; it counts as alive before the engine takes note of it.
    """

    def __init__(self, strategy: Strategy, instrument: EngineInstrument, config: ExitsConfig, bar_ns: int) -> None:
        neutral = from_engine(instrument)
        self._strategy, self._instrument, self._config = strategy, instrument, config
        self._rules, self._tick = Rules.of(neutral), Decimal(neutral.tick)
        self._venue = rules_at(instrument.id.venue.value, neutral.kind)
        self._bar_ns = bar_ns
        self.order: Order | None = None
        self._state: ExitState | None = None
        self._spread, self._ts_close = math.nan, 0
        self._pause, self._exiting = 0, False
        self._refused, self._waits = False, False  # the second until the next bar

    def on_bar(self, held: Holdings, ts_close: int, close: float, forecast: Forecast | None, closed_ns: int) -> Watch:
        """Take a bar's close: count, trail, and say whether the position must end, or must not grow."""
        spread = deviation(forecast, self._config.horizon)
        if math.isfinite(spread):
            self._spread = spread
        self._track(held)
        if ts_close > self._ts_close:
            self._ts_close, self._waits = ts_close, False
            paused = self._state is None and self._pause > 0
            self._pause -= paused
        else:
            paused = False
        order = next(iter(held.exits), None)
        if self._state is None:  # without a deviation an entry would have no stop
            unknown = self._rests_stop and not math.isfinite(self._spread)
            return Watch(None, self._config.required and (self._refused or unknown), paused)
        triggered = bool(getattr(order, "is_triggered", False))
        self._state = take_bar(
            self._state,
            ts_close,
            close,
            self._spread,
            self._config,
            bar_ns=self._bar_ns,
            closed_ns=closed_ns,
            triggered=triggered,
        )
        if level_reached(self._state, close):  # a refusal by a price that has gone past says nothing of the next stop
            self._refused = False
        limit = float(order.price) if order is not None and order.has_price and self._rests_stop else math.nan
        reason = due(self._state, close, self._config, resting=order is not None, limit=limit)
        self._exiting = self._exiting or reason is not None
        missing = self._rests_stop and not self._protects(held)
        return Watch(reason, self._config.required and (missing or self._refused), paused)

    def on_event(self, event: Any) -> None:
        """Note what became of our exit: filled, refused, or at the venue."""
        if not self._is_ours(event):
            return
        if isinstance(event, OrderFilled):
            self._exiting = True
        elif isinstance(event, OrderAccepted):
            self._refused = False
        elif isinstance(event, OrderDenied | OrderRejected):
            self._refused = self._waits = True

    def sync(self, held: Holdings) -> None:
        """Bring what rests at the venue to what should, one step at a time; what is in flight calls again."""
        self._track(held)
        wanted = self._wanted(held)
        if wanted is not None and len(held.exits) == 1 and self._fits(held.exits[0], wanted):
            return
        if held.exits:
            self.release(held)
        elif wanted is not None and not self._waits and not _settling(held):
            self._send(held, wanted)

    def release(self, held: Holdings) -> None:
        """Call every exit back; those in flight, or being cancelled, tell by their events."""
        for order in held.exits:
            if order.is_open and not order.is_pending_cancel:
                self._strategy.cancel_order(order)

    def encode(self) -> bytes:
        """Return what a restart must know."""
        return msgspec.msgpack.encode(
            _Kept(self._state, self._pause, self._refused, self._exiting, self._spread, self._ts_close)
        )

    def restore(self, content: bytes) -> None:
        """Take back what `encode` gave.

        Raises
        ------
        LSTMStrategyError
            For anything else: a trailing stop might be loosened.
        """
        try:
            kept = msgspec.msgpack.decode(content, type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LSTMStrategyError(
                f"the saved exits are damaged ({error}): look at the orders, then remove them"
            ) from None
        self._state, self._pause, self._refused = kept.state, kept.pause, kept.refused
        self._exiting, self._spread, self._ts_close = kept.exiting, kept.spread, kept.ts_close
        # What was written last may be older than what was sent last: a stop is never loosened.
        if self._state is None or not self._rests_stop:
            return
        ours = own(self._strategy.cache.orders_open(), self._instrument.id, self._strategy.id)
        side = self._state.side
        found = _level_found([order for order in ours if is_exit(order)], side)
        if math.isfinite(found) and not (found - self._state.stop) * side <= float(self._tick):
            self._state = msgspec.structs.replace(self._state, stop=found)

    @property
    def _rests_stop(self) -> bool:
        return self._config.stop is not None

    def _track(self, held: Holdings) -> None:
        """Begin with a new position, end with it; a stop that is found at the venue is taken over."""
        side = (held.position > 0) - (held.position < 0)
        if self._state is not None and side == self._state.side:
            return
        if side == 0:
            if self._state is not None and self._exiting:
                self._pause = self._config.pause_bars
            self._state, self._exiting = None, False
            return
        self._exiting = False
        self._state = open_exits(side, held.entry, self._spread, self._config, self._ts_close)
        found = _level_found(held.exits, side)
        if self._rests_stop and math.isfinite(found):
            self._state = msgspec.structs.replace(self._state, stop=found)

    def _is_ours(self, event: Any) -> bool:
        """Say whether an event is of the last exit sent; one sent before a restart is known to the engine alone."""
        name = getattr(event, "client_order_id", None)
        if self.order is None and name is not None:
            known = self._strategy.cache.order(name)
            if known is not None and known.instrument_id == self._instrument.id and is_exit(known):
                self.order = known
        return self.order is not None and name == self.order.client_order_id

    def _wanted(self, held: Holdings, *, whole: bool = False) -> _Wanted | None:
        """Return what should rest; ``whole``: as if all coins of the position could be sold."""
        state = self._state
        if state is None:
            return None
        level = state.stop if self._rests_stop else state.take_profit
        if not (self._config.resting and math.isfinite(level)):
            return None
        price = max((Decimal(level) / self._tick).to_integral_value(ROUND_HALF_EVEN), Decimal(1)) * self._tick
        size = min(abs(held.position), self._rules.max_quantity)
        if held.sellable is not None and not whole:  # fees may have been taken from it; what our exit locks is ours
            size = min(
                size, max(held.sellable + sum((o.leaves_qty.as_decimal() for o in held.exits), Decimal(0)), Decimal(0))
            )
        size = (size / self._rules.lot).to_integral_value(ROUND_FLOOR) * self._rules.lot
        if not size or size < self._rules.min_quantity or size * price < self._rules.min_notional:
            return None  # dust, which no venue takes an order for
        return _Wanted(size, price)

    def _fits(self, order: Order, wanted: _Wanted) -> bool:
        """Say whether a resting order may stay: its size is right, and its level, or nearly where it trails."""
        state = self._state
        if state is None or order.leaves_qty.as_decimal() != wanted.quantity:
            return False
        if (order.side == OrderSide.SELL) != (state.side > 0):
            return False
        level = order.trigger_price if order.has_trigger_price else order.price
        off = abs(level.as_decimal() - wanted.level)
        if getattr(order, "is_triggered", False) or not off:
            return True
        distance = (self._config.stop or 0.0) * self._spread * float(wanted.level)
        return self._config.trailing and float(off) < self._config.least_move * distance

    def _protects(self, held: Holdings) -> bool:
        if self._wanted(held, whole=True) is None:  # dust needs none; a position without a known level does
            return self._state is None or math.isfinite(self._state.stop)
        wanted = self._wanted(held)
        if wanted is None:  # its coins are gone, or locked: by an order of ours that takes from it, or by somebody's
            return _settling(held)
        resting = sum((order.leaves_qty.as_decimal() for order in held.exits if order.is_open), Decimal(0))
        return resting >= min(wanted.quantity, abs(held.position))

    def _send(self, held: Holdings, wanted: _Wanted) -> None:
        instrument, factory = self._instrument, self._strategy.order_factory
        side = OrderSide.SELL if held.position > 0 else OrderSide.BUY
        quantity, level = instrument.make_qty(wanted.quantity), instrument.make_price(wanted.level)
        common = {"reduce_only": self._venue.reduce_only, "tags": [EXIT_TAG]}
        if not self._rests_stop:
            order = factory.limit(instrument.id, side, quantity, level, **common)
        elif self._venue.stop == "STOP_MARKET":
            order = factory.stop_market(instrument.id, side, quantity, level, **common)
        else:
            sells = side == OrderSide.SELL
            factor = Decimal(1) + Decimal(str(self._config.limit_offset)) * (-1 if sells else 1)
            limit = (wanted.level * factor / self._tick).to_integral_value(ROUND_FLOOR if sells else ROUND_CEILING)
            price = instrument.make_price(max(limit, Decimal(1)) * self._tick)
            order = factory.stop_limit(instrument.id, side, quantity, price, level, **common)
        self.order = order
        self._strategy.submit_order(order)


def _level_found(exits: list[Order], side: int) -> float:
    """Return the level of a position's stop that is found at the venue, NaN without one."""
    found = [order for order in exits if (order.side == OrderSide.SELL) == (side > 0) and order.has_trigger_price]
    return float(found[0].trigger_price) if found else math.nan


def _settling(held: Holdings) -> bool:
    """Say whether an order of ours reduces the position, or is a market order in the midst of its fills."""
    for order in held.working:
        if (order.side == OrderSide.SELL) == (held.position > 0):
            return True
        if order.order_type == OrderType.MARKET and order.filled_qty.as_decimal() > 0:
            return True
    return False
