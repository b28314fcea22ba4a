"""The events of Binance's user-data stream: what became of an order, and what the account holds."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from lstm_strategy.replay.accounts import Account
from lstm_strategy.replay.orders import Order, Trade

__all__ = ["account_position", "eight", "execution_report"]


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
        "T": order.updated // 1_000_000,
        "t": trade.id if trade else -1,
        "I": order.id,
        "w": order.working and order.status in ("NEW", "PARTIALLY_FILLED"),
        "m": bool(trade and trade.maker),
        "M": False,
        "O": order.created // 1_000_000,
        "Z": eight(order.quote_executed),
        "Y": eight(trade.quote if trade else None),
        "Q": eight(order.quote_quantity),
        "V": "EXPIRE_MAKER",
    }
    return event | ({"W": order.worked // 1_000_000} if order.working else {})


def account_position(account: Account, assets: list[str], now_ms: int) -> dict[str, Any]:
    """Return Binance's ``outboundAccountPosition`` of the assets that changed."""
    held = [(asset, account.of(asset)) for asset in assets]
    told = [{"a": asset, "f": eight(balance.free), "l": eight(balance.locked)} for asset, balance in held]
    return {"e": "outboundAccountPosition", "E": now_ms, "u": now_ms, "B": told}


def eight(value: Decimal | None = None) -> str:
    """Return an amount as Binance writes it, in eight decimals."""
    return f"{value or 0:.8f}"
