"""Read a decision log, finished or cut short; columns of it when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy.bars import Float, Stamps, Timeframe, format_ns
from lstm_strategy.decision_log import HEADER, Header, parts_of
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.run_events import read_ending

__all__ = ["Log", "Row", "read_log", "read_logs"]

Row = dict[str, Any]
"""One bar of a log by column; stamps as int."""


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """A row group of a file, beginning with the log's row ``first``."""

    path: Path
    number: int
    first: int
    header: Header


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """The decisions of one instrument by bar close, int64 [T], increasing. Columns are read when they are asked for.

    Where a bar was written twice, by a run that was started anew, the later row counts.
    """

    path: Path
    ts_close: Stamps
    _groups: tuple[_Group, ...]
    _rows: Stamps

    def __len__(self) -> int:
        return len(self.ts_close)

    @property
    def header(self) -> Header:
        """The newest; it knows the horizons if any row does."""
        return self._groups[-1].header

    @property
    def timeframe(self) -> Timeframe:
        """The length of its bars."""
        return Timeframe.parse(self.header.timeframe)

    def header_at(self, row: int) -> Header:
        """The header of a row's file; a run started anew may have other settings than before."""
        return self._group(row).header

    def row(self, row: int) -> Row:
        """All columns of one bar."""
        group = self._group(row)
        table = _read(group.path, group.number)
        found: Row = table.slice(int(self._rows[row]) - group.first, 1).to_pylist()[0]
        return found | {"ts_close": int(self.ts_close[row])}

    def at(self, ts: int) -> int:
        """Return the row of the last bar that had closed at ``ts``.

        Raises
        ------
        LSTMStrategyError
            Where that lies outside the log.
        """
        row = int(np.searchsorted(self.ts_close, ts, side="right")) - 1
        if row < 0 or ts >= self.ts_close[-1] + max(self.timeframe.ns, self.header.closed_ns):
            first, last = format_ns(int(self.ts_close[0])), format_ns(int(self.ts_close[-1]))
            raise LSTMStrategyError(
                f"{format_ns(ts)} lies outside {self.path}; it holds the bars from {first} to {last}"
            )
        return row

    def column(self, name: str) -> pa.Array:
        """One column of all bars; ``risk.NAME`` for a field of the risk state."""
        paths = dict.fromkeys(group.path for group in self._groups)
        top, _, field = name.partition(".")
        read = [pc.struct_field(chunk, field) if field else chunk for path in paths for chunk in _column(path, top)]
        whole = pa.chunked_array(read).combine_chunks()
        return whole if len(self._rows) == len(whole) else whole.take(pa.array(self._rows))

    def floats(self, name: str) -> Float:
        """A column of numbers or truths, float64 [T]; NaN where there is none."""
        # Stamps lie beyond what a float holds to the nanosecond; they are whole seconds.
        column = self.column(name).cast(pa.float64(), safe=False)
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)

    def texts(self, name: str) -> list[str]:
        """A column of text; a list is joined by commas."""
        return [value if isinstance(value, str) else ", ".join(value or ()) for value in self.column(name).to_pylist()]

    def matrix(self, name: str) -> Float:
        """A column of lists, float64 [T, K]; NaN where there is none."""
        column = self.column(name)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        found = np.full((len(lengths), int(lengths.max(initial=0))), np.nan)
        found[np.arange(found.shape[1]) < lengths[:, None]] = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        return found

    def _group(self, row: int) -> _Group:
        firsts = [group.first for group in self._groups]
        return self._groups[int(np.searchsorted(firsts, self._rows[row], side="right")) - 1]


def read_log(run: Path, instrument: str | None = None) -> Log:
    """Read the log of one instrument; the run's only one where none is named. Raises as `read_logs` does."""
    found = _find(run)
    name = next(iter(found)) if instrument is None and len(found) == 1 else instrument
    if name not in found:
        told = f"{run} holds decisions of {', '.join(found)}; name one of them"
        raise LSTMStrategyError(told if name is None else f"{told}, not {name}")
    return _open(run, found[name])


def read_logs(run: Path) -> dict[str, Log]:
    """Read the logs of a run folder, of ``RUN.decisions`` (what a killed backtest leaves), or the folder of the parts.

    Returns
    -------
    dict of Log
        By instrument, in the order of their names: several where they shared an account.

    Raises
    ------
    LSTMStrategyError
        Where there is none, where one holds no bar, or where a file is damaged.
    """
    return {name: _open(run, files) for name, files in _find(run).items()}


def _find(run: Path) -> dict[str, list[Path]]:
    """Return the files of each instrument's log."""
    if run.suffix == ".parquet" or (run.exists() and not run.is_dir()):
        raise LSTMStrategyError(f"{run} is a file, not a run folder; name the folder that `backtest` wrote")
    left = run.with_name(run.name + ".decisions")
    if not run.is_dir() and not left.is_dir():
        raise LSTMStrategyError(f"{run} is not a run folder; `lstm-strategy backtest` writes one")
    whole = run / "decisions.parquet"
    if whole.is_file():
        return {_instrument(whole): [whole]}
    for folder in (run / "decisions", run, left):
        if files := parts_of(folder):
            return {_instrument(files[0]): files}
        # Of several instruments each has a file, or a folder of parts, by its name.
        found = {unquote(path.stem): [path] for path in folder.glob("*.parquet")} if folder.name == "decisions" else {}
        found |= {unquote(path.parent.name): parts_of(path.parent) for path in folder.glob("*/part-*.parquet")}
        if found:
            return dict(sorted(found.items()))
    if (why := read_ending(run)) is not None:
        log = f"; see {run / 'node.jsonl'}" if (run / "node.jsonl").is_file() else ""
        raise LSTMStrategyError(f"{run}: the node ended before its first decision: {why or 'it was stopped'}{log}")
    if (run / "decisions").is_dir() or left.is_dir():
        raise LSTMStrategyError(f"{run} holds no decision yet; the first is written after the first bar closes")
    raise LSTMStrategyError(f"{run} holds no decision log; backtest again, or set decision_log where it trades live")


def _instrument(path: Path) -> str:
    try:
        return _header(path, pq.read_schema(path)).instrument
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _open(run: Path, files: list[Path]) -> Log:
    groups: list[_Group] = []
    stamps: list[Stamps] = []
    for path in files:
        try:
            file = pq.ParquetFile(path)
            found, counts = file.schema_arrow, [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            header = _header(path, found)
            ts_close = file.read(["ts_close"])["ts_close"].cast(pa.int64()).to_numpy()
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error) from error
        first = sum(map(len, stamps))
        for number, count in enumerate(counts):
            groups.append(_Group(path, number, first, header))
            first += count
        stamps.append(ts_close)
    whole_ts = np.concatenate(stamps)
    if not len(whole_ts):
        raise LSTMStrategyError(f"{files[0]} holds no bar yet; there is nothing to explain")
    # The last of equal stamps: the first of the reversed ones.
    ts_close, reversed_rows = np.unique(whole_ts[::-1], return_index=True)
    names = {(group.header.instrument, group.header.timeframe) for group in groups}
    if len(names) > 1:
        told = ", ".join(sorted(" ".join(name) for name in names))
        raise LSTMStrategyError(f"{run} holds decisions of {told}; a log is of one instrument and timeframe")
    return Log(files[0].parent, ts_close, tuple(groups), len(whole_ts) - 1 - reversed_rows)


def _header(path: Path, schema: pa.Schema) -> Header:
    content = (schema.metadata or {}).get(HEADER)
    if content is None:
        raise LSTMStrategyError(f"{path} is no decision log: it was written without one; backtest again")
    try:
        header = msgspec.json.decode(content, type=Header)
    except (msgspec.MsgspecError, LSTMStrategyError) as error:
        raise LSTMStrategyError(f"{path}: its settings cannot be read ({error}); another version wrote it") from error
    return header


def _read(path: Path, group: int) -> pa.Table:
    try:
        return pq.ParquetFile(path).read_row_group(group)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _column(path: Path, name: str) -> list[pa.Array]:
    try:
        if name == "forecast_position" and name not in (file := pq.ParquetFile(path)).schema_arrow.names:
            return [pa.nulls(file.metadata.num_rows, pa.float64())]  # a log of an earlier version
        chunks: list[pa.Array] = pq.read_table(path, columns=[name], partitioning=None)[name].chunks
    except (OSError, KeyError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    return chunks


def _damaged(path: Path, error: Exception) -> LSTMStrategyError:
    told = first_line_of(error)
    return LSTMStrategyError(f"{path} is damaged ({told}); move it away to read the rest, or run again")
