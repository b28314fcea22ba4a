"""Baselines that read the network's own features: linear quantile regression, and gradient-boosted trees."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from lstm_strategy.bars import Float
from lstm_strategy.forecast import Float32
from lstm_strategy.hyperparameters import Spans, TargetConfig
from lstm_strategy.research.baselines_base import taught_TH
from lstm_strategy.research.labels import Sample

__all__ = ["LightGbmQuantiles", "LinearQuantiles", "smoothed_quantile_regression"]

_TAIL = 0.001  # a feature is held within these quantiles of what was taught, so that no line runs away
_ROUNDS, _PATIENCE = 100, 10
_TREES = {
    "objective": "quantile",
    "learning_rate": 0.1,
    "num_leaves": 8,
    "min_data_in_leaf": 500,
    "max_bin": 63,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


class LinearQuantiles:
    """Linear quantile regression on the features, one fit for all instruments, each level on its own, then sorted."""

    name = "linear_quantiles"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the lines' values at every bar past the warm-up."""
        x_NF, y_NH = _taught(samples, spans, target)
        low_F, high_F = np.quantile(x_NF, (_TAIL, 1.0 - _TAIL), axis=0)
        held_NF = np.clip(x_NF, low_F, high_F)
        slopes = {}
        for column in range(len(target.horizons)):
            known = ~np.isnan(y_NH[:, column])
            for place, level in enumerate(target.levels):
                slopes[column, place] = smoothed_quantile_regression(held_NF[known], y_NH[known, column], level)
        found = []
        for sample in samples:
            x_TF = np.clip(sample.matrix.x_TF.astype(np.float64), low_F, high_F)
            q_THQ = np.empty((len(x_TF), len(target.horizons), len(target.levels)))
            for (column, place), slope in slopes.items():
                q_THQ[:, column, place] = slope[0] + x_TF @ slope[1:]
            found.append(np.sort(q_THQ, axis=-1).astype(np.float32))
        return found


def smoothed_quantile_regression(x_NF: Float, y_N: Float, level: float) -> Float:
    """Return intercept and slopes [1 + F] of the linear ``level`` quantile.

    The check loss is smoothed with a logistic kernel (He, Pan, Tan and Zhou 2023, "Smoothed quantile regression with
    large-scale inference", their bandwidth), which makes it convex and smooth: Newton's method takes 0.1 s where the
    exact linear programme of scikit-learn's QuantileRegressor takes minutes at 50,000 rows. The intercept is then
    moved so that exactly ``level`` of the outcomes lie below. A ridge of weight F / N on the slopes of the standardised
    features holds them where rows are few or the level leaves little to learn from; at 50,000 rows it is next to none.
    """
    rows, features = x_NF.shape
    mean_F, std_F = x_NF.mean(axis=0), x_NF.std(axis=0)
    std_F = np.where(std_F > 1e-6, std_F, 1.0)
    z_NK = np.column_stack([np.ones(rows), (x_NF - mean_F) / std_F])
    unit = float(y_N.std()) or 1.0
    target_N = y_N / unit
    ridge_K = np.full(features + 1, features / rows)
    ridge_K[0] = 0.0
    width = max(((np.log(rows) + features) / rows) ** 0.4, 0.05)

    def loss(slope: Float) -> tuple[float, Float]:
        error_N = target_N - z_NK @ slope
        smooth = level * error_N + width * np.logaddexp(0.0, -error_N / width)
        slope_of_loss = z_NK.T @ (expit(-error_N / width) - level) / rows
        return float(smooth.mean() + ridge_K @ slope**2 / 2.0), slope_of_loss + ridge_K * slope

    def curvature(slope: Float) -> Float:
        below_N = expit(-(target_N - z_NK @ slope) / width)
        weight_N = below_N * (1.0 - below_N) / width
        return np.asarray((z_NK.T * weight_N) @ z_NK / rows + np.diag(ridge_K + 1e-8))

    start = np.zeros(features + 1)
    start[0] = np.quantile(target_N, level)
    slope = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-5}).x * unit
    slope[1:] /= std_F
    slope[0] = np.quantile(y_N - x_NF @ slope[1:], level)
    return np.asarray(slope)


class LightGbmQuantiles:
    """Gradient-boosted quantile trees (library `lightgbm`) on the features, one fit for all instruments.

    Each level has its own trees, grown on the fit span until the stop span has not gained for ten rounds; sorting
    repairs crossed levels. One thread and fixed seeds: the same figures every time.
    """

    name = "lightgbm"

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the trees' values at every bar past the warm-up."""
        import lightgbm as lgb

        x_NF, y_NH = _taught(samples, {**spans, "stop": spans["fit"]}, target)
        stop_NF, stop_NH = _taught(samples, {**spans, "fit": spans["stop"]}, target)
        shapes = [(len(s.bars), len(target.horizons), len(target.levels)) for s in samples]
        found = [np.full(shape, np.nan, np.float32) for shape in shapes]
        for column in range(len(target.horizons)):
            known, judged = ~np.isnan(y_NH[:, column]), ~np.isnan(stop_NH[:, column])
            data = lgb.Dataset(x_NF[known], y_NH[known, column], params=_TREES).construct()
            stop = lgb.Dataset(stop_NF[judged], stop_NH[judged, column], reference=data, params=_TREES).construct()
            for place, level in enumerate(target.levels):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    booster = lgb.train(
                        {**_TREES, "alpha": level},
                        data,
                        num_boost_round=_ROUNDS,
                        valid_sets=[stop],
                        callbacks=[lgb.early_stopping(_PATIENCE, verbose=False)],
                    )
                    for q_THQ, sample in zip(found, samples, strict=True):
                        valid = sample.matrix.valid_T
                        q_THQ[valid, column, place] = np.asarray(booster.predict(sample.matrix.x_TF[valid]), np.float32)
        return [np.sort(q_THQ, axis=-1) for q_THQ in found]


def _taught(samples: list[Sample], spans: Spans, target: TargetConfig) -> tuple[Float, Float]:
    """Features and labels (NaN where not taught) of the rows with any label, over all instruments."""
    inputs, labels = [], []
    for sample in samples:
        taught = taught_TH(sample, spans, target)
        rows = taught.any(axis=1)
        inputs.append(sample.matrix.x_TF[rows].astype(np.float64))
        labels.append(np.where(taught, sample.y_TH, np.nan)[rows].astype(np.float64))
    return np.concatenate(inputs), np.concatenate(labels)
