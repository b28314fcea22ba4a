"""The engine's catalog as the image of the raw store: written where the two differ, and at any time anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe
from lstm_strategy.sources.store import RawStore

__all__ = ["is_current", "write_entry"]

_MARK = "catalog.json"


class _Mark(msgspec.Struct, frozen=True):
    """What the catalog was made from, and the files that make it up."""

    raw: str
    files: list[str]


def is_current(store: RawStore, instrument_id: str, timeframe: Timeframe) -> bool:
    """Say whether the catalog was made from the bars and the instrument as they are; asks no engine."""
    try:
        mark = msgspec.json.decode((store.folder(instrument_id, timeframe) / _MARK).read_bytes(), type=_Mark)
    except (OSError, msgspec.DecodeError):
        return False
    same = mark.raw == _state(store, instrument_id, timeframe)
    return same and bool(mark.files) and all((store.root / name).is_file() for name in mark.files)


def write_entry(store: RawStore, instrument_id: str, timeframe: Timeframe) -> None:
    """Write the catalog's bars of one instrument and timeframe, and the instrument, from the raw store."""
    from lstm_strategy.nautilus.catalog import bar_type, write_catalog  # the engine is slow to import

    state = _state(store, instrument_id, timeframe)
    write_catalog(store.root, store.read(instrument_id, timeframe), store.read_instrument(instrument_id))
    data = store.root / "data"
    bars = data / "bar" / str(bar_type(instrument_id, timeframe)).replace("/", "")
    files = [*bars.glob("*.parquet"), *data.glob(f"*/{instrument_id.replace('/', '')}/*.parquet")]
    mark = _Mark(state, sorted(str(file.relative_to(store.root)) for file in files))
    with atomic_write(store.folder(instrument_id, timeframe) / _MARK) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(mark), indent=1) + b"\n")


def _state(store: RawStore, instrument_id: str, timeframe: Timeframe) -> str:
    """Return a digest that changes with the bars on disk or the instrument."""
    folder = store.folder(instrument_id, timeframe)
    files: list[Path] = [folder / "bars.parquet", *sorted((folder / "pages").glob("*.parquet"))]
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    instrument = msgspec.json.encode(store.read_instrument(instrument_id))
    return hashlib.sha256(repr(seen).encode() + instrument).hexdigest()
