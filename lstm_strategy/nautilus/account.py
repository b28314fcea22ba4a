"""What the engine holds for one strategy and instrument: position, working orders, equity, free balances."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from lstm_strategy.nautilus.engine import (
    AccountType,
    EngineInstrument,
    InstrumentId,
    Money,
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


class Holdings(msgspec.Struct, frozen=True):
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
    free_base : Money or None
        Free base currency on a cash account in a spot market, None where there is none.
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
    spot: bool
    free_base: Money | None
    spendable: float | None
    exits: list[Order] = []
    entry: float = math.nan

    @property
    def sellable(self) -> Decimal | None:
        """What a cash account in a spot market can sell: fees may have been taken from the coins."""
        if not (self.spot and self.cash):
            return None
        return Decimal(0) if self.free_base is None else self.free_base.as_decimal()


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
    account: Any,
    instrument: EngineInstrument,
    strategy_id: StrategyId,
    price: float,
    last_order: Order | None,
    last_exit: Order | None = None,
    *,
    spot: bool,
) -> Holdings:
    """Read the engine's cache; the last orders cover the moment between sending and the engine's taking note."""
    name = instrument.id
    working, exits, pending = [*cache.orders_open(), *cache.orders_inflight()], [], Decimal(0)
    if working or _lives(last_order) or _lives(last_exit):
        orders = {order.client_order_id: order for order in own(working, name, strategy_id)}
        orders |= {last.client_order_id: last for last in (last_order, last_exit) if last is not None and _lives(last)}
        exits = [order for order in orders.values() if is_exit(order)]
        working = [order for order in orders.values() if not is_exit(order)]
        for order in working:
            left = order.leaves_qty.as_decimal()
            pending += left if order.side == OrderSide.BUY else -left

    positions = own(cache.positions_open(), name, strategy_id)
    sizes = [_decimal(held.signed_qty, held.size_precision) for held in positions]
    position = sizes[0] if len(sizes) == 1 else sum(sizes, Decimal(0))
    entry = float(positions[0].avg_px_open) if positions else math.nan
    quote = instrument.quote_currency
    balance = None if account is None else account.balance_total(quote)
    if balance is None:
        return Holdings(position, working, pending, math.nan, True, False, None, None, exits, entry)
    total = float(balance.as_double())
    if account.type != AccountType.CASH:
        gains = sum(float(held.signed_qty) * (price - float(held.avg_px_open)) for held in positions)
        return Holdings(position, working, pending, total + gains, False, spot, None, None, exits, entry)
    base, free = account.balance_free(instrument.base_currency) if spot else None, account.balance_free(quote)
    spendable = 0.0 if free is None else float(free.as_double())
    equity = total + float(position) * price
    return Holdings(position, working, pending, equity, True, spot, base, spendable, exits, entry)


@lru_cache(maxsize=256)
def _decimal(size: float, precision: int) -> Decimal:
    """Return a size as its instrument writes it, as the engine's own slower conversion does."""
    return Decimal(f"{size:.{precision}f}")


def _lives(order: Order | None) -> bool:
    """Say whether an order was sent and may still fill."""
    return order is not None and not order.is_closed
