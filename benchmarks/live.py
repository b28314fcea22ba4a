"""Live: inside a running node, from a bar's bytes to the order; and the bars of one minute of a hundred instruments."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
from nautilus_trader.adapters.binance.data import BinanceCommonDataClient
from nautilus_trader.data.engine import DataEngine

from benchmarks.common import Figure, fitted, progress, report
from lstm_strategy import artefact
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.live_config import LiveConfig
from lstm_strategy.nautilus import paper_venue
from lstm_strategy.nautilus.adapters import ADAPTERS
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.engine import EngineBar
from lstm_strategy.nautilus.feed import Feed
from lstm_strategy.nautilus.live import NodeRun, run_node
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.rehearsal import Rehearsal
from lstm_strategy.nautilus.status import Observers
from lstm_strategy.nautilus.strategy import LSTMStrategy
from lstm_strategy.portfolio import PortfolioConfig
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore

__all__ = ["run"]

_PAST, _ALONE, _TOGETHER, _NAMES = 6_000, 1_200, 60, 100
_FIRST = 50  # bars that do not count: what is imported, compiled and cached is there after them
_ALONE_P50_MS, _ALONE_P99_MS, _TOGETHER_MS = 1.0, 5.0, 100.0
_CLOSED = re.compile(rb'"T":(\d+).*"x":true')
_COSTS = Costs(fee=0.0001)
# The whole way at each bar: the target moves with the forecast, and every move is an order.
_EACH_BAR = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.2, no_trade_band=0.0, tilt=0.0)
_LOOSE = LimitsConfig(daily_loss=1.0, max_drawdown=1.0, max_gross=1.0)


@dataclass
class _Times:
    """Milliseconds by order, and by close for all its bars."""

    order: list[float] = field(default_factory=list)  # from the data engine's entry
    whole: list[float] = field(default_factory=list)  # from the bytes on: parsing, and the venue
    entered: float = math.nan
    forecast: list[float] = field(default_factory=list)
    # Handling, forecasts, bars, first and last moment, and of the handling what follows the data engine's entry.
    closes: dict[bytes, list[float]] = field(default_factory=dict)
    began: float = math.nan
    close: bytes = b""
    sent: bool = True


def run() -> list[Figure]:
    """The node of `paper --replay` with state folder, decision log and parity, on the default network."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_alone(Path(folder) / "one"), *_together(Path(folder) / "many")]


def _alone(folder: Path) -> list[Figure]:
    progress("live: one instrument")
    times = _run(_prepare(folder, 1, _ALONE))
    wall = np.array(times.order[_FIRST:])
    forecast = np.array(times.forecast[_FIRST:])
    told = f"bar at the data engine → order submitted, {len(wall):,} orders"
    whole50, whole99 = np.percentile(times.whole[_FIRST:], [50, 99]).tolist()
    p50, p99 = np.percentile(wall, [50, 99]).tolist()
    return [
        _figure(f"{told}, p50", p50, "features and inference in it", float(np.median(forecast)), _ALONE_P50_MS),
        _figure(f"{told}, p99", p99, "features and inference, p99", float(np.percentile(forecast, 99)), _ALONE_P99_MS),
        _figure("with the adapter's parsing and the paper venue's fills, p50", whole50, "p99", whole99),
    ]


def _together(folder: Path) -> list[Figure]:
    progress(f"live: {_NAMES} instruments")
    times = _run(_prepare(folder, _NAMES, _TOGETHER))
    whole = [values for values in times.closes.values() if values[2] == _NAMES][5:]
    wall, forecast, _, first, last, strategies = np.array(whole).T
    passed = (last - first) * 1e3
    told = f"{_NAMES} instruments' bars of one minute, handled and decided"
    return [
        _figure(f"{told}, p50", float(np.median(wall)), "in it", float(np.median(forecast)), _TOGETHER_MS),
        _figure(f"{told}, worst of {len(wall)}", float(wall.max()), "in it", float(forecast.max()), _TOGETHER_MS),
        _figure(
            "of it from the data engine on, as where a real venue fills: forecasts, decision, orders, p50",
            float(np.median(strategies)),
            "worst",
            float(strategies.max()),
        ),
        _figure(
            "the same from the first bar's bytes to the last order, the local exchange's own work in between, p50",
            float(np.median(passed)),
            "worst",
            float(passed.max()),
        ),
    ]


def _figure(name: str, value: float, rival: str, rival_value: float, most: float | None = None) -> Figure:
    target, met = ("", None) if most is None else (f"≤ {most:g} ms", value <= most)
    return Figure(name=name, value=value, unit="ms", rival=rival, rival_value=rival_value, target=target, met=met)


def _prepare(folder: Path, count: int, bars: int) -> NodeSettings:
    names = [f"COIN{number:03}USDT.BINANCE" for number in range(count)]
    store, model = RawStore(folder / "catalog"), Path()
    for number, name in enumerate(names):
        config = SimulationConfig(instrument_id=name, timeframe="1m", bars=_PAST + bars, seed=7 + number, edge=0.1)
        made, described = simulate(config), simulated_instrument(config)
        store.write_instrument(described)
        store.merge(made, replace=True)
        if not number:
            start = int(made.ts_close[_PAST - 1])
            model = _of_all(fitted(made[:_PAST], described, folder / "one"), names, folder / "models")
    members = tuple(
        BacktestSettings(
            catalog=folder / "catalog",
            instrument_id=name,
            timeframe="1m",
            model=model,
            sizing=_EACH_BAR,
            limits=_LOOSE,
            costs=_COSTS,
            start=start,
        )
        for name in names
    )
    (folder / "run").mkdir()
    return NodeSettings(
        members=members,
        portfolio=None if count == 1 else PortfolioConfig(),
        live=LiveConfig(),
        adapter=ADAPTERS["binance"],
        real=False,
        trader_id="BENCH-001",
        currency="USDT",
        run_folder=folder / "run",
        state_folder=folder / "state",
        rehearsal=Rehearsal(
            catalog=folder / "catalog", instrument_ids=tuple(names), timeframe="1m", start=start, speed=1e9
        ),
    )


def _of_all(fitted_on_one: Path, names: list[str], models: Path) -> Path:
    """Let a model of one instrument speak of all."""
    one = artefact.load(fitted_on_one)
    (fit,) = one.manifest.instruments.values()
    manifest = msgspec.structs.replace(one.manifest, instruments=dict.fromkeys(names, fit))
    return artefact.save(models, manifest, one.graph, (fitted_on_one / "weights.safetensors").read_bytes())


def _run(settings: NodeSettings) -> _Times:
    times = _Times()
    with _timed(times):
        asyncio.run(run_node(settings, Observers(), _nothing))
    return times


def _nothing(_run: NodeRun) -> None:
    gc.collect()


@contextmanager
def _timed(times: _Times) -> Iterator[None]:
    """Note when the adapter is given a bar's bytes, and when the strategy submits; the paper venue works in between."""
    receive, submit, take = BinanceCommonDataClient._handle_ws_message, LSTMStrategy.submit_order, Feed._take

    def since(began: float) -> float:
        return (time.perf_counter() - began) * 1e3

    class Entered(DataEngine):
        """The data engine as the paper venue hands bars to it."""

        @staticmethod
        def process(engine: Any, data: Any) -> None:
            began = time.perf_counter()
            if isinstance(data, EngineBar):
                times.entered = began
            DataEngine.process(engine, data)
            if isinstance(data, EngineBar):
                times.closes.setdefault(times.close, [0.0] * 6)[5] += since(began)

    def received(client: Any, raw: bytes) -> None:
        found = _CLOSED.search(raw)
        if found is None:
            receive(client, raw)
            return
        times.close, times.sent = found[1], False
        times.began = time.perf_counter()
        receive(client, raw)
        handled = since(times.began)
        of_close = times.closes.setdefault(times.close, [0.0] * 6)
        of_close[0] += handled
        of_close[2] += 1
        of_close[3:5] = of_close[3] or times.began, time.perf_counter()

    def submitted(strategy: Any, *given: Any, **more: Any) -> None:
        if not times.sent:
            times.order.append(since(times.entered))
            times.whole.append(since(times.began))
            times.sent = True
        submit(strategy, *given, **more)

    def taken(feed: Any, bar: Any, *, newest: bool) -> None:
        take(feed, bar, newest=newest)
        times.forecast.append(feed.took_s * 1e3)
        times.closes.setdefault(times.close, [0.0] * 6)[1] += feed.took_s * 1e3

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with (
        mock.patch.object(BinanceCommonDataClient, "_handle_ws_message", received),
        mock.patch.object(LSTMStrategy, "submit_order", submitted),
        mock.patch.object(Feed, "_take", taken),
        mock.patch.object(paper_venue, "DataEngine", Entered),
    ):
        yield


if __name__ == "__main__":
    report(run)
