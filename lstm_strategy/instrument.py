"""Instrument: what a venue says of one market: steps, minimums, fees. Engine-neutral, kept beside its bars."""

from __future__ import annotations

from typing import Literal

import msgspec

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["Instrument", "split_id"]


def split_id(instrument_id: str) -> tuple[str, str]:
    """Return symbol and venue of an identifier such as ``BTCUSDT.BINANCE``."""
    symbol, dot, venue = instrument_id.rpartition(".")
    allowed = all(part and all(char.isalnum() or char in "-_" for char in part) for part in (symbol, venue))
    if not dot or not allowed:
        raise LSTMStrategyError(f"instrument {instrument_id!r} is not SYMBOL.VENUE, such as BTCUSDT.BINANCE")
    return symbol, venue


class Instrument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One market. Prices and quantities in their own units, fees as fractions of notional (0.001 = 0.1 %).

    ``kind``: ``spot`` (a currency pair on a cash account), ``perpetual`` (linear swap) or ``equity``.
    ``tick`` and ``lot`` are decimal text, so that the step is exact.
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

    def __post_init__(self) -> None:
        split_id(self.id)
        for name in ("tick", "lot"):
            try:
                positive = 0.0 < float(getattr(self, name)) < float("inf")
            except ValueError:
                positive = False
            if not positive:
                raise LSTMStrategyError(f"{self.id}: {name} is {getattr(self, name)!r}; it must be a positive number")
