"""Value at risk and expected shortfall as forecast, set against what the strategy then lost, bar by bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.forecast import Float32
from lstm_strategy.report.run_types import Run

__all__ = ["LEVELS", "Tail", "Tails", "kupiec", "tails_of"]

LEVELS = (0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Tail:
    """One level: bars at risk, expected and counted breaches of the value at risk, losses on the breaches.

    ``p`` is that of so many breaches where the level is true (`kupiec`). ``foreseen`` is the mean expected shortfall
    on the breaches, ``suffered`` the mean loss; fractions of equity, NaN without breaches.
    """

    level: float
    bars: int
    breaches: int
    p: float
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

    The position that a forecast speaks of is the one decided at its bar: the target where an order was sent, else what
    was held. The return is that of equity to the next close, costs included, where the next bar follows at once.
    """
    forecasts = next((found for found in run.forecasts if found.horizon == 1), None)
    curve, decisions = run.equity, run.decisions
    # Of several instruments no one forecast speaks of the account.
    if forecasts is None or run.markets or len(decisions) != len(curve.ts_close):
        return None
    rows = np.searchsorted(curve.ts_close, forecasts.ts_close)
    inside = rows < len(curve.ts_close) - 1
    rows, quantiles_NQ = rows[inside], forecasts.quantiles_NQ[inside]
    exposure = np.where(decisions.ordered[rows], decisions.target[rows], decisions.exposure[rows])
    follows = curve.ts_close[rows + 1] - curve.ts_close[rows] == run.bar_ns
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = curve.equity[rows + 1] / curve.equity[rows] - 1.0
    kept = follows & np.isfinite(returns) & np.isfinite(exposure) & (np.abs(exposure) > 1e-6)
    kept &= (curve.equity[rows] > 0.0) & (curve.ts_close[rows] == forecasts.ts_close[inside])
    levels = [level for level in LEVELS if forecasts.levels[0] <= level + 1e-9 and forecasts.levels[-1] >= 1 - level]
    if not kept.any() or not levels:
        return None
    returns, exposure, quantiles_NQ = returns[kept], exposure[kept], quantiles_NQ[kept]
    at_risk, tails = {}, []
    for level in levels:
        value, shortfall = _tail(quantiles_NQ, forecasts.levels, exposure, level)
        breached = returns < -value
        count = int(breached.sum())
        at_risk[level] = value
        tails.append(
            Tail(
                level=level,
                bars=len(returns),
                breaches=count,
                p=kupiec(count, len(returns), level),
                foreseen=float(shortfall[breached].mean()) if count else math.nan,
                suffered=float(-returns[breached].mean()) if count else math.nan,
            )
        )
    return Tails(curve.ts_close[rows[kept]], returns, at_risk, tuple(tails))


def kupiec(breaches: int, bars: int, level: float) -> float:
    """Return the p-value of so many breaches where each bar breaches with probability ``level`` independently.

    Likelihood ratio of Kupiec, "Techniques for verifying the accuracy of risk measurement models", 1995; χ² with one
    degree of freedom.
    """

    def log_likelihood(share: float) -> float:
        kept = bars - breaches
        return (breaches * math.log(share) if breaches else 0.0) + (kept * math.log1p(-share) if kept else 0.0)

    ratio = max(2.0 * (log_likelihood(breaches / bars) - log_likelihood(level)), 0.0)
    return math.erfc(math.sqrt(ratio / 2.0))


def _tail(quantiles_NQ: Float32, levels: tuple[float, ...], exposure_N: Float, level: float) -> tuple[Float, Float]:
    """Loss that is exceeded with probability ``level``, and the mean loss beyond it, as fractions of equity.

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
