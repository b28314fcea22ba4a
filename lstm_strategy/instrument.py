"""Instrument: what a venue says of one market: steps, minimums, fees. Engine-neutral, kept beside its bars."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["Instrument", "folder_of", "split_id", "symbol_of"]

_ESCAPES = {"/": "%2F", ":": "%3A"}  # BTC/USD.KRAKEN, xyz:TSLA-USD-PERP.HYPERLIQUID


def split_id(instrument_id: str) -> tuple[str, str]:
    """Return symbol and venue of an identifier such as ``BTCUSDT.BINANCE`` or ``BTC/USD.KRAKEN``."""
    symbol, dot, venue = instrument_id.rpartition(".")
    parts = (*re.split("[/:]", symbol), venue)
    allowed = all(part and all(char.isalnum() or char in "-_" for char in part) for part in parts)
    if not dot or not allowed:
        raise LSTMStrategyError(f"instrument {instrument_id!r} is not SYMBOL.VENUE, such as BTCUSDT.BINANCE")
    return symbol, venue


def folder_of(symbol: str) -> str:
    """Return the one folder name that stands for a symbol: ``BTC%2FUSD`` for ``BTC/USD``."""
    return "".join(_ESCAPES.get(char, char) for char in symbol)


def symbol_of(folder: str) -> str:
    """Undo `folder_of`."""
    for char, escape in _ESCAPES.items():
        folder = folder.replace(escape, char)
    return folder


class Instrument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One market. Prices and quantities in their own units, fees as fractions of notional (0.001 = 0.1 %).

    ``kind``: ``spot`` (a currency pair on a cash account), ``perpetual`` (swap) or ``equity``. ``tick``, ``lot`` and
    ``multiplier`` are decimal text, so that the step is exact.

    A contract is ``multiplier`` units of the base currency, or of the quote currency where it is ``inverse`` (then
    paid in ``settle``, else the quote currency). ``price_decimals``: those of the history, where the tick was once
    finer than it is now.
    """

    id: str
    kind: Literal["spot", "perpetual", "equity"]
    base: str
    quote: str
    tick: str
    lot: str
    min_quantity: str | None = None
    max_quantity: str | None = None
    min_notional: float | None = None
    maker_fee: float = 0.001
    taker_fee: float = 0.001
    inverse: bool = False
    multiplier: str = "1"
    settle: str | None = None
    price_decimals: int | None = None

    def __post_init__(self) -> None:
        split_id(self.id)
        for name in ("tick", "lot", "multiplier"):
            try:
                positive = 0.0 < float(getattr(self, name)) < float("inf")
            except ValueError:
                positive = False
            if not positive:
                raise LSTMStrategyError(f"{self.id}: {name} is {getattr(self, name)!r}; it must be a positive number")
