"""Execution: how an order that nobody hurries is worked, and what working it cost against the decision; pure."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from lstm_strategy.sizing import require

__all__ = ["ExecutionConfig", "limit_price", "shortfall"]


class ExecutionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an order is sent. Whatever closes a position in a hurry (halts, limits, exits, stops) goes at market.

    Parameters
    ----------
    mode : str
        ``market``; ``marketable_limit``: a limit that far *through* the close, so that no fill is worse;
        ``post_only``: a limit that far *away* from the close, which never takes, then at market after a deadline.
    offset : float
        Fraction of the close.
    rests : bool
        Whether what a marketable limit leaves unfilled rests until the next close, instead of being cancelled at once.
    deadline_bars : int
        Bars after the decision at which a post-only order gives way to a market order.
    """

    mode: Literal["market", "marketable_limit", "post_only"] = "market"
    offset: float = 0.0005
    rests: bool = False
    deadline_bars: int = 1

    def __post_init__(self) -> None:
        require(0.0 <= self.offset < 0.5, "execution.offset", self.offset, "0 or above, below 0.5")
        require(1 <= self.deadline_bars <= 1_000_000, "execution.deadline_bars", self.deadline_bars, "1 to 1000000")
        fits = not self.rests or self.mode == "marketable_limit"
        require(fits, "execution.rests", self.rests, 'false, or the mode "marketable_limit"')

    @property
    def reserve(self) -> float:
        """What a purchase may cost above the close, as a fraction of it."""
        return self.offset if self.mode == "marketable_limit" else 0.0


def limit_price(close: float, side: int, config: ExecutionConfig) -> float:
    """Return the limit of an order decided on at this close; NaN for a market order. ``side``: 1 buys, -1 sells."""
    if config.mode == "market":
        return math.nan
    through = side if config.mode == "marketable_limit" else -side
    return close * (1.0 + through * config.offset)


def shortfall(price: float, decided: float, side: int) -> float:
    """Return what a fill cost against the decision's price, as a fraction of it (Perold 1988); positive is a loss."""
    return side * (price / decided - 1.0) if decided > 0.0 else math.nan
