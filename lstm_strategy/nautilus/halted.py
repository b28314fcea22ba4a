"""The halts of a finished run as its summary tells them, from the rows, fills and charges that the engine left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lstm_strategy.bars import format_ns
from lstm_strategy.decision import HALTS, LimitsConfig
from lstm_strategy.halts import Charges, Fills, find_halts
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.reasons import Reason

__all__ = ["halts_told"]


def halts_told(
    records: dict[str, RunRecord],
    fills: pa.Table,
    charges: list[tuple[int, float]],
    limits: LimitsConfig,
    delay: int,
) -> list[dict[str, Any]]:
    """Return each halt of the account as plain values, stamps as text.

    Parameters
    ----------
    records : dict of RunRecord
        By name, all of the same closes.
    charges : list of (int, float)
        As `carry.charges` gives them, of all names.
    delay : int
        Bars by which fills are late.
    """
    first = next(iter(records.values()))
    reasons = [_reason([record.decisions[row].reason for record in records.values()]) for row in range(len(first))]
    rows = {name: row for row, name in enumerate(records)}
    price_ST = np.array([record.prices for record in records.values()])
    signs = np.where(pc.equal(fills["side"], "buy").to_numpy(zero_copy_only=False), 1.0, -1.0)
    due = sorted(charges)
    found = find_halts(
        first.ts_close,
        np.array(first.equities),
        reasons,
        price_ST,
        Fills(
            fills["ts_filled"].cast(pa.int64()).to_numpy(),
            np.array([rows[name] for name in fills["instrument"].to_pylist()], np.int64),
            fills["quantity"].to_numpy() * signs,
            fills["price"].to_numpy(),
            fills["fee"].to_numpy(),
            fills["ts_sent"].cast(pa.int64()).to_numpy(),
        ),
        Charges(np.array([ts for ts, _ in due], np.int64), np.array([paid for _, paid in due], np.float64)),
        limits,
        under_way=1 + delay,
    )
    return [
        halt.told()
        | {
            "ts_close": format_ns(halt.ts_close),
            "ts_flat": None if halt.ts_flat is None else format_ns(halt.ts_flat),
        }
        for halt in found
    ]


def _reason(reasons: list[Reason]) -> str:
    """Return the account's: halts are common to all its names."""
    return next((reason.value for reason in reasons if reason in HALTS), reasons[0].value)
