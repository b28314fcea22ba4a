"""Maintenance margin: one rate for positions of any size, or a venue's tiers by the position's value."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["Line", "Maintenance", "MarginTier", "lines_of", "margin_asked", "require_maintenance", "words_of"]

_CENT = 0.01  # what a venue may have rounded its amounts by
_ROUNDED = 1e-6  # or, of large ones, by this part

type Line = tuple[float, float]
"""Rate and amount of one tier: it asks for rate · value − amount."""


class MarginTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tier of a venue's table: of a position worth more than ``above`` it asks for rate · value − amount.

    Parameters
    ----------
    above, upto : float
        Value of the position in quote currency. ``upto`` is the next tier's ``above`` where it is not given; beyond
        the last tier its rate holds on.
    rate : float
        As a fraction of the value.
    amount : float, optional
        In quote currency; what joins the tier to the one before without a step, where it is not given.
    """

    above: float
    rate: float
    upto: float | None = None
    amount: float | None = None


type Maintenance = float | tuple[MarginTier, ...]


def require_maintenance(maintenance: Maintenance, name: str = "backtest.maintenance") -> None:
    """Refuse a rate that is none, and a table that contradicts itself; one line each, by ``name``.

    Raises
    ------
    LSTMStrategyError
        For a rate below 0 or not below 1, an empty table, one that does not begin at 0, tiers with gaps or overlaps
        between them, a rate that falls, an amount that does not join its tier to the one before.
    """
    if isinstance(maintenance, (int, float)):
        if not 0.0 <= maintenance < 1.0:
            raise LSTMStrategyError(f"{name} is {maintenance}; it must be 0 or above, below 1, or a table of tiers")
        return
    if not maintenance or maintenance[0].above != 0.0:
        begins = f"begins at {maintenance[0].above:,.10g}" if maintenance else "has no tier"
        raise LSTMStrategyError(f"{name} {begins}; its first tier must be above = 0")
    for tier in maintenance:
        end = math.inf if tier.upto is None else tier.upto
        if not 0.0 <= tier.above < end:
            raise LSTMStrategyError(f"{name}: a tier reaches from {tier.above:,.10g} to {end:,.10g}; it must rise")
        if not 0.0 < tier.rate < 1.0:
            raise LSTMStrategyError(f"{name}: rate is {tier.rate} above {tier.above:,.10g}; it must lie inside 0 to 1")
    for before, tier in pairwise(maintenance):
        if before.upto not in (None, tier.above) or not before.above < tier.above:
            what = "a gap" if before.upto is not None and before.above < before.upto < tier.above else "an overlap"
            end = before.above if before.upto is None else before.upto
            raise LSTMStrategyError(
                f"{name} has {what}: after the tier up to {end:,.10g} comes one above {tier.above:,.10g};"
                " each must begin where the one before it ends"
            )
        if tier.rate < before.rate:
            raise LSTMStrategyError(
                f"{name}: rate falls from {before.rate} to {tier.rate} above {tier.above:,.10g}; venues ask for more"
                " of larger positions: sort the tiers, or mend the rate"
            )
    for tier, (_, amount) in zip(maintenance, lines_of(maintenance), strict=True):
        told = amount if tier.amount is None else tier.amount
        if not abs(told - amount) <= max(_CENT, _ROUNDED * amount):
            raise LSTMStrategyError(
                f"{name}: amount is {told:,.10g} above {tier.above:,.10g}; the rates say {amount:,.10g}: mend one of"
                " them, or leave the amounts out"
            )


def lines_of(maintenance: Maintenance) -> tuple[Line, ...]:
    """Return rate and amount by tier; what is asked for is the largest of rate · value − amount, as rates rise.

    The amounts are those that join the tiers: amount_i = amount_(i−1) + above_i · (rate_i − rate_(i−1)).
    """
    if isinstance(maintenance, (int, float)):
        return ((float(maintenance), 0.0),)
    found: list[Line] = [(maintenance[0].rate, 0.0)]
    for before, tier in pairwise(maintenance):
        found.append((tier.rate, found[-1][1] + tier.above * (tier.rate - before.rate)))
    return tuple(found)


def margin_asked(value: float, lines: tuple[Line, ...]) -> float:
    """Return the maintenance margin of a position worth ``value`` (absolute), in the same currency."""
    return max(rate * value - amount for rate, amount in lines)


def words_of(maintenance: Maintenance) -> str:
    """Return in words when a venue liquidates."""
    if isinstance(maintenance, (int, float)):
        return f"one maintenance rate, {_rate(maintenance)} of a position's value" if maintenance else "no liquidation"
    first, last = maintenance[0], maintenance[-1]
    if len(maintenance) == 1:
        return f"one tier, {_rate(first.rate)} of a position's value"
    start, end = f"{_rate(first.rate)} of a position's value at first", f"{_rate(last.rate)} above {last.above:,.10g}"
    return f"{len(maintenance)} tiers, {start}, {end}"


def _rate(rate: float) -> str:
    return f"{100.0 * rate:.6g}\N{NO-BREAK SPACE}%"
