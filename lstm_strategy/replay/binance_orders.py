"""Binance's signed endpoints for spot: account, fees, orders and trades, as the NautilusTrader adapter asks."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, cast

from aiohttp import web

from lstm_strategy.replay.binance_events import eight, order_reply, trade_reply
from lstm_strategy.replay.binance_http import (
    illegal,
    json_reply,
    limit,
    needed,
    number,
    refusal_reply,
    server_ms,
    skew_ms,
)
from lstm_strategy.replay.credentials import check_timestamp
from lstm_strategy.replay.matching import Book
from lstm_strategy.replay.orders import STOPS, Order, Side, TimeInForce, Type
from lstm_strategy.replay.rates import Rates
from lstm_strategy.replay.refusals import RefusedError
from lstm_strategy.replay.trading import TRADING, Trading

__all__ = ["RATES", "register_orders"]

RATES = web.AppKey("rates", Rates)
_MS = 1_000_000
_DAY_MS = 86_400_000
_LIMITS = (500, 1_000)  # default and most rows
_AMOUNT = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
_CLIENT_ID = re.compile(r"[.A-Za-z0-9:/_-]{1,36}")
_TYPES = ("MARKET", "LIMIT", "LIMIT_MAKER", *STOPS)
# What each type must and may name, beside symbol, side and type; anything else of the second list is refused.
_NEEDS = {
    "MARKET": (),
    "LIMIT": ("timeInForce", "quantity", "price"),
    "LIMIT_MAKER": ("quantity", "price"),
    "STOP_LOSS_LIMIT": ("timeInForce", "quantity", "price", "stopPrice"),
    "TAKE_PROFIT_LIMIT": ("timeInForce", "quantity", "price", "stopPrice"),
}
_CONDITIONAL = ("timeInForce", "quantity", "quoteOrderQty", "price", "stopPrice")

type _Handler = Callable[[web.Request, Trading], Awaitable[Any]]


def register_orders(app: web.Application) -> None:
    """Add the routes; without an account every signed request is refused, as with a wrong key."""
    app[RATES] = Rates()
    router = app.router
    router.add_get("/api/v3/account", _signed(_account, 20))
    router.add_get("/api/v3/account/commission", _signed(_commission, 20))
    router.add_get("/sapi/v1/asset/tradeFee", _signed(_trade_fee, 1))
    router.add_get("/api/v3/rateLimit/order", _signed(_order_rates, 40))
    router.add_post("/api/v3/order", _signed(_new_order, 1, orders=1))
    router.add_post("/api/v3/order/test", _signed(_test_order, 1))
    router.add_get("/api/v3/order", _signed(_query_order, 4))
    router.add_delete("/api/v3/order", _signed(_cancel_order, 1))
    router.add_get("/api/v3/openOrders", _signed(_open_orders, 6))
    router.add_delete("/api/v3/openOrders", _signed(_cancel_open, 1))
    router.add_get("/api/v3/allOrders", _signed(_all_orders, 20))
    router.add_get("/api/v3/myTrades", _signed(_my_trades, 20))


def _signed(handler: _Handler, weight: int, *, orders: int = 0) -> Callable[[web.Request], Any]:
    """Carry a request out only where its key, signature, stamp and rate are right."""

    async def answer(request: web.Request) -> web.Response:
        headers: dict[str, str] = {}
        try:
            headers = request.app[RATES].ask(weight, orders)
            _authenticate(request)
            return json_reply(await handler(request, request.app[TRADING]), headers=headers)
        except RefusedError as refusal:
            response = refusal_reply(refusal)
            response.headers.update(headers)
            return response

    return answer


def _authenticate(request: web.Request) -> None:
    key = request.headers.get("X-MBX-APIKEY", "")
    if not key:
        raise RefusedError(-2014, status=401)
    if TRADING not in request.app:
        raise RefusedError(-2015, status=401)
    credentials = request.app[TRADING].config.credentials
    credentials.check_key(key)
    payload, _, signature = request.rel_url.raw_query_string.rpartition("&signature=")
    if not payload:
        raise RefusedError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
    credentials.check_signature(payload, request.query.get("signature", signature))
    window = request.query.get("recvWindow", "5000")
    check_timestamp(request.query.get("timestamp", ""), window, server_ms(request), skew_ms(request))


async def _account(_: web.Request, trading: Trading) -> Any:
    trading.catch_up()
    held = sorted(trading.account.balances.items())
    fees = next(([book.rules.maker, book.rules.taker] for book in trading.books.values()), [Decimal(0), Decimal(0)])
    maker, taker = (int(fee * 10_000) for fee in fees)
    return {
        "makerCommission": maker,
        "takerCommission": taker,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "canTrade": trading.config.may_trade,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": trading.exchange.now() // _MS,
        "accountType": "SPOT",
        "balances": [{"asset": name, "free": eight(of.free), "locked": eight(of.locked)} for name, of in held],
        "permissions": ["SPOT"],
        "uid": 1,
    }


async def _commission(request: web.Request, trading: Trading) -> Any:
    rules = trading.book(needed(request, "symbol")).rules
    none = {"maker": eight(), "taker": eight(), "buyer": eight(), "seller": eight()}
    standard = none | {"maker": eight(rules.maker), "taker": eight(rules.taker)}
    discount = {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": eight()}
    return {"symbol": rules.symbol, "standardCommission": standard, "taxCommission": none, "discount": discount}


async def _trade_fee(request: web.Request, trading: Trading) -> Any:
    wanted = request.query.get("symbol")
    books = trading.books.values() if wanted is None else [trading.book(wanted)]
    return [
        {"symbol": r.symbol, "makerCommission": str(r.maker), "takerCommission": str(r.taker)}
        for r in (book.rules for book in books)
    ]


async def _order_rates(request: web.Request, _: Trading) -> Any:
    rate = {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100}
    return [rate | {"count": request.app[RATES].orders}]


async def _new_order(request: web.Request, trading: Trading) -> Any:
    if not trading.config.may_trade:
        raise RefusedError(-2015, status=401)
    order = trading.place(_read_order(request))
    short = {
        "symbol": order.symbol,
        "orderId": order.id,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "transactTime": order.created // _MS,
    }
    kind = request.query.get("newOrderRespType", "FULL" if order.type in ("MARKET", "LIMIT") else "ACK")
    if kind == "ACK":
        return short
    whole = order_reply(order) | short
    fills = [
        {
            "price": eight(trade.price),
            "qty": eight(trade.quantity),
            "commission": eight(trade.commission),
            "commissionAsset": trade.asset,
            "tradeId": trade.id,
        }
        for trade in order.trades
    ]
    return whole | ({"fills": fills} if kind == "FULL" else {})


async def _test_order(request: web.Request, trading: Trading) -> Any:
    trading.book(_read_order(request).symbol)
    return {}


async def _query_order(request: web.Request, trading: Trading) -> Any:
    found = _find(request, trading.book(needed(request, "symbol")))
    if found is None:
        raise RefusedError(-2013)
    return order_reply(found)


async def _cancel_order(request: web.Request, trading: Trading) -> Any:
    symbol, request_id = needed(request, "symbol"), request.query.get("newClientOrderId", "")
    return _cancelled(trading, trading.cancel(symbol, _find(request, trading.book(symbol)), request_id))


async def _open_orders(request: web.Request, trading: Trading) -> Any:
    wanted = request.query.get("symbol")
    trading.catch_up()
    books = list(trading.books.values()) if wanted is None else [trading.book(wanted)]
    return [order_reply(order) for book in books for order in book.open.values()]


async def _cancel_open(request: web.Request, trading: Trading) -> Any:
    symbol = needed(request, "symbol")
    found = list(trading.book(symbol).open.values())
    if not found:
        raise RefusedError(-2011)
    return [_cancelled(trading, trading.cancel(symbol, order)) for order in found]


async def _all_orders(request: web.Request, trading: Trading) -> Any:
    orders = list(trading.book(needed(request, "symbol")).orders.values())
    first, count = number(request, "orderId"), limit(request, *_LIMITS)
    start, end = _span(request)
    if first is not None:
        return [order_reply(order) for order in orders if order.id >= first][:count]
    found = [order for order in orders if start <= order.created // _MS <= end]
    return [order_reply(order) for order in (found[-count:] if not start else found[:count])]


async def _my_trades(request: web.Request, trading: Trading) -> Any:
    symbol = needed(request, "symbol")
    orders = trading.book(symbol).orders.values()
    trades = sorted((trade for order in orders for trade in order.trades), key=lambda trade: trade.id)
    first, of_order, count = number(request, "fromId"), number(request, "orderId"), limit(request, *_LIMITS)
    start, end = _span(request)
    found = [trade for trade in trades if start <= trade.ts // _MS <= end and of_order in (None, trade.order_id)]
    if first is not None:
        found = [trade for trade in found if trade.id >= first]
    return [trade_reply(symbol, trade) for trade in (found[:count] if start or first is not None else found[-count:])]


def _read_order(request: web.Request) -> Order:
    """Return the order that a request asks for; raises `RefusedError` where it cannot be one."""
    kind = needed(request, "type")
    if kind not in _TYPES:
        raise RefusedError(-1116)
    side = needed(request, "side")
    if side not in ("BUY", "SELL"):
        raise RefusedError(-1117, "Invalid side.")
    for name in _NEEDS[kind]:
        needed(request, name)
    quoted = kind == "MARKET" and "quoteOrderQty" in request.query
    allowed = _NEEDS[kind] if kind != "MARKET" else ("quoteOrderQty",) if quoted else ("quantity",)
    for name in ("icebergQty", "trailingDelta", *_CONDITIONAL):
        if name in request.query and name not in allowed:
            raise RefusedError(-1106, f"Parameter '{name}' sent when not required.")
    if kind == "MARKET" and not quoted:
        needed(request, "quantity")
    lasting = request.query.get("timeInForce", "GTC")
    if lasting not in ("GTC", "IOC", "FOK"):
        raise RefusedError(-1115, "Invalid timeInForce.")
    client_id = request.query.get("newClientOrderId", "")
    if client_id and _CLIENT_ID.fullmatch(client_id) is None:
        raise RefusedError(-1100, illegal("newClientOrderId", "^[a-zA-Z0-9-_]{1,36}$"))
    return Order(
        id=0,
        client_id=client_id,
        symbol=needed(request, "symbol"),
        side=cast(Side, side),
        type=cast(Type, kind),
        time_in_force=cast(TimeInForce, lasting),
        quantity=_amount(request, "quantity"),
        price=_amount(request, "price"),
        stop=_amount(request, "stopPrice"),
        quote_quantity=_amount(request, "quoteOrderQty"),
    )


def _amount(request: web.Request, name: str) -> Decimal:
    value = request.query.get(name)
    if value is None:
        return Decimal(0)
    if _AMOUNT.fullmatch(value) is None:
        raise RefusedError(-1100, illegal(name, "^([0-9]{1,20})(\\.[0-9]{1,20})?$"))
    amount = Decimal(value)
    if not amount:
        raise RefusedError(-1013, f"Invalid {name}.")
    return amount


def _find(request: web.Request, book: Book) -> Order | None:
    order_id, client_id = number(request, "orderId"), request.query.get("origClientOrderId", "")
    if order_id is None and not client_id:
        raise RefusedError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    return book.find(order_id=order_id, client_id=client_id)


def _span(request: web.Request) -> tuple[int, int]:
    start, end = number(request, "startTime"), number(request, "endTime")
    if start is not None and end is not None and end - start > _DAY_MS:
        raise RefusedError(-1127)
    return start or 0, 1 << 43 if end is None else end


def _cancelled(trading: Trading, order: Order) -> dict[str, Any]:
    told = order_reply(order)
    told |= {"origClientOrderId": order.client_id, "clientOrderId": trading.cancelling}
    return told | {"transactTime": order.updated // _MS}
