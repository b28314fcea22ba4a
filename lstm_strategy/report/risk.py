"""Value at risk and expected shortfall as forecast, set against what the strategy then lost, bar by bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.forecast import Float32
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, Run

__all__ = ["LEAST", "LEVELS", "Tail", "Tails", "christoffersen", "decided", "judge", "kupiec", "levels_in", "tail_of"]
__all__ += ["tails_of"]

LEAST = 1e-6
"""Exposure below which nothing is at risk."""

LEVELS = (0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Tail:
    """One level: bars at risk, expected and counted breaches of the value at risk, losses on the breaches.

    ``p`` is that of so many breaches where the level is true (`kupiec`), ``p_apart`` that of their coming one upon the
    other where they are independent (`christoffersen`). ``foreseen`` is the mean expected shortfall on the breaches,
    ``suffered`` the mean loss; fractions of equity, NaN without breaches.
    """

    level: float
    bars: int
    breaches: int
    p: float
    p_apart: float
    foreseen: float
    suffered: float

    @property
    def expected(self) -> float:
        """Breaches that a true level gives on average."""
        return self.level * self.bars


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """Bars with a forecast, a position and a next bar [N]: return of equity to the next close, VaR by level."""

    ts_close: Stamps
    returns: Float
    at_risk: dict[float, Float]
    tails: tuple[Tail, ...]


def tails_of(run: Run) -> Tails | None:
    """Judge the forecasts of the next bar as forecasts of the strategy's own losses; None where there are none.

    The position that a forecast speaks of is the one decided at its bar (`decided`). The return is that of equity to
    the next close, costs included, where the next bar follows at once. Of several instruments no one forecast speaks of
    the account: see `joint_risk`.
    """
    forecasts = next((found for found in run.forecasts if found.horizon == 1), None)
    curve = run.equity
    if forecasts is None or run.markets or len(run.decisions) != len(curve.ts_close):
        return None
    rows = np.searchsorted(curve.ts_close, forecasts.ts_close)
    rows = np.minimum(rows, len(curve.ts_close) - 1)
    exposure = decided(run.decisions)[rows]
    kept = (curve.ts_close[rows] == forecasts.ts_close) & (np.abs(exposure) > LEAST)
    rows, exposure, quantiles_NQ = rows[kept], exposure[kept], forecasts.quantiles_NQ[kept]
    forecast = {
        level: tail_of(quantiles_NQ, forecasts.levels, exposure, level) for level in levels_in(forecasts.levels)
    }
    return judge(curve, run.bar_ns, rows, forecast)


def decided(decisions: DecisionLog) -> Float:
    """Return the exposure that each close led to: the target where an order was sent, else what was held."""
    return np.asarray(np.where(decisions.ordered, decisions.target, decisions.exposure))


def levels_in(own: tuple[float, ...]) -> list[float]:
    """Return those of `LEVELS` that a model's levels reach on both sides."""
    return [level for level in LEVELS if own[0] <= level + 1e-9 and own[-1] >= 1 - level]


def judge(
    curve: EquityCurve, bar_ns: int, rows: npt.NDArray[np.intp], forecast: dict[float, tuple[Float, Float]]
) -> Tails | None:
    """Set value at risk and expected shortfall against what equity did to the next close; None where nothing is left.

    Parameters
    ----------
    rows : int [N]
        Rows of the curve that were forecast, in time order.
    forecast : dict of (float64 [N], float64 [N])
        By level, both as fractions of equity.
    """
    after = np.minimum(rows + 1, len(curve.ts_close) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = curve.equity[after] / curve.equity[rows] - 1.0
    kept = (curve.ts_close[after] - curve.ts_close[rows] == bar_ns) & np.isfinite(returns) & (curve.equity[rows] > 0.0)
    if not kept.any() or not forecast:
        return None
    rows, returns = rows[kept], returns[kept]
    stamps = curve.ts_close[rows]
    at_risk, tails = {}, []
    for level, (values, shortfalls) in forecast.items():
        value, shortfall = values[kept], shortfalls[kept]
        breached = returns < -value
        count = int(breached.sum())
        at_risk[level] = value
        tails.append(
            Tail(
                level=level,
                bars=len(returns),
                breaches=count,
                p=kupiec(count, len(returns), level),
                p_apart=christoffersen(breached, np.diff(stamps) == bar_ns),
                foreseen=float(shortfall[breached].mean()) if count else math.nan,
                suffered=float(-returns[breached].mean()) if count else math.nan,
            )
        )
    return Tails(stamps, returns, at_risk, tuple(tails))


def kupiec(breaches: int, bars: int, level: float) -> float:
    """Return the p-value of so many breaches where each bar breaches with probability ``level`` independently.

    Likelihood ratio of Kupiec, "Techniques for verifying the accuracy of risk measurement models", 1995; χ² with one
    degree of freedom.
    """

    kept = bars - breaches
    ratio = max(2.0 * (_log_likelihood(breaches, kept, breaches / bars) - _log_likelihood(breaches, kept, level)), 0.0)
    return _beyond(ratio)


def christoffersen(breached: npt.NDArray[np.bool_], follows: npt.NDArray[np.bool_]) -> float:
    """Return the p-value of breaches that follow each other as these do, where they are independent.

    Likelihood ratio of Christoffersen, "Evaluating interval forecasts", 1998, of a first-order Markov chain against
    independence; χ² with one degree of freedom. NaN where no breach could follow another.

    Parameters
    ----------
    breached : bool [N]
    follows : bool [N - 1]
        Whether the next bar comes at once after each; pairs over a gap do not count.
    """
    before, after = breached[:-1][follows], breached[1:][follows]
    hit_hit, hit_miss = int((before & after).sum()), int((before & ~after).sum())
    miss_hit, miss_miss = int((~before & after).sum()), int((~before & ~after).sum())
    pairs = len(before)
    if not (hit_hit + hit_miss and miss_hit + miss_miss):
        return math.nan
    apart = _log_likelihood(hit_hit + miss_hit, hit_miss + miss_miss, (hit_hit + miss_hit) / pairs)
    chained = _log_likelihood(hit_hit, hit_miss, hit_hit / (hit_hit + hit_miss))
    chained += _log_likelihood(miss_hit, miss_miss, miss_hit / (miss_hit + miss_miss))
    return _beyond(max(2.0 * (chained - apart), 0.0))


def _beyond(ratio: float) -> float:
    """Return the probability that χ² with one degree of freedom exceeds a ratio; a node has no scipy."""
    return math.erfc(math.sqrt(ratio / 2.0))


def _log_likelihood(hits: int, misses: int, share: float) -> float:
    """Log-likelihood of Bernoulli trials, with 0 log 0 = 0."""
    return (hits * math.log(share) if hits else 0.0) + (misses * math.log1p(-share) if misses else 0.0)


def tail_of(quantiles_NQ: Float32, levels: tuple[float, ...], exposure_N: Float, level: float) -> tuple[Float, Float]:
    """Return the loss that is exceeded with probability ``level``, and the mean loss beyond it; fractions of equity.

    The quantile function is linear between the levels and flat beyond them, so that what lies beyond the outermost is
    understated.
    """
    moves_NQ = np.expm1(quantiles_NQ.astype(np.float64))
    short = exposure_N < 0.0
    moves_NQ[short] = -moves_NQ[short, ::-1]  # what a short position makes of them, lowest first
    own = np.array(levels)
    if not np.allclose(own, 1.0 - own[::-1]):
        mirrored = 1.0 - own[::-1]
        moves_NQ[short] = [np.interp(own, mirrored, row) for row in moves_NQ[short]]
    above = min(max(int(np.searchsorted(own, level - 1e-9)), 1), len(own) - 1)
    weight = (level - own[above - 1]) / (own[above] - own[above - 1])
    cut_N = (1.0 - weight) * moves_NQ[:, above - 1] + weight * moves_NQ[:, above]
    lower = own < level - 1e-9
    grid = np.append(own[lower], level)
    tail_NG = np.column_stack([moves_NQ[:, lower], cut_N])
    area_N = own[0] * tail_NG[:, 0] + (np.diff(grid) * (tail_NG[:, 1:] + tail_NG[:, :-1]) / 2.0).sum(axis=1)
    size = np.abs(exposure_N)
    return -cut_N * size, -area_N / level * size
