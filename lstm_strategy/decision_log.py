"""The decision log: what was seen, forecast, decided and done at every bar, on disk as Parquet while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import format_ns
from lstm_strategy.decision_log_format import (
    CONDITIONS,
    DECISIONS,
    HEADER,
    SCHEMA,
    STAMP,
    Entry,
    Header,
    Voice,
    to_table,
)
from lstm_strategy.errors import LSTMStrategyError

__all__ = [
    "CONDITIONS",
    "DECISIONS",
    "HEADER",
    "PART_ROWS",
    "STAMP",
    "DecisionLog",
    "Entry",
    "Header",
    "Voice",
    "file_name",
    "gather",
    "parts_of",
]

PART_ROWS, FLUSH_S = 2048, 60.0
_FIRST_FLUSH_S = 1.0
# Dictionaries of numbers that hardly repeat would double the cost, and the size.
_PARQUET: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["instrument", "reason", "action", "model"]}


class DecisionLog:
    """Writes entries to numbered Parquet files of ``part_rows`` rows in ``folder``; holds no more than those in memory.

    The newest file is written anew, whole or not at all, a second after the first row, then after times that double up
    to ``flush_s`` wall seconds, and at `flush`: a process that dies leaves all else readable. A folder with parts is
    gone on with. Where the disk refuses, rows beyond twice ``part_rows`` are lost and counted.

    Parameters
    ----------
    when_due : callable, optional
        Called in the place of `flush` when it is due: whoever waits for an order to leave has no time for a disk.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        *,
        part_rows: int = PART_ROWS,
        flush_s: float = FLUSH_S,
        clock: Callable[[], float] = time.monotonic,
        when_due: Callable[[], None] | None = None,
    ) -> None:
        self.folder, self.header, self.lost = folder, header, 0
        self._part_rows, self._flush_s, self._clock = part_rows, flush_s, clock
        self._patience_s = min(_FIRST_FLUSH_S, flush_s)
        self._entries: list[Entry] = []
        self._when_due, self._written = when_due, True
        self._number = max((_number(path) for path in parts_of(folder)), default=-1) + 1
        self._flushed = clock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LSTMStrategyError(f"cannot write the decision log {folder}: {error.strerror}") from error

    def add(self, entry: Entry) -> None:
        """Keep one bar; a second look at the last bar counts, unless an order was sent at the first.

        Raises
        ------
        LSTMStrategyError
            Where the disk refuses; the row is kept for the next attempt.
        """
        entries = self._entries
        if entries and entries[-1].bar.ts_close == entry.bar.ts_close:
            if entries[-1].quantity:
                return
            entries.pop()
        entries.append(entry)
        self._written = False
        due, full = self._clock() - self._flushed >= self._patience_s, len(entries) > self._part_rows
        if self._when_due is not None:
            if due or full:
                self._when_due()
        elif due:
            self.flush()
        elif full:
            self._write_full_parts()

    def flush(self) -> None:
        """Write what is in memory, and not written yet. Raises as `add` does."""
        if self._written:
            return
        self._flushed, self._patience_s = self._clock(), min(2.0 * self._patience_s, self._flush_s)
        self._write_full_parts()
        if self._entries:
            self._write(self._entries)
        self._written = True

    def _write_full_parts(self) -> None:
        """The newest row stays, since it may still be looked at again."""
        entries, size = self._entries, self._part_rows
        if (excess := len(entries) - 2 * size) > 0:
            del entries[:excess]
            self.lost += excess
        while len(entries) > size:
            self._write(entries[:size])
            self._number += 1
            del entries[:size]

    def _write(self, rows: list[Entry]) -> None:
        if not self.header.horizons and (spoken := next((e.forecast for e in rows if e.forecast), None)):
            self.header = msgspec.structs.replace(self.header, horizons=spoken.horizons, levels=spoken.levels)
        with atomic_write(self.folder / f"part-{self._number:06d}.parquet") as temporary:
            pq.write_table(to_table(rows, self.header), temporary, **_PARQUET)
        pa.default_memory_pool().release_unused()  # Arrow would keep some ten megabytes for the next part, hours away


def file_name(instrument: str) -> str:
    """Return an instrument's name as the name of its file or folder among those of several."""
    return quote(instrument, safe="")


def parts_of(folder: Path) -> list[Path]:
    """Return a log's files in the order of their rows."""
    return sorted(folder.glob("part-*.parquet"), key=_number)


def gather(folder: Path, path: Path, expected: int) -> None:
    """Write a finished log's parts as one file, a row group each.

    Raises
    ------
    LSTMStrategyError
        Where rows are missing: the disk refused them.
    """
    parts, found, stamps = parts_of(folder), 0, [0]
    schema = pq.read_schema(parts[-1]) if parts else SCHEMA  # the last one's header knows the horizons
    with pq.ParquetWriter(path, schema, **_PARQUET) as writer:
        for part in parts:
            table = pq.read_table(part)
            writer.write_table(table.replace_schema_metadata(schema.metadata))
            found += len(table)
            ts_close = table["ts_close"].cast(pa.int64())
            stamps += [ts_close[0].as_py(), ts_close[-1].as_py()]
    if found != expected or any(after < before for before, after in pairwise(stamps)):
        raise LSTMStrategyError(
            f"the decision log {folder} holds {found} of {expected} bars, the last closed at {format_ns(stamps[-1])};"
            " was the disk full? Make room and run again"
        )


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("part-")
    return int(digits) if digits.isdecimal() else -1
