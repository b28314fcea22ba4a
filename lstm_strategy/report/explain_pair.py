"""Two runs side by side: the bars that both have, and where their columns differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lstm_strategy.bars import Stamps
from lstm_strategy.decision_log import CONDITIONS
from lstm_strategy.decision_log_reader import Log

__all__ = ["OF_ORDER_ONE", "STAGES", "Pair"]

STAGES: dict[str, tuple[str, ...]] = {
    "bar": ("open", "high", "low", "price", "volume"),
    "features": ("features", "scale"),
    "forecast": ("raw", "quantiles", "forecast_position"),
    "state": (
        *("equity", "position", "exposure", "pending", "other_gross", "other_net"),
        "waiting",
        *(f"conditions.{field.name}" for field in CONDITIONS),
        *("risk.peak_equity", "risk.day_start_equity", "risk.daily_halt", "risk.drawdown_halt", "risk.ordered_halt"),
        *("risk.orders_hour", "risk.orders_day", "risk.turnover_day", "risk.losses", "risk.cooldown_until"),
        *("risk.side", "risk.side_since", "risk.fenced", "risk.stale"),
    ),
    "decision": ("target", "reason", "bound", "cancel_opening", "action", "quantity"),
}
"""What is compared, in the order of causation."""

OF_ORDER_ONE = (
    "features",
    "raw",
    "forecast_position",
    "exposure",
    "target",
    "pending",
    "other_gross",
    "other_net",
    "risk.turnover_day",
)
"""Columns whose tolerance is absolute below 1."""
_LISTS = ("features", "raw", "quantiles")
_TEXTS = ("reason", "bound", "action", *(f"conditions.{of.name}" for of in CONDITIONS if pa.types.is_string(of.type)))


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two logs, and the rows [T] of the bars that both have."""

    a: Log
    b: Log
    ts: Stamps
    rows_a: Stamps
    rows_b: Stamps
    tolerance: float

    def values(self, name: str) -> tuple[Any, Any]:
        """A column of both: float64 [T, K], or object [T, 1] of text."""
        found = []
        for log, rows in ((self.a, self.rows_a), (self.b, self.rows_b)):
            if name in _LISTS:
                found.append(log.matrix(name)[rows])
            elif name in _TEXTS:
                found.append(np.array(log.texts(name), object)[rows, None])
            else:
                found.append(log.floats(name)[rows, None])
        width = max(one.shape[1] for one in found)
        a, b = (
            one if one.shape[1] == width else np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=np.nan)
            for one in found
        )
        return a, b

    def differ(self, name: str, a: Any, b: Any) -> npt.NDArray[np.bool_]:
        """Where they do, [T, K]."""
        if name in _TEXTS:
            return np.asarray(a != b, bool)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if self.tolerance:
            size = np.maximum(np.abs(a), np.abs(b))
            unit = np.maximum(size, 1.0) if name in OF_ORDER_ONE else size
            same |= np.abs(a - b) <= self.tolerance * unit
        return np.asarray(~same)
