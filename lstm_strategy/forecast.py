"""Forecast: a distribution of the next log returns, as quantiles by horizon."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lstm_strategy.bars import Float, Stamps

__all__ = ["Forecast", "Forecasts", "mean_of", "std_of"]

Float32 = npt.NDArray[np.float32]


@lru_cache(maxsize=64)
def _mean_weights(levels: tuple[float, ...]) -> Float:
    """Weights w_Q with mean = w . quantiles, for a quantile function linear between levels and flat beyond them."""
    edges = np.array([0.0, *levels, 1.0])
    weights = np.zeros(len(levels))
    inner = np.diff(edges)[1:-1] / 2
    weights[:-1] += inner
    weights[1:] += inner
    weights[0] += edges[1]
    weights[-1] += 1.0 - edges[-2]
    return weights


def mean_of(quantiles: npt.NDArray[np.floating], levels: tuple[float, ...]) -> Float:
    """Mean of the piecewise-linear quantile function over the last axis Q; any leading shape."""
    return np.asarray(quantiles, dtype=np.float64) @ _mean_weights(levels)


def std_of(quantiles: npt.NDArray[np.floating], levels: tuple[float, ...]) -> Float:
    """Standard deviation of the same quantile function; the tails beyond the outer levels count as flat."""
    q = np.asarray(quantiles, dtype=np.float64)
    q = q - mean_of(q, levels)[..., None]
    left, right, width = q[..., :-1], q[..., 1:], np.diff(np.array(levels))
    second = ((left * left + left * right + right * right) / 3.0) @ width
    second = second + levels[0] * q[..., 0] ** 2 + (1.0 - levels[-1]) * q[..., -1] ** 2
    return np.asarray(np.sqrt(second))


@cache
def _moments_kernel() -> Any:
    """Return the compiled `moments`; compiler and all are loaded with the first forecast that is asked for them."""
    from lstm_strategy.forecast_kernel import moments

    return moments


@lru_cache(maxsize=64)
def _levels_and_weights(levels: tuple[float, ...]) -> tuple[Float, Float]:
    return np.array(levels), _mean_weights(levels)


class Forecast(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the model says at one bar's close.

    Parameters
    ----------
    ts_close : int
        Stamp of the bar it was made at, nanoseconds UTC.
    horizons : tuple of int [H]
        Bars ahead.
    levels : tuple of float [Q]
        Increasing, inside (0, 1).
    quantiles_HQ : float32 [H, Q]
        Quantiles of the log return from this close to the close ``horizon`` bars later.
    scale : float
        The causal volatility of one bar's log return.
    position : float
        Which part of a full position the network would hold, from −1 to 1; NaN where the model has learned none.
    """

    ts_close: int
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    quantiles_HQ: Float32
    scale: float
    position: float = math.nan

    def _row(self, horizon: int) -> Float32:
        return np.asarray(self.quantiles_HQ[self.horizons.index(horizon)])

    def moments(self, horizon: int) -> tuple[float, float]:
        """Mean and standard deviation of the log return, as `mean_of` and `std_of` but much faster.

        Not finite where a quantile is not. Never trade the mean without the artefact's shrinkage.
        """
        row, of_levels = self.horizons.index(horizon), _levels_and_weights(self.levels)
        found: tuple[float, float] = _moments_kernel()(self.quantiles_HQ, row, *of_levels)
        return found

    def mean(self, horizon: int) -> float:
        """Raw mean of the log return; never trade it without the artefact's shrinkage."""
        return self.moments(horizon)[0]

    def std(self, horizon: int) -> float:
        """Standard deviation of the log return over ``horizon`` bars."""
        return self.moments(horizon)[1]

    def quantile(self, level: float, horizon: int) -> float:
        """Quantile at any level, linear between the model's levels; VaR at 5 % is ``-quantile(.05, h)``."""
        row, levels, value = self.horizons.index(horizon), self.levels, self.quantiles_HQ.item
        right = bisect_left(levels, level)
        if right == 0 or right == len(levels):
            return float(value(row, min(right, len(levels) - 1)))
        low, high = value(row, right - 1), value(row, right)
        return low + (high - low) * (level - levels[right - 1]) / (levels[right] - levels[right - 1])

    def probability_of_gain(self, horizon: int) -> float:
        """P(log return > 0), to the resolution of the outermost levels."""
        row = self._row(horizon)
        if row[0] >= 0.0:
            return 1.0 - self.levels[0]
        if row[-1] <= 0.0:
            return 1.0 - self.levels[-1]
        return 1.0 - float(np.interp(0.0, row, self.levels))


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Forecasts at every bar of a history; NaN rows where there is none (warm-up).

    Parameters
    ----------
    ts_close : int64 [T]
    quantiles_THQ : float32 [T, H, Q]
        Log returns, as in `Forecast`.
    scale_T : float64 [T]
    position_T : float32 [T], optional
        None where the model has learned no position.
    """

    instrument_id: str
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    ts_close: Stamps
    quantiles_THQ: Float32
    scale_T: Float
    position_T: Float32 | None = None

    def __len__(self) -> int:
        return len(self.ts_close)

    def __getitem__(self, row: int) -> Forecast | None:
        if np.isnan(self.quantiles_THQ[row, 0, 0]):
            return None
        scale = float(self.scale_T[row])
        position = math.nan if self.position_T is None else float(self.position_T[row])
        ts_close = int(self.ts_close[row])
        return Forecast(ts_close, self.horizons, self.levels, self.quantiles_THQ[row], scale, position)

    def by_stamp(self) -> dict[int, Forecast]:
        """Return each bar's forecast by its close; bars without one are left out."""
        known = np.flatnonzero(~np.isnan(self.quantiles_THQ[:, 0, 0]))
        stamps, scales = self.ts_close[known].tolist(), self.scale_T[known].tolist()
        none = [math.nan] * len(known)
        positions = none if self.position_T is None else self.position_T[known].tolist()
        horizons, levels = self.horizons, self.levels
        return {
            ts_close: Forecast(ts_close, horizons, levels, quantiles_HQ, scale, position)
            for ts_close, quantiles_HQ, scale, position in zip(
                stamps, self.quantiles_THQ[known], scales, positions, strict=True
            )
        }

    def at(self, rows: npt.NDArray[np.integer]) -> Forecasts:
        """Return those of some rows, int [N]."""
        position_N = None if self.position_T is None else self.position_T[rows]
        columns = (self.ts_close[rows], self.quantiles_THQ[rows], self.scale_T[rows], position_N)
        return Forecasts(self.instrument_id, self.horizons, self.levels, *columns)

    def to_table(self, model_version: str) -> pa.Table:
        """Return one row per forecast and horizon: ts_close, instrument, horizon, levels, quantiles, scale, version.

        And the position, where the model has learned one.
        """
        kept = ~np.isnan(self.quantiles_THQ[:, 0, 0])
        quantiles_THQ = self.quantiles_THQ[kept]
        rows, n_levels = len(quantiles_THQ) * len(self.horizons), len(self.levels)

        def lists(values: npt.NDArray[np.floating]) -> pa.Array:
            offsets = np.arange(0, rows * n_levels + 1, n_levels, dtype=np.int32)
            return pa.ListArray.from_arrays(offsets, values.ravel())

        table = pa.table(
            {
                "ts_close": pa.array(np.repeat(self.ts_close[kept], len(self.horizons)), pa.timestamp("ns", "UTC")),
                "instrument": pa.array([self.instrument_id]).take(pa.array(np.zeros(rows, np.int32))),
                "horizon": np.tile(np.array(self.horizons, np.int32), len(quantiles_THQ)),
                "levels": lists(np.tile(np.array(self.levels), rows)),
                "quantiles": lists(quantiles_THQ),
                "scale": np.repeat(self.scale_T[kept], len(self.horizons)),
                "model_version": pa.array([model_version]).take(pa.array(np.zeros(rows, np.int32))),
            }
        )
        if self.position_T is None:
            return table
        return table.append_column("position", pa.array(np.repeat(self.position_T[kept], len(self.horizons))))
