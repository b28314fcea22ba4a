"""The engine's Parquet catalog, written and read as arrays: whole histories, replaced atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from lstm_strategy.atomic import atomic_write, exclusive
from lstm_strategy.bars import Bars, Float, Stamps, Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.engine import (
    ENGINE_MAJOR,
    ENGINE_VERSION,
    BarType,
    EngineInstrument,
    require_supported,
)
from lstm_strategy.nautilus.fixed import decode, encode, precision_of, to_steps
from lstm_strategy.nautilus.instruments import from_engine, price_precision, to_engine

__all__ = [
    "bar_type",
    "engine_path",
    "files_of",
    "read_catalog",
    "read_engine_instrument",
    "read_instrument",
    "write_catalog",
]

_UNITS = {"s": "SECOND", "m": "MINUTE", "h": "HOUR", "d": "DAY"}
_ROW_GROUP = 50_000  # bars written at a time: memory does not grow with the history
_PRICES = ("open", "high", "low", "close")
_MARK = "engine.json"
_PATTERN = frozenset("*?[")


def bar_type(instrument_id: str, timeframe: Timeframe) -> BarType:
    """Return the engine's name for these bars, such as ``BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL``.

    Raises
    ------
    LSTMStrategyError
        Where the engine does not know bars of this length (``7h``).
    """
    text = f"{instrument_id}-{timeframe.text[:-1]}-{_UNITS[timeframe.text[-1]]}-LAST-EXTERNAL"
    try:
        return BarType.from_str(text)
    except ValueError as error:
        raise LSTMStrategyError(f"{instrument_id}: the engine has no bars of {timeframe}: {error}") from error


def write_catalog(root: Path, bars: Bars, instrument: Instrument) -> None:
    """Replace the instrument's bars of this timeframe, and the instrument itself, by these.

    Nothing is appended: the raw files are the truth, the catalog their image. A reader sees the old bars or the new.

    Parameters
    ----------
    root : Path
        The catalog's folder; made where missing.
    bars : Bars
        The whole history.

    Raises
    ------
    LSTMStrategyError
        For an empty history, bars of another instrument, a price with more decimals than the tick, or a catalog of
        another engine version.
    """
    require_supported()
    engine_path(root)
    if bars.instrument_id != instrument.id:
        raise LSTMStrategyError(f"bars of {bars.instrument_id} do not belong to instrument {instrument.id}")
    if not len(bars):
        raise LSTMStrategyError(f"{instrument.id} {bars.timeframe}: no bars to write")
    name = str(bar_type(instrument.id, bars.timeframe))
    engine_instrument = to_engine(instrument)
    stem = "_".join(_name_stamp(int(ts)) for ts in bars.ts_close[[0, -1]])
    with exclusive(root):
        _sweep(root)
        _mark(root)
        with _replacing(_folder(root, name), stem) as temporary:
            schema = _to_table(bars[:1], instrument, name).schema
            with pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
                for first in range(0, len(bars), _ROW_GROUP):
                    writer.write_table(_to_table(bars[first : first + _ROW_GROUP], instrument, name))
            _write_instrument(root, engine_instrument)  # once the bars are known to fit it


def read_catalog(root: Path, instrument_id: str, timeframe: Timeframe) -> Bars:
    """Return all bars of one instrument and timeframe.

    Raises
    ------
    LSTMStrategyError
        Where they are missing, do not fit the instrument's tick, or were written by another engine version.
    """
    _check_mark(root)
    name = str(bar_type(instrument_id, timeframe))
    folder = _folder(root, name)
    try:
        table = _read_files(folder)
        if table is None:
            raise LSTMStrategyError(f"{root} has no bars {name}; import them with 'lstm-strategy data import'")
        metadata = table.schema.metadata
        precisions = int(metadata[b"price_precision"]), int(metadata[b"size_precision"])
        ts_close = table["ts_event"].to_numpy().astype(np.int64)
        columns = [_decode_column(table, column, precisions[0], ts_close, name) for column in _PRICES]
        columns.append(_decode_column(table, "volume", precisions[1], ts_close, name))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise LSTMStrategyError(f"{folder} cannot be read as bars: {error}") from error
    return Bars(instrument_id, timeframe, ts_close, *columns)


def _read_files(folder: Path) -> pa.Table | None:
    """Return all there is; looks again where a writer has just renamed a file that was listed."""
    for _ in range(5):
        files = sorted(folder.glob("*.parquet"))
        try:
            return pa.concat_tables([pq.read_table(path) for path in files]).combine_chunks() if files else None
        except FileNotFoundError:
            continue
    raise OSError(f"{folder} is being written again and again")


def engine_path(root: Path) -> str:
    """Return a catalog's folder as the engine is to be told it: whole, and with the protocol "file" beside it.

    By a path alone the engine looks for the catalog under its name quoted as in an URL: where there are blanks or
    accents it finds no history, and says nothing.

    Raises
    ------
    LSTMStrategyError
        Where the engine would take the path for a pattern, and search the whole disk.
    """
    path = str(root.resolve())
    if not _PATTERN.isdisjoint(path):
        raise LSTMStrategyError(f"catalog {path}: the engine takes * ? and [ for a pattern; keep it in another folder")
    return path


def read_engine_instrument(root: Path, instrument_id: str) -> EngineInstrument:
    """Return the engine's instrument as the catalog holds it; raises `LSTMStrategyError` where it is missing."""
    _check_mark(root)
    found = ParquetDataCatalog(engine_path(root)).instruments(instrument_ids=[instrument_id])
    if not found:
        raise LSTMStrategyError(f"{root} has no instrument {instrument_id}; import it with 'lstm-strategy data import'")
    return found[0]


def read_instrument(root: Path, instrument_id: str) -> Instrument:
    """Return the neutral instrument; raises `LSTMStrategyError` where it is missing."""
    return from_engine(read_engine_instrument(root, instrument_id))


def files_of(root: Path, instrument_id: str, timeframe: Timeframe) -> list[Path]:
    """Return the files of one instrument and its bars of one timeframe, and what marks the catalog as one."""
    name = instrument_id.replace("/", "")
    bars = _folder(root, str(bar_type(instrument_id, timeframe))).glob("*.parquet")
    others = (root / "data").glob(f"*/{name}/*.parquet")
    return [root / _MARK, *sorted(bars), *sorted(others)]


def _folder(root: Path, name: str) -> Path:
    """Return where the bars of one type lie; the engine leaves slashes out (``BTC/USD.KRAKEN``)."""
    return root / "data" / "bar" / name.replace("/", "")


def _to_table(bars: Bars, instrument: Instrument, name: str) -> pa.Table:
    price_decimals, size_precision = price_precision(instrument), precision_of(instrument.lot)
    columns = []
    for column in (*_PRICES, "volume"):
        values: Float = getattr(bars, column)
        precision = size_precision if column == "volume" else price_decimals
        try:
            steps, rounded = to_steps(values, precision)
        except OverflowError as error:
            raise LSTMStrategyError(f"{instrument.id}: {column} {error}") from error
        if column != "volume" and rounded.any():
            row = int(rounded.argmax())
            raise LSTMStrategyError(
                f"{instrument.id} {bars.timeframe}: {column} {values[row]} at {format_ns(bars.ts_close[row])} has more"
                f" decimals than tick {instrument.tick} ({int(rounded.sum())} such rows); import with a smaller tick"
            )
        words = np.ascontiguousarray(encode(steps, precision)).astype("<u8", copy=False)
        columns.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(bars), [None, pa.py_buffer(words)]))
    stamps = pa.array(bars.ts_close.view(np.uint64))
    fields = [pa.field(column, pa.binary(16), nullable=False) for column in (*_PRICES, "volume")]
    fields += [pa.field(column, pa.uint64(), nullable=False) for column in ("ts_event", "ts_init")]
    metadata = {
        "bar_type": name,
        "instrument_id": instrument.id,
        "price_precision": str(price_decimals),
        "size_precision": str(size_precision),
    }
    return pa.table([*columns, stamps, stamps], schema=pa.schema(fields, metadata=metadata))


def _decode_column(table: pa.Table, column: str, precision: int, ts_close: Stamps, name: str) -> Float:
    if not len(table):
        return np.empty(0)
    array = table[column].chunk(0)
    words = np.frombuffer(array.buffers()[1], "<u8").reshape(-1, 2)[array.offset : array.offset + len(array)]
    values, inexact = decode(words, precision)
    if inexact.any():
        row = int(inexact.argmax())
        raise LSTMStrategyError(
            f"{name}: {column} at {format_ns(ts_close[row])} has more than the {precision} decimals of its file"
        )
    return values


@contextmanager
def _replacing(folder: Path, stem: str) -> Iterator[Path]:
    """Yield a temporary file that takes the place of the one there: a single rename, at no moment none, or two.

    The engine reads the span of a file off its name; the old file takes the new one's first, where they differ.
    """
    path = folder / f"{stem}.parquet"
    with atomic_write(path) as temporary:
        yield temporary
        old = sorted(folder.glob("*.parquet"))
        if old and path not in old:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())  # a full disk must show before the old file is renamed
            os.replace(old[0], path)
    for other in old:
        if other != path:
            other.unlink(missing_ok=True)


def _write_instrument(root: Path, instrument: EngineInstrument) -> None:
    """Put the instrument in place, alone: of two copies the engine would take the older."""
    with _staging(root) as staging:
        ParquetDataCatalog(staging).write_data([instrument])
        (new,) = (staging / "data").glob("*/*/*.parquet")
        target = root / "data" / new.relative_to(staging / "data")
        with atomic_write(target) as temporary:
            shutil.copyfile(new, temporary)
    for other in (root / "data").glob(f"*/{target.parent.name}/*.parquet"):
        if other != target:
            other.unlink()
            if other.parent != target.parent:
                shutil.rmtree(other.parent, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what a killed writer left; the caller holds the catalog, so nobody is at work there."""
    for left in root.glob(".staging-*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in (root / "data").glob("*/*/.*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    # Outside data/, so that no reader globs into it.
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=root))
    try:
        yield staging
    except OSError as error:
        raise LSTMStrategyError(f"catalog {root} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _mark(root: Path) -> None:
    """Say which engine this catalog belongs to; the engines' formats cannot be read by one another."""
    path = root / _MARK
    if path.exists():
        _check_mark(root)
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(msgspec.json.encode({"engine": "nautilus_trader", "version": ENGINE_VERSION}))


def _check_mark(root: Path) -> None:
    path = root / _MARK
    try:
        version = str(msgspec.json.decode(path.read_bytes())["version"])
        major = int(version.split(".", maxsplit=1)[0])
    except FileNotFoundError:
        raise LSTMStrategyError(f"{root} is not a catalog; fill one with 'lstm-strategy data import'") from None
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise LSTMStrategyError(f"{path} does not say which engine wrote the catalog: {error}") from error
    if major != ENGINE_MAJOR:
        raise LSTMStrategyError(
            f"{root} was written by nautilus_trader {version}, {ENGINE_VERSION} is installed: write it anew from the"
            " raw files"
        )


def _name_stamp(ts: int) -> str:
    seconds, ns = divmod(ts, 1_000_000_000)
    return f"{format_ns(seconds * 1_000_000_000)[:-1].replace(':', '-')}-{ns:09d}Z"
