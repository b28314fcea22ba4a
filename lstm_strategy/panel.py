"""The panel: one decision for each of several names that share an account, all at one close; no engine, no clock."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np

from lstm_strategy.bars import Float
from lstm_strategy.covariance import LEAST_PAIRS, Covariance
from lstm_strategy.decision import FINE, Conditions, Costs, Decision, PortfolioState, decide
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.joint_limits import MARKET, Resting, join, share
from lstm_strategy.limits import LimitsConfig, fit_exposures
from lstm_strategy.portfolio import (
    FALLBACK,
    MOVED,
    Beliefs,
    PortfolioConfig,
    aversion,
    level,
    limit_turnover,
    proportions,
    signs,
)
from lstm_strategy.sizing import Sized, SizingConfig, Trained, believed, size

__all__ = ["Member", "Panel", "Weighed"]

_COUNTED = ("orders_hour", "orders_day", "turnover_day")


class Member(msgspec.Struct, frozen=True):
    """What one name brings to a decision.

    Parameters
    ----------
    state : PortfolioState
        Its own exposure and pending; equity and halts are the account's.
    trained, bars_per_year, costs
        As `decide` takes them.
    forecast : Forecast or None
        Of this close; None while it warms up, and where its bar is missing (``conditions.stale``).
    latest : Forecast or None
        What its share of the risk is reckoned with while the bar is missing.
    """

    state: PortfolioState
    trained: Trained
    bars_per_year: float
    costs: Costs
    forecast: Forecast | None = None
    latest: Forecast | None = None
    conditions: Conditions = FINE


class Weighed(NamedTuple):
    """What one name was decided from: orders and turnover in ``state`` are all names', ``worth`` the portfolio's."""

    state: PortfolioState
    conditions: Conditions
    worth: Sized | None


class Panel:
    """Follows the closes of S names, and decides on all of them at once.

    The names stand in one order for good, so that it does not matter whose bar came first.

    Parameters
    ----------
    names : tuple of str [S]
        Sorted, each once.
    bar_ns : int
        Length of a bar.
    resting : Resting
        Whether exits and orders rest at the venue.

    Attributes
    ----------
    fallback : str
        Why equal risk stood in for the method at the last decision; empty where it did not.
    correlation_SS : float64 [S, S] or None
        What the last decision was made with; None where names are sized separately.
    weighed : list of Weighed
        Of the last decision, in the order of the names: from these each was decided, before the account's limits.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        portfolio: PortfolioConfig,
        sizing: SizingConfig,
        limits: LimitsConfig,
        bar_ns: int,
        resting: Resting = MARKET,
    ) -> None:
        if list(names) != sorted(set(names)):
            raise LSTMStrategyError(f"a panel's names are {', '.join(names)}; give them sorted, each once")
        self.names, self.fallback = names, ""
        self.weighed: list[Weighed] = []
        self.correlation_SS: Float | None = None
        self._portfolio, self._sizing, self._limits, self._bar_ns = portfolio, sizing, limits, bar_ns
        self._alone, self._resting = share(limits), resting
        self.covariance = Covariance(
            names, span=portfolio.span, scale_span=portfolio.scale_span, rows=portfolio.scenarios
        )
        self._block, self._sides, self._direction_S = -1, b"", np.zeros(len(names))

    def observe(self, ts_close: int, close_S: Float) -> None:
        """Take the closes of one stamp, NaN where a name is absent; before the decision on it."""
        if self._portfolio.needs_covariance:
            self.covariance.update(ts_close, close_S)

    def decide(self, members: list[Member]) -> list[Decision]:
        """Return every name's decision, in the order of the names; their targets keep the account's limits together.

        Orders and turnover count for the account: the limits on them look at all names' together.
        """
        worth, ready, bound = self._weigh(members)
        risks = [member.state.risk for member in members]
        counted = {name: sum(getattr(risk, name) for risk in risks) for name in _COUNTED}
        decisions = []
        self.weighed = []
        for row, member in enumerate(members):
            conditions = member.conditions
            if not ready[row] and conditions.ready:
                conditions = msgspec.structs.replace(conditions, ready=False)
            state = msgspec.structs.replace(member.state, risk=msgspec.structs.replace(risks[row], **counted))
            self.weighed.append(Weighed(state, conditions, None if member.forecast is None else worth[row]))
            decision = decide(
                member.forecast,
                state,
                self._sizing,
                self._alone,
                member.costs,
                trained=member.trained,
                bars_per_year=member.bars_per_year,
                conditions=conditions,
                worth=self.weighed[row].worth,
            )
            if bound and worth[row] is not None:
                decision = msgspec.structs.replace(decision, bound=(*decision.bound, *bound))
            decisions.append(decision)
        return join(decisions, [member.state for member in members], self._limits, self._resting)

    def state(self) -> bytes:
        """Return what it remembers, to the last bit."""
        return msgspec.msgpack.encode([self.covariance.state(), self._block, self._sides, self._direction_S.tobytes()])

    def restore(self, state: bytes) -> None:
        """Go on from what `state` gave; raises `LSTMStrategyError` where it does not fit."""
        try:
            covariance, block, sides, direction = msgspec.msgpack.decode(state, type=tuple[bytes, int, bytes, bytes])
            direction_S = np.frombuffer(direction, np.float64).copy()
        except (msgspec.MsgspecError, ValueError) as error:
            raise LSTMStrategyError(f"the saved portfolio is damaged ({error}); it starts anew") from None
        self.covariance.restore(covariance)
        self._block, self._sides, self._direction_S = block, sides, direction_S

    def _weigh(self, members: list[Member]) -> tuple[list[Sized | None], list[bool], tuple[str, ...]]:
        """Return what each name is worth in the portfolio, whether enough is known of it, and what bound all of them.

        A name that has no forecast is worth None; one of which too little is known what it is worth by itself.
        """
        portfolio, sizing, limits = self._portfolio, self._sizing, self._limits
        self.fallback = ""
        worth: list[Sized | None] = [None] * len(members)
        if not portfolio.needs_covariance:
            return self._fit_separate(members), [True] * len(members), ()
        known = (np.diag(self.covariance.effective) >= LEAST_PAIRS).tolist()
        mean_S, std_S = np.zeros(len(members)), np.zeros(len(members))
        rows = []
        for row, member in enumerate(members):
            latest = member.forecast or member.latest
            found = None
            if latest is not None:
                found = believed(latest, sizing, member.trained, member.bars_per_year)
            if found is not None and known[row]:
                rows.append(row)
                mean_S[row], std_S[row] = found.earned, found.std
        # Of what nothing is believed takes no part: it has no side.
        years = sizing.horizon / max(member.bars_per_year for member in members)
        beliefs = Beliefs(mean_S, std_S, years)
        side_S = np.zeros(len(members))
        side_S[rows] = signs(beliefs, sizing, limits)[rows]
        self.correlation_SS = correlation_SS = self.covariance.correlation()
        weight_S = level(self._direct(beliefs, correlation_SS, side_S, members), beliefs, correlation_SS, sizing)
        weight_S, keys = fit_exposures(weight_S, limits)
        held_S = np.array([member.state.exposure for member in members])
        if np.isfinite(held_S).all():
            moved_S = limit_turnover(np.where(std_S > 0.0, weight_S, held_S), held_S, portfolio.max_turnover)
            keys = (*keys, MOVED) if (moved_S != weight_S)[std_S > 0.0].any() else keys
            weight_S = moved_S
        gamma = aversion(sizing)
        for row, member in enumerate(members):
            if member.forecast is None:
                continue
            alone = size(
                member.forecast, member.state.exposure, sizing, member.costs, member.trained, member.bars_per_year
            )
            if alone is None:
                continue
            if not std_S[row] > 0.0:  # by itself, and without an increase
                worth[row] = alone
                continue
            # The loss of utility away from the portfolio's weight is that of the name's own variance.
            weight, curvature = float(weight_S[row]), gamma * float(std_S[row]) ** 2
            worth[row] = Sized(weight, curvature * weight, curvature, alone.too_wide)
        return worth, known, (*keys, FALLBACK) if self.fallback else keys

    def _direct(self, beliefs: Beliefs, correlation_SS: Float, side_S: Float, members: list[Member]) -> Float:
        """Return the proportions, computed anew where it is time, or where the names or their sides have changed."""
        block = members[0].state.ts_close // (self._bar_ns * self._portfolio.every)
        if block != self._block or side_S.tobytes() != self._sides:
            found = proportions(self._portfolio, beliefs, correlation_SS, self.covariance.scenarios, side_S)
            self.fallback = found.fallback
            self._block, self._sides, self._direction_S = block, side_S.tobytes(), found.weight_S
        return self._direction_S

    def _fit_separate(self, members: list[Member]) -> list[Sized | None]:
        """Size each name by itself; what they want together is brought within the limits by one measure for all."""
        worth: list[Sized | None] = [
            None
            if member.forecast is None
            else size(
                member.forecast,
                member.state.exposure,
                self._sizing,
                member.costs,
                member.trained,
                member.bars_per_year,
            )
            for member in members
        ]
        wanted_S = np.array(
            [member.state.exposure if of is None else of.wanted for of, member in zip(worth, members, strict=True)]
        )
        if not np.isfinite(wanted_S).all():
            return worth
        fitted_S, _ = fit_exposures(wanted_S, self._limits)
        scaled: list[Sized | None] = []
        for of, fitted in zip(worth, fitted_S.tolist(), strict=True):
            if of is None or math.isclose(fitted, of.wanted, rel_tol=1e-12):
                scaled.append(of)
            else:  # utility as if it were greatest there
                scaled.append(of._replace(wanted=fitted, drift=of.curvature * fitted if of.curvature else of.drift))
        return scaled
