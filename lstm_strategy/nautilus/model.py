"""What the strategy needs of an artefact on disk: a forecaster that fits its instrument, timeframe and horizon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lstm_strategy import artefact
from lstm_strategy.bars import Timeframe
from lstm_strategy.decision import Shrinkage
from lstm_strategy.forecaster import Forecaster

__all__ = ["Model", "open_model"]


@dataclass(frozen=True, slots=True)
class Model:
    """A forecaster with its name, and the shrinkage of its mean at the sizing horizon.

    ``closed_ns`` is the longest time between two closes that is the market being closed.
    """

    forecaster: Forecaster
    label: str
    shrinkage: Shrinkage
    bars_per_year: float
    closed_ns: int


def open_model(folder: Path, instrument_id: str, timeframe: Timeframe, horizon: int) -> Model:
    """Verify and load an artefact; refuse one of another instrument, timeframe or without this horizon."""
    loaded = artefact.load(folder)
    loaded.require(timeframe=timeframe.text)
    return Model(
        Forecaster(loaded, instrument_id),
        loaded.label,
        loaded.shrinkage(horizon),
        loaded.require_instrument(instrument_id).bars_per_year,
        loaded.manifest.features.closed_ns,
    )
