"""Backtests: recorded forecasts beside a bare strategy that sends the same orders; a year of minutes stepped live."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from benchmarks.common import Figure, fitted, market, progress, report
from benchmarks.engine_rivals import Orders, bare, in_backtesting
from lstm_strategy.artefact import load
from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.backtest import BacktestSettings, Traded, trade
from lstm_strategy.nautilus.catalog import bar_type, read_engine_instrument, write_catalog
from lstm_strategy.nautilus.fills import open_quotes
from lstm_strategy.nautilus.simulation import Simulation, simulate
from lstm_strategy.nautilus.source import recorded_from
from lstm_strategy.sources.files import read_file
from lstm_strategy.sources.store import RawStore

__all__ = ["run"]

_HOURS, _MINUTES, _WINDOWED_MINUTES = 60_000, 525_520, 50_000
_COSTS = Costs(fee=0.0005, spread=0.0002, slippage=0.0001)
_LOOSE = LimitsConfig(daily_loss=1.0, max_drawdown=1.0)  # a halt would measure the shortest way through
_REAL_MINUTES = Path("crypto/BTCUSDT-1m.parquet")


def run() -> list[Figure]:
    """CPU seconds of this process, the catalog's reading and the engine's building included on every side."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_recorded(Path(folder) / "hours"), *_stepped(Path(folder) / "minutes")]


def _recorded(folder: Path) -> list[Figure]:
    progress("backtest: 60,000 hours on recorded forecasts")
    bars, instrument = market(_HOURS)
    settings = _prepare(folder, bars, instrument, SizingConfig(horizon=24, target_volatility=0.35, holding_bars=168))
    assert isinstance(settings.model, Path)
    artefact = load(settings.model)
    path = folder / "forecasts.parquet"
    pq.write_table(Forecaster(artefact, bars.instrument_id).run(bars).to_table(artefact.label), path)
    settings = msgspec.structs.replace(settings, model=recorded_from(artefact, bars.instrument_id, path))
    seconds, traded = _cpu(lambda: trade(settings, folder / "decisions"))
    orders = _orders(traded)
    rival, _ = _cpu(lambda: _run_bare(settings, traded, orders, folder))
    return [
        Figure(
            name=f"backtest, 60,000 hours, recorded forecasts, decision log, {len(orders):,} orders",
            value=seconds,
            unit="CPU s",
            rival="bare strategy, same orders",
            rival_value=rival,
            ratio=rival / seconds,
            target="≤ 1.5 × the bare one's",
            met=seconds <= 1.5 * rival,
        )
    ]


def _stepped(folder: Path) -> list[Figure]:
    bars, instrument = _minutes()
    progress(f"backtest: {len(bars):,} minutes of {instrument.id}, stepped")
    settings = _prepare(folder, bars, instrument, SizingConfig(horizon=24, target_volatility=0.35, holding_bars=10_080))
    seconds, traded = _cpu(lambda: trade(settings, folder / "decisions"))
    orders = _orders(traded)
    ours = len(bars) / seconds
    progress("backtest: the engine with nothing to do, with the same orders, with windows")
    assert isinstance(settings.model, Path)
    empty, _ = _cpu(lambda: _run_bare(settings, traded, {}, folder))
    same, _ = _cpu(lambda: _run_bare(settings, traded, orders, folder))
    some = replace(traded, bars=traded.bars[:_WINDOWED_MINUTES])
    windowed, _ = _cpu(lambda: _run_bare(settings, some, orders, folder, settings.model))
    other, trades = _cpu(lambda: in_backtesting(traded.bars, orders, settings.cash, _COSTS.fee))
    about = f"backtest, {len(bars):,} minutes stepped, decision log, {len(orders):,} orders"
    rivals = (
        ("engine, no strategy to speak of", len(bars) / empty, "", None),
        ("engine, bare strategy, same orders", len(bars) / same, "", None),
        ("engine, 64-bar windows in torch at each bar", len(some.bars) / windowed, "≥ 5 ×", 5.0),
        (f"backtesting.py, same orders, {trades:,} trades, no forecasts", len(bars) / other, "", None),
    )
    return [
        Figure(
            name=about,
            value=ours,
            unit="bars/CPU s",
            rival=rival,
            rival_value=rate,
            ratio=ours / rate,
            target=target,
            met=None if least is None else ours >= least * rate,
        )
        for rival, rate, target, least in rivals
    ]


def _prepare(folder: Path, bars: Bars, instrument: Instrument, sizing: SizingConfig) -> BacktestSettings:
    """Write catalog and model; the model is trained on the first bars, for its speed alone."""
    write_catalog(folder / "catalog", bars, instrument)
    store = RawStore(folder / "catalog")
    store.write_instrument(instrument)
    store.merge(bars, replace=True)
    model = fitted(bars[:12_000], instrument, folder / "models")
    return BacktestSettings(
        catalog=folder / "catalog",
        instrument_id=instrument.id,
        timeframe=bars.timeframe.text,
        model=model,
        sizing=sizing,
        limits=_LOOSE,
        costs=_COSTS,
        tearsheet=False,
    )


def _minutes() -> tuple[Bars, Instrument]:
    """Bitcoin's minutes of 2023 where they lie at hand, else as many simulated ones."""
    data = Path(os.environ.get("LSTM_STRATEGY_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (data / _REAL_MINUTES).is_file():
        return market(_MINUTES, "1m")
    instrument = Instrument(
        id="BTCUSDT.BINANCE",
        kind="spot",
        base="BTC",
        quote="USDT",
        tick="0.01",
        lot="0.00001",
        min_quantity="0.00001",
        min_notional=5.0,
        taker_fee=_COSTS.fee,
    )
    return read_file(data / _REAL_MINUTES, instrument.id, Timeframe.parse("1m"), "open"), instrument


def _orders(traded: Traded) -> Orders:
    rows = traded.record
    return {d.ts_close: q for d, q in zip(rows.decisions, rows.quantities, strict=True) if q}


def _run_bare(
    settings: BacktestSettings, traded: Traded, orders: Orders, folder: Path, windowed: Path | None = None
) -> None:
    """The same engine, catalog, quotes, fees and latency; only the strategy differs."""
    bars, instrument = traded.bars, read_engine_instrument(settings.catalog, settings.instrument_id)
    of_bars = bar_type(settings.instrument_id, bars.timeframe)
    quotes = open_quotes(
        bars, instrument, spread=_COSTS.spread, slippage=_COSTS.slippage, volume_share=settings.volume_share
    )
    simulation = Simulation(
        catalog=settings.catalog,
        bar_type=of_bars,
        instrument=instrument,
        quotes=quotes,
        strategy=bare(settings.instrument_id, of_bars, orders, folder, windowed),
        start=int(bars.ts_close[0]) - bars.timeframe.ns,
        end=int(bars.ts_close[-1]),
        cash=settings.cash,
        account=settings.account,
        delay_ns=0,
        fee=_COSTS.fee,
        limits=settings.limits,
    )
    with simulate(simulation) as engine:
        sent = len(engine.cache.orders())
        assert sent == sum(stamp <= int(bars.ts_close[-1]) for stamp in orders), sent


def _cpu[T](action: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    found = action()
    return time.process_time() - started, found


if __name__ == "__main__":
    report(run)
