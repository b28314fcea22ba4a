"""Joint limits: what several names may do together on one account at one close; pure, whatever order they stand in."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from lstm_strategy.bars import Float
from lstm_strategy.decision import Decision, PortfolioState
from lstm_strategy.limits import LimitsConfig, fit_exposures
from lstm_strategy.reasons import Reason
from lstm_strategy.risk import FLAT

__all__ = ["MARKET", "Resting", "join", "share"]


class Resting(NamedTuple):
    """What may lie at the venue and fill, or not, by itself: exits of positions; orders of decisions."""

    exits: bool = False
    orders: bool = False


MARKET = Resting()
"""All orders go at market, and positions end by decision."""


def share(limits: LimitsConfig) -> LimitsConfig:
    """Return the limits that each name keeps by itself; `join` sees to the rest."""
    return msgspec.structs.replace(limits, max_gross=None, max_net=None)


def join(
    decisions: list[Decision], states: list[PortfolioState], limits: LimitsConfig, resting: Resting = MARKET
) -> list[Decision]:
    """Bring decisions of one close within the limits of the account.

    What takes away is let through whole. What adds is scaled down, for all names by one factor, until gross and net
    exposure and the day's turnover fit; of orders that are still allowed in the hour and the day those that add most
    are sent, the first name first where two add alike. An account that exceeds a cap on gross or net exposure by more
    than ``limits.drift_tolerance`` of it is brought back, every name in proportion.

    A name with open orders counts with the worse of what it holds and of where they lead, and sends no other. Where
    something may rest, an order can be replaced, and adds what leads beyond it; and nothing counts on another's
    filling: with exits the names on one side keep within ``limits.max_net`` even if all on the other side were
    stopped, with orders what takes away counts as still held.

    Parameters
    ----------
    decisions, states
        One each a name, in the same order; each name by itself within `share` of the limits. Orders and turnover in
        the states' ``risk`` are the name's own.

    Returns
    -------
    list of Decision
        In the same order. A decision that was changed says by what in ``bound``.
    """
    held_S = np.array([decision.exposure for decision in decisions])
    target_S = np.array([decision.target for decision in decisions])
    if not (np.isfinite(held_S).all() and np.isfinite(target_S).all()):
        return decisions  # no equity: every one of them flattens
    pending_S = np.array([state.pending for state in states])
    working_S = pending_S != 0.0
    through_S = (held_S * target_S < 0.0) & ~working_S
    grows_S = (through_S | (np.abs(target_S) > np.abs(held_S))) & ~working_S
    base_S = np.where(through_S, 0.0, np.where(grows_S | working_S, held_S, target_S))
    add_S = np.where(grows_S, target_S - base_S, 0.0)
    if any(resting):  # the order of a working name may be replaced by one that leads further
        top_S = np.maximum(np.maximum(held_S, held_S + pending_S), 0.0)
        bottom_S = np.minimum(np.minimum(held_S, held_S + pending_S), 0.0)
        further_S = target_S - np.clip(target_S, bottom_S, top_S)
        add_S = np.where(working_S, further_S, add_S)
        base_S = np.where(working_S & (further_S != 0.0), target_S - further_S, base_S)
    joined = list(decisions)

    allowed_S = _within_rates(joined, states, add_S, limits)
    add_S = np.where(allowed_S, add_S, 0.0)
    low_S, high_S = _reach(held_S, base_S, pending_S, resting)
    gross = float(np.maximum(np.abs(low_S), np.abs(high_S)).sum())
    low, high = float(low_S.sum()), float(high_S.sum())
    factor, which = _room(gross, low, high, add_S, through_S, held_S, states, limits, resting)
    if factor < 1.0:
        for row in np.flatnonzero(add_S).tolist():
            joined[row] = _cut(joined[row], float(base_S[row] + factor * add_S[row]), which, _reason(which))
    over = _exceeded(gross, low, high, limits)
    if over:
        fitted_S = _fit(base_S, limits, resting)
        for row, fitted in enumerate(fitted_S.tolist()):
            if abs(fitted - base_S[row]) > 0.0 or working_S[row]:
                decision = joined[row]
                target = fitted if fitted != base_S[row] else decision.target
                reason = Reason.NET_EXCEEDED if over == "max_net" else Reason.GROSS_EXCEEDED
                joined[row] = Decision(
                    decision.ts_close, decision.exposure, target, reason, (*decision.bound, over, "drift"), True
                )
    return joined


def _reach(held_S: Float, base_S: Float, pending_S: Float, resting: Resting) -> tuple[Float, Float]:
    """Return the lowest and highest exposure that each name may come to before anything is added."""
    working_S = pending_S != 0.0
    low_S = high_S = np.where(working_S | resting.orders, held_S, base_S)
    others = [np.where(working_S, held_S + pending_S, low_S)]
    if resting.orders:
        others.append(base_S)
    if resting.exits:
        others.append(np.zeros(len(held_S)))
    for other_S in others:
        low_S, high_S = np.minimum(low_S, other_S), np.maximum(high_S, other_S)
    return low_S, high_S


def _fit(base_S: Float, limits: LimitsConfig, resting: Resting) -> Float:
    """Return the exposures within the caps; with exits each side by itself, as if the other were stopped."""
    fitted_S, _ = fit_exposures(base_S, limits)
    if resting.exits and limits.max_net is not None:
        for sign in (1.0, -1.0):
            side = float(np.maximum(sign * fitted_S, 0.0).sum())
            if side > limits.max_net:
                fitted_S = np.where(sign * fitted_S > 0.0, fitted_S * limits.max_net / side, fitted_S)
    return np.asarray(fitted_S)


def _room(
    gross: float,
    low: float,
    high: float,
    add_S: Float,
    through_S: Float,
    held_S: Float,
    states: list[PortfolioState],
    limits: LimitsConfig,
    resting: Resting,
) -> tuple[float, str]:
    """Return the largest part of all that is added which fits, at most 1, and the key of the limit that says so."""
    adds, net = float(np.abs(add_S).sum()), float(add_S.sum())
    asked = []
    if limits.max_gross is not None:
        asked.append((limits.max_gross - gross, adds, "max_gross"))
    if limits.max_net is not None:
        # Whatever may fill by itself is not set off against another.
        alone = resting.exits or resting.orders
        up = float(np.maximum(add_S, 0.0).sum()) if alone else net
        down = float(np.maximum(-add_S, 0.0).sum()) if alone else -net
        asked += [(limits.max_net - high, up, "max_net"), (limits.max_net + low, down, "max_net")]
    if limits.turnover_per_day is not None:
        done = sum(state.risk.turnover_day for state in states) + float(np.abs(held_S[through_S]).sum())
        asked.append((limits.turnover_per_day - done, adds, Reason.TURNOVER.value))
    factor, which = 1.0, ""
    for room, wanted, name in asked:
        if wanted > 0.0 and wanted > room and max(room, 0.0) / wanted < factor:
            factor, which = max(room, 0.0) / wanted, name
    return factor, which


def _within_rates(joined: list[Decision], states: list[PortfolioState], add_S: Float, limits: LimitsConfig) -> Float:
    """Return which names may add; the others' decisions are changed in place to what takes away alone."""
    allowed_S = np.ones(len(joined), bool)
    rates = (
        (limits.orders_per_hour, sum(state.risk.orders_hour for state in states), Reason.ORDERS_PER_HOUR),
        (limits.orders_per_day, sum(state.risk.orders_day for state in states), Reason.ORDERS_PER_DAY),
    )
    reducing = sum(
        not add and not state.pending and abs(decision.target - decision.exposure) >= FLAT
        for decision, state, add in zip(joined, states, add_S.tolist(), strict=True)
    )
    ranked = sorted(np.flatnonzero(add_S).tolist(), key=lambda row: (-abs(add_S[row]), row))
    for most, sent, reason in rates:
        if most is None:
            continue
        for row in ranked[max(most - sent - reducing, 0) :]:
            if allowed_S[row]:
                allowed_S[row] = False
                decision = joined[row]
                without = 0.0 if decision.exposure * decision.target < 0.0 else decision.exposure
                joined[row] = _cut(decision, without, reason.value, reason)
    return allowed_S


def _cut(decision: Decision, target: float, which: str, reason: Reason) -> Decision:
    """Return the decision with less added."""
    bound = (*decision.bound, which)
    if abs(target - decision.exposure) < FLAT:
        return msgspec.structs.replace(decision, target=decision.exposure, reason=reason, bound=bound)
    return msgspec.structs.replace(decision, target=target, bound=bound)


def _reason(which: str) -> Reason:
    return {"max_gross": Reason.GROSS_EXCEEDED, "max_net": Reason.NET_EXCEEDED}.get(which, Reason.TURNOVER)


def _exceeded(gross: float, low: float, high: float, limits: LimitsConfig) -> str:
    """Return the key of the cap that is exceeded by more than its tolerance, before anything is added."""
    within = 1.0 + limits.drift_tolerance
    if limits.max_net is not None and max(high, -low) > limits.max_net * within:
        return "max_net"
    return "max_gross" if limits.max_gross is not None and gross > limits.max_gross * within else ""
