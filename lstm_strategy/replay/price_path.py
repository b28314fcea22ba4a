"""The path that a market's price takes between two moments: straight legs inside bars, jumps between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lstm_strategy.replay.market import Market

__all__ = ["Leg", "legs", "price_at"]


@dataclass(frozen=True, slots=True)
class Leg:
    """The price goes straight from ``first`` to ``last`` while time goes from ``begun`` to ``ended`` (ns UTC).

    ``row``: of the recorded bar. A jump, to the open of a bar, takes no time and begins where it ends: what lay
    between was never traded.
    """

    row: int
    begun: int
    ended: int
    first: float
    last: float

    def when(self, price: float) -> int:
        """Return the stamp at which the leg is at a price between its ends."""
        if self.first == self.last:
            return self.begun
        share = (price - self.first) / (self.last - self.first)
        return self.begun + int((self.ended - self.begun) * min(max(share, 0.0), 1.0))


def legs(market: Market, before: int, now: int) -> Iterator[Leg]:
    """Yield the legs of ``[before, now)``, ns UTC; a bar's jump to its open belongs to what follows that moment.

    Cut anywhere in time, the legs make the same path.
    """
    base = market.base
    first, last = np.searchsorted(base.closed, before, side="right"), np.searchsorted(base.opened, now)
    for row in range(int(first), int(last)):
        opened, closed = int(base.opened[row]), int(base.closed[row])
        when, prices = market.path(base.take(slice(row, row + 1)))
        stamps = [opened + int((closed - opened) * share) for share in when]
        begun, ended = max(before, opened), min(now, closed)
        if begun == opened:
            yield Leg(row, opened, opened, prices[0], prices[0])
        inside = [stamp for stamp in stamps if begun < stamp < ended]
        moments = [begun, *inside, ended]
        values = np.interp(moments, stamps, prices).tolist()
        for place in range(len(moments) - 1):
            yield Leg(row, moments[place], moments[place + 1], values[place], values[place + 1])


def price_at(market: Market, now: int) -> tuple[float, int] | None:
    """Return the price that the market offers at a moment, ns UTC, and the row of the bar whose volume fills there.

    It is the price of the bar in progress; at the end of a bar, the next one's open. Where there is no bar, it is the
    last close; before the first bar there is none.
    """
    base = market.base
    row = int(np.searchsorted(base.closed, now, side="right"))
    if row < len(base) and int(base.opened[row]) <= now:
        when, prices = market.path(base.take(slice(row, row + 1)))
        opened, closed = int(base.opened[row]), int(base.closed[row])
        stamps = [opened + int((closed - opened) * share) for share in when]
        return float(np.interp(now, stamps, prices)), row
    return (float(base.close[row - 1]), row - 1) if row else None
