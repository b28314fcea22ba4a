"""What the engine holds for one strategy and instrument: position, working orders, equity, free balances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lstm_strategy.nautilus.engine import AccountType, EngineInstrument, Order, OrderSide, StrategyId

__all__ = ["Holdings", "look"]


@dataclass(frozen=True, slots=True)
class Holdings:
    """The account at one bar's close.

    Parameters
    ----------
    position : Decimal
        Signed quantity held by this strategy.
    working : list of Order
        Orders that may still fill: open, in flight, being cancelled.
    pending : Decimal
        What they would still add to the position.
    equity : float
        Cash plus the position at the bar's close, net of the costs paid so far; NaN while there is no account.
    cash : bool
        Whether the account can only spend and sell what it has.
    sellable : Decimal or None
        Free base currency on a cash account in a spot market: fees may have been taken from it.
    spendable : float or None
        Free quote currency on a cash account.
    """

    position: Decimal
    working: list[Order]
    pending: Decimal
    equity: float
    cash: bool
    sellable: Decimal | None
    spendable: float | None


def look(
    cache: Any,
    portfolio: Any,
    instrument: EngineInstrument,
    strategy_id: StrategyId,
    price: float,
    last_order: Order | None,
    *,
    spot: bool,
) -> Holdings:
    """Read the engine's cache; ``last_order`` covers the moment between sending and the engine's taking note of it."""
    wanted = {"instrument_id": instrument.id, "strategy_id": strategy_id}
    orders = {order.client_order_id: order for order in cache.orders_open(**wanted)}
    orders |= {order.client_order_id: order for order in cache.orders_inflight(**wanted)}
    if last_order is not None and not last_order.is_closed:
        orders[last_order.client_order_id] = last_order
    working = list(orders.values())
    pending = Decimal(0)
    for order in working:
        left = order.leaves_qty.as_decimal()
        pending += left if order.side == OrderSide.BUY else -left

    positions = cache.positions_open(**wanted)
    position = sum((held.signed_decimal_qty() for held in positions), Decimal(0))
    account = portfolio.account(instrument.id.venue)
    balance = None if account is None else account.balance_total(instrument.quote_currency)
    if balance is None:
        return Holdings(position, working, pending, math.nan, True, None, None)
    total = float(balance.as_double())
    if account.type != AccountType.CASH:
        gains = sum(float(held.signed_decimal_qty()) * (price - float(held.avg_px_open)) for held in positions)
        return Holdings(position, working, pending, total + gains, False, None, None)
    sellable = None
    if spot:
        base = account.balance_free(instrument.base_currency)
        sellable = Decimal(0) if base is None else base.as_decimal()
    free = account.balance_free(instrument.quote_currency)
    spendable = 0.0 if free is None else float(free.as_double())
    return Holdings(position, working, pending, total + float(position) * price, True, sellable, spendable)
