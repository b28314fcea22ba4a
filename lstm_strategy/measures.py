"""Plain measures of forecasts and of equity: pinball loss, coverage, Sharpe ratio, drawdown; numpy only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps, utc_day
from lstm_strategy.forecast import Forecasts

__all__ = [
    "coverage",
    "daily_returns",
    "labels",
    "max_drawdown",
    "pinball",
    "scaled_quantiles",
    "sharpe",
]

_DAYS_PER_YEAR = 365.25


def labels(close: Float, ts_close: Stamps, scale: Float, horizon: int, bar_ns: int, closed_ns: int = 0) -> Float:
    """Return the outcome of each bar in units of its scale: log(close[t+h] / close[t]) / (scale[t] √h).

    Parameters
    ----------
    close, scale : float64 [T]
    ts_close : int64 [T]
        Nanoseconds.
    bar_ns : int
        Length of a bar.
    closed_ns : int
        The longest time between two closes that is the market being closed (`FeaturesConfig.closed_hours`).

    Returns
    -------
    float64 [T]
        NaN in the last ``horizon`` rows, where bars are missing inside the span, and where the scale is not known.
    """
    outcome = np.full(len(close), np.nan)
    if len(close) > horizon:
        rows = slice(None, -horizon)
        holes = np.concatenate([[0], np.cumsum(np.diff(ts_close) > max(bar_ns, closed_ns))])  # up to each bar
        contiguous = holes[horizon:] == holes[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.log(close[horizon:] / close[rows]) / (scale[rows] * math.sqrt(horizon))
        outcome[rows] = np.where(contiguous & np.isfinite(moved), moved, np.nan)
    return outcome


def scaled_quantiles(forecasts: Forecasts, horizon: int) -> Float:
    """Return the quantiles of one horizon in units of the scale, quantile / (scale √h), float64 [T, Q]."""
    row = forecasts.horizons.index(horizon)
    unit_T = forecasts.scale_T * math.sqrt(horizon)
    return np.asarray(forecasts.quantiles_THQ[:, row].astype(np.float64) / unit_T[:, None])


def pinball(outcome: Float, quantiles: Float, levels: tuple[float, ...]) -> float:
    """Return the mean of max(τ (y − q), (τ − 1)(y − q)) over rows and levels; rows with a NaN do not count.

    Parameters
    ----------
    outcome : float64 [T]
    quantiles : float64 [T, Q] or [Q]
        The same unit as ``outcome``; [Q] is a constant forecast.

    Returns
    -------
    float
        NaN where no row counts.
    """
    table = np.broadcast_to(np.asarray(quantiles, np.float64), (len(outcome), len(levels)))
    kept = np.isfinite(outcome) & np.isfinite(table).all(axis=1)
    if not kept.any():
        return math.nan
    error = outcome[kept, None] - table[kept]
    tau = np.array(levels)
    return float(np.maximum(tau * error, (tau - 1.0) * error).mean())


def coverage(outcome: Float, quantiles: Float, levels: tuple[float, ...], nominal: float) -> float:
    """Return the share of outcomes inside the central interval of probability ``nominal``, bounds included.

    The bounds are interpolated between levels where they are none themselves; NaN where the levels do not reach them.
    """
    low, high = (1.0 - nominal) / 2.0, (1.0 + nominal) / 2.0
    if levels[0] > low + 1e-9 or levels[-1] < high - 1e-9:
        return math.nan
    kept = np.isfinite(outcome) & np.isfinite(quantiles).all(axis=1)
    if not kept.any():
        return math.nan
    lower, upper = _at(quantiles[kept], levels, low), _at(quantiles[kept], levels, high)
    return float(((outcome[kept] >= lower) & (outcome[kept] <= upper)).mean())


def _at(quantiles: Float, levels: tuple[float, ...], level: float) -> Float:
    right = min(max(int(np.searchsorted(levels, level)), 1), len(levels) - 1)
    weight = (level - levels[right - 1]) / (levels[right] - levels[right - 1])
    weight = min(max(weight, 0.0), 1.0)
    return np.asarray((1.0 - weight) * quantiles[:, right - 1] + weight * quantiles[:, right])


def daily_returns(ts_close: Stamps, equity: Float, start: float) -> tuple[npt.NDArray[np.int64], Float]:
    """Return the UTC days that have bars, int64 [D], and the simple return of equity over each, float64 [D].

    The bar that closes at 00:00 belongs to the day before. ``start`` is the equity before the first bar.
    """
    days = utc_day(ts_close)
    last = np.flatnonzero(np.append(np.diff(days) != 0, True)) if len(days) else np.empty(0, np.int64)
    ends = np.concatenate([[start], equity[last]])
    with np.errstate(divide="ignore", invalid="ignore"):
        return days[last], ends[1:] / ends[:-1] - 1.0


def sharpe(ts_close: Stamps, equity: Float, start: float) -> float:
    """Return mean / standard deviation (n − 1) of daily returns, times the root of trading days a year.

    Trading days a year are counted from the data: days with bars over calendar days, times 365.25. NaN with fewer than
    two days, without variation, and for a ruined account: there is no return on nothing. No interest is subtracted.
    """
    if start <= 0.0 or np.any(equity <= 0.0):
        return math.nan
    days, returns = daily_returns(ts_close, equity, start)
    if len(returns) < 2:
        return math.nan
    deviation = float(returns.std(ddof=1))
    if not deviation > 0.0:
        return math.nan
    per_year = len(days) / (days[-1] - days[0] + 1) * _DAYS_PER_YEAR
    return float(returns.mean() / deviation * math.sqrt(per_year))


def max_drawdown(equity: Float, start: float) -> float:
    """Return the largest fall of equity from its running peak, as a positive fraction of the peak; 1 is ruin."""
    path = np.concatenate([[start], equity])
    return min(float(np.max(1.0 - path / np.maximum.accumulate(path))), 1.0)
