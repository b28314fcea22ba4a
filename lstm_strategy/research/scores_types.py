"""What scoring takes and gives: one table of forecasts with their outcomes, and figures with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["DieboldMariano", "ErrorRow", "GroupScores", "Miss", "ScoredTable", "Scores", "VarTest"]

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTable:
    """Out-of-sample forecasts beside what came, one row per forecast (bar, instrument, horizon); any order.

    Parameters
    ----------
    ts : int64 [N]
        Close stamp of the bar that the forecast was made at, nanoseconds UTC.
    instrument : str [N]
    horizon : int64 [N]
        Bars ahead.
    y : float64 [N]
        The outcome, log return / (scale √horizon); NaN where it is not known.
    q_NQ : float64 [N, Q]
        Its quantiles in the same unit; NaN where there is no forecast.
    scale : float64 [N]
        σ of one bar's log return, known at ``ts``.
    levels : tuple of float [Q]
    """

    ts: Stamps
    instrument: npt.NDArray[np.str_]
    horizon: npt.NDArray[np.int64]
    y: Float
    q_NQ: Float
    scale: Float
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        rows = len(self.ts)
        for name in ("instrument", "horizon", "y", "scale"):
            if getattr(self, name).shape != (rows,):
                raise LSTMStrategyError(f"scored table: {name} has shape {getattr(self, name).shape}, ts ({rows},)")
        if self.q_NQ.shape != (rows, len(self.levels)):
            wanted = (rows, len(self.levels))
            raise LSTMStrategyError(f"scored table: q_NQ has shape {self.q_NQ.shape}; rows and levels make {wanted}")

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> ScoredTable:
        y, q_NQ, scale = self.y[rows], self.q_NQ[rows], self.scale[rows]
        return ScoredTable(self.ts[rows], self.instrument[rows], self.horizon[rows], y, q_NQ, scale, self.levels)


class DieboldMariano(msgspec.Struct, frozen=True):
    """Equal accuracy against one baseline: a positive statistic says that the forecasts are better than it.

    ``p`` is two-sided; ``p_holm`` is that, corrected for asking about every baseline.
    """

    statistic: float
    p: float
    p_holm: float


class ErrorRow(msgspec.Struct, frozen=True):
    """Errors in one part of the table; standard errors are those of whole stamps that may err alike for a while."""

    key: str
    rows: int
    pinball: float
    pinball_se: float
    skill_over_best: float | None
    skill_se: float | None
    mae: float
    bias: float


class Miss(msgspec.Struct, frozen=True):
    """An outcome far outside its forecast, in units of σ√h and as a log return."""

    ts: str
    instrument: str
    horizon: int
    y: float
    median: float
    log_return: float
    pinball: float


class VarTest(msgspec.Struct, frozen=True):
    """Value at risk at one level, over forecasts that do not overlap: did losses beyond it come as often as promised?

    p-values of Kupiec (frequency), Christoffersen (independence) and both together. ``shortfall`` is the mean outcome
    beyond it, forecast (an exponential tail goes on from the two lowest levels) and realised, in units of σ√h;
    ``p_shortfall`` says whether, where it was exceeded, outcomes lay as deep as forecast (McNeil and Frey 2000).
    """

    instrument: str
    horizon: int
    level: float
    rows: int
    violations: int
    rate: float
    p_kupiec: float
    p_independence: float | None
    p_conditional: float | None
    shortfall_forecast: float
    shortfall_realised: float | None
    p_shortfall: float | None


class GroupScores(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a group of forecasts; ``*_ci`` are 95 % block-bootstrap intervals, None where there is no figure.

    Units are σ√h, log returns where the name says ``raw``. ``coverage``, ``width`` and their intervals are keyed by
    the nominal share, such as ``0.8``; ``reliability`` by level, the share of outcomes below that quantile; ``pit`` is
    the share of outcomes in each of the Q + 1 gaps between levels. A skill is 1 - pinball / the baseline's pinball.
    ``direction`` is the share of signs of the mean that came true; ``direction_by_chance`` what signs as frequent
    would reach by luck, ``direction_above_chance`` the one less the other.
    """

    rows: int
    stamps: int
    pinball: float
    pinball_ci: Interval
    crps: float
    crps_ci: Interval
    baselines: dict[str, float]
    skill: dict[str, float]
    skill_ci: dict[str, Interval]
    best_baseline: str | None
    skill_over_best: float | None
    skill_over_best_ci: Interval | None
    dm: dict[str, DieboldMariano]
    dm_p: float | None
    coverage: dict[str, float]
    coverage_ci: dict[str, Interval]
    width: dict[str, float]
    width_ci: dict[str, Interval]
    reliability: dict[str, float]
    reliability_ci: dict[str, Interval]
    pit: list[float]
    pit_ci: list[Interval]
    mae: float
    mae_ci: Interval
    rmse: float
    rmse_ci: Interval
    mae_raw: float
    mae_raw_ci: Interval
    rmse_raw: float
    rmse_raw_ci: Interval
    rank_ic: float | None
    rank_ic_ci: Interval | None
    direction: float | None
    direction_ci: Interval | None
    direction_by_chance: float | None
    direction_above_chance: float | None
    direction_above_chance_ci: Interval | None
    verdict: str


class Scores(GroupScores, frozen=True, kw_only=True):
    """The pooled figures, and the same by instrument and by horizon; where it fails, and the VaR tests.

    ``left_out`` counts rows without an outcome, a forecast or a baseline's forecast: all are judged on the same rows.
    ``errors`` is keyed by month, hour, weekday, volatility, instrument and horizon.
    """

    levels: tuple[float, ...]
    left_out: int
    by_instrument: dict[str, GroupScores]
    by_horizon: dict[str, GroupScores]
    var: list[VarTest]
    errors: dict[str, list[ErrorRow]]
    largest_misses: list[Miss]
