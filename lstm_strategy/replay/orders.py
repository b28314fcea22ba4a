"""Order, Trade and Rules: what is asked of the exchange, what became of it, and which orders a market takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from lstm_strategy.replay.refusals import RefusedError

__all__ = ["STOPS", "Order", "Rules", "Side", "Status", "TimeInForce", "Trade", "Type", "check"]

type Side = Literal["BUY", "SELL"]
type Type = Literal["MARKET", "LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]
type TimeInForce = Literal["GTC", "IOC", "FOK"]
type Status = Literal["NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED"]

STOPS = ("STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT")
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill. ``quote``: price times quantity; ``commission`` in ``asset``, what was received; ``ts`` ns UTC."""

    id: int
    order_id: int
    price: Decimal
    quantity: Decimal
    quote: Decimal
    commission: Decimal
    asset: str
    ts: int
    maker: bool
    buyer: bool


@dataclass(slots=True, kw_only=True)
class Order:
    """An order and its state; stamps ns UTC, amounts in units of their assets.

    ``quantity`` is zero, until it is matched, for a market order sized by ``quote_quantity``. ``locked`` is what it
    still keeps of the account: quote for a purchase, base for a sale. ``working``: on the book, a stop once triggered.
    """

    id: int
    client_id: str
    symbol: str
    side: Side
    type: Type
    time_in_force: TimeInForce
    quantity: Decimal
    price: Decimal = _ZERO
    stop: Decimal = _ZERO
    quote_quantity: Decimal = _ZERO
    created: int = 0
    updated: int = 0
    worked: int = 0
    status: Status = "NEW"
    executed: Decimal = _ZERO
    quote_executed: Decimal = _ZERO
    locked: Decimal = _ZERO
    working: bool = True
    trades: list[Trade] = field(default_factory=list)

    @property
    def left(self) -> Decimal:
        """What is not executed yet."""
        return self.quantity - self.executed

    @property
    def buys(self) -> bool:
        """Whether it is a purchase."""
        return self.side == "BUY"

    def reached(self, price: Decimal) -> bool:
        """Say whether a stop's trigger lies at this price, or has been passed."""
        falls = self.buys == (self.type == "TAKE_PROFIT_LIMIT")
        return price <= self.stop if falls else price >= self.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A spot market's assets, steps, bounds and fees; prices and notional in quote, quantities in base."""

    symbol: str
    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    min_price: Decimal
    max_price: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    min_notional: Decimal
    max_notional: Decimal
    min_notional_for_market: bool
    max_orders: int
    maker: Decimal
    taker: Decimal

    @classmethod
    def of(cls, info: Mapping[str, Any], *, maker: float, taker: float) -> Rules:
        """Read them from the market's entry in ``exchangeInfo``; fees are fractions."""
        filters = {entry["filterType"]: entry for entry in info["filters"]}
        price, lot = filters["PRICE_FILTER"], filters["LOT_SIZE"]
        notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
        return cls(
            symbol=info["symbol"],
            base=info["baseAsset"],
            quote=info["quoteAsset"],
            tick=Decimal(price["tickSize"]),
            lot=Decimal(lot["stepSize"]),
            min_price=Decimal(price["minPrice"]),
            max_price=Decimal(price["maxPrice"]),
            min_quantity=Decimal(lot["minQty"]),
            max_quantity=Decimal(lot["maxQty"]),
            min_notional=Decimal(notional.get("minNotional", 0)),
            max_notional=Decimal(notional.get("maxNotional", "Infinity")),
            min_notional_for_market=bool(notional.get("applyMinToMarket", notional.get("applyToMarket", True))),
            max_orders=int(filters.get("MAX_NUM_ORDERS", {}).get("maxNumOrders", 200)),
            maker=Decimal(str(maker)),
            taker=Decimal(str(taker)),
        )


def check(order: Order, rules: Rules, market_price: Decimal, open_orders: int) -> None:
    """Raise `RefusedError` where the market does not take an order; ``market_price`` values a market order."""
    for price in (order.price, order.stop):
        if price and (price % rules.tick or not rules.min_price <= price <= rules.max_price):
            raise RefusedError(-1013, "Filter failure: PRICE_FILTER")
    size = order.quantity
    if size % rules.lot or not rules.min_quantity <= size <= rules.max_quantity:
        raise RefusedError(-1013, "Filter failure: LOT_SIZE")
    market = order.type == "MARKET"
    value = size * (market_price if market else order.price)
    small = value < rules.min_notional and (rules.min_notional_for_market or not market)
    if small or (value > rules.max_notional and not market):
        raise RefusedError(-1013, "Filter failure: NOTIONAL")
    if open_orders >= rules.max_orders and not market:
        raise RefusedError(-1013, "Filter failure: MAX_NUM_ORDERS")
