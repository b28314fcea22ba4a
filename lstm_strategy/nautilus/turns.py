"""Turns: how many requests for bars may be on their way at once, so that a hundred instruments do not flood a venue."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["MOST", "Turns", "turns_of"]

MOST = 8
"""Requests of one strategy that may be on their way at once."""


class Turns:
    """Lets the first few ask at once, and each of the others when one of those before it has its answer.

    Parameters
    ----------
    now : callable
        Time by the strategy's clock, ns.
    longest_ns : int
        After so long a turn that nobody has given back is over: an answer that failed is never told.
    most : int
        How many may have a turn at once.

    Attributes
    ----------
    answers : int
        How many turns have ended with an answer: a venue that answers somebody is worth waiting for.
    """

    def __init__(self, now: Callable[[], int], longest_ns: int, most: int) -> None:
        self.answers = 0
        self._now, self._longest_ns, self._most = now, longest_ns, most
        self._since: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._can_wait: set[Hashable] = set()

    def take(self, key: Hashable, go: Callable[[], None], *, can_wait: bool = False) -> None:
        """Call ``go`` when its turn has come, which may be at once; whoever has one gives it back, and waits anew.

        ``can_wait``: no forecast waits for it. Those have half of the turns at most, and none before others' are given.
        """
        self._since.pop(key, None)
        self._waiting.pop(key, None)
        self._waiting[key] = go
        (self._can_wait.add if can_wait else self._can_wait.discard)(key)
        self.move_on()

    def leave(self, key: Hashable, *, answered: bool = False) -> None:
        """Give a turn back, or wait for it no longer."""
        self.answers += answered
        self._waiting.pop(key, None)
        if self._since.pop(key, None) is not None:
            self.move_on()

    @property
    def crowd(self) -> int:
        """How many have a turn now or wait for one, at most as many as may have one at once; at least 1."""
        return min(max(len(self._since) + len(self._waiting), 1), self._most)

    def waits(self, key: Hashable) -> bool:
        """Say whether a turn is still to come."""
        return key in self._waiting

    def has(self, key: Hashable) -> bool:
        """Say whether a turn has come, and is not over."""
        return key in self._since

    def move_on(self) -> None:
        """Let those go whose turn has come."""
        while self._waiting:
            now = self._now()
            self._since = {key: ts for key, ts in self._since.items() if now - ts < self._longest_ns}
            urgent = next((key for key in self._waiting if key not in self._can_wait), None)
            key = next(iter(self._waiting)) if urgent is None else urgent
            if len(self._since) >= (self._most if urgent is not None else max(self._most // 2, 1)):
                return
            go, self._since[key] = self._waiting.pop(key), now
            go()


def turns_of(strategy: Any, timeout_s: float = 30.0) -> Turns:
    """Return the turns of one strategy, by its clock; ``timeout_s``: how long an answer is waited for."""
    return Turns(lambda: int(strategy.clock.timestamp_ns()), round(timeout_s * 1e9), MOST)
