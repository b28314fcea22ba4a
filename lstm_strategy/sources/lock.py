"""One writer at a time in a catalog: the second is turned away with the first one's name, not kept waiting."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["hold_catalog"]

_NAME = ".writer.lock"


@contextmanager
def hold_catalog(root: Path, what: str) -> Iterator[None]:
    """Hold the catalog for ``what``, such as ``data download``; a crash sets it free, whatever the file still says.

    Raises
    ------
    LSTMStrategyError
        Where another process holds it: which, since when, and doing what.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / _NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LSTMStrategyError(f"catalog {root} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _told(os.pread(lock, 4096, 0))
            raise LSTMStrategyError(
                f"catalog {root} is being written by {holder}; wait for its end, or choose another --catalog"
            ) from error
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = msgspec.json.encode({"what": what, "pid": os.getpid(), "since": since})
        os.ftruncate(lock, 0)
        os.pwrite(lock, told, 0)
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def _told(content: bytes) -> str:
    try:
        holder = msgspec.json.decode(content, type=dict[str, str | int])
        return f"`{holder['what']}` (process {holder['pid']}, since {holder['since']})"
    except (msgspec.DecodeError, KeyError):
        return "another process"
