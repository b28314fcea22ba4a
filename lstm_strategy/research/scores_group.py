"""Figures of one group of forecasts, with block-bootstrap intervals and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from lstm_strategy.bars import Float
from lstm_strategy.forecast import mean_of
from lstm_strategy.formatting import percent
from lstm_strategy.research.scores_inference import bootstrap_sums, diebold_mariano, holm
from lstm_strategy.research.scores_types import DieboldMariano, GroupScores, Interval, ScoredTable

__all__ = ["crps_N", "group_scores", "median_N", "pinball_N"]

_SIGNIFICANCE = 0.05
_FLAT = 1e-9  # forecasts that vary by less say nothing of direction
_RANK = ("a", "b", "aa", "bb", "ab")


def pinball_N(y_N: Float, q_NQ: Float, levels: tuple[float, ...]) -> Float:
    """Mean pinball loss over the levels, row by row: max(τ (y - q), (τ - 1)(y - q))."""
    error_NQ, level_Q = y_N[:, None] - q_NQ, np.array(levels)
    return np.asarray(np.maximum(level_Q * error_NQ, (level_Q - 1.0) * error_NQ).mean(axis=1))


def crps_N(y_N: Float, q_NQ: Float, levels: tuple[float, ...]) -> Float:
    """Continuous ranked probability score, row by row: twice the integral of the pinball loss over all levels.

    By trapezoids between the levels; beyond the outermost ones the quantile function counts as flat.
    """
    error_NQ, level_Q = y_N[:, None] - q_NQ, np.array(levels)
    loss_NQ = np.maximum(level_Q * error_NQ, (level_Q - 1.0) * error_NQ)
    inner_N = ((loss_NQ[:, 1:] + loss_NQ[:, :-1]) / 2.0) @ np.diff(level_Q)
    lowest_N, highest_N, low, high = error_NQ[:, 0], error_NQ[:, -1], levels[0], 1.0 - levels[-1]
    left_N = lowest_N * (low * low / 2.0 - low * (lowest_N < 0))
    right_N = -highest_N * (high * high / 2.0 - high * (highest_N >= 0))
    return np.asarray(2.0 * (inner_N + left_N + right_N))


def median_N(q_NQ: Float, levels: tuple[float, ...]) -> Float:
    """Median, linear between levels."""
    right = min(max(int(np.searchsorted(levels, 0.5)), 1), len(levels) - 1)
    share = min(max((0.5 - levels[right - 1]) / (levels[right] - levels[right - 1]), 0.0), 1.0)
    return np.asarray((1.0 - share) * q_NQ[:, right - 1] + share * q_NQ[:, right])


def group_scores(table: ScoredTable, losses: dict[str, Float], draws: int, seed: int) -> GroupScores:
    """Score the rows of a table without NaN; ``losses`` are the baselines' pinball losses [N] on the same rows."""
    y, q, levels = table.y, table.q_NQ, table.levels
    mean, median = mean_of(q, levels), median_N(q, levels)
    unit = table.scale * np.sqrt(table.horizon)
    told = (y != 0.0) & (mean != 0.0)
    pairs = {_share(levels, low, high): (low, high) for low, high in _pairs(levels)}
    varies = len(y) > 2 and float(np.ptp(mean)) > _FLAT and float(np.ptp(y)) > 0.0
    columns: dict[str, npt.NDArray[np.generic]] = {
        "rows": np.ones(len(y)),
        "loss": pinball_N(y, q, levels),
        "crps": crps_N(y, q, levels),
        "abs": np.abs(y - median),
        "square": (y - mean) ** 2,
        "abs raw": np.abs(y - median) * unit,
        "square raw": ((y - mean) * unit) ** 2,
        "told": told,
        "right": told & (np.sign(y) == np.sign(mean)),
        "up": told & (y > 0.0),
        "said up": told & (mean > 0.0),
    }
    columns |= {f"inside {key}": (y >= q[:, low]) & (y <= q[:, high]) for key, (low, high) in pairs.items()}
    columns |= {f"width {key}": q[:, high] - q[:, low] for key, (low, high) in pairs.items()}
    columns |= {f"below {level:g}": _below(y, q[:, i]) for i, level in enumerate(levels)}
    columns |= {f"of {name}": loss for name, loss in losses.items()}
    if varies:  # Pearson's correlation of the whole group's ranks, from its moments
        a, b = (rankdata(part) / len(y) - 0.5 for part in (mean, y))
        columns |= dict(zip(_RANK, (a, b, a * a, b * b, a * b), strict=True))

    stamps, stamp = np.unique(table.ts, return_inverse=True)
    summed = np.stack([np.bincount(stamp, column.astype(np.float64)) for column in columns.values()], axis=1)
    horizon = int(table.horizon.max())
    per_stamp = dict(zip(columns, (summed / summed[:, :1]).T, strict=True))
    whole = dict(zip(columns, summed.sum(axis=0, keepdims=True).T, strict=True))
    redrawn = dict(zip(columns, bootstrap_sums(summed, per_stamp["loss"], horizon, draws, seed).T, strict=True))

    def figure(formula: Callable[[dict[str, Float]], Float]) -> tuple[float, Interval]:
        with np.errstate(divide="ignore", invalid="ignore"):
            point, drawn = float(formula(whole)[0]), formula(redrawn)
        low, high = np.nanquantile(drawn, (0.025, 0.975)) if np.isfinite(drawn).any() else (point, point)
        return point, (float(low), float(high))

    def ratio(top: str, bottom: str = "rows") -> tuple[float, Interval]:
        return figure(lambda sums: sums[top] / sums[bottom])

    compared = {n: diebold_mariano(per_stamp[f"of {n}"] - per_stamp["loss"], horizon) for n in losses}
    corrected = holm([p for _, p in compared.values()])
    dm = {n: DieboldMariano(s, p, fixed) for (n, (s, p)), fixed in zip(compared.items(), corrected, strict=True)}
    baselines = {name: float(loss.mean()) for name, loss in losses.items()}
    lost = {name: ratio("loss", f"of {name}") for name in losses}
    skill = {name: (1.0 - share, (1.0 - high, 1.0 - low)) for name, (share, (low, high)) in lost.items()}
    best = min(baselines, key=lambda name: baselines[name]) if baselines else None
    covered, width = ({key: ratio(f"{what} {key}") for key in pairs} for what in ("inside", "width"))
    below = {f"{level:g}": ratio(f"below {level:g}") for level in levels}
    edges = ["none", *(f"below {level:g}" for level in levels), "rows"]
    for sums in (whole, redrawn):
        sums["none"] = np.zeros_like(sums["rows"])

    def between(low: str, high: str) -> tuple[float, Interval]:
        return figure(lambda sums: (sums[high] - sums[low]) / sums["rows"])

    def root(name: str) -> tuple[float, Interval]:
        return figure(lambda sums: np.sqrt(sums[name] / sums["rows"]))

    pit = [between(low, high) for low, high in pairwise(edges)]
    pinball, crps, mae, mae_raw = ratio("loss"), ratio("crps"), ratio("abs"), ratio("abs raw")
    rmse, rmse_raw = root("square"), root("square raw")
    direction = ratio("right", "told") if told.any() else None
    above = figure(lambda sums: sums["right"] / sums["told"] - _by_chance(sums)) if told.any() else None
    rank_ic = figure(_correlation) if varies else None
    return GroupScores(
        rows=len(y),
        stamps=len(stamps),
        pinball=pinball[0],
        pinball_ci=pinball[1],
        crps=crps[0],
        crps_ci=crps[1],
        baselines=baselines,
        skill=_values(skill),
        skill_ci=_intervals(skill),
        best_baseline=best,
        skill_over_best=skill[best][0] if best else None,
        skill_over_best_ci=skill[best][1] if best else None,
        dm=dm,
        dm_p=dm[best].p_holm if best else None,
        coverage=_values(covered),
        coverage_ci=_intervals(covered),
        width=_values(width),
        width_ci=_intervals(width),
        reliability=_values(below),
        reliability_ci=_intervals(below),
        pit=[share for share, _ in pit],
        pit_ci=[interval for _, interval in pit],
        mae=mae[0],
        mae_ci=mae[1],
        rmse=rmse[0],
        rmse_ci=rmse[1],
        mae_raw=mae_raw[0],
        mae_raw_ci=mae_raw[1],
        rmse_raw=rmse_raw[0],
        rmse_raw_ci=rmse_raw[1],
        rank_ic=rank_ic[0] if rank_ic else None,
        rank_ic_ci=rank_ic[1] if rank_ic else None,
        direction=direction[0] if direction else None,
        direction_ci=direction[1] if direction else None,
        direction_by_chance=float(_by_chance(whole)[0]) if direction else None,
        direction_above_chance=above[0] if above else None,
        direction_above_chance_ci=above[1] if above else None,
        verdict=" ".join([_against(baselines, skill, dm, best), _direction(rank_ic)]),
    )


def _values(figures: dict[str, tuple[float, Interval]]) -> dict[str, float]:
    return {key: value for key, (value, _) in figures.items()}


def _intervals(figures: dict[str, tuple[float, Interval]]) -> dict[str, Interval]:
    return {key: interval for key, (_, interval) in figures.items()}


def _by_chance(sums: dict[str, Float]) -> Float:
    """How often signs come true that rise and fall as often as these, but know nothing of each other."""
    up, said = sums["up"] / sums["told"], sums["said up"] / sums["told"]
    return np.asarray(up * said + (1.0 - up) * (1.0 - said))


def _correlation(sums: dict[str, Float]) -> Float:
    a, b, aa, bb, ab = (sums[name] / sums["rows"] for name in _RANK)
    return np.asarray((ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b)))


def _pairs(levels: tuple[float, ...]) -> list[tuple[int, int]]:
    """Places of the levels τ < 0.5 whose mirror 1 - τ is a level too: the central intervals."""
    mirror = [int(np.abs(np.array(levels) + level - 1.0).argmin()) for level in levels]
    return [(i, j) for i, j in enumerate(mirror) if i < j and math.isclose(levels[i] + levels[j], 1.0, abs_tol=1e-9)]


def _share(levels: tuple[float, ...], low: int, high: int) -> str:
    return f"{levels[high] - levels[low]:.6g}"


def _below(y_N: Float, bound_N: Float) -> Float:
    """1 below, 0 above, a half on the bound itself: unchanged prices fall on it more often than chance has it."""
    return np.asarray((y_N < bound_N) + 0.5 * (y_N == bound_N))


def _against(
    baselines: dict[str, float],
    skill: dict[str, tuple[float, Interval]],
    dm: dict[str, DieboldMariano],
    best: str | None,
) -> str:
    if best is None:
        return "No baseline to compare with."
    sure = [name for name in dm if dm[name].p_holm < _SIGNIFICANCE]
    better, worse = ([n for n in sure if (dm[n].statistic > 0) is wanted] for wanted in (True, False))
    value, (low, high) = skill[best]
    side = "below" if value >= 0 else "above"
    interval = f"{percent(0.95, 0)} interval {percent(low, 2, signed=True)} to {percent(high, 2, signed=True)}"
    figures = (
        f"pinball {percent(abs(value), 2)} {side} that of {best}, the best of {len(baselines)} ({interval},"
        f" Diebold-Mariano p {dm[best].p_holm:.2g} after Holm)"
    )
    if len(better) == len(baselines):
        return f"Better than every baseline: {figures}."
    if best in worse:
        also = f"; better than {', '.join(better)}" if better else ""
        return f"Worse than the best baseline: {figures}{also}."
    if better:
        return f"Better than {', '.join(better)}, but not surely than the best baseline: {figures}."
    return f"No sure difference from the best baseline: {figures}."


def _direction(rank_ic: tuple[float, Interval] | None) -> str:
    if rank_ic is None:
        return "No directional skill found: the mean never varies."
    value, (low, high) = rank_ic
    told = f"rank IC {value:.3f}, {percent(0.95, 0)} interval {low:.3f} to {high:.3f}"
    if low > 0.0:
        return f"Directional skill found: {told}."
    return f"No directional skill found: {told}."
