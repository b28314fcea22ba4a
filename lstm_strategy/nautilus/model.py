"""What the strategy needs of a model on disk: a forecaster that fits its instrument, timeframe and horizon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lstm_strategy import artefact
from lstm_strategy.bars import Timeframe
from lstm_strategy.decision import Shrinkage
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.schedule import read_schedule
from lstm_strategy.speakers import Recorded, Switching

__all__ = ["Model", "ScheduledModel", "open_model"]


@dataclass(frozen=True, slots=True)
class Model:
    """A forecaster with its name, and the shrinkage of its mean at the sizing horizon.

    ``closed_ns`` is the longest time between two closes that is the market being closed. ``whole_history``: whether it
    begins with the first bar there is, or a warm-up ago.
    """

    forecaster: Forecaster
    label: str
    shrinkage: Shrinkage
    bars_per_year: float
    closed_ns: int
    whole_history: bool = False


class ScheduledModel:
    """Several models in turn, or what they said: as `Model`, with the shrinkage of the one whose turn it is."""

    def __init__(self, forecaster: Recorded | Switching, horizon: int) -> None:
        schedule = forecaster.schedule
        self.forecaster, self.label, self.closed_ns = forecaster, schedule.label, schedule.closed_ns
        self.whole_history = isinstance(forecaster, Switching)
        self._row = schedule.horizons.index(horizon)

    @property
    def shrinkage(self) -> Shrinkage:
        """Of the forecast mean, as fitted for the model whose turn it is."""
        return self.forecaster.turn.shrinkage[self._row]

    @property
    def bars_per_year(self) -> float:
        """As that model counted them."""
        return self.forecaster.turn.bars_per_year


def open_model(path: Path, instrument_id: str, timeframe: Timeframe, horizon: int) -> Model | ScheduledModel:
    """Verify and load an artefact's folder, or the JSON file of a `Schedule`.

    Raises
    ------
    LSTMStrategyError
        Where it is of another instrument or timeframe, or lacks this horizon.
    """
    if path.suffix == ".json" and path.is_file():
        schedule = read_schedule(path)
        if (schedule.instrument_id, schedule.timeframe) != (instrument_id, timeframe.text):
            made = f"{schedule.instrument_id} {schedule.timeframe}"
            raise LSTMStrategyError(f"{schedule.label} forecasts {made}, not {instrument_id} {timeframe}")
        if horizon not in schedule.horizons:
            known = ", ".join(map(str, schedule.horizons))
            raise LSTMStrategyError(f"sizing.horizon is {horizon}; {schedule.label} forecasts {known}")
        return ScheduledModel(Recorded(schedule) if schedule.recorded else Switching(schedule), horizon)
    loaded = artefact.load(path)
    loaded.require(timeframe=timeframe.text)
    return Model(
        Forecaster(loaded, instrument_id),
        loaded.label,
        loaded.shrinkage(horizon),
        loaded.require_instrument(instrument_id).bars_per_year,
        loaded.manifest.features.closed_ns,
    )
