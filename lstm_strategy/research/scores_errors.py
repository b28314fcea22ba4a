"""Where the forecasts fail: errors by month, hour, weekday, volatility and market, largest misses, value at risk."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from lstm_strategy.bars import Float, format_ns
from lstm_strategy.research.scores_group import median_N, pinball_N
from lstm_strategy.research.scores_inference import christoffersen, kupiec, mean_is_zero
from lstm_strategy.research.scores_types import ErrorRow, Miss, ScoredTable, VarTest

__all__ = ["error_tables", "expected_shortfall", "largest_misses", "var_tests"]

_VAR_LEVELS = (0.01, 0.05)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TERCILES = ("low", "middle", "high")


def error_tables(table: ScoredTable, best_loss_N: Float | None) -> dict[str, list[ErrorRow]]:
    """Return errors by month, hour and weekday (UTC, of the bar's close), volatility tercile, instrument, horizon.

    Terciles are of σ within each instrument, over the rows at hand.
    """
    when = pd.DatetimeIndex(table.ts.view("datetime64[ns]"))
    tercile_N = np.zeros(len(table), np.int64)
    for name in np.unique(table.instrument):
        own = table.instrument == name
        tercile_N[own] = np.searchsorted(np.quantile(table.scale[own], (1 / 3, 2 / 3)), table.scale[own])
    keys = {
        "month": np.asarray(when.year * 100 + when.month),
        "hour": np.asarray(when.hour),
        "weekday": np.asarray(when.day_of_week),
        "volatility": tercile_N,
        "instrument": table.instrument,
        "horizon": table.horizon,
    }
    loss_N = pinball_N(table.y, table.q_NQ, table.levels)
    error_N = table.y - median_N(table.q_NQ, table.levels)
    found: dict[str, list[ErrorRow]] = {}
    for kind, key_N in keys.items():
        found[kind] = []
        for key in np.unique(key_N):
            part = key_N == key
            mean, ts = float(loss_N[part].mean()), table.ts[part]
            horizon = int(table.horizon[part].max())
            skill = error = None
            if best_loss_N is not None and (best := float(best_loss_N[part].mean())) > 0.0:
                skill = 1.0 - mean / best  # a ratio's error, to the first order, is that of loss less ratio times best
                error = _mean_error(loss_N[part] - (1.0 - skill) * best_loss_N[part], ts, horizon) / best
            found[kind].append(
                ErrorRow(
                    key=_told(kind, key),
                    rows=int(part.sum()),
                    pinball=mean,
                    pinball_se=_mean_error(loss_N[part] - mean, ts, horizon),
                    skill_over_best=skill,
                    skill_se=error,
                    mae=float(np.abs(error_N[part]).mean()),
                    bias=float(error_N[part].mean()),
                )
            )
    return found


def largest_misses(table: ScoredTable, count: int = 20) -> list[Miss]:
    """Return the rows with the largest pinball loss, the worst first."""
    loss_N, middle_N = pinball_N(table.y, table.q_NQ, table.levels), median_N(table.q_NQ, table.levels)
    moved_N = table.y * table.scale * np.sqrt(table.horizon)
    return [
        Miss(
            ts=format_ns(table.ts[row]),
            instrument=str(table.instrument[row]),
            horizon=int(table.horizon[row]),
            y=float(table.y[row]),
            median=float(middle_N[row]),
            log_return=float(moved_N[row]),
            pinball=float(loss_N[row]),
        )
        for row in np.argsort(-loss_N, kind="stable")[:count].tolist()
    ]


def var_tests(table: ScoredTable) -> list[VarTest]:
    """Test the 1 % and 5 % quantiles of each instrument and horizon, where the table's levels hold them.

    At a horizon of h bars every h-th forecast counts, so that no two outcomes overlap. Rows stand in time order.
    """
    found = []
    for name in np.unique(table.instrument).tolist():
        for horizon in np.unique(table.horizon).tolist():
            rows = np.flatnonzero((table.instrument == name) & (table.horizon == horizon))[::horizon]
            for place, level in enumerate(table.levels):
                if len(rows) and any(math.isclose(level, wanted) for wanted in _VAR_LEVELS):
                    found.append(_var_test(name, horizon, place, table[rows]))
    return found


def expected_shortfall(q_TQ: Float, levels: tuple[float, ...], place: int) -> Float:
    """Return the mean of a law below its quantile at ``levels[place]``, float64 [T].

    Linear between levels; below the second lowest the exponential tail q(τ) = q₀ + b ln(τ / τ₀) that meets the lowest
    two, for which the mean below a level is its quantile less b.
    """
    slope_T = (q_TQ[:, 1] - q_TQ[:, 0]) / math.log(levels[1] / levels[0])
    if place == 0:
        return np.asarray(q_TQ[:, 0] - slope_T)
    used_TQ = q_TQ[:, 1 : place + 1]
    inner_T = ((used_TQ[:, 1:] + used_TQ[:, :-1]) / 2.0) @ np.diff(levels[1 : place + 1])
    return np.asarray((levels[1] * (q_TQ[:, 1] - slope_T) + inner_T) / levels[place])


def _var_test(name: str, horizon: int, place: int, table: ScoredTable) -> VarTest:
    level, bound_T = table.levels[place], table.q_NQ[:, place]
    violated: npt.NDArray[np.bool_] = table.y < bound_T
    count, shortfall_T = int(violated.sum()), expected_shortfall(table.q_NQ, table.levels, place)
    independence, conditional = christoffersen(violated, level)
    return VarTest(
        instrument=name,
        horizon=horizon,
        level=level,
        rows=len(table),
        violations=count,
        rate=count / len(table),
        p_kupiec=kupiec(count, len(table), level),
        p_independence=independence,
        p_conditional=conditional,
        shortfall_forecast=float(shortfall_T.mean()),
        shortfall_realised=float(table.y[violated].mean()) if count else None,
        p_shortfall=mean_is_zero((table.y - shortfall_T)[violated]),
    )


def _mean_error(centred_N: Float, ts: npt.NDArray[np.int64], horizon: int) -> float:
    """Standard error of a mean whose rows of one stamp err together, and stamps near each other alike.

    Newey and West (1987) over the sums by stamp, with lag max(horizon - 1, S^(1/3)).
    """
    _, stamp = np.unique(ts, return_inverse=True)
    sum_S = np.bincount(stamp, centred_N)
    lags = min(max(horizon - 1, math.ceil(len(sum_S) ** (1 / 3))), len(sum_S) - 1)
    weighted = sum((1.0 - lag / (lags + 1)) * float(sum_S[lag:] @ sum_S[:-lag]) for lag in range(1, lags + 1))
    return math.sqrt(max(float(sum_S @ sum_S) + 2.0 * weighted, 0.0)) / len(centred_N)


def _told(kind: str, key: object) -> str:
    match kind:
        case "month":
            return f"{int(str(key)) // 100}-{int(str(key)) % 100:02d}"
        case "hour":
            return f"{int(str(key)):02d}"
        case "weekday":
            return _WEEKDAYS[int(str(key))]
        case "volatility":
            return _TERCILES[int(str(key))]
        case _:
            return str(key)
