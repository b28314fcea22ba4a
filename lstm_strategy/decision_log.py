"""The decision log: what was seen, forecast, decided and done at every bar, on disk as Parquet while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Bar, format_ns
from lstm_strategy.decision import Conditions, Decision, PortfolioState
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Float32, Forecast
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.risk import RiskState
from lstm_strategy.sizing import Costs, Shrinkage, Sized, SizingConfig

__all__ = [
    "CONDITIONS",
    "DECISIONS",
    "HEADER",
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
# Dictionaries of numbers that hardly repeat would double the cost, and the size.
_PARQUET: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["instrument", "reason", "action", "model"]}
HEADER = b"lstm_strategy.decision_log"
STAMP = pa.timestamp("ns", "UTC")

DECISIONS = pa.schema(
    [
        ("ts_close", STAMP),
        ("instrument", pa.string()),
        ("target", pa.float64()),
        ("exposure", pa.float64()),
        ("reason", pa.string()),
        ("bound", pa.list_(pa.string())),
        ("action", pa.string()),
        ("quantity", pa.float64()),
        ("price", pa.float64()),
        ("equity", pa.float64()),
    ]
)
"""The columns that every record of decisions has; the log adds what they were made from."""

_KINDS = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _struct(kind: type[msgspec.Struct] | type[Sized]) -> pa.StructType:
    """Return a column of a struct's fields; what is neither number nor truth is text."""
    return pa.struct([(name, _KINDS.get(of, pa.string())) for name, of in get_type_hints(kind).items()])


CONDITIONS, _RISK, _WORTH = _struct(Conditions), _struct(RiskState), _struct(Sized)
_SCHEMA = pa.schema(
    [
        *DECISIONS,
        *((name, pa.float64()) for name in ("open", "high", "low", "volume", "position", "pending")),
        *((name, pa.float64()) for name in ("other_gross", "other_net", "scale", "forecast_position")),
        ("model", pa.string()),
        ("cancel_opening", pa.bool_()),
        ("waiting", pa.bool_()),
        *((name, pa.list_(pa.float32())) for name in ("features", "raw", "quantiles")),
        ("conditions", CONDITIONS),
        ("risk", _RISK),
        ("worth", _WORTH),
    ]
)


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """What training knows of the model that speaks from the bar closed at ``first`` on (see `Trained`)."""

    first: int
    version: str
    shrinkage: dict[int, Shrinkage]
    width: float | None
    bars_per_year: float


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all rows of a file: whose decisions they are, by which settings, and what its numbers mean.

    Parameters
    ----------
    features : tuple of str [F]
        Empty where forecasts came without features, as recorded ones do.
    horizons, levels
        Of the forecasts; empty before the first one.
    closed_ns : int
        The longest time between two closes that is the market being closed.
    others : dict
        All other settings that orders may depend on, as plain values.
    joint : bool
        Whether others share the account: a portfolio said what the name is worth, limits held for all together.
    """

    instrument: str
    timeframe: str
    model: str
    sizing: SizingConfig
    limits: LimitsConfig
    costs: Costs
    voices: tuple[Voice, ...]
    features: tuple[str, ...] = ()
    horizons: tuple[int, ...] = ()
    levels: tuple[float, ...] = ()
    closed_ns: int = 0
    others: dict[str, Any] = {}
    joint: bool = False
    version: int = 1


class Entry(NamedTuple):
    """One bar.

    ``x_F`` are the features and ``raw_HQ`` the network's quantiles in units of σ√h, before calibration; both None where
    there were none. ``waiting``: earlier bars were still on their way, so that nothing but a halt was acted upon.
    ``worth`` is what a portfolio of several names gave this one; the state then counts all names' orders and turnover.
    A bar that was missing has a stamp, the last close before it, and NaN.
    """

    bar: Bar
    forecast: Forecast | None
    x_F: Float32 | None
    raw_HQ: Float32 | None
    model: str
    conditions: Conditions
    state: PortfolioState
    position: float
    decision: Decision
    waiting: bool
    action: str
    quantity: float
    worth: Sized | None = None


class DecisionLog:
    """Writes entries to numbered Parquet files of ``part_rows`` rows in ``folder``; holds no more than those in memory.

    The newest file is written anew, whole or not at all, whenever ``flush_s`` wall seconds have passed and at `flush`:
    a process that dies leaves all else readable. A folder with parts is gone on with. Where the disk refuses, rows
    beyond twice ``part_rows`` are lost and counted.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        *,
        part_rows: int = PART_ROWS,
        flush_s: float = FLUSH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.header, self.lost = folder, header, 0
        self._part_rows, self._flush_s, self._clock = part_rows, flush_s, clock
        self._entries: list[Entry] = []
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
        if self._clock() - self._flushed >= self._flush_s:
            self.flush()
        elif len(entries) > self._part_rows:
            self._write_full_parts()

    def flush(self) -> None:
        """Write what is in memory. Raises as `add` does."""
        self._flushed = self._clock()
        self._write_full_parts()
        if self._entries:
            self._write(self._entries)

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
            pq.write_table(_to_table(rows, self.header), temporary, **_PARQUET)


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
    schema = pq.read_schema(parts[-1]) if parts else _SCHEMA  # the last one's header knows the horizons
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


def _to_table(entries: list[Entry], header: Header) -> pa.Table:
    """Return the rows in the log's schema, the header in its metadata."""
    bars, forecasts, xs, raws, models, conditions, states, positions, decisions, waiting, actions, quantities, worth = (
        zip(*entries, strict=True)
    )
    ts_close, opens, highs, lows, closes, volumes = zip(*bars, strict=True)
    columns: dict[str, Any] = {
        "ts_close": np.array(ts_close, np.int64),
        "instrument": [header.instrument] * len(entries),
        "target": [decision.target for decision in decisions],
        "exposure": [decision.exposure for decision in decisions],
        "reason": [decision.reason.value for decision in decisions],
        "bound": [list(decision.bound) for decision in decisions],
        "action": actions,
        "quantity": quantities,
        "price": closes,
        "equity": [state.equity for state in states],
        "open": opens,
        "high": highs,
        "low": lows,
        "volume": volumes,
        "position": positions,
        "pending": [state.pending for state in states],
        "other_gross": [state.other_gross for state in states],
        "other_net": [state.other_net for state in states],
        "scale": [None if forecast is None else forecast.scale for forecast in forecasts],
        "forecast_position": [None if forecast is None else forecast.position for forecast in forecasts],
        "model": models,
        "cancel_opening": [decision.cancel_opening for decision in decisions],
        "waiting": waiting,
        "features": _lists(xs),
        "raw": _lists(raws),
        "quantiles": _lists([None if forecast is None else forecast.quantiles_HQ for forecast in forecasts]),
        "conditions": _structs(conditions, CONDITIONS),
        "risk": _structs([state.risk for state in states], _RISK),
        "worth": pa.array([None if sized is None else sized._asdict() for sized in worth], _WORTH),
    }
    return pa.table(columns, schema=_SCHEMA.with_metadata({HEADER: msgspec.json.encode(header)}))


def _structs(rows: Iterable[msgspec.Struct], kind: pa.StructType) -> pa.Array:
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, kind, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def _lists(rows: Any) -> pa.Array:
    """Return one flat list a row, null where there is none."""
    sizes = [0 if row is None else row.size for row in rows]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    known = [row.ravel() for row in rows if row is not None]
    values = np.concatenate(known) if known else np.zeros(0, np.float32)
    offsets = pa.array(ends, pa.int32(), mask=np.array([*(row is None for row in rows), False]))
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32()))
