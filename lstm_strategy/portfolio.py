"""The portfolio: several names' forecasts and their covariance turned into one vector of weights; pure."""

from __future__ import annotations

import importlib.util
import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.sizing import SizingConfig, require

__all__ = [
    "FALLBACK",
    "MOVED",
    "Beliefs",
    "PortfolioConfig",
    "Weights",
    "aversion",
    "equal_risk",
    "level",
    "limit_turnover",
    "proportions",
    "require_portfolio",
    "signs",
]

FALLBACK = "portfolio_fallback"
"""In a decision's ``bound`` where the solver failed and equal risk took its place."""
MOVED = "portfolio_turnover"
"""In a decision's ``bound`` where the portfolio's own limit on turnover held."""
_SWEEPS, _CLOSE = 1000, 1e-12


class PortfolioConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How several names share one account.

    The method gives the proportions, the sizing their level: the portfolio is sized as one instrument would be, by its
    own shrunk mean and deviation. Caps on names, net and gross are those of the limits.

    Parameters
    ----------
    method : str
        ``equal_risk``: every name contributes as much to the variance. ``mean_cvar``: the greatest shrunk mean less
        ``risk_aversion`` times the conditional value at risk at ``cvar_level``, over the latest ``scenarios`` returns
        at today's scales. ``hierarchical_risk_parity``: halves of a tree of correlations share the risk (López de
        Prado, "Building diversified portfolios that outperform out of sample", 2016). The last two are `skfolio`'s,
        and fall back to equal risk where it fails. ``separate``: each name is sized by itself, and limits alone join
        them.
    span, scale_span : int
        Bars of the exponential weights of the correlations, and of the deviations that returns are measured in.
    every : int
        Bars between two computations of the proportions, by the stamp; they are computed anew as well when the names
        or their sides change.
    max_turnover : float, optional
        Most that all weights together may move in one decision, beside what is taken off.
    absent_bars : int
        Bars for which an absent name keeps its share of the risk, by its last forecast.
    grace_s : float
        Seconds that a decision waits for the names whose bars have not come.
    """

    method: Literal["equal_risk", "mean_cvar", "hierarchical_risk_parity", "separate"] = "equal_risk"
    span: int = 720
    scale_span: int = 48
    scenarios: int = 250
    cvar_level: float = 0.95
    risk_aversion: float = 1.0
    every: int = 1
    max_turnover: float | None = None
    absent_bars: int = 24
    grace_s: float = 5.0

    def __post_init__(self) -> None:
        require(40 <= self.span <= 100_000, "portfolio.span", self.span, "40 to 100000")
        require(4 <= self.scale_span <= 10_000, "portfolio.scale_span", self.scale_span, "4 to 10000")
        require(50 <= self.scenarios <= 10_000, "portfolio.scenarios", self.scenarios, "50 to 10000")
        require(0.5 <= self.cvar_level < 1.0, "portfolio.cvar_level", self.cvar_level, "0.5 or above, below 1")
        require(0.0 < self.risk_aversion < math.inf, "portfolio.risk_aversion", self.risk_aversion, "above 0")
        require(1 <= self.every <= 100_000, "portfolio.every", self.every, "1 to 100000")
        moved = self.max_turnover
        require(moved is None or 0.0 < moved < math.inf, "portfolio.max_turnover", moved, "above 0")
        require(0 <= self.absent_bars <= 100_000, "portfolio.absent_bars", self.absent_bars, "0 to 100000")
        require(0.0 <= self.grace_s <= 86_400.0, "portfolio.grace_s", self.grace_s, "0 to 86400")

    @property
    def needs_covariance(self) -> bool:
        """Whether the method asks how names move together."""
        return self.method != "separate"

    @property
    def warmup_bars(self) -> int:
        """Bars of history to ask for."""
        return self.span + self.scale_span if self.needs_covariance else 0


class Beliefs(NamedTuple):
    """What is believed of S names over one horizon: shrunk means and deviations of log returns, and years it lasts."""

    mean_S: Float
    std_S: Float
    years: float


class Weights(NamedTuple):
    """Signed fractions of equity, before limits, and whether equal risk stood in for the method, and why."""

    weight_S: Float
    fallback: str = ""


def require_portfolio(portfolio: PortfolioConfig, sizing: SizingConfig) -> None:
    """Refuse what cannot be computed, before any order.

    Raises
    ------
    LSTMStrategyError
        For the quantile rule and a network's positions, which know no portfolio, and a method whose package is not
        installed.
    """
    if portfolio.needs_covariance and sizing.mode in ("quantile", "network"):
        raise LSTMStrategyError(
            f'portfolio.method is "{portfolio.method}", but sizing.mode "{sizing.mode}" judges each name by itself; use'
            ' portfolio.method = "separate", or another mode'
        )
    solved = portfolio.method in ("mean_cvar", "hierarchical_risk_parity")
    if solved and importlib.util.find_spec("skfolio") is None:
        raise LSTMStrategyError(
            f'portfolio.method is "{portfolio.method}", which needs skfolio: pip install "lstm-strategy[portfolio]", or'
            ' use portfolio.method = "equal_risk"'
        )


def aversion(sizing: SizingConfig) -> float:
    """Return γ of the utility w·μ − ½γσ²w² that the sizing stands for."""
    if sizing.mode == "mean_variance":
        return 1.0 / sizing.kelly_fraction
    return sizing.reference_sharpe / sizing.target_volatility


def signs(beliefs: Beliefs, sizing: SizingConfig, limits: LimitsConfig) -> Float:
    """Return the side of each name, float64 [S] of −1, 0 and 1: 0 where nothing is believed, or no short is allowed."""
    drift_S = beliefs.mean_S
    if sizing.mode == "volatility_target":
        drift_S = sizing.reference_sharpe * beliefs.std_S * math.sqrt(beliefs.years) + sizing.tilt * beliefs.mean_S
    side_S = np.sign(drift_S)
    return np.maximum(side_S, 0.0) if limits.side == "long_only" else side_S


def equal_risk(covariance_SS: Float) -> Float:
    """Return the weights of equal risk contributions: all above 0, their sum 1, float64 [S].

    The minimum of ½ x'Σx − Σ ln x_i, which is strictly convex, has x_i (Σx)_i = 1 for every i (Spinu, "An algorithm for
    computing risk parity weights", 2013); found by cyclical coordinate descent (Griveau-Billion, Richard and Roncalli,
    "A fast algorithm for computing high-dimensional risk parity portfolios", 2013), each coordinate in closed form.

    Raises
    ------
    LSTMStrategyError
        Where the covariance is not positive definite and finite.
    """
    variance_S = np.diag(covariance_SS)
    if not (np.isfinite(covariance_SS).all() and (variance_S > 0.0).all()):
        raise LSTMStrategyError("a covariance of several names is not finite and positive; look at their bars")
    size_S = np.sqrt(variance_S)
    correlation_SS = covariance_SS / np.multiply.outer(size_S, size_S)  # so that one tolerance fits all units
    rows = list(correlation_SS)
    x_S = np.full(len(rows), 1.0 / math.sqrt(max(float(correlation_SS.sum()), 1e-12)))
    for _ in range(_SWEEPS):
        moved = 0.0
        for i, row in enumerate(rows):
            old = float(x_S[i])
            others = float(row @ x_S) - old
            new = (-others + math.sqrt(others * others + 4.0)) / 2.0
            x_S[i] = new
            moved = max(moved, abs(new - old) / new)
        if moved < _CLOSE:
            x_S = x_S / size_S
            return np.asarray(x_S / x_S.sum())
    raise LSTMStrategyError("equal risk contributions were not found: the covariance is nearly singular")


def proportions(
    portfolio: PortfolioConfig, beliefs: Beliefs, correlation_SS: Float, scenarios_NS: Float, side_S: Float
) -> Weights:
    """Return weights on the given sides whose sizes add up to 1 (all 0 where no name has a side).

    Parameters
    ----------
    correlation_SS, scenarios_NS : float64 [S, S], float64 [N, S]
        As `Covariance` knows them.
    side_S : float64 [S]
        −1, 0 or 1.
    """
    weight_S = np.zeros(len(side_S))
    chosen = np.flatnonzero(side_S)
    if not len(chosen):
        return Weights(weight_S)
    std_S, own = beliefs.std_S[chosen] * side_S[chosen], np.ix_(chosen, chosen)
    # In units of a side, so that every weight sought is above 0.
    covariance_SS = correlation_SS[own] * np.multiply.outer(std_S, std_S)
    failure = ""
    solved = None
    if portfolio.method in ("mean_cvar", "hierarchical_risk_parity") and len(chosen) > 1:
        from lstm_strategy import portfolio_solvers

        mean_S = beliefs.mean_S[chosen] * side_S[chosen]
        try:
            solved = portfolio_solvers.solve(
                portfolio.method,
                mean_S,
                covariance_SS,
                scenarios_NS[:, chosen] * std_S + mean_S,
                risk_aversion=portfolio.risk_aversion,
                cvar_level=portfolio.cvar_level,
                least=portfolio.scenarios // 2,
            )
        except Exception as error:  # a solver's failure is named, whatever its type, and equal risk takes its place
            failure = f"{portfolio.method} failed ({first_line_of(error)})"
    weight_S[chosen] = (equal_risk(covariance_SS) if solved is None else solved) * side_S[chosen]
    return Weights(weight_S, failure)


def level(direction_S: Float, beliefs: Beliefs, correlation_SS: Float, sizing: SizingConfig) -> Float:
    """Return the weights that a sizing gives to a portfolio of these proportions, as if it were one instrument.

    With m = x·μ and s² = x'Σx, the multiple of x is m / (γs²) for ``mean_variance``; for ``volatility_target``
    (reference_sharpe s √years + tilt m) / (γs²), which is target_volatility / (s / √years) where nothing is forecast;
    for ``fixed_fraction`` the gross exposure is ``fraction``. Never below 0.
    """
    risk_S = direction_S * beliefs.std_S
    variance = float(risk_S @ correlation_SS @ risk_S)
    if not variance > 0.0:
        return np.zeros(len(direction_S))
    if sizing.mode == "fixed_fraction":
        return direction_S * sizing.fraction
    drift = float(direction_S @ beliefs.mean_S)
    if sizing.mode == "volatility_target":
        drift = sizing.reference_sharpe * math.sqrt(variance * beliefs.years) + sizing.tilt * drift
    return direction_S * max(drift / (aversion(sizing) * variance), 0.0)


def limit_turnover(weight_S: Float, held_S: Float, most: float | None) -> Float:
    """Return the weights moved from ``held_S`` by at most ``most`` in all; what only takes away is never held up.

    What is taken off counts too; what is added is scaled to the rest.
    """
    if most is None:
        return weight_S
    through = held_S * weight_S < 0.0
    grows = through | (np.abs(weight_S) > np.abs(held_S))
    base_S = np.where(through, 0.0, np.where(grows, held_S, weight_S))
    taken, added = float(np.abs(held_S - base_S).sum()), float(np.abs(weight_S - base_S).sum())
    if taken + added <= most or added == 0.0:
        return weight_S
    return np.asarray(base_S + (weight_S - base_S) * max(most - taken, 0.0) / added)
