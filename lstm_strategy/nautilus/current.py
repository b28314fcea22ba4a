"""Whether the engine's catalog is still the image of the raw bars beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Bars, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.catalog import read_instrument
from lstm_strategy.nautilus.fixed import precision_of
from lstm_strategy.sources.store import RawStore

__all__ = ["require_current"]


def require_current(root: Path, bars: Bars) -> None:
    """Raise `LSTMStrategyError` where the raw bars beside the catalog are not these; a catalog alone is its own truth.

    Volumes may differ by the lot that they are rounded to.
    """
    store = RawStore(root)
    if not store.has(bars.instrument_id, bars.timeframe):
        return
    raw = store.read(bars.instrument_id, bars.timeframe)
    volume_step = 10.0 ** -precision_of(read_instrument(root, bars.instrument_id).lot)
    if len(raw) != len(bars):
        difference = f"holds {len(bars)} bars, the raw files {len(raw)}"
    elif (other := ~_same_bars(raw, bars, volume_step)).any():
        difference = f"differs from the raw files in {int(other.sum())} bars, first at"
        difference += f" {format_ns(raw.ts_close[int(other.argmax())])}"
    else:
        return
    raise LSTMStrategyError(
        f"{bars.instrument_id} {bars.timeframe}: the engine's catalog {difference}; write it anew with"
        " 'lstm-strategy data rebuild', or import the bars again with 'lstm-strategy data import'"
    )


def _same_bars(raw: Bars, bars: Bars, volume_step: float) -> npt.NDArray[np.bool_]:
    same = raw.ts_close == bars.ts_close
    for column in ("open", "high", "low", "close"):
        same &= np.isclose(getattr(raw, column), getattr(bars, column), rtol=1e-12, atol=0.0)
    rounded = np.abs(raw.volume - bars.volume)
    return np.asarray(same & (rounded <= 0.500001 * volume_step + 1e-12 * raw.volume))
