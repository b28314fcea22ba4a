"""Adaptive conformal inference: quantiles moved online, by outcomes that have matured, until they cover as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.compiled import compiled
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Float32, Forecast, Forecasts

__all__ = ["STATIC", "CalibrationConfig", "Conformal"]

_COUNT, _LAST_TS = range(2)
_RATE, _WIDEST, _HOLE = range(3)


class CalibrationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How quantiles are calibrated once the model is trained; the constant shifts of its calibration span always count.

    Parameters
    ----------
    adaptive : bool
        Whether the outcomes that come in move the quantiles further.
    rate : float
        How far one independent outcome may move a quantile, in units of σ√h; above 0, at most 0.2.
    widest : float
        How far all outcomes together may move it, in the same unit; above 0, at most 5.
    """

    adaptive: bool = False
    rate: float = 0.02
    widest: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 0.2:
            raise LSTMStrategyError(f"calibration.rate is {self.rate}; it must be above 0, at most 0.2")
        if not 0.0 < self.widest <= 5.0:
            raise LSTMStrategyError(f"calibration.widest is {self.widest}; it must be above 0, at most 5")


STATIC = CalibrationConfig()


class Conformal:
    """Tracks each quantile of one instrument's forecasts online.

    A quantile of level τ that was said h bars ago has matured: with y the log return since, its offset moves by
    rate / h · (τ - [y <= said]), in units of σ√h, and stays within ± ``widest``. This is gradient descent on each
    level's pinball loss: the quantile tracker of Angelopoulos, Candès and Tibshirani, "Conformal PID Control for Time
    Series Prediction" (2023), which does to the quantile what Gibbs and Candès, "Adaptive Conformal Inference Under
    Distribution Shift" (2021), do to the level. The share of y <= said then tends to τ whatever the market does, as
    long as no offset is at its bound. The rate is divided by h since h outcomes that overlap are one.

    A bar's forecast is moved by outcomes that are known at its close, that close included. Over missing bars there is
    no outcome, as in `lstm_strategy.measures.labels`; forecasts made before them never mature.

    Parameters
    ----------
    horizons, levels
        As in `Forecast`.
    hole_ns : int
        A longer time than this between two closes is a hole: the bar's length, or what a market is closed for.
    """

    def __init__(
        self, config: CalibrationConfig, horizons: tuple[int, ...], levels: tuple[float, ...], hole_ns: int
    ) -> None:
        self.config, self.horizons, self.levels = config, horizons, levels
        shape = (len(horizons), len(levels))
        self._horizons, self._levels = np.array(horizons, np.int64), np.array(levels)
        self._settings = np.array([config.rate, config.widest, float(hole_ns)])
        self._ints = np.zeros(2, np.int64)
        self._offsets_HQ = np.zeros(shape)
        self._closes, self._scales = np.zeros(max(horizons)), np.zeros(max(horizons))
        self._said = np.zeros((max(horizons), *shape), np.float32)

    @property
    def offsets_HQ(self) -> Float:
        """What outcomes have moved each quantile by, float64 [H, Q] in units of σ√h; a copy."""
        return self._offsets_HQ.copy()

    def step(self, ts_close: int, close: float, forecast: Forecast | None) -> Forecast | None:
        """Learn from what has matured at a bar's close, and move its forecast, if it has one."""
        if forecast is None:
            quantiles_HQ, scale = np.full(self._offsets_HQ.shape, np.nan, np.float32), math.nan
        else:
            quantiles_HQ, scale = np.array(forecast.quantiles_HQ, np.float32), forecast.scale
        _step(*self._arrays, ts_close, close, scale, quantiles_HQ)
        if forecast is None:
            return None
        return msgspec.structs.replace(forecast, quantiles_HQ=quantiles_HQ)

    def run(self, forecasts: Forecasts, close_T: Float) -> Forecasts:
        """Do so bar by bar, to the last bit; ``close_T`` are the closes, float64 [T]."""
        moved_THQ = np.array(forecasts.quantiles_THQ, np.float32)
        _loop(*self._arrays, forecasts.ts_close, close_T, forecasts.scale_T, moved_THQ)
        return replace(forecasts, quantiles_THQ=moved_THQ)

    def state(self) -> bytes:
        """Everything that `restore` needs."""
        kept = [self.config.rate, self.config.widest, list(self.horizons), list(self.levels)]
        return msgspec.msgpack.encode([kept, b"".join(array.tobytes() for array in self._memory)])

    def restore(self, state: bytes) -> None:
        """Continue where `state` was taken; refuse what was tracked at other settings, and change nothing then."""
        ours, content = msgspec.msgpack.decode(self.state())
        try:
            theirs, content_of_state = msgspec.msgpack.decode(state, type=tuple[list[Any], bytes])
        except msgspec.MsgspecError:
            theirs, content_of_state = [], b""
        if theirs != ours or len(content_of_state) != len(content):
            raise LSTMStrategyError("forecaster state was calibrated by other settings of calibration; warm up instead")
        at = 0
        for array in self._memory:
            array[:] = np.frombuffer(content_of_state, array.dtype, array.size, at).reshape(array.shape)
            at += array.nbytes

    @property
    def _memory(self) -> tuple[npt.NDArray[Any], Float, Float, Float, Float32]:
        return self._ints, self._offsets_HQ, self._closes, self._scales, self._said

    @property
    def _arrays(self) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any]:
        return self._horizons, self._levels, self._settings, *self._memory


@compiled()
def _step(
    horizons: Any,
    levels: Any,
    settings: Any,
    ints: Any,
    offsets: Any,
    closes: Any,
    scales: Any,
    said: Any,
    ts: int,
    close: float,
    scale: float,
    q_HQ: Any,
) -> None:
    """Advance by one bar; ``q_HQ`` is moved in place."""
    if ints[_COUNT] > 0 and ts - ints[_LAST_TS] > np.int64(settings[_HOLE]):
        ints[_COUNT] = 0
    count, widest = ints[_COUNT], settings[_WIDEST]
    for i in range(len(horizons)):
        h = horizons[i]
        if count >= h:
            slot = (count - h) % len(closes)
            rate, y = settings[_RATE] / h, math.log(close / closes[slot])
            for j in range(len(levels)):
                if not math.isnan(said[slot, i, j]):
                    below = 1.0 if y <= said[slot, i, j] else 0.0
                    moved = offsets[i, j] + rate * (levels[j] - below)
                    offsets[i, j] = min(max(moved, -widest), widest)
        unit, least = scale * math.sqrt(np.float64(h)), np.float32(-math.inf)
        for j in range(len(levels)):
            q_HQ[i, j] = np.float32(q_HQ[i, j] + offsets[i, j] * unit)
            if q_HQ[i, j] < least:  # the levels stay in order
                q_HQ[i, j] = least
            least = q_HQ[i, j]
    slot = count % len(closes)
    closes[slot], scales[slot] = close, scale
    said[slot] = q_HQ
    ints[_COUNT], ints[_LAST_TS] = count + 1, ts


@compiled()
def _loop(
    horizons: Any,
    levels: Any,
    settings: Any,
    ints: Any,
    offsets: Any,
    closes: Any,
    scales: Any,
    said: Any,
    ts_T: Stamps,
    close_T: Float,
    scale_T: Float,
    q_THQ: Float32,
) -> None:
    """Run `_step` over arrays."""
    for t in range(len(ts_T)):
        _step(
            horizons, levels, settings, ints, offsets, closes, scales, said, ts_T[t], close_T[t], scale_T[t], q_THQ[t]
        )
