"""The words for why a target is what it is, and which of them forbid an increase or flatten."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["EXITS", "FLATTENING", "HALTS", "NO_INCREASE", "RATES", "Reason"]


class Reason(StrEnum):
    """Why the target is what it is."""

    REBALANCE = "rebalance"
    WITHIN_BAND = "within_no_trade_band"
    AT_TARGET = "at_target"
    NO_FORECAST = "no_forecast"
    INVALID_FORECAST = "invalid_forecast"
    INTERVAL_INCLUDES_COST = "interval_includes_cost"
    # Limits that forbid an increase while they last.
    INTERVAL_TOO_WIDE = "interval_too_wide"
    NOT_READY = "warm_up_unproved"
    PARITY_UNPROVED = "parity_unproved"
    STALE_DATA = "stale_data"
    PRICE_FENCE = "price_fence"
    FEATURE_RANGE = "feature_range"
    VOLATILITY = "max_volatility"
    LOSS_COOLDOWN = "loss_cooldown"
    ORDERS_PER_HOUR = "orders_per_hour"
    ORDERS_PER_DAY = "orders_per_day"
    UNPROTECTED = "unprotected"
    EXIT_PAUSE = "exit_pause"
    # Limits that cut an increase to what is left of them.
    FLIP_TIME = "flip_time"
    TURNOVER = "turnover_per_day"
    ORDER_NOTIONAL = "max_order_notional"
    # Limits that force a reduction.
    LIMIT_EXCEEDED = "limit_exceeded"
    GROSS_EXCEEDED = "gross_exceeded"
    NET_EXCEEDED = "net_exceeded"
    # Exits: they close the position.
    TIME_STOP = "time_stop"
    TAKE_PROFIT = "take_profit"
    STOP_UNFILLED = "stop_unfilled"
    LIQUIDATED = "liquidated"
    # Halts.
    HALT_DAILY_LOSS = "halt_daily_loss"
    HALT_DRAWDOWN = "halt_drawdown"
    HALT_ORDERED = "halt_ordered"
    HALT_NO_EQUITY = "halt_no_equity"


HALTS = frozenset({Reason.HALT_DAILY_LOSS, Reason.HALT_DRAWDOWN, Reason.HALT_ORDERED, Reason.HALT_NO_EQUITY})
"""The reasons that flatten whatever the forecast says, and before there is one."""

FLATTENING = (
    Reason.NOT_READY,
    Reason.PARITY_UNPROVED,
    Reason.STALE_DATA,
    Reason.PRICE_FENCE,
    Reason.FEATURE_RANGE,
    Reason.VOLATILITY,
    Reason.LOSS_COOLDOWN,
    Reason.INTERVAL_TOO_WIDE,
)
"""The limits that forbid an increase, and flatten instead where ``limits.flatten_on`` names them."""

EXITS = frozenset({Reason.TIME_STOP, Reason.TAKE_PROFIT, Reason.STOP_UNFILLED, Reason.LIQUIDATED})
"""The reasons that close a position whatever the forecast says; the next bar may open another."""

RATES = frozenset({Reason.ORDERS_PER_HOUR, Reason.ORDERS_PER_DAY})
"""The limits that forbid to send what adds to a position; orders that were sent before go on."""

_BLOCKS = (Reason.ORDERS_PER_HOUR, Reason.ORDERS_PER_DAY, Reason.UNPROTECTED, Reason.EXIT_PAUSE)
NO_INCREASE = frozenset({*FLATTENING, *_BLOCKS})
"""The limits during which no order may add to a position."""
