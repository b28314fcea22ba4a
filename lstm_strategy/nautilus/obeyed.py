"""Telling of a halt that somebody ordered: who did, and what becomes of the positions, fill by fill."""

from __future__ import annotations

from typing import Any

from lstm_strategy.bars import format_ns
from lstm_strategy.nautilus.engine import PositionEvent
from lstm_strategy.nautilus.status import Observers
from lstm_strategy.nautilus.watching import short, short_money
from lstm_strategy.ordered import HaltOrdered

__all__ = ["Obeyed"]

_SECOND_NS = 1_000_000_000


class Obeyed:
    """Hears a strategy's events, passes them on to the observers, and tells those of a halt that somebody ordered."""

    def __init__(self, strategy: Any, observers: Observers) -> None:
        self._strategy, self._observers = strategy, observers

    def hear(self, event: Any) -> None:
        """Tell what an event is of an ordered halt; whatever goes wrong here is nothing to the strategy."""
        self._observers.heard(event)
        try:
            if isinstance(event, HaltOrdered):
                self._observers.ordered(event.words)
            elif isinstance(event, PositionEvent) and self._strategy.keeper.ordered:
                self._observers.ordered(_closing(event), event.instrument_id.value)
        except Exception as error:
            self._observers.trouble(f"an event cannot be told: {type(error).__name__}")


def _closing(event: Any) -> str:
    """Return what a fill has left of a position; its time to the second."""
    when = format_ns(int(event.ts_event) // _SECOND_NS * _SECOND_NS)
    filled = f"{when} halt by order: {short(event.last_qty)} filled at {short(event.last_px)}"
    if event.signed_qty:
        return f"{filled}; {short(event.quantity)} is left"
    return f"{filled}; flat, result {short_money(event.realized_pnl)}"
