"""Recordings: markets for the replay, from a file, the catalog, or a simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.replay.market import Funding, Market
from lstm_strategy.sources.files import Stamp, commonest_step, read_columns, read_file, step_text
from lstm_strategy.sources.instruments import infer_instrument, on_grid
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore

__all__ = ["load_funding", "market_from_catalog", "market_from_file", "simulated_market"]


def market_from_file(
    path: Path, instrument_id: str, timeframe: Timeframe | None = None, *, stamp: Stamp = "open"
) -> Market:
    """Return the market of one file of bars, as `data import` would read it; without a timeframe its stamps tell."""
    if timeframe is None:
        step = commonest_step(read_columns(path, Timeframe.parse("1s"), stamp)["ts_close"])
        if step is None:
            raise LSTMStrategyError(f"{path}: one bar does not tell its timeframe; pass --timeframe")
        timeframe = Timeframe.parse(step_text(step))
    bars, _ = on_grid(read_file(path, instrument_id, timeframe, stamp))
    return Market(bars, infer_instrument(bars))


def market_from_catalog(root: Path, instrument_id: str, timeframe: Timeframe | None = None) -> Market:
    """Return the market that a catalog holds; without a timeframe its shortest bars."""
    store = RawStore(root)
    if timeframe is None:
        timeframe = next((length for name, length in store.entries() if name == instrument_id), Timeframe.parse("1h"))
    return Market(store.read(instrument_id, timeframe), store.read_instrument(instrument_id))


def simulated_market(config: SimulationConfig) -> Market:
    """Return a simulated market; a symbol that ends as a perpetual's, such as BTCUSDT-PERP, makes it one."""
    bars = simulate(config)
    inferred = infer_instrument(bars, tick=config.tick, lot=config.lot)
    return Market(bars, inferred if inferred.kind == "perpetual" else simulated_instrument(config))


def load_funding(path: Path) -> Funding:
    """Read funding rates from Parquet: a stamp in column ``ts``, a fraction in ``funding_rate``.

    Raises
    ------
    LSTMStrategyError
        One line naming the file.
    """
    try:
        table = pq.read_table(path, columns=["ts", "funding_rate"], partitioning=None)
        ts = np.asarray(table["ts"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()))
        rate = np.asarray(table["funding_rate"].cast(pa.float64()))
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise LSTMStrategyError(f"{path}: funding rates cannot be read ({first_line_of(error)})") from error
    if not (np.diff(ts) > 0).all() or not np.isfinite(rate).all():
        raise LSTMStrategyError(f"{path}: funding stamps must increase and rates be numbers")
    return Funding(ts, rate)
