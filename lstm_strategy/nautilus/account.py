"""What the engine holds for one strategy and instrument: position, working orders, equity, free balances."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from lstm_strategy.nautilus.engine import (
    AccountType,
    EngineInstrument,
    InstrumentId,
    Order,
    OrderSide,
    OrderType,
    StrategyId,
)

__all__ = ["EXIT_TAG", "LIQUIDATION", "Holdings", "is_exit", "is_liquidation", "look", "own"]

EXIT_TAG = "lstm-strategy-exit"
LIQUIDATION = "LIQUIDATION-"
"""How the identifiers of orders begin by which the simulated venue closes a position (see `liquidation`)."""
_STOPS = (OrderType.STOP_MARKET, OrderType.STOP_LIMIT)


@dataclass(frozen=True, slots=True)
class Holdings:
    """The account at one bar's close.

    Parameters
    ----------
    position : Decimal
        Signed quantity held by this strategy.
    working : list of Order
        Orders of our decisions that may still fill: open, in flight, being cancelled.
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
    exits : list of Order
        Protective stops and take-profits that may still fill; not among ``working``, nor in ``pending``.
    entry : float
        Average price at which the position was opened, NaN without one.
    """

    position: Decimal
    working: list[Order]
    pending: Decimal
    equity: float
    cash: bool
    sellable: Decimal | None
    spendable: float | None
    exits: list[Order] = field(default_factory=list)
    entry: float = math.nan


def is_exit(order: Order) -> bool:
    """Say whether an order is a protective one; a stop is, even where its tag was lost on the way."""
    return order.order_type in _STOPS or EXIT_TAG in (order.tags or ())


def is_liquidation(event: Any) -> bool:
    """Say whether a fill (or an order) is the venue's own, that closes a position for want of margin."""
    return str(event.client_order_id.value).startswith(LIQUIDATION)


def own(found: list[Any], instrument_id: InstrumentId, strategy_id: StrategyId) -> list[Any]:
    """Return those of the open orders or positions that are one strategy's in one instrument.

    The cache's own filter walks through every order that it ever knew, and is slower with each that is sent.
    """
    return [each for each in found if each.instrument_id == instrument_id and each.strategy_id == strategy_id]


def look(
    cache: Any,
    portfolio: Any,
    instrument: EngineInstrument,
    strategy_id: StrategyId,
    price: float,
    last_order: Order | None,
    last_exit: Order | None = None,
    *,
    spot: bool,
) -> Holdings:
    """Read the engine's cache; the last orders cover the moment between sending and the engine's taking note."""
    found = [*cache.orders_open(), *cache.orders_inflight()]
    orders = {order.client_order_id: order for order in own(found, instrument.id, strategy_id)}
    for last in (last_order, last_exit):
        if last is not None and not last.is_closed:
            orders[last.client_order_id] = last
    working = list(orders.values())
    exits = [order for order in working if is_exit(order)]
    if exits:
        working = [order for order in working if not is_exit(order)]
    pending = Decimal(0)
    for order in working:
        left = order.leaves_qty.as_decimal()
        pending += left if order.side == OrderSide.BUY else -left

    positions = own(cache.positions_open(), instrument.id, strategy_id)
    position = sum((held.signed_decimal_qty() for held in positions), Decimal(0))
    entry = float(positions[0].avg_px_open) if positions else math.nan
    account = portfolio.account(instrument.id.venue)
    balance = None if account is None else account.balance_total(instrument.quote_currency)
    if balance is None:
        return Holdings(position, working, pending, math.nan, True, None, None, exits, entry)
    total = float(balance.as_double())
    if account.type != AccountType.CASH:
        gains = sum(float(held.signed_decimal_qty()) * (price - float(held.avg_px_open)) for held in positions)
        return Holdings(position, working, pending, total + gains, False, None, None, exits, entry)
    sellable = None
    if spot:
        base = account.balance_free(instrument.base_currency)
        sellable = Decimal(0) if base is None else base.as_decimal()
    free = account.balance_free(instrument.quote_currency)
    spendable = 0.0 if free is None else float(free.as_double())
    equity = total + float(position) * price
    return Holdings(position, working, pending, equity, True, sellable, spendable, exits, entry)
