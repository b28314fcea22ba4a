"""All seats of one account at one close: marked to market, brought to the decision, given their part of the cash."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lstm_strategy.decision import Decision
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.nautilus.engine import OrderSide
from lstm_strategy.nautilus.rounds import Round
from lstm_strategy.panel import Member

if TYPE_CHECKING:
    from lstm_strategy.nautilus.seat import Seat

__all__ = ["mark", "members_of", "shares"]


def mark(strategy: Any, seats: Mapping[str, Seat], due: Round, limits: LimitsConfig) -> None:
    """Tell every name of the account's equity at the last closes."""
    first = next(iter(seats.values())).settings.instrument_id
    account = strategy.portfolio.account(first.venue)
    total = None if account is None else account.balance_total(strategy.cache.instrument(first).quote_currency)
    balance = math.nan if total is None else float(total.as_double())
    equity = balance + sum(seat.look(balance) for seat in seats.values())
    for name, seat in seats.items():
        seat.mark(due.ts_close, equity, limits, due.arrived.get(name))


def members_of(seats: Mapping[str, Seat], due: Round, latest_since: int) -> list[Member]:
    """Return what each name brings to the decision; its last forecast counts from ``latest_since`` on."""
    states = {name: seat.state for name, seat in seats.items() if seat.state is not None}
    lead = {name: _lead(state.exposure, state.pending) for name, state in states.items()}
    gross, net = sum(abs(value) for value in lead.values()), sum(lead.values())
    members = []
    for name, seat in seats.items():
        others = {"other_gross": gross - abs(lead[name]), "other_net": net - lead[name]}
        members.append(seat.member(due.arrived.get(name), latest_since, **others))
    return members


def shares(seats: Mapping[str, Seat], decisions: Mapping[str, Decision]) -> dict[str, float | None]:
    """Return what each name may spend on a cash account, in quote currency; None where that is no limit.

    Whose orders are open keeps what they were given; what is left is shared by what is wanted beyond it.
    """
    wants = {name: _wants(seat, decisions[name]) for name, seat in seats.items()}
    unlocked = sum(_reserved(seat, unlocked=True) for seat in seats.values())
    total = sum(wants.values())
    found: dict[str, float | None] = {}
    for name, seat in seats.items():
        spendable = None if seat.held is None else seat.held.spendable
        left = 0.0 if spendable is None else max(spendable - unlocked, 0.0)
        part = _reserved(seat) + left * (wants[name] / total if total else 0.0)
        found[name] = None if spendable is None else part
    return found


def _lead(exposure: float, pending: float) -> float:
    """Return the larger of what is held and of where open orders lead."""
    return exposure + pending if abs(exposure + pending) > abs(exposure) else exposure


def _wants(seat: Seat, decision: Decision) -> float:
    """Return what a decision's purchase may cost beyond what open orders have reserved, in quote currency."""
    held = seat.held
    if held is None or (held.working and not seat.desk.attentive):  # no order is replaced
        return 0.0
    return max(decision.target * held.equity - float(held.position) * seat.price - _reserved(seat), 0.0)


def _reserved(seat: Seat, *, unlocked: bool = False) -> float:
    """Return what open purchases may still cost, in quote currency.

    ``unlocked``: only what the account has not set aside: of market orders, and of orders on their way.
    """
    value = 0.0
    for order in () if seat.held is None else seat.held.working:
        locked = order.is_open and order.has_price
        if order.side == OrderSide.BUY and not (unlocked and locked):
            value += float(order.leaves_qty) * (float(order.price) if locked else seat.price)
    return value * (1.0 + seat.set_aside)
