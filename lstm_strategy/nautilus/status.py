"""What a node tells whoever watches it: its steps at the start, each decision, and trouble; never a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from lstm_strategy.decision import Decision
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.orders import Action

__all__ = ["Decided", "Observer", "Observers"]


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
    """Is told; what it raises is logged and harms nothing. It must not block."""

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
        for observer in self._all:
            observer.on_step(step, text)

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
        for observer in list(self._all):
            try:
                observer.on_decided(told)
            except Exception as error:
                self._all.remove(observer)
                self.trouble(f"an observer failed and is left out: {type(error).__name__}: {error}")

    def trouble(self, text: str) -> None:
        """Tell of trouble."""
        for observer in self._all:
            observer.on_trouble(text)
