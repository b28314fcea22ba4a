"""The quotes of several names as one venue shows them: every name's open before any order of that close fills."""

from __future__ import annotations

import numpy as np

from lstm_strategy.nautilus.engine import Quantity, QuoteTick
from lstm_strategy.nautilus.market import Market

__all__ = ["LATENCY_NS", "LATE_NS", "OPENED_NS", "joint_quotes"]

# A close's decisions reach the venue 3 ns later, those that waited for an absent name 4 ns later: after the quotes of
# every name's open (2 ns), and before the event that makes the venue look at them (4 ns). What that leads to is then
# answered at once, and so is what happens inside bars.
LATENCY_NS, LATE_NS, OPENED_NS = 3, 1, 4
_TRIGGER_NS = 2


def joint_quotes(markets: list[Market], paths: dict[str, list[QuoteTick]] | None = None) -> list[QuoteTick]:
    """Return all names' quotes, and at each stamp one more, after the orders of that close have arrived.

    The engine looks at waiting orders after each event: at the first of several quotes of one stamp it would fill the
    other names at the opens of the bar before. So orders arrive after all of them (`LATENCY_NS`), and the repeated
    quote of one name makes the engine look. A name without an open there has an empty quote: its order is rejected,
    rather than filled at a price that was.

    ``paths`` are the quotes inside the bars by name (`path_quotes`), where orders rest there.
    """
    paths = paths or {}
    stamps = sorted({int(quote.ts_init) for market in markets for quote in market.quotes})
    quotes: list[QuoteTick] = []
    for market in markets:
        quotes += market.quotes
        path = paths.get(market.instrument.id.value, [])
        quotes += [*path, *_empty(market, stamps, path)]
    last = {int(quote.ts_init): quote for market in markets for quote in market.quotes}
    again = [
        QuoteTick(
            quote.instrument_id,
            quote.bid_price,
            quote.ask_price,
            quote.bid_size,
            quote.ask_size,
            ts + _TRIGGER_NS,
            ts + _TRIGGER_NS,
        )
        for ts, quote in last.items()
    ]
    return sorted([*quotes, *again], key=lambda quote: int(quote.ts_init))


def _empty(market: Market, stamps: list[int], path: list[QuoteTick]) -> list[QuoteTick]:
    """Return a quote of nothing at every stamp where this name has none, from its first one on, at its last price."""
    own = {int(quote.ts_init) for quote in market.quotes}
    known = sorted([*market.quotes, *path], key=lambda quote: int(quote.ts_init))
    rows = np.searchsorted([int(quote.ts_init) for quote in known], stamps, side="right") - 1
    empty = []
    nothing = Quantity(0, market.instrument.size_precision)
    for ts, row in zip(stamps, rows.tolist(), strict=True):
        if row >= 0 and ts not in own:
            bid, ask = known[row].bid_price, known[row].ask_price
            empty.append(QuoteTick(market.instrument.id, bid, ask, nothing, nothing, ts, ts))
    return empty
