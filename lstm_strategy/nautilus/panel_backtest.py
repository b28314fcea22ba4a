"""A backtest of several instruments: one run of the engine, one account, and what it leaves on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from nautilus_trader.trading.config import ImportableStrategyConfig

from lstm_strategy.atomic import atomic_folder
from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.decision_log import file_name, gather
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.backtest import log_folder, lowest_cash_of
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.bar_path import path_module, path_quotes
from lstm_strategy.nautilus.carry import Carried, carried, charges
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.correlations import correlations_table
from lstm_strategy.nautilus.engine import QuoteTick
from lstm_strategy.nautilus.halted import halts_told
from lstm_strategy.nautilus.joint_quotes import LATE_NS, LATENCY_NS, OPENED_NS, joint_quotes
from lstm_strategy.nautilus.liquidation import Liquidated, liquidated
from lstm_strategy.nautilus.market import Market, open_market, venue_modules
from lstm_strategy.nautilus.panel_summary import account_table, sum_up_panel
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.simulation import Simulation, simulate
from lstm_strategy.nautilus.source import on_disk
from lstm_strategy.nautilus.tables import fills_table, orders_table, positions_table
from lstm_strategy.nautilus.tearsheet import write_tearsheet
from lstm_strategy.portfolio import PortfolioConfig, require_portfolio

__all__ = ["PanelRun", "PanelSettings", "TradedPanel", "panel_strategy_of", "run_panel", "trade_panel"]


class PanelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Parameters
    ----------
    members : tuple of BacktestSettings
        One an instrument. All but the instrument, its model, costs and maintenance is the same for all: one account,
        one span.
    portfolio : PortfolioConfig
        How they share the account. Its grace period is no time here: who is not there at a close never comes.
    run_folder, tearsheet
        As of a single instrument; those of the members are not looked at.
    """

    members: tuple[BacktestSettings, ...]
    portfolio: PortfolioConfig = msgspec.field(default_factory=PortfolioConfig)
    run_folder: Path | None = None
    tearsheet: bool = True

    def __post_init__(self) -> None:
        names = [member.instrument_id for member in self.members]
        if not names or len(set(names)) != len(names):
            raise LSTMStrategyError(f"a portfolio of {', '.join(names) or 'nothing'}; name each instrument once")
        first = self.members[0]
        for member in self.members:
            for name in BacktestSettings.__struct_fields__:
                if name not in _OWN and getattr(member, name) != getattr(first, name):
                    raise LSTMStrategyError(f"{member.instrument_id} has another {name} than {first.instrument_id}")
        require_portfolio(self.portfolio, first.sizing)

    @property
    def shared(self) -> BacktestSettings:
        """What is the same for all."""
        return self.members[0]


_OWN = ("instrument_id", "model", "costs", "charged", "maintenance", "run_folder", "tearsheet")


@dataclass(frozen=True, slots=True)
class TradedPanel:
    """What the engine left: by instrument its market, rows and carry; the account's tables and lowest balance."""

    markets: dict[str, Market]
    records: dict[str, RunRecord]
    carry: dict[str, Carried]
    tables: dict[str, pa.Table]
    lowest_cash: float
    liquidations: list[Liquidated]
    charges: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class PanelRun:
    """A finished run: its summary (plain values, NaN where undefined), rows by instrument, tables as written."""

    summary: dict[str, Any]
    records: dict[str, RunRecord]
    tables: dict[str, pa.Table]


def run_panel(settings: PanelSettings) -> PanelRun:
    """Run the strategy, score it, and write the run folder whole or not at all; raises as `run_backtest` does."""
    began = time.perf_counter()
    folder = settings.run_folder
    if folder is not None and folder.exists():
        raise LSTMStrategyError(f"{folder} exists already and is never overwritten; choose another name")
    log = log_folder(folder)
    traded = trade_panel(settings, log)
    tables, cash = traded.tables, settings.shared.cash
    summary = sum_up_panel(traded, cash=cash, method=settings.portfolio.method, tried=settings.shared.tried) | {
        "halts": halts_told(
            traded.records, tables["fills"], traded.charges, settings.shared.limits, settings.shared.delay
        ),
        "lowest_cash": traded.lowest_cash,
        "tearsheet": None,
        "run_path": None if folder is None else str(folder),
        "seconds": time.perf_counter() - began,
    }
    if folder is not None and log is not None:
        with atomic_folder(folder) as place:
            for name, table in tables.items():
                if name != "decisions":
                    pq.write_table(table, place / f"{name}.parquet", compression="zstd")
            (place / "decisions").mkdir()
            for name, record in traded.records.items():
                gather(log / file_name(name), place / "decisions" / f"{file_name(name)}.parquet", len(record))
            equity = tables["equity"]
            if settings.tearsheet and write_tearsheet(
                place / "tearsheet.html",
                f"{summary['name']} on {len(traded.markets)} instruments {summary['timeframe']}",
                equity["ts_close"].cast(pa.int64()).to_numpy(),
                equity["equity"].to_numpy(),
                equity["buy_and_hold"].to_numpy(),
                cash,
            ):
                summary["tearsheet"] = "tearsheet.html"
            (place / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
        shutil.rmtree(log)
    return PanelRun(summary, traded.records, tables)


def trade_panel(settings: PanelSettings, log: Path | None = None) -> TradedPanel:
    """Run the strategy through the engine; write nothing but the decision ``log``. Raises as `run_backtest` does."""
    shared = settings.shared
    markets = {member.instrument_id: open_market(member) for member in settings.members}
    first = next(iter(markets.values()))
    for what in ("venue", "quote currency"):
        found = {
            m.instrument.id.venue.value if what == "venue" else m.instrument.quote_currency.code
            for m in markets.values()
        }
        if len(found) > 1:
            raise LSTMStrategyError(f"a portfolio shares one {what}; its instruments have {', '.join(sorted(found))}")
    bar_ns = first.bars.timeframe.ns
    closes = np.unique(np.concatenate([market.bars.ts_close for market in markets.values()]))
    paths: dict[str, list[QuoteTick]] = {}
    inside: tuple[Any, ...] = ()
    if shared.inside_bars:
        for name, market in markets.items():
            paths[name] = path_quotes(market.bars, market.instrument, shared.volume_share, LATENCY_NS)
        away = {name: market.charged.spread / 2.0 + market.charged.slippage for name, market in markets.items()}
        inside = (path_module(bar_ns, away, LATENCY_NS, OPENED_NS),)
    types = [bar_type(name, first.bars.timeframe) for name in markets]
    with _on_disk(settings) as models:
        simulation = Simulation(
            catalog=shared.catalog,
            bar_type=types[0],
            others=tuple(types[1:]),
            instrument=first.instrument,
            quotes=joint_quotes(list(markets.values()), paths),
            inside_bars=shared.inside_bars,
            strategy=panel_strategy_of(settings, models, log),
            start=int(closes[0]) - bar_ns if shared.start is None else shared.start,
            end=int(closes[-1]) + LATE_NS + 1,  # the last close may have to wait for an absent name
            cash=shared.cash,
            account=shared.account,
            delay_ns=shared.delay * bar_ns,
            fee=first.charged.fee,
            fees={name: market.charged.fee for name, market in markets.items()},
            limits=shared.limits,
            liquidation_fee=shared.liquidation_fee,
            modules=(
                *(module for market in markets.values() for module in market.modules),
                *inside,
                *venue_modules(settings.members),
            ),
            latency_ns=LATENCY_NS,
        )
        with simulate(simulation) as engine:
            (strategy,) = engine.trader.strategies()
            if strategy.failure is not None:
                raise strategy.failure
            records: dict[str, RunRecord] = {name: seat.record for name, seat in strategy.seats.items()}
            rows = min(len(record) for record in records.values())
            if rows != len(closes):
                raise LSTMStrategyError(
                    f"the engine stopped after {rows} of {len(closes)} closes, before"
                    f" {format_ns(int(closes[min(rows, len(closes) - 1)]))}; the account was probably overdrawn"
                )
            orders = engine.cache.orders()
            positions = [*engine.cache.positions(), *engine.cache.position_snapshots()]
            decided = {order: price for record in records.values() for order, price in record.decided.items()}
            forecasts = [
                markets[name].source.to_table(
                    record.to_forecasts(markets[name].source.horizons, markets[name].source.levels)
                )
                for name, record in records.items()
            ]
            charged = {name: market.charged.per_side for name, market in markets.items()}
            tables = {
                "orders": orders_table(orders),
                "fills": fills_table(orders, decided),
                "positions": positions_table(positions),
                "equity": account_table(records, shared.cash, charged),
                "decisions": pa.concat_tables([record.decisions_table() for record in records.values()]),
                "forecasts": pa.concat_tables(forecasts),
                "correlations": correlations_table(
                    tuple(strategy.seats),
                    strategy.correlations,
                    {name: market.bars for name, market in markets.items()},
                    settings.portfolio,
                ),
            }
            lowest = lowest_cash_of(engine, first.instrument, shared.cash)
            lost = liquidated(engine.cache)
            paid = [charge for name in markets for charge in charges(engine.cache, name)]
            carry = {name: carried(engine.cache, name) for name in markets}
    return TradedPanel(markets, records, carry, tables, lowest, lost, paid)


@contextmanager
def _on_disk(settings: PanelSettings) -> Iterator[dict[str, Path]]:
    with ExitStack() as stack:
        yield {member.instrument_id: stack.enter_context(on_disk(member.model)) for member in settings.members}


def panel_strategy_of(settings: PanelSettings, models: dict[str, Path], log: Path | None) -> ImportableStrategyConfig:
    """Return the strategy of a panel's backtest; a node changes what differs for it."""
    shared = settings.shared
    timeframe = Timeframe.parse(shared.timeframe)
    members = [
        {
            "instrument_id": member.instrument_id,
            "bar_type": str(bar_type(member.instrument_id, timeframe)),
            "model": str(models[member.instrument_id]),
            "costs": msgspec.to_builtins(member.costs),
        }
        for member in settings.members
    ]
    return ImportableStrategyConfig(
        strategy_path="lstm_strategy.nautilus.portfolio_strategy:LSTMPortfolioStrategy",
        config_path="lstm_strategy.nautilus.portfolio_config:LSTMPortfolioStrategyConfig",
        config={
            "members": members,
            "portfolio": msgspec.to_builtins(msgspec.structs.replace(settings.portfolio, grace_s=0.0)),
            "sizing": msgspec.to_builtins(shared.sizing),
            "limits": msgspec.to_builtins(shared.limits),
            "calibration": msgspec.to_builtins(shared.calibration),
            "exits": msgspec.to_builtins(shared.exits),
            "execution": msgspec.to_builtins(shared.execution),
            "delay_bars": shared.delay,
            "refill_holes": False,  # the catalog holds all that there is
            "parity_every": shared.parity_every,
            "record": True,
            "decision_log": None if log is None else str(log),
        },
    )
