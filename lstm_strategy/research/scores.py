"""Scores of out-of-sample forecasts, each with its uncertainty, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.research.scores_errors import error_tables, largest_misses, var_tests
from lstm_strategy.research.scores_group import group_scores, pinball_N
from lstm_strategy.research.scores_inference import psi
from lstm_strategy.research.scores_types import (
    DieboldMariano,
    ErrorRow,
    GroupScores,
    Miss,
    ScoredTable,
    Scores,
    VarTest,
)

__all__ = ["DieboldMariano", "ErrorRow", "GroupScores", "Miss", "ScoredTable", "Scores", "VarTest", "drift", "score"]


def score(
    table: ScoredTable, baselines: Mapping[str, npt.NDArray[np.floating]], *, draws: int = 1_000, seed: int = 0
) -> Scores:
    """Judge forecasts beside baselines, on the rows for which all of them and the outcome are known.

    Parameters
    ----------
    table : ScoredTable
        Out-of-sample rows only.
    baselines : mapping of name to float [N, Q]
        Quantiles on the same rows and levels, in the same unit.
    draws, seed : int
        Of the block bootstrap behind the intervals; the same seed gives the same scores.

    Raises
    ------
    LSTMStrategyError
        A baseline of another shape, or no row that can be judged.
    """
    known: npt.NDArray[np.bool_] = np.isfinite(table.y) & np.isfinite(table.q_NQ).all(axis=1)
    for name, q_NQ in baselines.items():
        if q_NQ.shape != table.q_NQ.shape:
            raise LSTMStrategyError(f"baseline {name} has shape {q_NQ.shape}, the table {table.q_NQ.shape}")
        known &= np.isfinite(q_NQ).all(axis=1)
    rows = np.flatnonzero(known)
    if len(rows) == 0:
        raise LSTMStrategyError(
            f"none of the {len(table)} rows has an outcome, a forecast and every baseline's forecast; lengthen the test"
            " span or leave out the baseline that has none"
        )
    rows = rows[np.lexsort((table.horizon[rows], table.instrument[rows], table.ts[rows]))]
    judged = table[rows]
    losses = {name: pinball_N(judged.y, q[rows].astype(np.float64), table.levels) for name, q in baselines.items()}

    def group(part: npt.NDArray[np.bool_]) -> GroupScores:
        return group_scores(judged[part], {name: loss[part] for name, loss in losses.items()}, draws, seed)

    pooled = group(np.ones(len(judged), np.bool_))
    best_loss = losses[pooled.best_baseline] if pooled.best_baseline else None
    return Scores(
        **{field: getattr(pooled, field) for field in GroupScores.__struct_fields__},
        levels=table.levels,
        left_out=len(table) - len(judged),
        by_instrument={str(name): group(judged.instrument == name) for name in np.unique(judged.instrument)},
        by_horizon={str(horizon): group(judged.horizon == horizon) for horizon in np.unique(judged.horizon)},
        var=var_tests(judged),
        errors=error_tables(judged, best_loss),
        largest_misses=largest_misses(judged),
    )


def drift(reference_NF: npt.NDArray[np.floating], later_NF: npt.NDArray[np.floating]) -> Float:
    """Return the population stability index of each feature between two spans, float64 [F]; 0.25 is a large one."""
    return np.array([psi(was, now) for was, now in zip(reference_NF.T, later_NF.T, strict=True)])
