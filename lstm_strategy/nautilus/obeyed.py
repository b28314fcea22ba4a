"""Telling of a halt that somebody ordered: who did, and what becomes of the positions, fill by fill."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from lstm_strategy.bars import format_ns
from lstm_strategy.nautilus.account import is_exit
from lstm_strategy.nautilus.engine import OrderCanceled, OrderSide, PositionEvent, PositionOpened
from lstm_strategy.nautilus.status import Observers
from lstm_strategy.nautilus.watching import short, short_money
from lstm_strategy.ordered import HaltOrdered, bought

__all__ = ["Obeyed"]

_SECOND_NS = 1_000_000_000


class Obeyed:
    """Hears a strategy's events, passes them on to the observers, and tells those of a halt that somebody ordered.

    Attributes
    ----------
    told : list of str
        All that it has told, oldest first, each of one instrument with its name.
    """

    def __init__(self, strategy: Any, observers: Observers) -> None:
        self._strategy, self._observers = strategy, observers
        self.told: list[str] = []
        self._under_way: dict[str, str] = {}  # when the last halt was ordered, signed, by instrument

    def hear(self, event: Any) -> None:
        """Tell what an event is of an ordered halt; whatever goes wrong here is nothing to the strategy."""
        self._observers.heard(event)
        try:
            if isinstance(event, HaltOrdered):
                self._under_way = event.under_way
                self._tell(event.words)
            elif isinstance(event, PositionEvent) and self._strategy.keeper.ordered:
                self._tell(self._filled(event), event.instrument_id.value)
            elif isinstance(event, OrderCanceled) and self._strategy.keeper.ordered:
                self._tell_cancel(event)
        except Exception as error:
            self._observers.trouble(f"an event cannot be told: {type(error).__name__}")

    def _tell(self, text: str, name: str = "") -> None:
        self.told.append(f"{name}: {text}" if name else text)
        self._observers.ordered(text, name)

    def _filled(self, event: Any) -> str:
        """Return what a fill has left of a position, or added to it: of an order sent before the halt."""
        part = f"{short(event.last_qty)} at {short(event.last_px)}"
        if self._adds(event):
            whole = "which" if event.quantity == event.last_qty else f"{short(event.quantity)} in all"
            side = str(OrderSide(event.entry).name).lower()
            return f"{_begins(event)} the {side} that was under way filled: {part}, {whole} is closed now"
        filled = f"{_begins(event)} {short(event.last_qty)} filled at {short(event.last_px)}"
        if event.signed_qty:
            return f"{filled}; {short(event.quantity)} is left"
        return f"{filled}; flat, result {short_money(event.realized_pnl)}"

    def _adds(self, event: Any) -> bool:
        """Say whether the fill of a position's event was on the side that the position is held on."""
        if isinstance(event, PositionOpened):
            return True
        position = self._strategy.cache.position(event.position_id) if event.signed_qty else None
        wanted = (event.ts_event, event.last_qty, event.last_px)
        fills = [] if position is None else reversed(position.events)  # a later fill may be there already
        sides = (fill.order_side for fill in fills if (fill.ts_event, fill.last_qty, fill.last_px) == wanted)
        return bool(next(sides, None) == event.entry)

    def _tell_cancel(self, event: Any) -> None:
        """Tell that what was under way will not fill, or what of it will not."""
        name = event.instrument_id.value
        order = self._strategy.cache.order(event.client_order_id)
        if name not in self._under_way or order is None or is_exit(order):
            return
        left = order.leaves_qty.as_decimal() * (1 if order.side == OrderSide.BUY else -1)
        if left * Decimal(self._under_way[name]) > 0:
            text = f"{_begins(event)} the {bought(f'{left.normalize():f}')} that was under way is cancelled"
            self._tell(text, name)


def _begins(event: Any) -> str:
    """Return an event's time, to the second, and what it is told for."""
    return f"{format_ns(int(event.ts_event) // _SECOND_NS * _SECOND_NS)} halt by order:"
