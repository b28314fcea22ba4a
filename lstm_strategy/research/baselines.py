"""Baselines: what simpler methods forecast from the same bars, in the same units, fitted on the same spans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import Spans, TargetConfig
from lstm_strategy.research.labels import Sample, span_mask

__all__ = ["BASELINES", "Baseline", "EwmaQuantiles", "RandomWalk", "taught_TH", "unit_TH"]

Float32 = npt.NDArray[np.float32]


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


def unit_TH(sample: Sample, target: TargetConfig) -> npt.NDArray[np.float64]:
    """σ√h of every bar and horizon: what a log return is divided by."""
    return np.asarray(sample.matrix.scale_T[:, None] * np.sqrt(np.array(target.horizons, np.float64)))


class RandomWalk:
    """Constant quantiles of the raw log return: nothing is known, not even the volatility."""

    name = "random_walk"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the taught quantiles of the raw return, in each bar's unit."""
        found = []
        for sample in samples:
            raw_TH, unit = sample.y_TH * unit_TH(sample, target), unit_TH(sample, target)
            raw_TH[~taught_TH(sample, spans, target)] = np.nan
            raw_HQ = np.nanquantile(raw_TH, target.levels, axis=0).T
            found.append((raw_HQ / unit[:, :, None]).astype(np.float32))
        return found


class EwmaQuantiles:
    """Constant quantiles in units of σ: only the EWMA volatility is known."""

    name = "ewma"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the taught quantiles of the scaled return at every bar past the warm-up."""
        found = []
        for sample in samples:
            taught = np.where(taught_TH(sample, spans, target), sample.y_TH, np.nan).astype(np.float64)
            q_HQ = np.nanquantile(taught, target.levels, axis=0).T
            valid = sample.matrix.valid_T[:, None, None]
            found.append(np.where(valid, q_HQ, np.nan).astype(np.float32))
        return found


BASELINES: dict[str, Callable[[], Baseline]] = {kind.name: kind for kind in (RandomWalk, EwmaQuantiles)}
