"""Whether a live source stamps its bars at their close, as everything here takes for granted."""

from __future__ import annotations

from typing import Any

from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["require_stamped_at_close"]

_SHORTEST_NS = 60 * 10**9  # of shorter bars a slow network looks the same
_LATE = (0.9, 1.9)  # lengths of a bar: where the first bar of a source that stamps opens lies


def require_stamped_at_close(what: Any, ts_close: int, now: int, timeframe: Timeframe) -> None:
    """Refuse a source whose first live bar comes a whole bar after its stamp, before anything is decided on it.

    Some adapters stamp opens (Hyperliquid's is known to have: nautilus_trader issue 4711). Bars would count as closed
    while they form, and every day and hour of the limits would lie a bar off.

    Raises
    ------
    LSTMStrategyError
        Naming the stamp and the delay.
    """
    late = (now - ts_close) / timeframe.ns
    if timeframe.ns >= _SHORTEST_NS and _LATE[0] <= late <= _LATE[1]:
        raise LSTMStrategyError(
            f"{what}: the first bar, stamped {format_ns(ts_close)}, came {late:.1f} bars later: the adapter stamps"
            " opens, or lags; nothing is traded on such bars"
        )
