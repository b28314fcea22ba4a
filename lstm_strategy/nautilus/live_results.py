"""What a node leaves in its run folder: the same tables, decisions and summary as a backtest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Bars
from lstm_strategy.decision_log import file_name, gather
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.carry import carried, charges
from lstm_strategy.nautilus.correlations import correlations_table
from lstm_strategy.nautilus.engine import InstrumentId
from lstm_strategy.nautilus.halted import halts_told
from lstm_strategy.nautilus.liquidation import liquidated
from lstm_strategy.nautilus.live import NodeRun
from lstm_strategy.nautilus.market import Market
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.panel_backtest import TradedPanel
from lstm_strategy.nautilus.panel_summary import account_table, sum_up_panel
from lstm_strategy.nautilus.source import of_artefact, of_schedule
from lstm_strategy.nautilus.summary import sum_up
from lstm_strategy.nautilus.tables import fills_table, orders_table, positions_table
from lstm_strategy.schedule import Schedule

__all__ = ["write_results"]

_FEWEST_BARS = 2


def write_results(settings: NodeSettings, run: NodeRun) -> dict[str, Any]:
    """Write what the node has done, and return its summary; a run of fewer than two bars leaves its log alone.

    Raises
    ------
    LSTMStrategyError
        Where the decision log is not whole: the disk refused it.
    """
    folder, records, cache = settings.run_folder, run.built.records, run.built.node.cache
    rows, dropped = min(one.total for one in records.values()), max(one.dropped for one in records.values())
    told: dict[str, Any] = {
        "mode": "live" if settings.real else "paper" if settings.rehearsal is None else "replay",
        "venue": settings.adapter.name,
        "trader_id": settings.trader_id,
        "ended": run.ended,
        "decisions": rows,
        "run_path": str(folder),
        "seconds": run.seconds,
    }
    if rows < _FEWEST_BARS:
        return told
    single = settings.portfolio is None
    one, *_ = records.values()
    first_ns = int(one.ts_close[0])
    markets = {member.instrument_id: _market(settings, member, cache, first_ns) for member in settings.members}
    older = settings.real or (run.built.venue is not None and run.built.venue.goes_on)
    cash = one.equities[0] if older or dropped else settings.shared.cash
    orders, venue = cache.orders(), run.built.venue
    sent = venue.exchange.sent if venue is not None and settings.rehearsal is not None else None
    decided = {order: price for record in records.values() for order, price in record.decided.items()}
    forecasts = {
        name: record.to_forecasts(markets[name].source.horizons, markets[name].source.levels)
        for name, record in records.items()
    }
    costs = {name: market.charged.per_side for name, market in markets.items()}
    (first, market), *_ = markets.items()
    tables = {
        "orders": orders_table(orders, sent),
        "fills": fills_table(orders, decided, sent),
        "positions": positions_table([*cache.positions(), *cache.position_snapshots()]),
        "equity": records[first].equity_table(cash, costs[first]) if single else account_table(records, cash, costs),
        "decisions": pa.concat_tables([record.decisions_table() for record in records.values()]),
        "forecasts": pa.concat_tables([markets[name].source.to_table(found) for name, found in forecasts.items()]),
    }
    if settings.portfolio is not None:
        seen = {name: market.bars for name, market in markets.items()}
        tables["correlations"] = correlations_table(
            tuple(records), run.built.strategy.correlations, seen, settings.portfolio
        )
    recent = tables["fills"].filter(pc.greater_equal(tables["fills"]["ts_filled"].cast(pa.int64()), first_ns))
    figured = tables | {"fills": recent} if dropped else tables
    lost, carry = liquidated(cache), {name: carried(cache, name) for name in markets}
    paid = [charge for name in markets for charge in charges(cache, name)]
    if single:
        rows_of = (market.bars, records[first], forecasts[first], figured)
        summary = sum_up(market.source, market.instrument, *rows_of, cash=cash, liquidations=lost)
        summary["carry"] = msgspec.to_builtins(carry[first])
    else:
        traded = TradedPanel(markets, records, carry, figured, cash, lost, paid)
        summary = sum_up_panel(traded, cash=cash, method=settings.portfolio.method if settings.portfolio else "")
    shared = settings.shared
    summary["halts_ordered"] = list(run.ordered)
    summary["halts"] = halts_told(records, tables["fills"], paid, shared.limits, shared.delay)
    if dropped:
        summary["notes"].append(
            f"Figures, equity and forecasts are of the last {len(one)} of {rows} bars, which is what a node keeps in"
            " memory; the decision log and the tables of orders, fills and positions are of all."
        )
    summary |= {"tearsheet": None} | told
    for name, table in tables.items():
        if name != "decisions":
            with atomic_write(folder / f"{name}.parquet") as temporary:
                pq.write_table(table, temporary, compression="zstd")
    _gather(folder, {name: record.total for name, record in records.items()}, single=single)
    with atomic_write(folder / "summary.json") as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    return summary


def _gather(folder: Path, rows: dict[str, int], *, single: bool) -> None:
    """Put the log's parts together, where a backtest has them."""
    for name, count in rows.items():
        parts = folder / "decisions" if single else folder / "decisions" / file_name(name)
        whole = folder / "decisions.parquet" if single else parts.with_name(parts.name + ".parquet")
        with atomic_write(whole) as temporary:
            gather(parts, temporary, count)
        shutil.rmtree(parts)


def _market(settings: NodeSettings, member: BacktestSettings, cache: Any, first_ns: int) -> Market:
    """Return one instrument as the summary asks for it, with the bars decided on from a close on."""
    model, name = member.model, member.instrument_id
    source = of_schedule(model) if isinstance(model, Schedule) else of_artefact(artefact.load(model))
    folder = settings.run_folder / "decisions"
    log = read_log(folder if settings.portfolio is None else folder / file_name(name))
    columns = [log.floats(column) for column in ("open", "high", "low", "price", "volume")]
    rows = np.isfinite(columns[0]) & (log.ts_close >= first_ns)  # where a name of several was absent there is no bar
    bars = Bars(name, settings.timeframe, log.ts_close[rows], *(column[rows] for column in columns))
    instrument = cache.instrument(InstrumentId.from_str(name))
    return Market(source, instrument, bars, member.charged or member.costs, [], (), None)
