"""Working an order: which kind is sent, how long it may rest, and when patience is over."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from lstm_strategy.execution import ExecutionConfig, limit_price
from lstm_strategy.nautilus.engine import EngineInstrument, Order, OrderSide, OrderType, TimeInForce

__all__ = ["Execution"]


class Execution:
    """Makes the orders of decisions.

    Parameters
    ----------
    bar_ns : int
        Length of a bar: deadlines count closes.
    reduce_only : bool
        Whether an order that closes says so; spot venues know no such thing.
    """

    def __init__(
        self, factory: Any, instrument: EngineInstrument, config: ExecutionConfig, bar_ns: int, *, reduce_only: bool
    ) -> None:
        self._factory, self._instrument, self._config = factory, instrument, config
        self._tick = instrument.price_increment.as_decimal()
        self._bar_ns, self._reduce_only = bar_ns, reduce_only
        self._side, self._since = 0, 0  # of what is being worked, and from which close on

    def order(self, quantity: Decimal, price: float, ts_close: int, *, closes: bool, urgent: bool) -> Order:
        """Return the order for a signed quantity decided on at a close; ``urgent`` ones go at market."""
        side = OrderSide.BUY if quantity > 0 else OrderSide.SELL
        size = self._instrument.make_qty(abs(quantity))
        reduce_only = closes and self._reduce_only
        mode = "market" if urgent else self._config.mode
        if mode == "post_only" and self._patience_is_over(1 if quantity > 0 else -1, ts_close):
            mode = "market"
        if mode == "market":
            return self._factory.market(self._instrument.id, side, size, reduce_only=reduce_only)
        return self._factory.limit(
            self._instrument.id,
            side,
            size,
            self._limit(price, 1 if quantity > 0 else -1),
            time_in_force=TimeInForce.GTC if mode == "post_only" or self._config.rests else TimeInForce.IOC,
            post_only=mode == "post_only",
            reduce_only=reduce_only,
        )

    def overdue(self, working: list[Order], ts_close: int) -> bool:
        """Say whether a limit order has rested long enough: until the next close, or post-only until its deadline."""
        if self._config.mode == "market":
            return False
        resting = [order for order in working if order.order_type == OrderType.LIMIT]
        if resting and not self._side:  # sent before a restart
            self._side, self._since = 1 if resting[0].side == OrderSide.BUY else -1, int(resting[0].ts_init)
        return bool(resting) and (self._config.mode != "post_only" or self._expired(ts_close))

    def end(self) -> None:
        """Forget what was worked: the target is reached, or has become another."""
        self._side = 0

    def _patience_is_over(self, side: int, ts_close: int) -> bool:
        if side != self._side:
            self._side, self._since = side, ts_close
        return self._expired(ts_close)

    def _expired(self, ts_close: int) -> bool:
        return self._side != 0 and ts_close - self._since >= self._config.deadline_bars * self._bar_ns

    def _limit(self, price: float, side: int) -> Any:
        """Round to the tick, never beyond what was configured."""
        exact = Decimal(limit_price(price, side, self._config)) / self._tick
        ticks = exact.quantize(Decimal("1e-6")).to_integral_value(ROUND_FLOOR if side > 0 else ROUND_CEILING)
        return self._instrument.make_price(max(ticks, Decimal(1)) * self._tick)
