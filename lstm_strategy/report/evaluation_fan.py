"""Fans of an evaluation: bands of the forecasts beside what came, in a stormy stretch and in the latest one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.report.calibration import Landed
from lstm_strategy.report.charts import FAN_BARS, draw_fan
from lstm_strategy.report.figures import Figure, make_axis

__all__ = ["INSTRUMENTS", "draw_fans"]

INSTRUMENTS = 8  # that a page has fans of: a figure takes some 30 kB
_COLUMNS = ["ts_close", "seed", "scale", "levels", "quantiles", "outcome"]


def draw_fans(path: Path, summary: dict[str, Any]) -> dict[str, dict[str, Figure]]:
    """Return, by "instrument horizon", the fans ``storm`` (of the highest σ) and ``recent``, 96 bars each.

    ``path`` is the evaluation's forecasts.parquet; the quantiles are the averages over its seeds. At most the first
    eight instruments are drawn.

    Raises
    ------
    LSTMStrategyError
        Where the table cannot be read.
    """
    found: dict[str, dict[str, Figure]] = {}
    for name in summary["instruments"][:INSTRUMENTS]:
        for horizon in summary["horizons"]:
            try:
                wanted = [("instrument", "=", name), ("horizon", "=", horizon)]
                table = pq.read_table(path, columns=_COLUMNS, filters=wanted)
            except (OSError, pa.ArrowException) as error:
                told = first_line_of(error)
                raise LSTMStrategyError(f"{path} cannot be read ({told}); evaluate again") from error
            if len(table):
                found[f"{name} {horizon}"] = _fans(table, horizon, summary["bar_ns"])
    return found


def _fans(table: pa.Table, horizon: int, bar_ns: int) -> dict[str, Figure]:
    levels = tuple(table["levels"][0].as_py())
    stamps = table["ts_close"].cast(pa.int64()).to_numpy()
    flat = table["quantiles"].combine_chunks().flatten().to_numpy()
    ts_T, row = np.unique(stamps, return_inverse=True)
    count_T = np.bincount(row)
    q_NQ = flat.reshape(-1, len(levels)).astype(np.float64)
    q_TQ = np.stack([np.bincount(row, column) for column in q_NQ.T], axis=1) / count_T[:, None]
    outcome_T, scale_T = np.full(len(ts_T), np.nan), np.zeros(len(ts_T))
    outcome_T[row] = table["outcome"].to_numpy(zero_copy_only=False)
    scale_T[row] = table["scale"].to_numpy()

    def fan(rows: slice) -> Figure:
        made_at, outcome = ts_T[rows], 100.0 * outcome_T[rows]
        landed = Landed(horizon, levels, made_at, made_at + horizon * bar_ns, 100.0 * q_TQ[rows], outcome)
        return draw_fan(landed, "outcome", make_axis(title="log return, %", tickformat="+.3~g", zeroline=True))

    known = np.flatnonzero(~np.isnan(outcome_T))
    last = int(known[-1]) + 1 if len(known) else len(ts_T)
    first = _stormiest(scale_T[:last])
    return {"storm": fan(slice(first, first + FAN_BARS)), "recent": fan(slice(max(last - FAN_BARS, 0), last))}


def _stormiest(scale_T: Float | npt.NDArray[np.floating]) -> int:
    """First row of the stretch with the highest mean σ."""
    width = min(FAN_BARS, len(scale_T))
    total = np.concatenate([[0.0], np.cumsum(scale_T)])
    return int((total[width:] - total[:-width]).argmax())
