"""What a node leaves in its run folder: the same tables, decisions and summary as a backtest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.decision_log import gather
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.nautilus.carry import carried
from lstm_strategy.nautilus.engine import InstrumentId
from lstm_strategy.nautilus.liquidation import liquidated
from lstm_strategy.nautilus.live import NodeRun, NodeSettings
from lstm_strategy.nautilus.source import of_artefact, of_schedule
from lstm_strategy.nautilus.summary import sum_up
from lstm_strategy.nautilus.tables import fills_table, orders_table, positions_table
from lstm_strategy.schedule import Schedule

__all__ = ["write_results"]

_FEWEST_BARS = 2


def write_results(settings: NodeSettings, run: NodeRun) -> dict[str, Any]:
    """Write what the node has done, and return its summary; a run of fewer than two bars has its log alone."""
    trading, folder, record = settings.trading, settings.run_folder, run.strategy.record
    kind = "live" if settings.real else "replay" if settings.rehearsal is not None else "paper"
    told: dict[str, Any] = {"mode": kind, "ended": run.ended, "run_path": str(folder), "seconds": run.seconds}
    told |= {"trader_id": settings.trader_id, "venue": settings.adapter.name, "decisions": len(record)}
    if len(record) < _FEWEST_BARS:
        return told
    instrument = run.node.cache.instrument(InstrumentId.from_str(trading.instrument_id))
    source = (
        of_schedule(trading.model) if isinstance(trading.model, Schedule) else of_artefact(artefact.load(trading.model))
    )
    bars = _bars(folder, trading.instrument_id, Timeframe.parse(trading.timeframe))
    cash = trading.cash if not settings.real else record.equities[0]
    charged = trading.charged or trading.costs
    forecasts = record.to_forecasts(source.horizons, source.levels)
    orders = run.node.cache.orders()
    positions = [*run.node.cache.positions(), *run.node.cache.position_snapshots()]
    tables = {
        "orders": orders_table(orders),
        "fills": fills_table(orders, record.decided),
        "positions": positions_table(positions),
        "equity": record.equity_table(cash, charged.per_side),
        "decisions": record.decisions_table(),
        "forecasts": source.to_table(forecasts),
    }
    summary = sum_up(
        source,
        instrument,
        bars,
        record,
        forecasts,
        tables,
        cash=cash,
        liquidations=liquidated(run.node.cache),
    )
    summary |= {"carry": msgspec.to_builtins(carried(run.node.cache, trading.instrument_id)), "tearsheet": None} | told
    for name, table in tables.items():
        if name != "decisions":
            with atomic_write(folder / f"{name}.parquet") as temporary:
                pq.write_table(table, temporary, compression="zstd")
    with atomic_write(folder / "decisions.parquet") as temporary:
        gather(folder / "decisions", temporary, len(record))
    shutil.rmtree(folder / "decisions")
    with atomic_write(folder / "summary.json") as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    return summary


def _bars(folder: Path, instrument_id: str, timeframe: Timeframe) -> Bars:
    """Return the bars that were decided on, as the log has them."""
    log = read_log(folder)
    columns = [log.floats(name) for name in ("open", "high", "low", "price", "volume")]
    return Bars(instrument_id, timeframe, np.asarray(log.ts_close), *columns)
