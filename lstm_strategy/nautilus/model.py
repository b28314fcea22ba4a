"""What the strategy needs of a model on disk: a forecaster that fits its instrument, timeframe and horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstm_strategy import artefact
from lstm_strategy.bars import Timeframe
from lstm_strategy.conformal import STATIC, CalibrationConfig
from lstm_strategy.decision import Shrinkage, SizingConfig, Trained
from lstm_strategy.decision_log import Voice
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.schedule import read_schedule
from lstm_strategy.speakers import Recorded, Switching

__all__ = ["Model", "ScheduledModel", "open_model"]


@dataclass(frozen=True, slots=True)
class Model:
    """A forecaster with its name, and what its training knows of the horizons that the sizing reads.

    ``closed_ns`` is the longest time between two closes that is the market being closed. ``whole_history``: whether it
    begins with the first bar there is, or a warm-up ago.
    """

    forecaster: Forecaster
    label: str
    trained: Trained
    bars_per_year: float
    closed_ns: int
    whole_history: bool = False
    levels: tuple[float, ...] | None = None

    @property
    def version(self) -> str:
        """What spoke at the last bar."""
        return self.label

    @property
    def voices(self) -> tuple[Voice, ...]:
        """For the decision log."""
        return (_voice(0, self.label, self.trained, self.bars_per_year),)

    def may_say(self, forecast: Forecast) -> bool:
        """Whether a forecast is of numbers in their order, with a position where the model has learned one."""
        if self.forecaster.artefact.manifest.has_position and not np.isfinite(forecast.position):
            return False
        quantiles_HQ = forecast.quantiles_HQ
        return bool(np.isfinite(quantiles_HQ).all() and (np.diff(quantiles_HQ, axis=1) >= 0.0).all())


class ScheduledModel:
    """Several models in turn, or what they said: as `Model`, with the training of the one whose turn it is."""

    def __init__(self, forecaster: Recorded | Switching, sizing: SizingConfig | None) -> None:
        schedule = forecaster.schedule
        self.forecaster, self.label, self.closed_ns = forecaster, schedule.label, schedule.closed_ns
        self.whole_history = isinstance(forecaster, Switching) or forecaster.adaptive
        self.levels = schedule.levels
        self._trained = {
            turn.first: _trained(schedule.horizons, schedule.levels, turn.shrinkage, turn.baseline, sizing)
            for turn in schedule.turns
        }

    @property
    def trained(self) -> Trained:
        """As fitted for the model whose turn it is."""
        return self._trained[self.forecaster.turn.first]

    @property
    def bars_per_year(self) -> float:
        """As that model counted them."""
        return self.forecaster.turn.bars_per_year

    @property
    def version(self) -> str:
        """What spoke at the last bar."""
        return self.forecaster.turn.version

    @property
    def voices(self) -> tuple[Voice, ...]:
        """For the decision log."""
        turns = self.forecaster.schedule.turns
        return tuple(_voice(turn.first, turn.version, self._trained[turn.first], turn.bars_per_year) for turn in turns)


def open_model(
    path: Path,
    instrument_id: str,
    timeframe: Timeframe,
    sizing: SizingConfig | None,
    calibration: CalibrationConfig = STATIC,
) -> Model | ScheduledModel:
    """Verify and load an artefact's folder, or the JSON file of a `Schedule`.

    ``sizing`` is what reads the forecasts; None where others do.

    Raises
    ------
    LSTMStrategyError
        Where it is of another instrument or timeframe, or lacks a horizon or the position that the sizing asks for.
    """
    if path.suffix == ".json" and path.is_file():
        schedule = read_schedule(path)
        if (schedule.instrument_id, schedule.timeframe) != (instrument_id, timeframe.text):
            made = f"{schedule.instrument_id} {schedule.timeframe}"
            raise LSTMStrategyError(f"{schedule.label} forecasts {made}, not {instrument_id} {timeframe}")
        _require_known(schedule.label, schedule.horizons, all(turn.position for turn in schedule.turns), sizing)
        speaker = Recorded if schedule.recorded else Switching
        return ScheduledModel(speaker(schedule, calibration), sizing)
    loaded = artefact.load(path)
    loaded.require(timeframe=timeframe.text)
    manifest = loaded.manifest
    _require_known(f"model {loaded.label}", manifest.horizons, manifest.has_position, sizing)
    return Model(
        Forecaster(loaded, instrument_id, calibration),
        loaded.label,
        _trained(manifest.horizons, manifest.levels, manifest.shrinkage, manifest.baseline, sizing),
        loaded.require_instrument(instrument_id).bars_per_year,
        manifest.features.closed_ns,
        levels=manifest.levels,
    )


def _voice(first: int, version: str, trained: Trained, bars_per_year: float) -> Voice:
    width = trained.width if np.isfinite(trained.width) else None
    return Voice(first=first, version=version, shrinkage=trained.shrinkage, width=width, bars_per_year=bars_per_year)


def _require_known(label: str, horizons: tuple[int, ...], position: bool, sizing: SizingConfig | None) -> None:
    if sizing is not None and sizing.mode == "network" and not position:
        raise LSTMStrategyError(
            f'sizing.mode is "network", but {label} has learned no position; train it with train.objective = "sharpe",'
            " or use another mode"
        )
    for horizon in () if sizing is None else sizing.used_horizons:
        if sizing is not None and horizon not in horizons:
            key = "horizons names" if sizing.horizons else "horizon is"
            raise LSTMStrategyError(f"sizing.{key} {horizon}; {label} forecasts {', '.join(map(str, horizons))}")


def _trained(
    horizons: tuple[int, ...],
    levels: tuple[float, ...],
    shrinkage: Sequence[Shrinkage],
    baseline_HQ: list[list[float]],
    sizing: SizingConfig | None,
) -> Trained:
    """Read the shrinkage by horizon, and the width of the sizing's interval off the training span's quantiles."""
    by_horizon = dict(zip(horizons, shrinkage, strict=True))
    if not baseline_HQ or sizing is None:
        return Trained(by_horizon)
    tail = (1.0 - sizing.interval) / 2
    low, high = np.interp([tail, 1.0 - tail], levels, baseline_HQ[horizons.index(sizing.horizon)])
    return Trained(by_horizon, float(high - low))
