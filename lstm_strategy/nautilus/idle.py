"""Idle: work that no order waits for, done between bars, a piece at a time; at once where there is no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from nautilus_trader.common.component import LiveClock

__all__ = ["Idle"]

_PAUSE_S = 0.02


class Idle:
    """Does what it is given a moment later, one piece after the other, with room for bars between two of them.

    Parameters
    ----------
    clock : Clock
        The strategy's: on a live one there is a loop, and in a backtest there is nothing to wait for.
    """

    def __init__(self, clock: Any) -> None:
        self._loop = asyncio.get_running_loop() if isinstance(clock, LiveClock) else None
        self._waiting: dict[Hashable, Callable[[], None]] = {}

    @property
    def waits(self) -> bool:
        """Whether anything is put off at all."""
        return self._loop is not None

    def give(self, key: Hashable, work: Callable[[], None]) -> None:
        """Have a piece done; one of the same key that waits already is enough. What it raises, the loop reports."""
        if self._loop is None:
            work()
            return
        begun = bool(self._waiting)
        self._waiting.setdefault(key, work)
        if not begun:
            self._again(self._loop)

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended: whoever stops writes what is left
            loop.call_later(_PAUSE_S, self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        work = self._waiting.pop(next(iter(self._waiting)))
        if self._waiting:
            self._again(loop)
        work()
