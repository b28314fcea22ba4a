"""From a target exposure to an order quantity the venue accepts; pure, in exact decimals."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum

from lstm_strategy.instrument import Instrument

__all__ = ["Action", "Rules", "plan_order"]


class Action(StrEnum):
    """What the strategy did about a decision."""

    HELD = "held"
    SENT = "sent"
    BELOW_MINIMUM = "below_minimum"
    NOT_ENOUGH_FUNDS = "not_enough_funds"
    SHORT_REFUSED = "short_refused"
    AWAITING_ORDER = "awaiting_order"
    CANCELLING = "cancelling"
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


def plan_order(
    target: float,
    equity: float,
    price: float,
    position: Decimal,
    rules: Rules,
    *,
    can_short: bool,
    sellable: Decimal | None = None,
    spendable: float | None = None,
) -> tuple[Decimal, Action]:
    """Return the signed quantity that brings ``position`` towards ``target``, rounded towards zero, and why.

    An order that does not close the whole position must exceed the venue's minimum notional by 2 %.

    Parameters
    ----------
    target : float
        Signed fraction of ``equity`` to hold. Zero closes the whole position, to the last lot.
    price : float
        The close of the bar decided upon.
    sellable : Decimal, optional
        What the account holds and may sell (spot); None where that is no limit.
    spendable : float, optional
        Cash for a purchase, all costs of it set aside; None where that is no limit.

    Returns
    -------
    quantity : Decimal
        Zero where no order should be sent; the action then says why.
    action : Action
    """
    wanted = Decimal(0) if target == 0.0 else Decimal(target * equity / price)
    change = wanted - position
    if not can_short and position + change < 0:
        change = -position
        if change >= 0:
            return Decimal(0), Action.SHORT_REFUSED
    margin = 1.0 if change == -position else _NOTIONAL_MARGIN
    if not _acceptable(change, price, rules, margin):
        return Decimal(0), Action.BELOW_MINIMUM
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
