"""Value at risk and expected shortfall as forecast, set against what the strategy then lost, bar by bar.

Of a model that forecasts no single bar, block by block: the bars of its shortest horizon, against what the position of
the close before them would have lost if it had been kept (Basel Committee, "Supervisory framework for the use of
backtesting", 1996: hypothetical losses of a static portfolio).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.forecast import Float32
from lstm_strategy.measures import labels
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, Run

__all__ = [
    "LEAST",
    "LEAST_DUE",
    "LEVELS",
    "Tail",
    "Tails",
    "christoffersen",
    "decided",
    "held_over",
    "judge",
]
__all__ += ["judge_blocks", "kupiec", "levels_in", "tail_of", "tails_of"]

LEAST = 1e-6
"""Exposure below which nothing is at risk."""

LEVELS = (0.05, 0.01)

LEAST_DUE = 5.0
"""Breaches due below which blocks are too few to be tested.

χ² is a poor law of `kupiec`'s ratio there: where 2 are due, a true level would be rejected at 5 % 15 times in 100.
"""


@dataclass(frozen=True, slots=True)
class Tail:
    """One level: bars at risk, expected and counted breaches of the value at risk, losses on the breaches.

    ``p`` is that of so many breaches where the level is true (`kupiec`), ``p_apart`` that of their coming one upon the
    other where they are independent (`christoffersen`). ``foreseen`` is the mean expected shortfall on the breaches,
    ``suffered`` the mean loss; fractions of equity, NaN without breaches. Of blocks ``bars`` is their number; where
    they are ``too_few`` (`LEAST_DUE`) both p are NaN.
    """

    level: float
    bars: int
    breaches: int
    p: float
    p_apart: float
    foreseen: float
    suffered: float
    too_few: bool = False

    @property
    def expected(self) -> float:
        """Breaches that a true level gives on average."""
        return self.level * self.bars


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """Bars with a forecast, a position and a next bar [N]: return of equity to the next close, VaR by level.

    Of a ``horizon`` beyond one bar: blocks, by the close that each begins at, with the return over it of the position
    kept; they were counted from ``ts_first`` on. Each row ends at ``ts_end``.
    """

    ts_close: Stamps
    returns: Float
    at_risk: dict[float, Float]
    tails: tuple[Tail, ...]
    ts_end: Stamps
    horizon: int = 1
    ts_first: int = 0


def tails_of(run: Run) -> Tails | None:
    """Judge the forecasts of the shortest horizon as forecasts of the strategy's own losses; None where there are none.

    The position that a forecast speaks of is the one decided at its bar (`decided`). Of one bar the return is that of
    equity to the next close, costs included, where the next bar follows at once (`judge`); of more, that of the
    position kept, from close to close (`judge_blocks`). Of several instruments no one forecast speaks of the account:
    see `joint_risk`.
    """
    curve = run.equity
    if not run.forecasts or run.markets or len(run.decisions) != len(curve.ts_close):
        return None
    forecasts = run.forecasts[0]
    rows = np.searchsorted(curve.ts_close, forecasts.ts_close)
    rows = np.minimum(rows, len(curve.ts_close) - 1)
    exposure_T = decided(run.decisions)
    exposure = exposure_T[rows]
    kept = (curve.ts_close[rows] == forecasts.ts_close) & (np.abs(exposure) > LEAST)
    rows, exposure, quantiles_NQ = rows[kept], exposure[kept], forecasts.quantiles_NQ[kept]
    forecast = {
        level: tail_of(quantiles_NQ, forecasts.levels, exposure, level) for level in levels_in(forecasts.levels)
    }
    if forecasts.horizon == 1:
        return judge(curve, run.bar_ns, rows, forecast)
    closed_ns = round(run.summary.closed_hours * 3_600e9)
    moved_T = held_over(curve.price, curve.ts_close, forecasts.horizon, run.bar_ns, closed_ns)
    return judge_blocks(curve, forecasts.horizon, rows, (exposure_T * moved_T)[rows], forecast)


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
    follows = np.diff(stamps) == bar_ns
    own = {level: (value[kept], shortfall[kept]) for level, (value, shortfall) in forecast.items()}
    tails = tuple(_tail(level, returns, *both, follows) for level, both in own.items())
    at_risk = {level: value for level, (value, _) in own.items()}
    return Tails(stamps, returns, at_risk, tails, stamps + bar_ns)


def judge_blocks(
    curve: EquityCurve,
    horizon: int,
    rows: npt.NDArray[np.intp],
    returns: Float,
    forecast: dict[float, tuple[Float, Float]],
) -> Tails | None:
    """Set value at risk and expected shortfall over ``horizon`` bars against losses that do not overlap.

    Blocks begin at every ``horizon``-th close, counted from the first of the run, which is the first that was decided
    on, whatever was held or is missing later; the other closes do not count. One block follows another where it begins
    at the close that the other ends at.

    Parameters
    ----------
    rows : int [N]
        Rows of the curve that were forecast, in time order.
    returns : float64 [N]
        What the position of each would bring if it were kept, as fractions of equity; NaN where that is not known.
    forecast : dict of (float64 [N], float64 [N])
        By level, both as fractions of equity.
    """
    kept = (rows % horizon == 0) & np.isfinite(returns) & (curve.equity[rows] > 0.0)
    for both in forecast.values():
        kept &= np.isfinite(both).all(axis=0)
    if not kept.any() or not forecast:
        return None
    rows, returns = rows[kept], returns[kept]
    follows = np.diff(rows) == horizon
    own = {level: (value[kept], shortfall[kept]) for level, (value, shortfall) in forecast.items()}
    tails = tuple(_tail(level, returns, *both, follows, LEAST_DUE) for level, both in own.items())
    at_risk = {level: value for level, (value, _) in own.items()}
    stamps, ends = curve.ts_close[rows], curve.ts_close[rows + horizon]
    return Tails(stamps, returns, at_risk, tails, ends, horizon, int(curve.ts_close[0]))


def _tail(
    level: float, returns: Float, value: Float, shortfall: Float, follows: npt.NDArray[np.bool_], least_due: float = 0.0
) -> Tail:
    """Judge one level; ``follows`` [N - 1] says whether the next one comes at once after each."""
    breached = returns < -value
    count, bars = int(breached.sum()), len(returns)
    too_few = level * bars < least_due
    return Tail(
        level=level,
        bars=bars,
        breaches=count,
        p=math.nan if too_few else kupiec(count, bars, level),
        p_apart=math.nan if too_few else christoffersen(breached, follows),
        foreseen=float(shortfall[breached].mean()) if count else math.nan,
        suffered=float(-returns[breached].mean()) if count else math.nan,
        too_few=too_few,
    )


def held_over(price_T: Float, ts_close: Stamps, horizon: int, bar_ns: int, closed_ns: int = 0) -> Float:
    """Return by how much each close's price has risen ``horizon`` bars later, as a fraction, float64 [T].

    NaN where there is no such close or bars are missing on the way, as `measures.labels` counts them.
    """
    known = np.flatnonzero(np.isfinite(labels(price_T, ts_close, np.ones(len(price_T)), horizon, bar_ns, closed_ns)))
    moved_T = np.full(len(price_T), np.nan)
    moved_T[known] = price_T[known + horizon] / price_T[known] - 1.0
    return moved_T


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
    if short.any() and not np.allclose(own, 1.0 - own[::-1]):
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
