"""Portfolios that `skfolio` computes: mean-CVaR and hierarchical risk parity, on moments and scenarios given to it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from skfolio import RiskMeasure
from skfolio.distance import CovarianceDistance
from skfolio.optimization import HierarchicalRiskParity, MeanRisk, ObjectiveFunction
from skfolio.prior import BasePrior, ReturnDistribution

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["solve"]

_CLOSE = 1e-6


class _Known(BasePrior):  # type: ignore[misc]
    """Says what it was told, whatever returns it is fitted to."""

    def __init__(self, mu: Float | None = None, covariance: Float | None = None) -> None:
        self.mu, self.covariance = mu, covariance

    def fit(self, X: Any, y: Any = None, **_: Any) -> _Known:
        """Take the returns as scenarios."""
        self.return_distribution_ = ReturnDistribution(mu=self.mu, covariance=self.covariance, returns=np.asarray(X))
        return self


def solve(
    method: str,
    mean_S: Float,
    covariance_SS: Float,
    returns_NS: Float,
    *,
    risk_aversion: float = 1.0,
    cvar_level: float = 0.95,
    least: int = 2,
) -> Float:
    """Return weights of at least 0 whose sum is 1, float64 [S].

    Parameters
    ----------
    method : str
        ``mean_cvar`` or ``hierarchical_risk_parity``.
    mean_S, covariance_SS : float64 [S], float64 [S, S]
        Over the horizon, in units of the side that each name is on.
    returns_NS : float64 [N, S]
        Scenarios of the same.
    risk_aversion, cvar_level, least
        Of mean-CVaR; ``least`` is the fewest scenarios that it is content with.

    Raises
    ------
    LSTMStrategyError
        For too few scenarios, and weights that are none.
    Exception
        Whatever the solver raises.
    """
    size = float(np.sqrt(np.diag(covariance_SS)).mean())  # solvers are used to figures near 1
    prior = _Known(mean_S / size, covariance_SS / size**2)
    model: Any
    if method == "mean_cvar":
        if len(returns_NS) < least:
            raise LSTMStrategyError(f"{len(returns_NS)} scenarios are known so far, it takes {least}")
        model = MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
            risk_measure=RiskMeasure.CVAR,
            risk_aversion=risk_aversion,
            cvar_beta=cvar_level,
            prior_estimator=prior,
        )
    else:
        returns_NS = np.zeros((2, len(mean_S)))  # looked at for its shape alone: distances are the covariance's too
        model = HierarchicalRiskParity(
            risk_measure=RiskMeasure.VARIANCE,
            prior_estimator=prior,
            distance_estimator=CovarianceDistance(covariance_estimator="precomputed"),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the solvers' own
        model.fit(returns_NS / size)
    weight_S = np.asarray(model.weights_, np.float64)
    if not (np.isfinite(weight_S).all() and weight_S.min() >= -_CLOSE and abs(weight_S.sum() - 1.0) < _CLOSE):
        raise LSTMStrategyError(f"the solver's weights are no portfolio: {weight_S.tolist()}")
    weight_S = np.maximum(weight_S, 0.0)
    return np.asarray(weight_S / weight_S.sum())
