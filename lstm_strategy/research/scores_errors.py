"""Where the forecasts fail: errors by month, hour, weekday, volatility and market, largest misses, value at risk."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from lstm_strategy.bars import Float, format_ns
from lstm_strategy.research.scores_group import median_N, pinball_N
from lstm_strategy.research.scores_inference import christoffersen, kupiec
from lstm_strategy.research.scores_types import ErrorRow, Miss, ScoredTable, VarTest

__all__ = ["error_tables", "largest_misses", "var_tests"]

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
            mean = float(loss_N[part].mean())
            best = None if best_loss_N is None else float(best_loss_N[part].mean())
            found[kind].append(
                ErrorRow(
                    key=_told(kind, key),
                    rows=int(part.sum()),
                    pinball=mean,
                    pinball_se=_clustered_error(loss_N[part] - mean, table.ts[part]),
                    skill_over_best=None if not best else 1.0 - mean / best,
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
            for column, level in enumerate(table.levels):
                if len(rows) and any(math.isclose(level, wanted) for wanted in _VAR_LEVELS):
                    found.append(_var_test(name, horizon, level, table.y[rows], table.q_NQ[rows, : column + 1], table))
    return found


def _var_test(name: str, horizon: int, level: float, y_T: Float, q_TQ: Float, table: ScoredTable) -> VarTest:
    violated: npt.NDArray[np.bool_] = y_T < q_TQ[:, -1]
    edges = np.array([0.0, *table.levels[: q_TQ.shape[1]]])
    tail_TQ = np.concatenate([q_TQ[:, :1], q_TQ], axis=1)  # flat beyond the lowest level
    shortfall_T = ((tail_TQ[:, 1:] + tail_TQ[:, :-1]) / 2.0) @ np.diff(edges) / level
    independence, conditional = christoffersen(violated, level)
    return VarTest(
        instrument=name,
        horizon=horizon,
        level=level,
        rows=len(y_T),
        violations=int(violated.sum()),
        rate=float(violated.mean()),
        p_kupiec=kupiec(int(violated.sum()), len(y_T), level),
        p_independence=independence,
        p_conditional=conditional,
        shortfall_forecast=float(shortfall_T.mean()),
        shortfall_realised=float(y_T[violated].mean()) if violated.any() else None,
    )


def _clustered_error(centred_N: Float, ts: npt.NDArray[np.int64]) -> float:
    """Standard error of a mean whose rows of one stamp err together."""
    _, stamp = np.unique(ts, return_inverse=True)
    return float(np.sqrt((np.bincount(stamp, centred_N) ** 2).sum()) / len(centred_N))


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
