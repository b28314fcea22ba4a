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

_RETRIES, _LONGEST_WAIT_S = 12, 600  # 1 s, 2 s, 4 s …: three quarters of an hour in all


class Closing:
    """Acts at every event of a stopped strategy: an order in flight may fill, a position may take several orders.

    Parameters
    ----------
    flatten : bool
        Whether positions are closed; orders are cancelled in any case.

    Attributes
    ----------
    gave_up : bool
        Whether a position was left open; somebody may order to close it anew.
    """

    def __init__(self, strategy: Strategy, desk: Desk, *, flatten: bool) -> None:
        self._strategy, self._desk, self.flattens = strategy, desk, flatten
        self._retries = 0
        self._over = self.gave_up = False

    def on_event(self, event: Any) -> None:
        """Look at what an order or position event has changed; what is refused is tried again a few times."""
        self._desk.note(event)
        if isinstance(event, OrderDenied | OrderRejected):  # a rate of orders, for one, is free again after a while
            self._go_on_later(event.reason)
        else:
            self.go_on()

    def go_on(self, _event: Any = None) -> None:
        """Cancel and close what can be now."""
        if self._over:
            return
        try:
            action = self._desk.close(flatten=self.flattens)
        except Exception as error:  # nobody is left to be stopped by it
            self._give_up("".join(traceback.format_exception(error)))
            return
        if action == Action.NOT_ENOUGH_FUNDS:  # the account may lag behind the fill
            self._go_on_later(action.value)
        elif action not in (Action.SENT, Action.HELD, Action.AWAITING_ORDER):
            self._give_up(action.value)

    def end(self) -> None:
        """Leave everything as it is: the strategy trades again."""
        self._over = True

    def _give_up(self, reason: str) -> None:
        self.gave_up = True
        self._strategy.log.error(f"A position is left open: {reason}")

    def _go_on_later(self, reason: str) -> None:
        strategy = self._strategy
        if self._retries == _RETRIES:
            self._give_up(f"{reason}, after {self._retries} more attempts")
            return
        wait_s = min(2**self._retries, _LONGEST_WAIT_S)
        self._retries += 1
        strategy.log.error(f"Not closed, trying again in {wait_s} s: {reason}")
        when = strategy.clock.utc_now() + timedelta(seconds=wait_s)
        strategy.clock.set_time_alert(
            f"{strategy.id}-closing-{self._desk.name}-{self._retries}",
            when,
            on_loop(strategy.clock, self.go_on),
            override=True,
        )
