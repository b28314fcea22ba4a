"""The second fence: the engine's own risk checks, set from our limits, and wide enough to let every position close."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nautilus_trader.risk.config import RiskEngineConfig

from lstm_strategy.limits import CLOSING_FACTOR, LimitsConfig

__all__ = ["fence"]

# The engine denies closing orders as well, and values them at prices older than ours: it has to allow for both.
_RATE_RESERVE = 100
_PRICE_ALLOWANCE = 2.0
_HOUR_NS, _EXITS_A_BAR = 3_600_000_000_000, 4  # moved and resized, at most so often


def fence(limits: LimitsConfig, instrument_ids: Sequence[str], bar_ns: int, *, inside_bars: bool) -> RiskEngineConfig:
    """Return the engine's settings that catch what gets past our limits, such as a loop that sends and sends.

    Orders a UTC hour or day become orders within any hour or day and 100 more, for a position that has to be closed;
    the largest order is that of a closing one, at twice its price. What is no limit here keeps the engine's default,
    100 orders a second. Where orders rest ``inside_bars`` of ``bar_ns``, the orders that keep the stops of every
    instrument in line come on top, which our limits do not count: 4 a bar and instrument. On margin accounts the engine
    of 1.x looks at rates alone.
    """
    rate, largest = "100/00:00:01", {}
    exits = math.ceil(_EXITS_A_BAR * _HOUR_NS / bar_ns) * len(instrument_ids) if inside_bars else 0
    if limits.orders_per_hour is not None:
        rate = f"{limits.orders_per_hour + exits + _RATE_RESERVE}/01:00:00"
    elif limits.orders_per_day is not None:
        rate = f"{limits.orders_per_day + 24 * exits + _RATE_RESERVE}/24:00:00"
    if limits.max_order_notional is not None:
        notional = math.ceil(limits.max_order_notional * CLOSING_FACTOR * _PRICE_ALLOWANCE)
        largest = dict.fromkeys(instrument_ids, notional)
    return RiskEngineConfig(max_order_submit_rate=rate, max_notional_per_order=largest)
