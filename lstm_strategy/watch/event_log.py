"""The event log: what a node tells, one JSON object a line, for whatever reads logs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

from lstm_strategy.bars import format_ns
from lstm_strategy.status import Event, Snapshot
from lstm_strategy.watch.station import Consumer

__all__ = ["EventLog"]

_MOST_BYTES, _BACKUPS = 32_000_000, 3


class EventLog(Consumer):
    """Writes ``path``; it is continued in a new file at 32 MB, and three older ones are kept.

    Each line has ``ts`` (wall time), ``kind`` and, where it has one, ``instrument``; a decision has its numbers, all
    else a ``text``. A number that is not finite is null. The whole of each decision is in the decision log.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._handler = _Handler(path, say)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Write a decision."""
        tight = min(snapshot.headroom, key=lambda one: math.inf if math.isnan(one.room) else one.room, default=None)
        self._write(
            kind="decision",
            instrument=snapshot.instrument,
            ts_close=format_ns(snapshot.ts_close),
            price=snapshot.price,
            exposure=snapshot.exposure,
            target=snapshot.target,
            reason=snapshot.reason,
            bound=snapshot.bound,
            action=snapshot.action,
            quantity=snapshot.quantity,
            position=snapshot.position,
            equity=snapshot.equity,
            day_pnl=snapshot.day_pnl,
            drawdown=snapshot.drawdown,
            tightest_limit=None if tight is None else tight.limit,
            tightest_room=None if tight is None else tight.room,
            lag_s=snapshot.lag_s,
            inference_s=snapshot.inference_s,
            parity=snapshot.parity,
            model=snapshot.model,
        )

    def on_event(self, event: Event) -> None:
        """Write an event."""
        self._write(kind=event.kind, instrument=event.instrument or None, text=event.text)

    def close(self) -> None:
        """Leave the file."""
        self._handler.close()

    def _write(self, **fields: Any) -> None:
        line = {"ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")} | fields
        self._handler.emit(logging.makeLogRecord({"msg": msgspec.json.encode(line).decode()}))


class _Handler(RotatingFileHandler):
    """Tells once of a disk that takes no more."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(path, maxBytes=_MOST_BYTES, backupCount=_BACKUPS, encoding="utf-8", delay=True)
        self._say, self._told = say, False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            self._say(f"{self.baseFilename} cannot be written; trading goes on without the event log")
