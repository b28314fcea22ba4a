"""Rates: how much a client has asked within Binance's windows, and when that is too much."""

from __future__ import annotations

import time
from collections.abc import Callable

from lstm_strategy.replay.refusals import RefusedError

__all__ = ["Rates"]

_WEIGHT, _ORDERS = 6_000, 100  # in a minute; in ten seconds: as `binance_rules` tells in exchangeInfo
_PATIENCE = 20  # requests beyond the weight, in one minute, after which a client is banned
_BAN_S = 120


class Rates:
    """Counts by the wall's clock, as limits protect a server, not a market.

    Parameters
    ----------
    clock
        Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute, self._ten = -1, -1
        self.weight = self.orders = 0
        self._banned_until = 0.0

    def ask(self, weight: int, orders: int = 0) -> dict[str, str]:
        """Count a request and return the headers that tell of it; raises `RefusedError` with 429 or 418."""
        now = self._clock()
        if now < self._banned_until:
            raise RefusedError(-1003, "Way too much request weight used; IP banned.", status=418, retry_after=_BAN_S)
        minute, ten = int(now // 60), int(now // 10)
        if minute != self._minute:
            self._minute, self.weight = minute, 0
        if ten != self._ten:
            self._ten, self.orders = ten, 0
        self.weight += weight
        if self.weight > _WEIGHT:
            if self.weight > _WEIGHT + _PATIENCE * weight:
                self._banned_until = now + _BAN_S
            raise RefusedError(-1003, status=429, retry_after=60 - int(now % 60))
        if self.orders + orders > _ORDERS:
            raise RefusedError(-1015, status=429, retry_after=10 - int(now % 10))
        self.orders += orders
        headers = {"X-MBX-USED-WEIGHT": str(self.weight), "X-MBX-USED-WEIGHT-1M": str(self.weight)}
        return headers | ({"X-MBX-ORDER-COUNT-10S": str(self.orders)} if orders else {})
