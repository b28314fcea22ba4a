"""What differs between NautilusTrader 1.x and 2.x: versions, fixed-point format, names; no other module checks them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import nautilus_trader
from nautilus_trader.core.nautilus_pyo3 import FIXED_PRECISION
from nautilus_trader.model.data import Bar as EngineBar
from nautilus_trader.model.data import BarType, QuoteTick
from nautilus_trader.model.enums import AccountType, OrderSide, TimeInForce
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
    "OrderSide",
    "Price",
    "Quantity",
    "QuoteTick",
    "StrategyId",
    "Symbol",
    "TimeInForce",
    "Venue",
    "require_supported",
    "signed_quantity",
    "working_quantity",
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


def signed_quantity(cache: Any, instrument_id: InstrumentId, strategy_id: StrategyId) -> Decimal:
    """Return the open position of one strategy, negative when short."""
    positions = cache.positions_open(instrument_id=instrument_id, strategy_id=strategy_id)
    return sum((position.signed_decimal_qty() for position in positions), Decimal(0))


def working_quantity(orders: list[Order]) -> Decimal:
    """Return what these orders would still add to the position, negative for sells."""
    total = Decimal(0)
    for order in orders:
        left = order.leaves_qty.as_decimal()
        total += left if order.side == OrderSide.BUY else -left
    return total
