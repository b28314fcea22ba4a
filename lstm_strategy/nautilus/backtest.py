"""A backtest: the strategy over the catalog through the engine, and what it leaves on disk."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from nautilus_trader.trading.config import ImportableStrategyConfig

from lstm_strategy.atomic import atomic_folder
from lstm_strategy.bars import Bars, Timeframe, format_ns
from lstm_strategy.decision_log import gather
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecasts
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.bar_path import path_module, path_quotes
from lstm_strategy.nautilus.carry import Carried, carried, charges
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.engine import EngineInstrument
from lstm_strategy.nautilus.halted import halts_told
from lstm_strategy.nautilus.liquidation import Liquidated, liquidated
from lstm_strategy.nautilus.market import open_market, venue_modules
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.simulation import Simulation, simulate
from lstm_strategy.nautilus.source import Source, on_disk
from lstm_strategy.nautilus.summary import sum_up
from lstm_strategy.nautilus.tables import fills_table, orders_table, positions_table
from lstm_strategy.nautilus.tearsheet import write_tearsheet

__all__ = [
    "BacktestRun",
    "BacktestSettings",
    "Traded",
    "log_folder",
    "lowest_cash_of",
    "run_backtest",
    "strategy_of",
    "trade",
]


@dataclass(frozen=True, slots=True)
class Traded:
    """What the engine left: the bars traded on, the strategy's rows, the tables, the lowest balance of any fill."""

    source: Source
    instrument: EngineInstrument
    bars: Bars
    record: RunRecord
    forecasts: Forecasts
    tables: dict[str, pa.Table]
    lowest_cash: float
    carry: Carried
    funding_known: tuple[int, int] | None
    liquidations: list[Liquidated] = field(default_factory=list)
    charges: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BacktestRun:
    """A finished run: its summary (plain values, NaN where undefined), its rows, and the tables as written."""

    summary: dict[str, Any]
    record: RunRecord
    forecasts: Forecasts
    tables: dict[str, pa.Table]


def run_backtest(settings: BacktestSettings) -> BacktestRun:
    """Run the strategy, score it, and write the run folder whole or not at all.

    Raises
    ------
    LSTMStrategyError
        For anything missing from the catalog, one that is not made from the raw bars beside it, a model that does not
        fit, a run folder that exists, a run that stopped before its last bar.
    Exception
        Whatever stopped the strategy, unchanged.
    """
    began = time.perf_counter()
    if settings.run_folder is not None and settings.run_folder.exists():
        raise LSTMStrategyError(f"{settings.run_folder} exists already and is never overwritten; choose another name")
    log = log_folder(settings.run_folder)
    traded = trade(settings, log)
    rows, tables = (traded.record, traded.forecasts, traded.tables), traded.tables
    of_run = (traded.source, traded.instrument, traded.bars, *rows)
    summary = sum_up(
        *of_run,
        cash=settings.cash,
        liquidations=traded.liquidations,
        funding_known=traded.funding_known,
        tried=settings.tried,
    ) | {
        "halts": halts_told(
            {settings.instrument_id: traded.record}, tables["fills"], traded.charges, settings.limits, settings.delay
        ),
        "carry": msgspec.to_builtins(traded.carry),
        "lowest_cash": traded.lowest_cash,
        "tearsheet": None,
        "run_path": None if settings.run_folder is None else str(settings.run_folder),
        "seconds": time.perf_counter() - began,
    }
    if settings.run_folder is not None and log is not None:
        with atomic_folder(settings.run_folder) as folder:
            for name, table in tables.items():
                if name != "decisions":
                    pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
            gather(log, folder / "decisions.parquet", len(traded.record))
            if settings.tearsheet and _tearsheet(summary, tables["equity"], settings.cash, folder):
                summary["tearsheet"] = "tearsheet.html"
            (folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
        shutil.rmtree(log)
    return BacktestRun(summary, traded.record, traded.forecasts, tables)


def trade(settings: BacktestSettings, log: Path | None = None) -> Traded:
    """Run the strategy through the engine; write nothing but the decision ``log``. Raises as `run_backtest` does."""
    market = open_market(settings)
    source, instrument, bars, charged = market.source, market.instrument, market.bars, market.charged
    timeframe, quotes, modules = bars.timeframe, market.quotes, market.modules
    modules += venue_modules([settings])
    if settings.inside_bars:
        inside = path_quotes(bars, instrument, settings.volume_share)
        quotes = sorted([*quotes, *inside], key=lambda quote: int(quote.ts_init))
        modules += (path_module(timeframe.ns, {settings.instrument_id: charged.spread / 2.0 + charged.slippage}),)
    with on_disk(settings.model) as path:
        simulation = Simulation(
            catalog=settings.catalog,
            bar_type=bar_type(settings.instrument_id, timeframe),
            instrument=instrument,
            quotes=quotes,
            strategy=strategy_of(settings, path, timeframe, log),
            # The first bar's open is part of the run.
            start=int(bars.ts_close[0]) - timeframe.ns if settings.start is None else settings.start,
            end=int(bars.ts_close[-1]),
            cash=settings.cash,
            account=settings.account,
            delay_ns=settings.delay * timeframe.ns,
            fee=charged.fee,
            liquidation_fee=settings.liquidation_fee,
            limits=settings.limits,
            modules=modules,
            inside_bars=settings.inside_bars,
        )
        with simulate(simulation) as engine:
            (strategy,) = engine.trader.strategies()
            if strategy.failure is not None:
                raise strategy.failure
            record: RunRecord = strategy.record
            if len(record) != len(bars):
                raise LSTMStrategyError(
                    f"the engine stopped after {len(record)} of {len(bars)} bars, before"
                    f" {format_ns(bars.ts_close[min(len(record), len(bars) - 1)])}; the account was probably overdrawn"
                )
            forecasts = record.to_forecasts(source.horizons, source.levels)
            orders = engine.cache.orders()
            positions = [*engine.cache.positions(), *engine.cache.position_snapshots()]
            tables = {
                "orders": orders_table(orders),
                "fills": fills_table(orders, record.decided),
                "positions": positions_table(positions),
                "equity": record.equity_table(settings.cash, charged.per_side),
                "decisions": record.decisions_table(),
                "forecasts": source.to_table(forecasts),
            }
            lowest_cash, carry = (
                lowest_cash_of(engine, instrument, settings.cash),
                carried(engine.cache, settings.instrument_id),
            )
            lost, paid = liquidated(engine.cache), charges(engine.cache, settings.instrument_id)
    known = market.funding_known
    return Traded(source, instrument, bars, record, forecasts, tables, lowest_cash, carry, known, lost, paid)


def log_folder(run_folder: Path | None) -> Path | None:
    """Return where decisions are logged while the run goes on; what a killed one left there is never overwritten."""
    if run_folder is None:
        return None
    folder = run_folder.with_name(run_folder.name + ".decisions")
    if folder.exists():
        raise LSTMStrategyError(
            f"{folder} is left from a run that did not finish: `lstm-strategy explain` reads it; remove it or choose"
            " another name"
        )
    return folder


def strategy_of(
    settings: BacktestSettings, model: Path, timeframe: Timeframe, log: Path | None
) -> ImportableStrategyConfig:
    """Return the strategy of an experiment's backtest; a node changes what differs for it."""
    return ImportableStrategyConfig(
        strategy_path="lstm_strategy.nautilus.strategy:LSTMStrategy",
        config_path="lstm_strategy.nautilus.strategy:LSTMStrategyConfig",
        config={
            "instrument_id": settings.instrument_id,
            "bar_type": str(bar_type(settings.instrument_id, timeframe)),
            "model": str(model),
            "sizing": msgspec.to_builtins(settings.sizing),
            "limits": msgspec.to_builtins(settings.limits),
            "costs": msgspec.to_builtins(settings.costs),
            "calibration": msgspec.to_builtins(settings.calibration),
            "exits": msgspec.to_builtins(settings.exits),
            "execution": msgspec.to_builtins(settings.execution),
            "delay_bars": settings.delay,
            "refill_holes": False,  # the catalog holds all that there is
            "parity_every": settings.parity_every,
            "record": True,
            "decision_log": None if log is None else str(log),
        },
    )


def lowest_cash_of(engine: Any, instrument: EngineInstrument, cash: float) -> float:
    """Return the lowest balance in quote currency that any fill left; below 0 the account was overdrawn."""
    events = engine.portfolio.account(instrument.id.venue).events
    totals = [float(b.total) for event in events for b in event.balances if b.currency == instrument.quote_currency]
    return min([cash, *totals])


def _tearsheet(summary: dict[str, Any], equity: pa.Table, cash: float, folder: Path) -> bool:
    """Draw the engine's own page; say whether there is one."""
    ts_close = equity["ts_close"].cast(pa.int64()).to_numpy()
    own, held = (equity[name].to_numpy() for name in ("equity", "buy_and_hold"))
    title = f"{summary['name']} on {summary['instrument']} {summary['timeframe']}"
    return write_tearsheet(folder / "tearsheet.html", title, ts_close, own, held, cash)
