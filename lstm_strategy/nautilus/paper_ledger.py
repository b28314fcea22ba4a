"""The ledger: writes down what becomes of a simulated venue's account, of one instrument where a bar is about one."""

from __future__ import annotations

from typing import Any

from nautilus_trader.execution.messages import CancelOrder, SubmitOrder

from lstm_strategy.nautilus.engine import EngineBar, InstrumentId
from lstm_strategy.nautilus.paper_account import AccountBook, KeptBar
from lstm_strategy.nautilus.paper_exchange import PaperExchange
from lstm_strategy.nautilus.paper_state import keep_bar, sum_up, sum_up_each

__all__ = ["Ledger"]


class Ledger:
    """Keeps an account in its book from `begin` on; without a book it keeps nothing.

    Attributes
    ----------
    last : dict of KeptBar
        By instrument, the bar that was told last.
    begun : bool
        Whether anything is written.
    touched : bool
        Whether commands or events have changed anything since; a bar that met no order can wait to be written.
    """

    def __init__(self, book: AccountBook | None, exchange: PaperExchange, clock: Any) -> None:
        self.last: dict[str, KeptBar] = {}
        self.begun = self.touched = False
        self._book, self._exchange, self._clock = book, exchange, clock
        self._changed: set[InstrumentId] = set()  # since it was written

    def begin(self) -> None:
        """Write from now on, as soon as there is anything to."""
        self.begun = self._book is not None

    def told(self, bar: EngineBar) -> None:
        """Note a bar that was told, stamped at its close."""
        if self._book is not None:
            instrument_id = bar.bar_type.instrument_id
            self.last[instrument_id.value] = keep_bar(bar)
            self._changed.add(instrument_id)

    def note(self, message: Any) -> None:
        """Note that a command or an event may have changed something of its instrument."""
        self._changed.add(message.instrument_id)
        self.touched = True

    def write(self) -> None:
        """Write all of the account."""
        self._changed, self.touched = set(), False
        if self._book is not None and self.begun:
            due = self._exchange.due(SubmitOrder), self._exchange.due(CancelOrder)
            account = sum_up(self._exchange, *due, self.last, self._book.since_ns)
            self._book.write(account, self._clock.timestamp_ns())

    def write_changed(self) -> None:
        """Write what has changed since the last time."""
        book = self._book
        if book is None or not self.begun or not self._changed:
            return
        changed, self._changed, self.touched = self._changed, set(), False
        due = self._exchange.due(SubmitOrder, changed), self._exchange.due(CancelOrder, changed)
        parts = sum_up_each(self._exchange, *due, self.last, book.since_ns, changed)
        if not book.amend(parts, self._clock.timestamp_ns()):
            self.write()

    def close(self) -> None:
        """Write all of it, then give the book back."""
        self.write()
        if self._book is not None:
            self._book.close()
