"""Names whose bars of the time between two processes are still to come, and their live bars that were faster."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from typing import Any

from lstm_strategy.nautilus.engine import EngineBar

__all__ = ["Absent"]

_LOOK_S = 0.1


class Absent:
    """Keeps live bars from a market that must see those of a history first, for as long as somebody waits for that.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    strategies : callable
        Returns those that ask for histories.
    """

    def __init__(self, loop: AbstractEventLoop, strategies: Callable[[], Iterable[Any]]) -> None:
        self._loop, self._strategies = loop, strategies
        self._early: dict[str, list[EngineBar]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._early

    def begin(self, names: Iterable[str]) -> None:
        """Let bars of these names be still to come."""
        self._early = {name: [] for name in names}

    def awaits(self, name: str) -> bool:
        """Say whether a strategy waits for the history of one of them."""
        if name not in self._early:
            return False
        feeds = [holder.feed for each in self._strategies() for at, holder in each.holders().items() if at == name]
        return any(feed is not None and feed.collecting for feed in feeds)

    def put_aside(self, name: str, bar: EngineBar, then: Callable[[], None]) -> None:
        """Keep a live bar; ``then`` is called when nobody waits any longer for the history of its name."""
        self._early[name].append(bar)
        if len(self._early[name]) == 1:
            self._look(name, then)

    def take(self, name: str) -> list[EngineBar]:
        """Return the live bars of one that is absent no more."""
        return self._early.pop(name, [])

    def _look(self, name: str, then: Callable[[], None]) -> None:
        if self.awaits(name):
            self._loop.call_later(_LOOK_S, self._look, name, then)
        else:
            then()
