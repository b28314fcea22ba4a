"""A market as `data import` brings it in: its raw bars, its instrument, and the engine's catalog of them."""

from __future__ import annotations

from pathlib import Path

from lstm_strategy.bars import Bars
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.sources.store import RawStore


def bring_in(root: Path, bars: Bars, instrument: Instrument) -> RawStore:
    """Put a market in the catalog folder ``root``, in the place of what is known of it there."""
    store = RawStore(root)
    store.write_instrument(instrument)
    store.merge(bars, replace=True)
    write_catalog(root, bars, instrument)
    return store
