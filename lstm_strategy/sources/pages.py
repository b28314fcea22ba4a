"""Pages: small durable files of fresh bars beside ``bars.parquet``, folded into it; no bar is ever in neither."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write, exclusive
from lstm_strategy.bars import Bars, Stamps
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.spans import Spans

__all__ = [
    "BLOCK",
    "COLUMNS",
    "SCHEMA",
    "BusyError",
    "drop_pages",
    "fold",
    "page_files",
    "prepare",
    "read_spans",
    "read_table",
    "sweep_up",
    "table_of",
    "write_page",
]

COLUMNS = ("ts_close", "open", "high", "low", "close", "volume")
SCHEMA = pa.schema([("ts_close", pa.timestamp("ns", "UTC")), *((name, pa.float64()) for name in COLUMNS[1:])])
BLOCK = 131_072  # rows of a row group, whatever the way the bars came in

_TRIES, _PAUSE_S = 100, 0.002  # of a reader whose files change under it

# How it stays whole: a page appears by rename, complete and on disk. Folding writes bars.parquet and all pages to a new
# bars.parquet, which takes the old one's name at once; only then are the pages removed. A crash in between leaves bars
# in both, with equal values; a reader takes each stamp once.


class BusyError(LSTMStrategyError):
    """A writer changes the bars faster than they can be read."""


def page_files(folder: Path) -> list[Path]:
    """Return the pages in one folder of bars, oldest bar first."""
    return sorted((folder / "pages").glob("*.parquet"), key=_range_of)


def write_page(folder: Path, bars: Bars) -> Path:
    """Keep bars in a page of their own, durable on return."""
    path = folder / "pages" / f"{bars.ts_close[0]}-{bars.ts_close[-1]}.parquet"
    with atomic_write(path) as temporary:
        pq.write_table(table_of(bars), temporary, compression="none", use_dictionary=False, write_statistics=False)
    return path


def table_of(bars: Bars) -> pa.Table:
    """Return bars in the schema of the files."""
    columns = [_arrow(getattr(bars, name), field.type) for name, field in zip(COLUMNS, SCHEMA, strict=True)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def read_table(folder: Path) -> pa.Table:
    """Return all bars of a folder: the file as it is, and after it, sorted in, what only the pages hold."""

    def read(paths: list[Path]) -> pa.Table:
        if not paths:
            raise FileNotFoundError(f"there are no bars in {folder}")
        tables = [_read(path) for path in paths]
        return _merged(tables) if len(tables) > 1 or paths[0].name != "bars.parquet" else tables[0]

    return _steadily(folder, read)


def read_spans(folder: Path, step: int) -> Spans:
    """Return the opening times that the bars of a folder, each ``step`` ns long, cover; one row group at a time."""

    def read(paths: list[Path]) -> Spans:
        spans = Spans()
        for path in paths:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    stamps = np.sort(_stamps(file.read_row_group(group, columns=["ts_close"], use_threads=False)))
                    for span in Spans.of(stamps - step, step):
                        spans.add(*span)
        return spans

    return _steadily(folder, read)


def _steadily[T](folder: Path, read: Callable[[list[Path]], T]) -> T:
    """Return what ``read`` makes of the file and the pages, those of one moment: after a fold meanwhile, once more.

    The pages are listed before the file is read: what a fold has removed by then is in the file.
    """
    path = folder / "bars.parquet"
    for _ in range(_TRIES):
        before = _identity(path)
        pages = page_files(folder)
        try:
            found = read([*([path] if before is not None else []), *pages])
        except FileNotFoundError:
            if not pages and before is None:
                raise
        else:
            if _identity(path) == before:
                return found
        time.sleep(_PAUSE_S)
    raise BusyError(f"{folder} changed each of {_TRIES} times that it was read; try again when its writer is done")


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def fold(folder: Path) -> None:
    """Put all pages into ``bars.parquet``, at most a few row groups of it in memory at a time."""
    pages = page_files(folder)
    if not pages:
        return
    path = folder / "bars.parquet"
    with (
        exclusive(folder),
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd", use_dictionary=False) as out,
    ):
        waiting: list[pa.Table] = []
        rows = 0
        for table in _in_order(path, pages):
            waiting.append(table)
            rows += len(table)
            if rows >= BLOCK:
                whole = pa.concat_tables(waiting).combine_chunks()
                for start in range(0, rows - BLOCK + 1, BLOCK):
                    out.write_table(whole.slice(start, BLOCK), row_group_size=BLOCK)
                rows %= BLOCK
                waiting = [whole.slice(len(whole) - rows)]
        if rows:
            out.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=BLOCK)
    drop_pages(pages)
    pa.default_memory_pool().release_unused()


def drop_pages(pages: list[Path]) -> None:
    """Remove pages whose bars are in the file."""
    for page in pages:
        page.unlink(missing_ok=True)
    if pages:
        with suppress(OSError):
            pages[0].parent.rmdir()


def sweep_up(folder: Path) -> None:
    """Remove what a killed writer left half written; only for who holds the catalog."""
    for place in (folder, folder / "pages"):
        for half in place.glob(".*.tmp"):
            half.unlink(missing_ok=True)


def prepare(folder: Path) -> None:
    """Make the folder for pages, its own name durable too."""
    pages = folder / "pages"
    missing = [place for place in (pages, *pages.parents) if not place.exists()]
    try:
        pages.mkdir(parents=True, exist_ok=True)
        for place in missing:
            descriptor = os.open(place.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise LSTMStrategyError(f"cannot write {folder}: {error.strerror}") from error


def _in_order(path: Path, pages: list[Path]) -> Iterator[pa.Table]:
    """Yield all bars in time order; what overlaps, and that alone, is in memory together."""
    runs: list[tuple[tuple[int, int], Path, int | None]] = [(_range_of(page), page, None) for page in pages]
    if path.exists():
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                stamps = _stamps(file.read_row_group(group, columns=["ts_close"], use_threads=False))
                if len(stamps):
                    runs.append(((int(stamps[0]), int(stamps[-1])), path, group))
    runs.sort(key=lambda run: (run[0][0], run[2] is None))
    together: list[tuple[Path, int | None]] = []
    reach: int | None = None
    for (first, last), source, part in runs:
        if reach is not None and first > reach:
            yield _merged([_read_run(*one) for one in together])
            together = []
        together.append((source, part))
        reach = last if reach is None else max(reach, last)
    if together:
        yield _merged([_read_run(*one) for one in together])


def _read_run(source: Path, group: int | None) -> pa.Table:
    if group is None:
        return _read(source)
    with pq.ParquetFile(source) as file:
        return file.read_row_group(group, columns=list(COLUMNS), use_threads=False).cast(SCHEMA)


def _merged(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all tables by stamp, each stamp once; of equal ones the first table's counts."""
    whole = pa.concat_tables(tables)
    stamps = _stamps(whole)
    step = np.diff(stamps)
    if (step > 0).all():
        return whole
    order = np.argsort(stamps, kind="stable")
    once = np.concatenate([[True], np.diff(stamps[order]) > 0])
    return whole.take(_arrow(order[once].astype(np.int64), pa.int64()))


def _read(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(COLUMNS), use_threads=False).cast(SCHEMA)


def _stamps(table: pa.Table) -> Stamps:
    """Return close stamps without pandas, which `to_numpy` would import."""
    column = table["ts_close"].cast(SCHEMA.field("ts_close").type).cast(pa.int64())
    if column.null_count:
        raise ValueError("stamps are missing")
    parts = [
        np.frombuffer(part.buffers()[1], np.int64)[part.offset : part.offset + len(part)] for part in column.chunks
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _arrow(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _range_of(page: Path) -> tuple[int, int]:
    first, _, last = page.stem.partition("-")
    try:
        return int(first), int(last)
    except ValueError as error:
        raise LSTMStrategyError(f"{page} is no page of bars; remove it") from error
