"""What every baseline shares: the interface, the rows it may learn from, the units it answers in."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Float32
from lstm_strategy.hyperparameters import Spans, TargetConfig
from lstm_strategy.research.labels import Sample, span_mask

__all__ = ["Baseline", "MissingLibraryError", "constant_HQ", "taught_TH", "unit_TH"]


class MissingLibraryError(LSTMStrategyError):
    """A baseline whose library is not installed; the message is the reason for leaving it out."""


class Baseline(Protocol):
    """A method that learns from the fit and stop spans and forecasts every bar from what its close knows."""

    name: str

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return q_THQ for each sample, all its bars, in units of σ√h; NaN where there is no forecast."""
        ...


def taught_TH(sample: Sample, spans: Spans, target: TargetConfig) -> npt.NDArray[np.bool_]:
    """Rows and horizons that a baseline may learn from: labels of the fit and stop spans, purged as for training."""
    purge = target.horizons[-1]
    inside = span_mask(sample.bars, spans["fit"], purge) | span_mask(sample.bars, spans["stop"], purge)
    known_TH = (inside & sample.matrix.valid_T)[:, None] & ~np.isnan(sample.y_TH)
    if not known_TH.any(axis=0).all():
        raise LSTMStrategyError(
            f"{sample.bars.instrument_id}: the fit and stop spans hold no label for a horizon, so no baseline can be"
            " fitted; move split.stop_end or shorten the horizon"
        )
    return np.asarray(known_TH)


def unit_TH(sample: Sample, target: TargetConfig) -> Float:
    """σ√h of every bar and horizon: what a log return is divided by."""
    return np.asarray(sample.matrix.scale_T[:, None] * np.sqrt(np.array(target.horizons, np.float64)))


def constant_HQ(y_TH: npt.NDArray[np.floating], taught: npt.NDArray[np.bool_], levels: tuple[float, ...]) -> Float:
    """Empirical quantiles of the taught rows of each column."""
    columns = [y_TH[known, column].astype(np.float64) for column, known in enumerate(taught.T)]
    return np.stack([np.quantile(column, levels) for column in columns])
