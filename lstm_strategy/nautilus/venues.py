"""What each venue allows of orders, as one table; what it does not allow is never sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["VENUES", "VenueRules", "rules_at"]


@dataclass(frozen=True, slots=True)
class VenueRules:
    """One market's orders, through the engine's own adapter.

    Parameters
    ----------
    stop : str
        The protective stop that may rest there; a stop-limit can be jumped by the price, and is watched.
    orders : tuple of str
        All that the adapter lets through.
    reduce_only : bool
        Whether an order can be told never to open.
    linked : bool
        Whether of two orders one can cancel the other. Where not, one exit rests, never two.
    amends_stops : bool
        Whether a resting stop can be changed in place. Where not, it is cancelled, and the next follows its end.
    verified : bool
        Whether this was read in the adapter's source; else it is what most venues of that kind allow.
    """

    stop: Literal["STOP_MARKET", "STOP_LIMIT"]
    orders: tuple[str, ...]
    reduce_only: bool
    linked: bool = False
    amends_stops: bool = False
    verified: bool = False


_TRIGGERED = ("STOP_MARKET", "STOP_LIMIT", "MARKET_IF_TOUCHED", "LIMIT_IF_TOUCHED", "TRAILING_STOP_MARKET")
VENUES: dict[tuple[str, str], VenueRules] = {
    ("BINANCE", "spot"): VenueRules(
        "STOP_LIMIT", ("MARKET", "LIMIT", "STOP_LIMIT", "LIMIT_IF_TOUCHED"), reduce_only=False, verified=True
    ),
    ("BINANCE", "perpetual"): VenueRules(
        "STOP_MARKET", ("MARKET", "LIMIT", *_TRIGGERED), reduce_only=True, verified=True
    ),
    ("*", "spot"): VenueRules("STOP_LIMIT", ("MARKET", "LIMIT", "STOP_LIMIT"), reduce_only=False),
    ("*", "perpetual"): VenueRules("STOP_MARKET", ("MARKET", "LIMIT", "STOP_MARKET"), reduce_only=True),
    ("*", "equity"): VenueRules("STOP_MARKET", ("MARKET", "LIMIT", "STOP_MARKET"), reduce_only=False),
}
"""By venue and kind of instrument; ``*`` is any other venue. Adapters of NautilusTrader 1.231."""


def rules_at(venue: str, kind: str) -> VenueRules:
    """Return what a venue allows for a kind of instrument: ``spot``, ``perpetual`` or ``equity``."""
    return VENUES.get((venue, kind)) or VENUES["*", kind]
