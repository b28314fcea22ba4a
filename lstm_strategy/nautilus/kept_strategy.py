"""What strategies of one instrument and of several share: a keeper, a stop at an exception, refusals told."""

from __future__ import annotations

import traceback
from typing import Any

from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.nautilus.engine import loud
from lstm_strategy.nautilus.keeper import Keeper
from lstm_strategy.nautilus.pace import REAL_TIME, Pace
from lstm_strategy.nautilus.status import nobody

__all__ = ["KeptStrategy"]


def _never() -> bool:
    return False


class KeptStrategy(Strategy):  # type: ignore[misc]
    """A strategy whose halts outlive it.

    Attributes
    ----------
    failure : Exception or None
        What stopped the strategy, if anything did.
    keeper : Keeper
        Writes down what must not be forgotten, and hears what is ordered.
    left : bool
        Whether another node trades the account now: nothing is sent or cancelled any more.
    pace : Pace
        The venue's time; a node on a replay puts another in.
    """

    pace: Pace = REAL_TIME
    adrift = staticmethod(_never)  # whether another node may trade the account: then nothing may add to a position
    hears = staticmethod(nobody)  # each event of an order, where somebody watches

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.settings = config
        self.failure: Exception | None = None
        self.left = False
        self.keeper = Keeper(self)

    @loud
    def _on_refusal(self, event: Any) -> None:
        """Say so; the next bar decides anew. An order whose cancel was refused still counts as working."""
        text = f"{type(event).__name__} {event.client_order_id}: {event.reason}"
        self.log.error(text)
        holder = self.holders().get(event.instrument_id.value)
        if holder is not None and holder.record is not None:
            holder.record.refuse(text)

    on_order_rejected = on_order_denied = on_order_cancel_rejected = _on_refusal

    def fail(self, where: str, error: Exception) -> None:
        """Remember the first exception, log it whole, and stop: `on_stop` cancels, and flattens if so configured."""
        self.failure = self.failure or error
        self.log.error(f"Stopped by an exception in {where}:\n{''.join(traceback.format_exception(error))}")
        if self.is_running:
            self.stop()
            self.keeper.watch()  # who is stopped can still be flattened

    def leave(self, error: Exception) -> None:
        """Stop for good, and leave orders, stops and position to another node that trades the account now."""
        self.left = True
        for holder in self.holders().values():
            holder.end_closing()
        self.fail("the lease", error)

    @loud
    def recall(self, why: str) -> None:
        """Call back what rests and would add to a position, and say why."""
        self.log.error(why)
        for holder in self.holders().values() if self.is_running else ():
            if holder.desk is not None:
                holder.desk.recall()

    @loud
    def order_halt(self, reason: str) -> None:
        """Cancel, flatten and latch for a stated reason, from the event loop; `lstm-strategy resume` lifts it."""
        self.keeper.order(reason)

    def on_dispose(self) -> None:
        """Leave the state to whoever comes next."""
        self.keeper.close()
