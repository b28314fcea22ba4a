"""Baselines: what simpler methods forecast from the same bars, in the same units, fitted on the same spans."""

from __future__ import annotations

from collections.abc import Callable

from lstm_strategy.research.baselines_base import Baseline, MissingLibraryError
from lstm_strategy.research.baselines_features import LightGbmQuantiles, LinearQuantiles
from lstm_strategy.research.baselines_prophet import ProphetQuantiles
from lstm_strategy.research.baselines_volatility import EwmaQuantiles, Garch, HarRange, RandomWalk

__all__ = ["BASELINES", "Baseline", "MissingLibraryError"]

_KINDS = (RandomWalk, EwmaQuantiles, Garch, HarRange, LinearQuantiles, LightGbmQuantiles, ProphetQuantiles)
BASELINES: dict[str, Callable[[], Baseline]] = {kind.name: kind for kind in _KINDS}
