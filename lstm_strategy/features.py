"""Features: one incremental step from bars to network inputs, used live and looped over history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Bar, Bars, Float, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features_config import FeatureConfig, FeaturesConfig, Kind
from lstm_strategy.features_kernel import (
    ALPHA,
    CLOSED,
    COUNT,
    FILTERED,
    HAMPEL_THRESHOLD,
    HAMPEL_WINDOW,
    LAST_TS,
    MAX_GAP,
    N_FLOATS,
    N_INTS,
    N_SETTINGS,
    SCALE_FLOOR,
    TICK,
    TIMEFRAME,
    WARM_UP,
    loop,
    step,
)
from lstm_strategy.forecast import Float32

__all__ = ["EMPTY_CONTEXT", "AsOf", "Context", "FeatureConfig", "FeatureMatrix", "Features", "FeaturesConfig"]

_KIND_NUMBER = {kind: number for number, kind in enumerate(get_args(Kind))}


class AsOf(NamedTuple):
    """A value from outside the bar, with the stamp (ns UTC) from which on it was known."""

    value: float
    ts_available: int


Context = Mapping[str, AsOf]
EMPTY_CONTEXT: Context = {}


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMatrix:
    """Features of a history. Rows that are not valid (warm-up) are NaN.

    Parameters
    ----------
    x_TF : float32 [T, F]
        Dimensionless.
    scale_T : float64 [T]
        σ: volatility of one bar's log return, known at the bar's close.
    count_T : int64 [T]
        Bars since the start, or since the last gap that was too long to tolerate.
    filtered : int
        Bars that the Hampel filter changed.
    """

    x_TF: Float32
    scale_T: Float
    count_T: npt.NDArray[np.int64]
    filtered: int

    @property
    def valid_T(self) -> npt.NDArray[np.bool_]:
        """Rows past the warm-up."""
        return ~np.isnan(self.scale_T)


class Features:
    """The rolling state behind the features of one instrument.

    Parameters
    ----------
    config : FeaturesConfig
    timeframe : Timeframe
    tick : float
        The price step; σ never falls below one tick.
    scale_floor : float
        The least σ; 5 % of its median over the training span, 0 while that is being found.
    """

    def __init__(self, config: FeaturesConfig, timeframe: Timeframe, tick: float, scale_floor: float = 0.0) -> None:
        self.config = config
        self._kinds = np.array([_KIND_NUMBER[feature.kind] for feature in config.features], np.int64)
        self._spans = np.array([(f.span, f.slow or f.period, f.signal) for f in config.features], np.int64)
        sizes = [config.hampel_window, *(feature.state_size for feature in config.features)]
        self._offsets = N_FLOATS + np.cumsum(sizes, dtype=np.int64)[: len(config.features)]
        self._floats = np.zeros(N_FLOATS + sum(sizes))
        self._ints = np.zeros(N_INTS, np.int64)
        self._settings = np.zeros(N_SETTINGS)
        self._settings[ALPHA] = 2.0 / (config.scale_span + 1.0)
        self._settings[TICK] = tick
        self._settings[SCALE_FLOOR] = scale_floor
        self._settings[TIMEFRAME] = timeframe.ns
        self._settings[MAX_GAP] = config.max_gap_bars
        self._settings[HAMPEL_WINDOW] = config.hampel_window
        self._settings[HAMPEL_THRESHOLD] = config.hampel_threshold
        self._settings[WARM_UP] = config.warmup
        self._settings[CLOSED] = config.closed_ns
        self._out = np.zeros(len(config.features), np.float32)

    @property
    def count(self) -> int:
        """Bars since the start or the last reset."""
        return int(self._ints[COUNT])

    @property
    def last_ts(self) -> int | None:
        """Close stamp of the last bar seen."""
        return int(self._ints[LAST_TS]) or None

    def update(self, bar: Bar, context: Context = EMPTY_CONTEXT) -> tuple[Float32, float] | None:
        """Take one closed bar; return (x_F, scale), or None while warming up. x_F is overwritten by the next call.

        ``context`` holds as-of values from outside the bar; no feature of this version reads one, so it must be empty.
        """
        if context:
            raise LSTMStrategyError(f"context holds {', '.join(context)}; no feature of this model reads it")
        scale = step(self._kinds, self._spans, self._offsets, self._settings, self._floats, self._ints, *bar, self._out)
        return None if np.isnan(scale) else (self._out, scale)

    def run(self, bars: Bars) -> FeatureMatrix:
        """Take a history, from the present state on: the same step as `update`, looped."""
        n_bars = len(bars)
        x_TF = np.full((n_bars, len(self.config.features)), np.nan, np.float32)
        scale_T, count_T = np.full(n_bars, np.nan), np.zeros(n_bars, np.int64)
        before = int(self._ints[FILTERED])
        columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
        kernel = (self._kinds, self._spans, self._offsets, self._settings, self._floats, self._ints)
        loop(*kernel, *columns, x_TF, scale_T, count_T)
        return FeatureMatrix(x_TF, scale_T, count_T, int(self._ints[FILTERED]) - before)

    def state(self) -> bytes:
        """Everything that `restore` needs, as bytes."""
        return self._ints.tobytes() + self._floats.tobytes()

    def restore(self, state: bytes) -> None:
        """Continue where `state` was taken."""
        if len(state) != self._ints.nbytes + self._floats.nbytes:
            raise LSTMStrategyError(f"feature state has {len(state)} bytes; it belongs to other features")
        self._ints[:] = np.frombuffer(state[: self._ints.nbytes], np.int64)
        self._floats[:] = np.frombuffer(state[self._ints.nbytes :], np.float64)
