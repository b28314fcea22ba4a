"""What a node tells whoever watches it: its steps at the start, each decision, and trouble; never a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lstm_strategy.decision import Decision
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.orders import Action

if TYPE_CHECKING:
    from lstm_strategy.nautilus.node_build import Built

__all__ = ["Decided", "Observer", "Observers", "nobody"]


def nobody(event: Any) -> None:
    """Hear an event, and do nothing: what a strategy tells as long as nobody watches."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One decision and what was done about it; ``quantity`` is signed, ``equity`` in quote currency."""

    instrument: str
    decision: Decision
    forecast: Forecast | None
    action: Action
    quantity: float
    price: float
    equity: float


class Observer(Protocol):
    """Is told; what it raises harms nothing, and is told to the others. It must not block.

    One with a method ``on_started`` is given the node (`Built`) when its strategy runs, on the node's loop. One with
    ``on_latched(reason, text)`` is told within a second of a halt that is latched, and, with "", of its lifting; one
    with ``on_ordered(text, instrument)`` at once of a halt that somebody orders, and of each fill that closes for it;
    one with ``on_heard(event)`` of every event that the strategy handles.
    """

    def on_step(self, step: str, text: str) -> None:
        """A step of the start is done."""

    def on_decided(self, told: Decided) -> None:
        """A bar closed, and this was decided."""

    def on_trouble(self, text: str) -> None:
        """Something that a person should know."""


class Observers:
    """All that watch; those that fail are told of once and left out."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._all = list(observers)

    def add(self, observer: Observer) -> None:
        """Tell one more."""
        self._all.append(observer)

    def step(self, step: str, text: str) -> None:
        """Tell of a step of the start."""
        self._each("on_step", step, text)

    def started(self, built: Built) -> None:
        """Give the running node to those who want it."""
        self._each("on_started", built)

    def decided(
        self,
        instrument: str,
        decision: Decision,
        forecast: Forecast | None,
        action: Action,
        quantity: float,
        price: float,
        equity: float,
    ) -> None:
        """Tell of a decision, as `RunRecord.listener`; trading goes on whatever an observer does."""
        told = Decided(
            instrument=instrument,
            decision=decision,
            forecast=forecast,
            action=action,
            quantity=quantity,
            price=price,
            equity=equity,
        )
        self._each("on_decided", told)

    def latched(self, reason: str, text: str) -> None:
        """Tell those who want it what is latched now, as `Latched`: between bars as well, and "" once it is lifted."""
        self._each("on_latched", reason, text)

    def heard(self, event: Any) -> None:
        """Pass on an event of an order or a position to those who want it."""
        self._each("on_heard", event)

    def ordered(self, text: str, instrument: str = "") -> None:
        """Tell those who want it of a halt that somebody ordered, and of what it closes."""
        self._each("on_ordered", text, instrument)

    def trouble(self, text: str) -> None:
        """Tell of trouble."""
        self._each("on_trouble", text)

    def _each(self, name: str, *told: Any) -> None:
        for observer in list(self._all):
            handler = getattr(observer, name, None)
            try:
                if handler is not None:
                    handler(*told)
            except Exception as error:
                self._all.remove(observer)
                self.trouble(f"an observer failed and is left out: {type(error).__name__}: {error}")
