"""The second fence: the engine's own risk checks, set from our limits, and wide enough to let every position close."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nautilus_trader.risk.config import RiskEngineConfig

from lstm_strategy.bars import NS_PER_HOUR
from lstm_strategy.limits import CLOSING_FACTOR, LimitsConfig

__all__ = ["fence"]

# The engine denies closing orders as well, and values them at prices older than ours: it has to allow for both.
_RATE_RESERVE = 100
_PRICE_ALLOWANCE = 2.0
_EXITS_A_BAR = 4  # moved and resized, at most so often


def fence(limits: LimitsConfig, instrument_ids: Sequence[str], bar_ns: int, *, inside_bars: bool) -> RiskEngineConfig:
    """Return the engine's settings that catch what gets past our limits, such as a loop that sends and sends.

    Orders a UTC hour or day become orders within any hour or day, and more for positions that have to be closed or made
    smaller, which our limits never forbid: one for each bar and instrument, no fewer than 100 an instrument. The
    largest order is that of a closing one, at twice its price. What is no limit here keeps the engine's default, 100
    orders a second, or two for each instrument. Where orders rest ``inside_bars`` of ``bar_ns``, the orders that keep
    the stops of every instrument in line come on top, which our limits do not count: 4 a bar and instrument. On margin
    accounts the engine of 1.x looks at rates alone.
    """
    count, largest = len(instrument_ids), {}
    rate = f"{max(_RATE_RESERVE, 2 * count)}/00:00:01"
    exits = math.ceil(_EXITS_A_BAR * NS_PER_HOUR / bar_ns) * count if inside_bars else 0
    hour, day = (max(_RATE_RESERVE, math.ceil(hours * NS_PER_HOUR / bar_ns)) * count for hours in (1, 24))
    if limits.orders_per_hour is not None:
        rate = f"{limits.orders_per_hour + exits + hour}/01:00:00"
    elif limits.orders_per_day is not None:
        rate = f"{limits.orders_per_day + 24 * exits + day}/24:00:00"
    if limits.max_order_notional is not None:
        notional = math.ceil(limits.max_order_notional * CLOSING_FACTOR * _PRICE_ALLOWANCE)
        largest = dict.fromkeys(instrument_ids, notional)
    return RiskEngineConfig(max_order_submit_rate=rate, max_notional_per_order=largest)
