"""Winding up after a stop: orders cancelled, the position closed, and with it what orders in flight still bring."""

from __future__ import annotations

import traceback
from datetime import timedelta
from typing import Any

from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.nautilus.desk import Desk
from lstm_strategy.nautilus.engine import OrderDenied, OrderRejected, on_loop
from lstm_strategy.nautilus.orders import Action

__all__ = ["Closing"]

_RETRIES = 10


class Closing:
    """Acts at every event of a stopped strategy: an order in flight may fill, a position may take several orders.

    Parameters
    ----------
    flatten : bool
        Whether positions are closed; orders are cancelled in any case.
    """

    def __init__(self, strategy: Strategy, desk: Desk, *, flatten: bool) -> None:
        self._strategy, self._desk, self.flattens = strategy, desk, flatten
        self._retries = 0
        self._over = False

    def on_event(self, event: Any) -> None:
        """Look at what an order or position event has changed; what the venue rejects is tried again a few times."""
        self._desk.note(event)
        if isinstance(event, OrderDenied):  # by our own engine: it would be again
            self._strategy.log.error(f"A position is left open: {event.reason}")
        elif isinstance(event, OrderRejected):
            self._go_on_later(event.reason)
        else:
            self.go_on()

    def go_on(self, _event: Any = None) -> None:
        """Cancel and close what can be now."""
        if self._over:
            return
        log = self._strategy.log
        try:
            action = self._desk.close(flatten=self.flattens)
        except Exception as error:  # nobody is left to be stopped by it
            log.error(f"A position is left open:\n{''.join(traceback.format_exception(error))}")
            return
        if action == Action.NOT_ENOUGH_FUNDS:  # the account may lag behind the fill
            self._go_on_later(action.value)
        elif action not in (Action.SENT, Action.HELD, Action.AWAITING_ORDER):
            log.error(f"A position is left open: {action.value}")

    def end(self) -> None:
        """Leave everything as it is: the strategy trades again."""
        self._over = True

    def _go_on_later(self, reason: str) -> None:
        strategy = self._strategy
        if self._retries == _RETRIES:
            strategy.log.error(f"A position is left open, after {self._retries} more attempts: {reason}")
            return
        self._retries += 1
        strategy.log.error(f"Not closed, trying again in a second: {reason}")
        when = strategy.clock.utc_now() + timedelta(seconds=1)
        strategy.clock.set_time_alert(
            f"{strategy.id}-closing-{self._desk.name}-{self._retries}",
            when,
            on_loop(strategy.clock, self.go_on),
            override=True,
        )
