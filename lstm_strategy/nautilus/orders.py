"""From a target exposure to an order quantity the venue accepts; pure, in exact decimals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum

from lstm_strategy.decision import Decision
from lstm_strategy.instrument import Instrument

__all__ = ["Action", "Rules", "opens", "outdated", "plan_order"]


class Action(StrEnum):
    """What the strategy did about a decision."""

    HELD = "held"
    SENT = "sent"
    BELOW_MINIMUM = "below_minimum"
    NOT_ENOUGH_FUNDS = "not_enough_funds"
    SHORT_REFUSED = "short_refused"
    AWAITING_ORDER = "awaiting_order"
    CANCELLING = "cancelling"
    RELEASING = "releasing_exit"
    NOT_READY = "not_ready"


# The venue values an order at its own price, not at the close that it was planned with.
_NOTIONAL_MARGIN = 1.02


@dataclass(frozen=True, slots=True)
class Rules:
    """A venue's steps and minimums, in units of the instrument and, for the notional, of its quote currency."""

    lot: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    min_notional: Decimal

    @classmethod
    def of(cls, instrument: Instrument) -> Rules:
        """Read them from the neutral instrument."""
        return cls(
            lot=Decimal(instrument.lot),
            min_quantity=Decimal(instrument.min_quantity or 0),
            max_quantity=Decimal(instrument.max_quantity or "Infinity"),
            min_notional=Decimal(str(instrument.min_notional or 0)),
        )

    def smallest_notional(self, price: float) -> float:
        """Return the value of the smallest order that opens a position at this price, in quote currency."""
        least = float(max(self.lot, self.min_quantity)) * price
        return max(least, float(self.min_notional) * _NOTIONAL_MARGIN)


def opens(position: Decimal, pending: Decimal) -> bool:
    """Say whether open orders would add to the position, or take it through zero."""
    return pending != 0 and (position * pending >= 0 or abs(pending) > abs(position))


def outdated(
    decision: Decision, equity: float, price: float, position: Decimal, pending: Decimal, tolerance: float
) -> bool:
    """Say whether open orders are to be called back: they open what is forbidden, or miss the target by too much.

    Parameters
    ----------
    pending : Decimal
        What the open orders would still add to the position.
    tolerance : float
        As a fraction of equity; none where there is no equity.
    """
    if decision.cancel_opening and opens(position, pending):
        return True
    wanted = 0.0 if decision.target == 0.0 else decision.target * equity
    allowed = tolerance * equity if equity > 0.0 else 0.0
    return not abs(wanted - float(position + pending) * price) <= allowed


def plan_order(
    target: float,
    equity: float,
    price: float,
    position: Decimal,
    rules: Rules,
    *,
    can_short: bool,
    max_notional: float | None = None,
    sellable: Decimal | None = None,
    spendable: float | None = None,
    max_position: float | None = None,
) -> tuple[Decimal, Action]:
    """Return the signed quantity that brings ``position`` towards ``target``, rounded towards zero, and why.

    An order that does not close the whole position must exceed the venue's minimum notional by 2 %.

    Parameters
    ----------
    target : float
        Signed fraction of ``equity`` to hold. Zero closes the whole position, to the last lot.
    price : float
        The close of the bar decided upon.
    max_notional : float, optional
        Of any order, in quote currency; what it cuts off is left to the next.
    sellable : Decimal, optional
        What the account holds and may sell (spot); None where that is no limit.
    spendable : float, optional
        Cash for a purchase, all costs of it set aside; None where that is no limit.
    max_position : float, optional
        Value of the largest position that there is margin for; one that is larger already is not cut for it.

    Returns
    -------
    quantity : Decimal
        Zero where no order should be sent; the action then says why.
    action : Action
    """
    wanted = Decimal(0) if target == 0.0 else Decimal(target * equity / price)
    if max_position is not None and wanted:  # to close needs none; before the first bar there is no price either
        largest = max(Decimal(max(max_position, 0.0) / price), abs(position) if wanted * position > 0 else Decimal(0))
        wanted = min(max(wanted, -largest), largest)
    change = wanted - position
    if not can_short and position + change < 0:
        change = -position
        if change >= 0:
            return Decimal(0), Action.SHORT_REFUSED
    margin = 1.0 if change == -position else _NOTIONAL_MARGIN
    if not _acceptable(change, price, rules, margin):
        return Decimal(0), Action.BELOW_MINIMUM
    if max_notional is not None and math.isfinite(price) and abs(change) * Decimal(price) > max_notional:
        change = (Decimal(max_notional) / Decimal(price)).copy_sign(change)
    if change < 0 and sellable is not None:
        change = max(change, -max(sellable, Decimal(0)))
    if change > 0 and spendable is not None:
        change = min(change, Decimal(max(spendable, 0.0) / price))
    size = _acceptable(change, price, rules, margin)
    return size.copy_sign(change), Action.SENT if size else Action.NOT_ENOUGH_FUNDS


def _acceptable(change: Decimal, price: float, rules: Rules, margin: float) -> Decimal:
    """Return the size in whole lots, at most the venue's maximum; zero where it is below a minimum."""
    size = (min(abs(change), rules.max_quantity) / rules.lot).to_integral_value(ROUND_FLOOR) * rules.lot
    if not size or size < rules.min_quantity:
        return Decimal(0)
    return Decimal(0) if size * Decimal(price) < rules.min_notional * Decimal(margin) else size
