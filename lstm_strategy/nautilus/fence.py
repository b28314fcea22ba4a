"""The second fence: the engine's own risk checks, set from our limits, and wide enough to let every position close."""

from __future__ import annotations

import math

from nautilus_trader.risk.config import RiskEngineConfig

from lstm_strategy.limits import CLOSING_FACTOR, LimitsConfig

__all__ = ["fence"]

# The engine denies closing orders as well, and values them at prices older than ours: it has to allow for both.
_RATE_RESERVE = 100
_PRICE_ALLOWANCE = 2.0


def fence(limits: LimitsConfig, instrument_ids: list[str], exits_per_hour: int = 0) -> RiskEngineConfig:
    """Return the engine's settings that catch what gets past our limits, such as a loop that sends and sends.

    Orders a UTC hour or day become orders within any hour or day and 100 more, for a position that has to be closed;
    the largest order is that of a closing one, at twice its price. What is no limit here keeps the engine's default,
    100 orders a second. ``exits_per_hour``: orders that keep stops in line, which our limits do not count. On margin
    accounts the engine of 1.x looks at rates alone.
    """
    rate, largest = "100/00:00:01", {}
    if limits.orders_per_hour is not None:
        rate = f"{limits.orders_per_hour + exits_per_hour + _RATE_RESERVE}/01:00:00"
    elif limits.orders_per_day is not None:
        rate = f"{limits.orders_per_day + 24 * exits_per_hour + _RATE_RESERVE}/24:00:00"
    if limits.max_order_notional is not None:
        notional = math.ceil(limits.max_order_notional * CLOSING_FACTOR * _PRICE_ALLOWANCE)
        largest = dict.fromkeys(instrument_ids, notional)
    return RiskEngineConfig(max_order_submit_rate=rate, max_notional_per_order=largest)
