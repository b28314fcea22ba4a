"""Flows: what one instrument's fills have paid and brought, each counted once though two processes are told of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from lstm_strategy.nautilus.engine import OrderSide

__all__ = ["Flows"]

_MOST = 8  # orders


class Flows:
    """Sums up fills, less their costs.

    A strategy's state knows of a fill at once, a paper account when the round is over: killed in between, the account
    goes on with the order, and it fills again. What is left of an order tells which of it was counted already; its
    fills have other names by then.

    Attributes
    ----------
    value : float or None
        In quote currency; None before a position is known.
    """

    def __init__(self) -> None:
        self.value: float | None = None
        self._left: dict[str, str] = {}  # of the last orders, after the last fill that was counted
        self._before: dict[str, str] = {}  # the same, of the process before this one

    @property
    def left(self) -> dict[str, str]:
        """What a restart must know beside the value: what was left of the last orders, by their identifiers."""
        return self._left

    def restore(self, value: float | None, left: dict[str, str]) -> None:
        """Go on after a restart."""
        self.value, self._left, self._before = value, dict(left), dict(left)

    def count(self, fill: Any, order: Any) -> None:
        """Count a fill of an order, which has taken it in; None where the engine knows of none."""
        if self.value is None:
            return
        quantity = fill.last_qty.as_decimal()
        fresh = quantity
        if order is not None:
            name, left = order.client_order_id.value, order.leaves_qty.as_decimal()
            if name in self._before:
                fresh = min(max(Decimal(self._before[name]) - left, Decimal(0)), quantity)
            if not fresh:
                return
            self._left.pop(name, None)
            self._left[name] = str(left)
            while len(self._left) > _MOST:
                del self._left[next(iter(self._left))]
        signed = float(fresh) * (1.0 if fill.order_side == OrderSide.BUY else -1.0)
        self.value -= signed * float(fill.last_px)
        if fill.commission is not None and fill.commission.currency == fill.currency:
            self.value -= fill.commission.as_double() * float(fresh / quantity)
