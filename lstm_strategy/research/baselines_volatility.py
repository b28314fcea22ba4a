"""Baselines that know the volatility at most: constant quantiles, in units of what each takes for it."""

from __future__ import annotations

import warnings

import numpy as np

from lstm_strategy.bars import NS_PER_DAY, NS_PER_HOUR, Float
from lstm_strategy.forecast import Float32
from lstm_strategy.hyperparameters import Spans, TargetConfig
from lstm_strategy.research.baselines_base import constant_HQ, taught_TH, unit_TH
from lstm_strategy.research.labels import Sample

__all__ = ["EwmaQuantiles", "Garch", "HarRange", "RandomWalk"]

_NO_NEWS = 1e-4  # a GARCH whose variance takes in less of the last return than this is a constant one


class RandomWalk:
    """Constant quantiles of the raw log return: nothing is known, not even the volatility."""

    name = "random_walk"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the taught quantiles of the raw return, in each bar's unit."""
        return [_in_units_of(np.ones_like(unit_TH(s, target)), s, spans, target) for s in samples]


class EwmaQuantiles:
    """Constant quantiles in units of σ√h: only the EWMA volatility is known."""

    name = "ewma"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the taught quantiles of the scaled return at every bar past the warm-up."""
        return [_in_units_of(unit_TH(s, target), s, spans, target) for s in samples]


class Garch:
    """GARCH(1,1) with Student's t (library `arch`), one fit a fold and instrument, filtered on with fixed parameters.

    One bar ahead the law is the fitted t; further ahead the variance is the sum of the recursion's forecasts, the law
    the taught quantiles in units of its root, since sums of t are none. Intraday, a return over missing bars is no
    news; after a hole that resets the features, the recursion restarts at the mean variance.
    """

    name = "garch_t"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return quantiles from the filtered variance at every bar past the warm-up."""
        return [self._one(sample, spans, target) for sample in samples]

    def _one(self, sample: Sample, spans: Spans, target: TargetConfig) -> Float32:
        from arch.univariate import StudentsT, arch_model  # imports pandas and more: a second that others need not wait

        bars = sample.bars
        return_T = np.diff(np.log(bars.close), prepend=np.nan)
        elapsed_T = np.diff(bars.ts_close, prepend=0)
        news_T = (sample.matrix.count_T > 1) & ((elapsed_T == bars.timeframe.ns) | (bars.timeframe.ns >= NS_PER_DAY))
        news_T[0] = False
        taught = taught_TH(sample, spans, target)
        past_T = taught.any(axis=1) & news_T
        unit = float(return_T[past_T].std())
        if not unit > 0.0:
            return _in_units_of(np.ones_like(unit_TH(sample, target)), sample, spans, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on convergence: the forecasts are judged, whatever the optimiser says
            model = arch_model(return_T[past_T] / unit, mean="Constant", vol="GARCH", p=1, q=1, dist="t", rescale=False)
            fitted = model.fit(disp="off", show_warning=False)
        mu, omega, alpha, beta, nu = (float(value) for value in fitted.params)
        if alpha < _NO_NEWS:  # then nothing but the start tells omega from beta, and a variance may die out
            omega, alpha, beta = 1.0, 0.0, 0.0

        next_T = np.empty(len(bars))  # variance of the next bar
        start = omega / (1.0 - alpha - beta) if alpha + beta < 1.0 else 1.0
        variance = start
        for row, (news, moved, count) in enumerate(
            zip(news_T.tolist(), ((return_T / unit - mu) ** 2).tolist(), sample.matrix.count_T.tolist(), strict=True)
        ):
            if news:
                variance = omega + alpha * moved + beta * variance
            elif count <= 1:
                variance = start
            next_T[row] = variance

        sigma_TH = np.empty_like(unit_TH(sample, target))
        for column, horizon in enumerate(target.horizons):
            first, last, total, share = 0.0, 1.0, 0.0, 0.0  # the i-th variance ahead is first + last * next_T
            for _ in range(horizon):
                total, share = total + first, share + last
                first, last = omega + (alpha + beta) * first, (alpha + beta) * last
            sigma_TH[:, column] = unit * np.sqrt(total + share * next_T)
        q_THQ = _in_units_of(sigma_TH, sample, spans, target)
        if target.horizons[0] == 1:
            law_Q = np.asarray(StudentsT().ppf(np.array(target.levels), np.array([nu])))
            raw_TQ = unit * mu + sigma_TH[:, 0, None] * law_Q
            q_THQ[:, 0] = raw_TQ / unit_TH(sample, target)[:, 0, None]
        return q_THQ


class HarRange:
    """Heterogeneous autoregression (Corsi 2009) of the log range, with hour-of-day terms; scaled quantiles.

    The mean log range of the next bars is regressed, by least squares, on its last value and its averages over a day,
    a week and 30 days (a week and 22 bars for daily bars); the law is the taught quantiles in units of its exponent.
    """

    name = "har_range"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return quantiles in units of the range that is expected, at every bar past the warm-up."""
        return [self._one(sample, spans, target) for sample in samples]

    def _one(self, sample: Sample, spans: Spans, target: TargetConfig) -> Float32:
        bars = sample.bars
        range_T = np.log(np.maximum(np.log(bars.high / bars.low), sample.fit.tick / bars.close))
        day = NS_PER_DAY // bars.timeframe.ns
        windows = (1, day, 7 * day, 30 * day) if day > 1 else (1, 5, 22)
        hour_T = bars.ts_close // NS_PER_HOUR % 24
        terms = [_trailing_mean(range_T, window) for window in windows]
        terms += [(hour_T == hour).astype(np.float64) for hour in np.unique(hour_T)]  # these sum to the constant
        x_TK = np.stack(terms, axis=1)
        taught = taught_TH(sample, spans, target)
        sigma_TH = np.empty_like(unit_TH(sample, target))
        for column, horizon in enumerate(target.horizons):
            known = taught[:, column]
            ahead_T = np.roll(_trailing_mean(range_T, horizon), -horizon)  # a taught row has `horizon` bars after it
            slope_K = np.linalg.lstsq(x_TK[known], ahead_T[known])[0]
            sigma_TH[:, column] = np.exp(x_TK @ slope_K)
        return _in_units_of(sigma_TH, sample, spans, target)


def _trailing_mean(value_T: Float, window: int) -> Float:
    """Mean of the last ``window`` values, of fewer at the start."""
    total_T = np.concatenate([[0.0], np.cumsum(value_T)])
    row = np.arange(1, len(value_T) + 1)
    first = np.maximum(row - window, 0)
    return np.asarray((total_T[row] - total_T[first]) / (row - first))


def _in_units_of(sigma_TH: Float, sample: Sample, spans: Spans, target: TargetConfig) -> Float32:
    """Quantiles that are constant in units of ``sigma_TH`` (log returns), from the taught rows, in units of σ√h."""
    ratio_TH = sigma_TH / unit_TH(sample, target)  # NaN in the warm-up
    q_HQ = constant_HQ(sample.y_TH / ratio_TH, taught_TH(sample, spans, target), target.levels)
    return (ratio_TH[:, :, None] * q_HQ).astype(np.float32)
