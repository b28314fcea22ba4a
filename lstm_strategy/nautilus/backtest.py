"""A backtest: the strategy over the catalog through the engine, and what it leaves on disk."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from nautilus_trader.trading.config import ImportableStrategyConfig

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_folder
from lstm_strategy.bars import Bars, Timeframe, format_ns
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.decision_log import gather
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.forecast import Forecasts
from lstm_strategy.nautilus.bar_path import path_module, path_quotes
from lstm_strategy.nautilus.carry import Carried, carried, carry_module
from lstm_strategy.nautilus.catalog import bar_type, read_catalog, read_engine_instrument
from lstm_strategy.nautilus.current import require_current
from lstm_strategy.nautilus.engine import EngineInstrument
from lstm_strategy.nautilus.fills import open_quotes
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.simulation import Simulation, simulate
from lstm_strategy.nautilus.source import Source, of_artefact, of_schedule, on_disk
from lstm_strategy.nautilus.summary import sum_up
from lstm_strategy.nautilus.tables import fills_table, orders_table, positions_table
from lstm_strategy.nautilus.tearsheet import write_tearsheet
from lstm_strategy.schedule import Schedule, require_same_bars
from lstm_strategy.sources.funding import Funding, funding_path, read_funding
from lstm_strategy.sources.store import RawStore

__all__ = ["BacktestRun", "BacktestSettings", "Traded", "run_backtest", "trade"]


class BacktestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Parameters
    ----------
    catalog : Path
        The catalog's folder.
    model : Path or Schedule
        The artefact's folder (``models/<name>/<version>``), or which model speaks when.
    costs : Costs
        Charged by the venue (the fee on every fill, half the spread and the slippage in every price) and known to the
        decisions.
    exits, execution
        With an exit that rests at the venue, or orders other than market orders, fills happen inside bars (see
        `bar_path`).
    charged : Costs, optional
        What the venue charges, where it is not what the decisions count on.
    start, end : int, optional
        Nanoseconds: bars with ``start < ts_close <= end`` are traded, earlier ones warm the model up. All where None.
    cash : float
        Starting balance in quote currency.
    delay : int
        0 fills a decision at the next bar's open, n moves the fill n bars on. With any delay, purchases on a cash
        account leave a larger reserve (see `Desk`); a jump beyond it overdraws the account all the same, as the
        summary's ``lowest_cash`` shows.
    volume_share : float
        The part of a bar's volume offered at its open; what an order takes beyond it fills one tick worse.
    funding : bool
        Whether a perpetual pays and earns the funding rates that lie beside its bars; the notes say for which days.
    borrow : float
        Interest a year on the value of coins sold short on margin, charged at the end of each UTC day.
    maintenance : float
        Margin that a venue asks for while a position is held, as a fraction of its value: the summary says when a
        margin account would have been liquidated.
    run_folder : Path, optional
        Where the results go; it must not exist yet. Nothing is written where None.
    tearsheet : bool
        Whether the engine's own tearsheet is drawn into the run folder (takes seconds; left out without plotly).
    """

    catalog: Path
    instrument_id: str
    timeframe: str
    model: Path | Schedule
    sizing: SizingConfig = msgspec.field(default_factory=SizingConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    costs: Costs = msgspec.field(default_factory=Costs)
    exits: ExitsConfig = msgspec.field(default_factory=ExitsConfig)
    execution: ExecutionConfig = msgspec.field(default_factory=ExecutionConfig)
    charged: Costs | None = None
    start: int | None = None
    end: int | None = None
    cash: float = 100_000.0
    account: Literal["cash", "margin"] = "cash"
    delay: int = 0
    volume_share: float = 0.25
    funding: bool = True
    borrow: float = 0.0
    maintenance: float = 0.05
    run_folder: Path | None = None
    tearsheet: bool = True

    @property
    def inside_bars(self) -> bool:
        """Whether orders may rest at the venue while a bar goes by."""
        return self.exits.resting or self.execution.mode != "market"

    def __post_init__(self) -> None:
        if not 0.0 < self.cash < math.inf:
            raise LSTMStrategyError(f"backtest.cash is {self.cash}; it must be above 0")
        if self.delay < 0:
            raise LSTMStrategyError(f"backtest.delay is {self.delay}; it must be 0 or above")
        if not 0.0 < self.volume_share <= 1.0:
            raise LSTMStrategyError(f"backtest.volume_share is {self.volume_share}; it must be above 0, at most 1")
        if not 0.0 <= self.borrow < 10.0:
            raise LSTMStrategyError(f"backtest.borrow is {self.borrow}; it must be a yearly rate such as 0.1")
        if not 0.0 <= self.maintenance < 1.0:
            raise LSTMStrategyError(f"backtest.maintenance is {self.maintenance}; it must be 0 or above, below 1")
        if self.account == "margin" and self.limits.max_exposure * self.maintenance >= 1.0:
            raise LSTMStrategyError(
                f"limits.max_exposure is {self.limits.max_exposure}; with backtest.maintenance {self.maintenance} a"
                f" venue would liquidate at {1.0 / self.maintenance:g} times equity: lower one of them"
            )
        if self.limits.side == "long_short" and self.account == "cash":
            raise LSTMStrategyError('limits.side is "long_short", but a cash account cannot short; use margin')


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
    log = _log_folder(settings)
    traded = trade(settings, log)
    rows, tables = (traded.record, traded.forecasts, traded.tables), traded.tables
    of_run = (traded.source, traded.instrument, traded.bars, *rows)
    summary = sum_up(
        *of_run,
        cash=settings.cash,
        account=settings.account,
        maintenance=settings.maintenance,
        funding_known=traded.funding_known,
    ) | {
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
    timeframe = Timeframe.parse(settings.timeframe)
    model = settings.model
    source = of_schedule(model) if isinstance(model, Schedule) else of_artefact(artefact.load(model))
    instrument = read_engine_instrument(settings.catalog, settings.instrument_id)
    if settings.account == "cash" and from_engine(instrument).kind == "perpetual":
        raise LSTMStrategyError(f'{settings.instrument_id} is a perpetual; it needs backtest.account = "margin"')
    held = read_catalog(settings.catalog, settings.instrument_id, timeframe)
    require_current(settings.catalog, held)
    if isinstance(model, Schedule):
        require_same_bars(model, held)
        if model.recorded is not None and settings.limits.feature_range is not None:
            raise LSTMStrategyError(
                f"limits.feature_range is {settings.limits.feature_range}, but recorded forecasts come without"
                ' features; leave it out, or let the models step with model.forecasts = "stepped"'
            )
    bars = _span(settings, held)
    charged = settings.charged or settings.costs
    quotes = open_quotes(
        bars, instrument, spread=charged.spread, slippage=charged.slippage, volume_share=settings.volume_share
    )
    rates = _funding(settings, instrument)
    modules = _carry(settings, instrument, rates)
    if settings.inside_bars:
        inside = path_quotes(bars, instrument, settings.volume_share)
        quotes = sorted([*quotes, *inside], key=lambda quote: int(quote.ts_init))
        modules += (path_module(timeframe.ns, charged.spread / 2.0 + charged.slippage),)
    with on_disk(model) as path:
        simulation = Simulation(
            catalog=settings.catalog,
            bar_type=bar_type(settings.instrument_id, timeframe),
            instrument=instrument,
            quotes=quotes,
            strategy=_strategy(settings, path, timeframe, log),
            # The first bar's open is part of the run.
            start=int(bars.ts_close[0]) - timeframe.ns if settings.start is None else settings.start,
            end=int(bars.ts_close[-1]),
            cash=settings.cash,
            account=settings.account,
            delay_ns=settings.delay * timeframe.ns,
            fee=charged.fee,
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
            lowest_cash, carry = _lowest_cash(engine, instrument, settings.cash), carried(engine.cache)
    known = None if rates is None else (int(rates.ts[0]), int(rates.ts[-1]))
    return Traded(source, instrument, bars, record, forecasts, tables, lowest_cash, carry, known)


def _span(settings: BacktestSettings, bars: Bars) -> Bars:
    span = bars.between(settings.start, settings.end)
    if len(span) < 2:
        raise LSTMStrategyError(
            f"{settings.instrument_id} {settings.timeframe}: the catalog has {len(span)} bars in the backtest's span;"
            f" it holds {format_ns(bars.ts_close[0])} to {format_ns(bars.ts_close[-1])}"
        )
    return span


def _log_folder(settings: BacktestSettings) -> Path | None:
    """Where decisions are logged while the run goes on; what a killed one left there is never overwritten."""
    if settings.run_folder is None:
        return None
    folder = settings.run_folder.with_name(settings.run_folder.name + ".decisions")
    if folder.exists():
        raise LSTMStrategyError(
            f"{folder} is left from a run that did not finish: `lstm-strategy explain` reads it; remove it or choose"
            " another name"
        )
    return folder


def _strategy(
    settings: BacktestSettings, model: Path, timeframe: Timeframe, log: Path | None
) -> ImportableStrategyConfig:
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
            "exits": msgspec.to_builtins(settings.exits),
            "execution": msgspec.to_builtins(settings.execution),
            "delay_bars": settings.delay,
            "refill_holes": False,  # the catalog holds all that there is
            "record": True,
            "decision_log": None if log is None else str(log),
        },
    )


def _funding(settings: BacktestSettings, instrument: EngineInstrument) -> Funding | None:
    """The rates of a perpetual, where they are wanted and there are any."""
    store = RawStore(settings.catalog)
    if not settings.funding or from_engine(instrument).kind != "perpetual":
        return None
    return read_funding(store, settings.instrument_id) if funding_path(store, settings.instrument_id).exists() else None


def _carry(settings: BacktestSettings, instrument: EngineInstrument, rates: Funding | None) -> tuple[Any, ...]:
    borrow = settings.borrow if from_engine(instrument).kind == "spot" else 0.0
    if rates is None and not borrow:
        return ()
    ts, rate = ([], []) if rates is None else (rates.ts.tolist(), rates.rate.tolist())
    return (carry_module(instrument, ts, rate, borrow),)


def _lowest_cash(engine: Any, instrument: EngineInstrument, cash: float) -> float:
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
