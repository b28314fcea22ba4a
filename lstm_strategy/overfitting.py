"""How far a Sharpe ratio can be told from luck: probabilistic, deflated, bootstrapped, and across many settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.measures import daily_returns, max_drawdown

__all__ = ["SUPPORTED", "Crossed", "Intervals", "Moments", "bootstrap", "deflated_sharpe", "expected_best_sharpe"]
__all__ += ["figures", "moments", "probabilistic_sharpe", "probability_of_overfitting"]

SUPPORTED = 0.95
"""The least deflated Sharpe ratio that supports a claim of skill."""

_NORMAL = NormalDist()
_EULER = 0.5772156649015329
_BLOCKS, _REPETITIONS, _SEED = 16, 2_000, 20_240_101


@dataclass(frozen=True, slots=True)
class Moments:
    """What a Sharpe ratio's uncertainty is made of, per period and not annual.

    ``sharpe`` is mean / standard deviation (n − 1); ``kurtosis`` is 3 for a normal law.
    """

    periods: int
    sharpe: float
    skewness: float
    kurtosis: float


def moments(returns: Float) -> Moments:
    """Return the moments of simple returns [D]; NaN with fewer than three, or without variation."""
    if len(returns) < 3 or not float(returns.std()) > 0.0:
        return Moments(len(returns), math.nan, math.nan, math.nan)
    away = (returns - returns.mean()) / returns.std()
    sharpe = float(returns.mean() / returns.std(ddof=1))
    return Moments(len(returns), sharpe, float((away**3).mean()), float((away**4).mean()))


def probabilistic_sharpe(found: Moments, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio is above ``benchmark`` (per period, as in `Moments`).

    Φ((SR − SR*) √(n − 1) / √(1 − γ₃ SR + (γ₄ − 1)/4 · SR²)): Bailey and López de Prado, "The Sharpe ratio efficient
    frontier", Journal of Risk 15 (2), 2012, equation 9. NaN where the moments are.
    """
    sharpe = found.sharpe
    spread = 1.0 - found.skewness * sharpe + (found.kurtosis - 1.0) / 4.0 * sharpe**2
    if not spread > 0.0:
        return math.nan
    return _NORMAL.cdf((sharpe - benchmark) * math.sqrt(found.periods - 1) / math.sqrt(spread))


def expected_best_sharpe(trials: int, variance: float) -> float:
    """Return the Sharpe ratio to expect of the best of ``trials`` without any skill; ``variance`` is across trials.

    √V ((1 − γ) Φ⁻¹(1 − 1/N) + γ Φ⁻¹(1 − 1/(N e))), γ of Euler and Mascheroni: Bailey and López de Prado, "The deflated
    Sharpe ratio", Journal of Portfolio Management 40 (5), 2014, equation 1. 0 for a single trial.
    """
    if trials < 1:
        raise LSTMStrategyError(f"trials is {trials}; it must be 1 or above")
    if trials == 1:
        return 0.0
    best = (1.0 - _EULER) * _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    return math.sqrt(variance) * (best + _EULER * _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e)))


def deflated_sharpe(found: Moments, trials: int, variance: float | None = None) -> float:
    """Return the probability that the true Sharpe ratio is above 0, given that it is the best of ``trials``.

    `probabilistic_sharpe` against `expected_best_sharpe` (same paper, equation 2).

    Parameters
    ----------
    variance : float, optional
        Of the Sharpe ratios per period across the trials; that of an estimate without skill, 1 / (n − 1), where they
        were not kept.
    """
    if variance is None:
        variance = 1.0 / (found.periods - 1) if found.periods > 1 else math.nan
    return probabilistic_sharpe(found, expected_best_sharpe(trials, variance))


@dataclass(frozen=True, slots=True)
class Crossed:
    """What combinatorially symmetric cross-validation found.

    Parameters
    ----------
    probability : float
        Share of splits in which the best setting of one half was no better than the median of the other.
    loss : float
        Share of splits in which it lost money there (a Sharpe ratio below 0).
    splits, blocks : int
    """

    probability: float
    loss: float
    splits: int
    blocks: int


def probability_of_overfitting(returns_DN: Float, blocks: int = _BLOCKS) -> Crossed:
    """Return the probability of backtest overfitting over N settings' daily returns.

    The days are cut into ``blocks``; for each way to take half of them, the setting with the best Sharpe ratio there is
    ranked among all on the other half: Bailey, Borwein, López de Prado and Zhu, "The probability of backtest
    overfitting", Journal of Computational Finance 20 (4), 2017, section 3. A setting that never varies has Sharpe 0.

    Parameters
    ----------
    returns_DN : float64 [D, N]
        Simple returns of the same days.

    Raises
    ------
    LSTMStrategyError
        With fewer than two settings, an odd number of blocks or fewer than two days in one, or a value not finite.
    """
    days, settings = returns_DN.shape
    if settings < 2:
        raise LSTMStrategyError(f"overfitting across settings needs two of them; there is {settings}")
    if blocks < 2 or blocks % 2 or days < 2 * blocks:
        raise LSTMStrategyError(
            f"{days} days cannot be cut into {blocks} blocks; use an even number of them, with two days in each"
        )
    if not np.isfinite(returns_DN).all():
        raise LSTMStrategyError("a setting's returns are not finite: an account was ruined; leave that setting out")
    pieces = np.array_split(returns_DN, blocks)
    count_S = np.array([len(piece) for piece in pieces], np.float64)
    sum_SN = np.array([piece.sum(axis=0) for piece in pieces])
    square_SN = np.array([(piece**2).sum(axis=0) for piece in pieces])
    taken_CS = np.zeros((math.comb(blocks, blocks // 2), blocks))
    for row, chosen in enumerate(combinations(range(blocks), blocks // 2)):
        taken_CS[row, list(chosen)] = 1.0

    def sharpe_of(mask_CS: Float) -> Float:
        n = (mask_CS @ count_S)[:, None]
        mean = mask_CS @ sum_SN / n
        variance = (mask_CS @ square_SN - n * mean**2) / (n - 1.0)
        varies = variance > 1e-24
        return np.where(varies, mean / np.sqrt(np.where(varies, variance, 1.0)), 0.0)

    inside, outside = sharpe_of(taken_CS), sharpe_of(1.0 - taken_CS)
    best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    rank = (outside < best).sum(axis=1) + ((outside == best).sum(axis=1) + 1) / 2.0
    return Crossed(
        probability=float((rank / (settings + 1) <= 0.5).mean()),
        loss=float((best < 0.0).mean()),
        splits=len(taken_CS),
        blocks=blocks,
    )


@dataclass(frozen=True, slots=True)
class Intervals:
    """Central intervals of probability ``level`` around the annual Sharpe ratio and the maximum drawdown."""

    level: float
    sharpe: tuple[float, float]
    max_drawdown: tuple[float, float]
    block_days: int


def bootstrap(
    returns: Float, per_year: float, *, level: float = 0.95, repetitions: int = _REPETITIONS, seed: int = _SEED
) -> Intervals:
    """Resample daily returns in blocks of random length, and return percentile intervals.

    Stationary bootstrap of Politis and Romano (1994), block length of Patton, Politis and White (2009), both as in
    `arch.bootstrap`. Blocks keep dependence over days; trends longer than a block are lost, so that drawdowns of long
    slides are understated.

    Parameters
    ----------
    returns : float64 [D]
    per_year : float
        Trading days a year.

    Raises
    ------
    LSTMStrategyError
        Without the arch package, or with fewer than 20 days.
    """
    if len(returns) < 20 or not float(returns.std()) > 0.0:
        raise LSTMStrategyError(f"{len(returns)} daily returns are too few, or too alike, to be resampled")
    try:
        from arch.bootstrap import StationaryBootstrap, optimal_block_length
    except ImportError as error:
        raise LSTMStrategyError(
            f"intervals need {error.name or 'arch'}, which is not installed; install lstm-strategy[train]"
        ) from error
    block = max(math.ceil(float(optimal_block_length(returns)["stationary"].iloc[0])), 1)
    resampled = StationaryBootstrap(block, returns, seed=seed)
    sharpes, depths = np.empty(repetitions), np.empty(repetitions)
    for row, ((drawn,), _) in enumerate(resampled.bootstrap(repetitions)):
        deviation = np.asarray(drawn).std(ddof=1)  # nothing where a draw fell on flat days alone: no return, no risk
        sharpes[row] = drawn.mean() / deviation * math.sqrt(per_year) if deviation > 0.0 else 0.0
        depths[row] = max_drawdown(np.cumprod(1.0 + drawn), 1.0)
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    (low, high), (shallow, deep) = (np.quantile(values, tails).tolist() for values in (sharpes, depths))
    return Intervals(level, (low, high), (shallow, deep), block)


def figures(
    ts_close: Stamps, equity: Float, start: float, *, trials: int = 1, variance: float | None = None
) -> dict[str, Any]:
    """Return what a run's summary says about luck, as plain values; NaN and None where there is nothing to judge.

    Parameters
    ----------
    ts_close : int64 [T]
    equity : float64 [T]
        Marked to market; ``start`` before the first bar.
    trials : int
        How many settings were tried before this one was chosen.
    variance : float, optional
        Of the trials' daily Sharpe ratios, where they were kept.
    """
    ruined = start <= 0.0 or bool(np.any(equity <= 0.0))
    days, returns = daily_returns(ts_close, equity, start)
    found = Moments(len(returns), math.nan, math.nan, math.nan) if ruined else moments(returns)
    told: dict[str, Any] = {
        "days": len(returns),
        "trials": trials,
        "skewness": found.skewness,
        "kurtosis": found.kurtosis,
        "probabilistic_sharpe": probabilistic_sharpe(found),
        "deflated_sharpe": deflated_sharpe(found, trials, variance),
        "intervals": None,
        "missing": "",
    }
    if math.isfinite(found.sharpe):
        per_year = len(days) / (days[-1] - days[0] + 1) * 365.25
        try:
            around = bootstrap(returns, float(per_year))
        except LSTMStrategyError as error:
            told["missing"] = str(error)
        else:
            told["intervals"] = {
                "level": around.level,
                "sharpe": list(around.sharpe),
                "max_drawdown": list(around.max_drawdown),
                "block_days": around.block_days,
            }
    return told
