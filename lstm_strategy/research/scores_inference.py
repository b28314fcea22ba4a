"""Tests and intervals behind the scores: bootstrap of whole stamps, Diebold-Mariano, VaR, drift; pure functions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm
from statsmodels.regression.linear_model import OLS

from lstm_strategy.bars import Float

__all__ = ["bootstrap_sums", "christoffersen", "diebold_mariano", "holm", "kupiec", "mean_is_zero", "psi"]

_FIXED_B = 1.79
_CONTINUOUS = 1e-4  # added to shares in the PSI, so that an empty bin counts much but not without end


def bootstrap_sums(column_SC: Float, series_S: Float, horizon: int, draws: int, seed: int) -> Float:
    """Return sums [draws, C] of the columns over redrawn stamps: the stationary bootstrap of Politis and Romano.

    Whole stamps are drawn, in blocks whose mean length is the automatic one of ``series_S`` (Patton, Politis and White
    2009), but no less than twice the ``horizon`` over which outcomes overlap.
    """
    from arch.bootstrap import StationaryBootstrap, optimal_block_length  # a second to import

    stamps = len(series_S)
    block = 2.0 * horizon
    if stamps >= 20 and float(series_S.std()) > 0.0:
        best = float(optimal_block_length(series_S)["stationary"].iloc[0])
        block = max(block, best if math.isfinite(best) else 1.0)
    bootstrap = StationaryBootstrap(max(min(round(block), stamps // 2), 1), np.arange(stamps), seed=seed)
    drawn = (np.bincount(arguments[0], minlength=stamps) for arguments, _ in bootstrap.bootstrap(draws))
    return np.stack([count_S.astype(np.float64) @ column_SC for count_S in drawn])


def diebold_mariano(gain_S: Float, horizon: int) -> tuple[float, float]:
    """Return statistic and two-sided p of a mean loss difference of nought (Diebold and Mariano 1995).

    ``gain_S`` is the baseline's loss less the forecast's, averaged over instruments at each stamp, in time order.
    Newey-West errors with lag max(3 (horizon - 1), S^(1/3)), since overlapping outcomes err together. They come out too
    small by about 1.79 lag / S, the first-order term of Kiefer and Vogelsang (2005) at 1 %, and are widened by that.
    At a horizon of 24 and 2,000 stamps a 5 % test then rejects 6 % of true nulls; 8 to 12 % with half the lag and as
    they come.
    """
    stamps = len(gain_S)
    if stamps < 10 or float(gain_S.std()) == 0.0:
        return 0.0, 1.0
    lag = min(max(3 * (horizon - 1), math.ceil(stamps ** (1 / 3))), stamps // 2)
    fitted = OLS(gain_S, np.ones(stamps)).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": True})
    statistic = float(fitted.tvalues[0]) / (1.0 + _FIXED_B * lag / stamps)
    return (statistic, float(2.0 * norm.sf(abs(statistic)))) if math.isfinite(statistic) else (0.0, 1.0)


def holm(p: list[float]) -> list[float]:
    """Return p-values corrected for having asked all of the questions (Holm 1979)."""
    # By hand, since statsmodels collects all of a process's garbage at each call, which takes 0.1 to 0.5 s.
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in corrected]


def kupiec(violations: int, rows: int, level: float) -> float:
    """Return the p-value of Kupiec (1995): violations come with probability ``level``."""
    ratio = 2.0 * (_log_likelihood(violations, rows, violations / rows) - _log_likelihood(violations, rows, level))
    return float(chi2.sf(max(ratio, 0.0), 1))


def christoffersen(violated_T: npt.NDArray[np.bool_], level: float) -> tuple[float | None, float | None]:
    """Return the p-values of Christoffersen (1998): violations are independent of the last, and that with Kupiec's.

    None where no violation, or nothing but violations, leaves nothing to tell apart.
    """
    before, after = violated_T[:-1], violated_T[1:]
    if len(after) == 0 or not after.any() or after.all() or not before.any() or before.all():
        return None, None
    calm, shaken = after[~before], after[before]
    alike = _log_likelihood(int(after.sum()), len(after), float(after.mean()))
    apart = sum(_log_likelihood(int(part.sum()), len(part), float(part.mean())) for part in (calm, shaken))
    independence = max(2.0 * (apart - alike), 0.0)
    frequency = max(2.0 * (alike - _log_likelihood(int(after.sum()), len(after), level)), 0.0)
    return float(chi2.sf(independence, 1)), float(chi2.sf(independence + frequency, 2))


def mean_is_zero(value_N: Float, draws: int = 999) -> float | None:
    """Return the two-sided p-value of a mean of nought, by a studentised bootstrap of independent values.

    As McNeil and Frey (2000, "Estimation of tail-related risk measures for heteroscedastic financial time series") ask
    it of the losses beyond value at risk. The draws have a seed of their own; None below five values, and beyond 2,000
    the normal law stands for the draws.
    """
    rows = len(value_N)
    if rows < 5 or float(np.ptp(value_N)) == 0.0:
        return None

    def studentised(sample_DN: Float) -> Float:
        with np.errstate(divide="ignore"):
            return np.asarray(np.abs(sample_DN.mean(axis=1)) / sample_DN.std(axis=1, ddof=1))

    found = float(studentised(value_N[None])[0])
    if rows > 2_000:
        return float(2.0 * norm.sf(found * math.sqrt(rows)))
    centred_N = value_N - value_N.mean()
    drawn = studentised(centred_N[np.random.default_rng(0).integers(0, rows, (draws, rows))])
    return float((1 + (drawn >= found).sum()) / (draws + 1))


def psi(reference_N: npt.NDArray[np.floating], later_N: npt.NDArray[np.floating], bins: int = 10) -> float:
    """Return the population stability index of two samples over equally filled bins of the first.

    Customary reading: below 0.1 no drift, above 0.25 a large one. NaN rows do not count; NaN where a sample is empty.
    """
    reference, later = (np.asarray(part[~np.isnan(part)], np.float64) for part in (reference_N, later_N))
    if len(reference) == 0 or len(later) == 0:
        return math.nan
    edges = np.unique(np.quantile(reference, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    shares = []
    for part in (reference, later):
        counts = np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1)
        shares.append(np.maximum(counts / len(part), _CONTINUOUS))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _log_likelihood(hits: int, rows: int, probability: float) -> float:
    """Log-likelihood of Bernoulli trials, with 0 log 0 = 0."""
    found = hits * math.log(probability) if hits else 0.0
    return found + ((rows - hits) * math.log1p(-probability) if rows > hits else 0.0)
