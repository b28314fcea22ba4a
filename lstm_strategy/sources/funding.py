"""Funding rates of a perpetual swap, as plain Parquet beside its bars; an as-of series for whoever wants one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Float, Stamps
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.sources.store import RawStore

__all__ = ["Funding", "funding_path", "keep_funding", "read_funding"]

_SCHEMA = pa.schema([("ts", pa.timestamp("ns", "UTC")), ("rate", pa.float64())])


class Funding(NamedTuple):
    """Funding rates in time order.

    Attributes
    ----------
    ts : int64 [N]
        When each was paid, ns UTC.
    rate : float64 [N]
        What longs paid to shorts, as a fraction of the position's value.
    ts_available : int64 [N]
        When each was known at the earliest: when it was paid. A bar that closes at that very nanosecond or later may
        use it.
    """

    ts: Stamps
    rate: Float
    ts_available: Stamps


def funding_path(store: RawStore, instrument_id: str) -> Path:
    """Return where the rates of an instrument lie, there or not."""
    return store.market_folder(instrument_id) / "funding.parquet"


def read_funding(store: RawStore, instrument_id: str) -> Funding:
    """Return all rates held.

    Raises
    ------
    LSTMStrategyError
        Where there are none, or the file is damaged.
    """
    path = funding_path(store, instrument_id)
    if not path.exists():
        raise LSTMStrategyError(
            f"catalog {store.root} holds no funding rates of {instrument_id}; get them with"
            " `lstm-strategy data download EXCHANGE SYMBOL --market swap --funding`"
        )
    try:
        table = pq.read_table(path, columns=["ts", "rate"], partitioning=None).cast(_SCHEMA)
        ts = np.asarray(table["ts"].cast(pa.int64()))
        rate = np.asarray(table["rate"])
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise LSTMStrategyError(f"{path} cannot be read ({first_line_of(error)}); remove it") from error
    if not (np.diff(ts) > 0).all() or not np.isfinite(rate).all():
        raise LSTMStrategyError(f"{path}: stamps must increase and rates be finite; remove it and download again")
    return Funding(ts, rate, ts)


def keep_funding(store: RawStore, instrument_id: str, ts: Stamps, rate: Float) -> int:
    """Add rates to those held, durable on return; return how many are new. A stamp held keeps its rate."""
    path = funding_path(store, instrument_id)
    if path.exists():
        held = read_funding(store, instrument_id)
        new = ~np.isin(ts, held.ts)
        every_ts, every_rate = np.concatenate([held.ts, ts[new]]), np.concatenate([held.rate, rate[new]])
    else:
        new = np.ones(len(ts), dtype=bool)
        every_ts, every_rate = ts, rate
    if new.any():
        order = np.argsort(every_ts, kind="stable")
        columns = [pa.array(every_ts[order]).cast(_SCHEMA.field("ts").type), pa.array(every_rate[order])]
        with atomic_write(path) as temporary:
            pq.write_table(pa.table(columns, schema=_SCHEMA), temporary, compression="zstd")
    return int(new.sum())
