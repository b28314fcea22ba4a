"""Scores of out-of-sample forecasts, each with its uncertainty, and a verdict in words."""

from __future__ import annotations

from lstm_strategy.research.scores_types import (
    DieboldMariano,
    ErrorRow,
    GroupScores,
    Miss,
    ScoredTable,
    Scores,
    VarTest,
)

__all__ = ["DieboldMariano", "ErrorRow", "GroupScores", "Miss", "ScoredTable", "Scores", "VarTest"]
