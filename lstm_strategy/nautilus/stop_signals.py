"""The signals that end or halt a node: SIGINT, SIGTERM and SIGUSR1, taken for as long as it runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

__all__ = ["StopSignals", "until_stopped"]


class StopSignals(asyncio.Event):
    """Set by SIGINT and SIGTERM."""

    def __init__(self, stack: AsyncExitStack) -> None:
        super().__init__()
        self._halt: Callable[[], None] | None = None
        self._halt_asked = False
        self.listen()
        stack.callback(self._forget)

    def on_halt(self, halt: Callable[[], None]) -> None:
        """Call this at SIGUSR1, and now where that has come already."""
        self._halt = halt
        if self._halt_asked:
            halt()

    def _on_halt(self) -> None:
        self._halt_asked = True
        if self._halt is not None:
            self._halt()

    def listen(self) -> None:
        """Take the signals."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self.set)
        loop.add_signal_handler(signal.SIGUSR1, self._on_halt)

    def _forget(self) -> None:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            asyncio.get_running_loop().remove_signal_handler(name)


async def until_stopped(work: Any, stop: StopSignals) -> bool:
    """Work to the end, or until a signal; say which."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return not working.done()
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
