"""Coverage: how often what was forecast held, counted bar by bar over the last outcomes; pure."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from lstm_strategy.forecast import Forecast

__all__ = ["Coverage", "CoverageTracker"]


class Coverage(NamedTuple):
    """How often outcomes fell inside a central interval, of the last so many that are known."""

    horizon: int
    interval: float
    share: float
    outcomes: int


class CoverageTracker:
    """Counts which outcomes fell inside the central intervals of what was forecast for them.

    A bar without a forecast, and a hole, break the chain: what was said before has no outcome after.
    """

    def __init__(self, window: int) -> None:
        self._window, self._last_ts = window, 0
        self._said: deque[tuple[float, Forecast]] = deque()
        self._inside: dict[tuple[int, float], deque[bool]] = {}

    def take(self, ts_close: int, price: float, forecast: Forecast | None, hole_ns: int) -> None:
        """Take a close and what is forecast at it; a second look at the last close counts once."""
        if ts_close == self._last_ts:
            return
        if forecast is None or ts_close - self._last_ts > hole_ns:
            self._said.clear()
        self._last_ts = ts_close
        if forecast is None:
            return
        for bars, (then, said) in enumerate(reversed(self._said), 1):
            if bars in said.horizons:
                row, outcome = said.quantiles_HQ[said.horizons.index(bars)].tolist(), math.log(price / then)
                for number, interval in _intervals(said.levels):
                    inside = self._inside.setdefault((bars, interval), deque(maxlen=self._window))
                    inside.append(row[number] <= outcome <= row[-1 - number])
        self._said.append((price, forecast))
        while len(self._said) > max(forecast.horizons):
            self._said.popleft()

    def shares(self) -> tuple[Coverage, ...]:
        """Return the shares, widest interval of the nearest horizon first."""
        found = sorted(self._inside.items(), key=lambda item: (item[0][0], -item[0][1]))
        return tuple(Coverage(*key, sum(inside) / len(inside), len(inside)) for key, inside in found)


def _intervals(levels: tuple[float, ...]) -> list[tuple[int, float]]:
    """Return the central intervals that levels make: the number of the lower one, and the probability."""
    pairs = [(row, low, levels[-1 - row]) for row, low in enumerate(levels[: len(levels) // 2])]
    return [(row, round(high - low, 6)) for row, low, high in pairs if abs(low + high - 1.0) < 1e-6]
