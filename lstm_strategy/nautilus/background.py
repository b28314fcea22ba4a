"""Work beside the node's loop: a thread of its own, asked from time to time whether it is done."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

__all__ = ["Task"]


class Task:
    """Work in a thread of its own, so that files, hashes and a new session keep no bar waiting."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.found: Any = None
        self.error: Exception | None = None
        self._work = work
        self._thread = Thread(target=self._run, name="lstm-strategy-swap", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.found = self._work()
        except Exception as error:
            self.error = error
