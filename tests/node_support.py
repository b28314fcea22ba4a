"""Nodes that tests start as processes of their own: none outlives its test, however that ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ended", "started"]

_ALIVE: list[subprocess.Popen[Any]] = []


def started(process: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
    """Let a process be killed at the end of the test, should it still run."""
    _ALIVE.append(process)
    return process


@contextmanager
def ended() -> Iterator[None]:
    """Leave none of them behind."""
    try:
        yield
    finally:
        while _ALIVE:
            process = _ALIVE.pop()
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
