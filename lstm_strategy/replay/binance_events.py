"""What Binance tells of orders, trades and balances: the fields of its answers and of its user-data stream."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from lstm_strategy.replay.accounts import Account
from lstm_strategy.replay.orders import Order, Trade

__all__ = ["account_position", "eight", "execution_report", "order_reply", "trade_reply"]

_MS = 1_000_000


def execution_report(order: Order, what: str, trade: Trade | None, now_ms: int, request_id: str) -> dict[str, Any]:
    """Return Binance's ``executionReport``; of a cancelled order ``c`` is the request's identifier."""
    cancelled = what == "CANCELED"
    event = {
        "e": "executionReport",
        "E": now_ms,
        "s": order.symbol,
        "c": request_id if cancelled else order.client_id,
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": eight(order.quantity),
        "p": eight(order.price),
        "P": eight(order.stop),
        "F": eight(),
        "g": -1,
        "C": order.client_id if cancelled else "",
        "x": what,
        "X": order.status,
        "r": "NONE",
        "i": order.id,
        "l": eight(trade.quantity if trade else None),
        "z": eight(order.executed),
        "L": eight(trade.price if trade else None),
        "n": eight(trade.commission) if trade else "0",
        "N": trade.asset if trade else None,
        "T": order.updated // _MS,
        "t": trade.id if trade else -1,
        "I": order.id,
        "w": order.working and order.status in ("NEW", "PARTIALLY_FILLED"),
        "m": bool(trade and trade.maker),
        "M": False,
        "O": order.created // _MS,
        "Z": eight(order.quote_executed),
        "Y": eight(trade.quote if trade else None),
        "Q": eight(order.quote_quantity),
        "V": "EXPIRE_MAKER",
    }
    return event | ({"W": order.worked // _MS} if order.working else {})


def account_position(account: Account, assets: list[str], now_ms: int) -> dict[str, Any]:
    """Return Binance's ``outboundAccountPosition`` of the assets that changed."""
    held = [(asset, account.of(asset)) for asset in assets]
    told = [{"a": asset, "f": eight(balance.free), "l": eight(balance.locked)} for asset, balance in held]
    return {"e": "outboundAccountPosition", "E": now_ms, "u": now_ms, "B": told}


def eight(value: Decimal | None = None) -> str:
    """Return an amount as Binance writes it, in eight decimals."""
    return f"{value or 0:.8f}"


def order_reply(order: Order) -> dict[str, Any]:
    """Return an order as REST tells of it."""
    return {
        "symbol": order.symbol,
        "orderId": order.id,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "price": eight(order.price),
        "origQty": eight(order.quantity),
        "executedQty": eight(order.executed),
        "origQuoteOrderQty": eight(order.quote_quantity),
        "cummulativeQuoteQty": eight(order.quote_executed),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "stopPrice": eight(order.stop),
        "icebergQty": eight(),
        "time": order.created // _MS,
        "updateTime": order.updated // _MS,
        "isWorking": order.working,
        "workingTime": order.worked // _MS if order.working else -1,
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def trade_reply(symbol: str, trade: Trade) -> dict[str, Any]:
    """Return a trade as REST tells of it."""
    return {
        "symbol": symbol,
        "id": trade.id,
        "orderId": trade.order_id,
        "orderListId": -1,
        "price": eight(trade.price),
        "qty": eight(trade.quantity),
        "quoteQty": eight(trade.quote),
        "commission": eight(trade.commission),
        "commissionAsset": trade.asset,
        "time": trade.ts // _MS,
        "isBuyer": trade.buyer,
        "isMaker": trade.maker,
        "isBestMatch": True,
    }
