"""What differs between NautilusTrader 1.x and 2.x: versions, fixed-point format, names; no other module checks them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import nautilus_trader
from nautilus_trader.common.component import LiveClock
from nautilus_trader.core.nautilus_pyo3 import FIXED_PRECISION
from nautilus_trader.model.data import Bar as EngineBar
from nautilus_trader.model.data import BarType, QuoteTick
from nautilus_trader.model.enums import AccountType, OrderSide, OrderStatus, OrderType, TimeInForce
from nautilus_trader.model.events import (
    OrderAccepted,
    OrderCanceled,
    OrderDenied,
    OrderFilled,
    OrderRejected,
    PositionEvent,
    PositionOpened,
)
from nautilus_trader.model.identifiers import InstrumentId, StrategyId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair, Equity
from nautilus_trader.model.instruments import Instrument as EngineInstrument
from nautilus_trader.model.objects import Currency, Money, Price, Quantity
from nautilus_trader.model.orders import Order

from lstm_strategy.errors import LSTMStrategyError

__all__ = [
    "ENGINE_MAJOR",
    "ENGINE_VERSION",
    "FIXED_DECIMALS",
    "AccountType",
    "BarType",
    "CryptoPerpetual",
    "Currency",
    "CurrencyPair",
    "EngineBar",
    "EngineInstrument",
    "Equity",
    "InstrumentId",
    "Money",
    "Order",
    "OrderAccepted",
    "OrderCanceled",
    "OrderDenied",
    "OrderFilled",
    "OrderRejected",
    "OrderSide",
    "OrderStatus",
    "OrderType",
    "PositionEvent",
    "PositionOpened",
    "Price",
    "Quantity",
    "QuoteTick",
    "StrategyId",
    "Symbol",
    "TimeInForce",
    "Venue",
    "fills_of",
    "loud",
    "name_of_side",
    "name_of_status",
    "on_loop",
    "require_supported",
    "subscribe_custom",
]

ENGINE_VERSION: str = nautilus_trader.__version__
ENGINE_MAJOR = int(ENGINE_VERSION.split(".", maxsplit=1)[0])
FIXED_DECIMALS = int(FIXED_PRECISION)
"""Prices and sizes are integers of this many decimals."""


def require_supported() -> None:
    """Raise where the installed engine is one that this package does not speak.

    Raises
    ------
    LSTMStrategyError
        For another major version, or a build with 64-bit prices.
    """
    if ENGINE_MAJOR != 1:
        raise LSTMStrategyError(f"nautilus_trader {ENGINE_VERSION} is installed; this package speaks 1.x")
    if FIXED_DECIMALS != 16:
        raise LSTMStrategyError("nautilus_trader was built with 64-bit prices; install the usual 128-bit build")


def fills_of(order: Order) -> list[Any]:
    """Return the fill events of one order."""
    return [event for event in order.events if isinstance(event, OrderFilled)]


def name_of_side(owner: Any, attribute: str = "side") -> str:
    """Return ``buy`` or ``sell`` of an order, fill or position."""
    return str(OrderSide(getattr(owner, attribute)).name).lower()


def name_of_status(order: Order) -> str:
    """Return an order's status in lower case, such as ``filled``."""
    return str(OrderStatus(order.status).name).lower()


def subscribe_custom(component: Any, data_type: Any) -> None:
    """Have ``on_data`` called with what is published of a type within the node.

    ``subscribe_data`` of 1.x also asks a venue's client for it, and logs an error where there is none.
    """
    component.msgbus.subscribe(topic=f"data.{data_type.topic}", handler=component.handle_data)


def on_loop(clock: Any, handler: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return what a clock may be given to call at a time: a handler that runs on the event loop, as all others do.

    The live clock of 1.x calls its timers from a thread of its own: bars, orders and state would be worked on by two
    at once. A backtest's clock calls at its place among the bars.
    """
    if not isinstance(clock, LiveClock):
        return handler
    loop = asyncio.get_running_loop()

    def call(event: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(handler, event)

    return call


class CanFail(Protocol):
    """Has a way to stop itself over an exception."""

    def fail(self, where: str, error: Exception) -> None:
        """Stop because of ``error``, raised in ``where``."""


def loud[S: CanFail, T](handler: Callable[[S, T], None]) -> Callable[[S, T], None]:
    """Turn an exception in a handler into a stop of its owner.

    Left alone, 1.x ends a backtest or the live process over it, with the position open; 2.x logs it and carries on.
    """

    @functools.wraps(handler)
    def guarded(owner: S, event: T, /) -> None:
        try:
            handler(owner, event)
        except Exception as error:
            owner.fail(handler.__name__, error)

    return guarded
