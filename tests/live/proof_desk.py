"""What the proofs share: simulated minutes, a model, an experiment, the node on the local exchange, and the verdicts.

The node is the one that `lstm-strategy paper --replay` runs, with the same settings; only faults, a registry to follow
or a look at its process are added from here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
from tiny_support import BTC

from lstm_strategy.artefact import load
from lstm_strategy.bars import Bars, Timeframe, format_ns, parse_ns
from lstm_strategy.cli_jobs import Places, settings_of
from lstm_strategy.cli_node import node_settings
from lstm_strategy.decision_log_reader import Log, read_logs
from lstm_strategy.experiment import load_experiment
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus import live
from lstm_strategy.nautilus.backtest import run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.live import NodeRun, run_node
from lstm_strategy.nautilus.live_results import write_results
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.panel_backtest import PanelSettings, run_panel
from lstm_strategy.nautilus.rehearsal import Rehearsal, Stage, rehearse
from lstm_strategy.nautilus.status import Decided, Observers
from lstm_strategy.replay.faults import NO_FAULTS, FaultPlan, Hit
from lstm_strategy.report.explain_diff import compare
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore

__all__ = [
    "BTC",
    "DAY",
    "HISTORY",
    "Desk",
    "Ran",
    "Verdict",
    "differences",
    "make_desk",
    "offline",
    "run",
    "same_bits",
]

DAY, HISTORY = 1_440, 2_000
_ANSWER_NS = 1_000_000_000  # of the wall, that an answer is waited for
_TINY = Path(__file__).resolve().parents[1] / "tiny_support.py"
MINUTE = Timeframe.parse("1m")
_BEGIN = "2024-01-01"
_CENTRE = -0.13  # of the means, in units of σ: the untrained network's lie on one side
_EXPERIMENT = """
name = "proof"
[data]
instruments = [{names}]
timeframe = "1m"
[split]
fit_end = 2020-06-01
stop_end = 2020-09-01
calibrate_end = {begin}
[target]
horizons = [1, 4]
[network]
hidden = 8
dropout = 0.0
[sizing]
mode = "mean_variance"
horizon = 1
kelly_fraction = 0.02
no_trade_band = 0.0
[costs]
fee = 0.0001
[limits]
max_exposure = {exposure}
orders_per_hour = {orders}
orders_per_day = {day}
turnover_per_day = 30.0
daily_loss = 0.03
max_drawdown = 0.9
max_stale_bars = 0
{more}
"""


class Verdict:
    """Figures and failures of one proof."""

    def __init__(self, name: str) -> None:
        self.name, self.began = name, time.perf_counter()
        self.figures: list[tuple[str, str]] = []
        self.failures: list[str] = []

    def figure(self, what: str, value: object) -> None:
        self.figures.append((what, f"{value:,}" if isinstance(value, int) else str(value)))

    def require(self, held: object, what: str) -> None:
        if not held:
            self.failures.append(what)


@dataclass(frozen=True)
class Desk:
    """A folder as a user has it: catalog, registry, experiment."""

    folder: Path
    names: tuple[str, ...]
    bars: dict[str, Bars]
    experiment: Path

    @property
    def start(self) -> int:
        return int(self.bars[self.names[0]].ts_close[HISTORY - 1])

    @property
    def model(self) -> Path:
        return self.folder / "models" / "tiny" / "1"

    def places(self) -> Places:
        return Places(self.folder / "catalog", self.folder / "models", self.folder / "runs", str(self.model))

    def backtest(self) -> tuple[dict[str, Any], Path]:
        """As the command does it, less report and tearsheet; returns summary and folder."""
        setup, folder = load_experiment(self.experiment), self.folder / "runs" / f"backtest-{time.time_ns()}"
        if len(self.names) == 1:
            settings, _ = settings_of(setup, self.names[0], self.places())
            settings = msgspec.structs.replace(settings, run_folder=folder, tearsheet=False)
            return run_backtest(settings).summary, folder
        pairs = [settings_of(setup, name, self.places()) for name in self.names]
        panel = PanelSettings(
            members=tuple(member for member, _ in pairs), portfolio=setup.portfolio, run_folder=folder, tearsheet=False
        )
        return run_panel(panel).summary, folder

    def settings(
        self,
        faults: FaultPlan = NO_FAULTS,
        *,
        bars: int | None = None,
        patience: float | None = None,
        speed: float = 1e9,
    ) -> NodeSettings:
        """What the node of `paper --replay` runs."""
        setup = load_experiment(self.experiment)
        made = node_settings(setup, None, self.places(), mode="replay", speed=speed, bars=bars)
        assert isinstance(made.rehearsal, Rehearsal)
        rehearsal = replace(made.rehearsal, faults=faults, patience=patience)
        return replace(made, rehearsal=rehearsal, run_folder=self.folder / "runs" / f"node-{time.time_ns()}")


def make_desk(
    folder: Path,
    bars: int,
    names: tuple[str, ...] = (BTC,),
    *,
    more: str = "",
    exposure: float = 0.5,
    orders: int = 4,
    seed: int = 5,
    versions: Sequence[dict[str, Any]] = (),
) -> Desk:
    """Simulate ``bars`` minutes after the history, and write all that a node needs.

    ``versions`` are those of the model besides the first, as `make_tiny` takes them.
    """
    made = {}
    store = RawStore(folder / "catalog")
    for number, name in enumerate(names):
        config = SimulationConfig(
            instrument_id=name,
            timeframe="1m",
            bars=HISTORY + bars,
            seed=seed + number,
            start=_BEGIN,
            regime_bars=2_000.0,
        )
        made[name], described = simulate(config), simulated_instrument(config)
        store.write_instrument(described)
        store.merge(made[name], replace=True)
        write_catalog(folder / "catalog", made[name], described)
    _make_models(folder, names, [{}, *versions])
    begin = format_ns(parse_ns(_BEGIN) + HISTORY * MINUTE.ns)
    quoted = ", ".join(f'"{name}"' for name in names)
    path = folder / "proof.toml"
    limits = {"exposure": exposure, "orders": orders, "day": 18 * orders}
    path.write_text(_EXPERIMENT.format(names=quoted, begin=begin, more=more, **limits))
    return Desk(folder, names, made, path)


def _make_models(folder: Path, names: tuple[str, ...], versions: list[dict[str, Any]]) -> None:
    """Make them in one process, and not in this one: torch would blur what is measured of it, and loads for seconds."""
    settings = {"timeframe": "1m", "instruments": names, "bars_per_year": 525_600.0, "centre": _CENTRE, "trust": 1.0}
    words = [json.dumps(settings | version) for version in versions]
    subprocess.run([sys.executable, _TINY, folder / "models", *words], check=True)


@dataclass
class Ran:
    """A node that has ended, and what its process was like meanwhile."""

    summary: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    injected: dict[str, int] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)  # the faults as they were injected
    seconds: float = 0.0
    decided: int = 0
    memory_early: float = 0.0  # MB
    memory_late: float = 0.0
    own_early: float = 0.0  # without the pages of files, libraries mostly
    own_late: float = 0.0
    tasks: tuple[int, int] = (0, 0)  # before and after
    sockets: tuple[int, int] = (0, 0)
    trouble: list[str] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    built: Any = None

    def log(self, name: str = "") -> Log:
        return read_logs(self.folder)[name or BTC]

    @property
    def first(self) -> int:
        """The close of the first bar that the forecaster took."""
        return self.firsts[0]

    def told(self) -> list[dict[str, Any]]:
        """What the nodes of this process have logged, warnings and worse: the engine keeps the first one's file."""
        lines = [
            msgspec.json.decode(line)
            for path in self.folder.parent.glob("node-*/node*.json*")
            for line in path.open("rb")
        ]
        return [line for line in lines if line.get("level") in ("WARN", "WARNING", "ERROR")]


class _Patient(Stage):
    """A stage that waits for answers as well: told in milliseconds, bars would else overtake those asked for earlier.

    At a bar a minute an answer is there long before the next bar. One that fails is waited for a second, once.
    """

    def __init__(self, stage: Stage, ran: Ran) -> None:
        super().__init__(stage.rehearsal, stage.server, stage.pace)
        object.__setattr__(self, "ran", ran)

    async def play(self, settled: Callable[[int, Sequence[str]], bool]) -> int:
        return await super().play(lambda close, names: settled(close, names) and not self._asked())

    def _asked(self) -> bool:
        strategy = self.ran.built.strategy
        now = strategy.clock.timestamp_ns()
        return any(now - ts < _ANSWER_NS for ts in strategy.feed.monitor._turns._since.values())


class _Watch:
    """Samples the memory after ``early`` decisions and at each after it; gives ``on_bar`` each decision."""

    def __init__(self, ran: Ran, early: int, on_bar: Callable[[Decided, Any], None] | None) -> None:
        self._ran, self._early, self._on_bar = ran, early, on_bar

    def on_started(self, built: Any) -> None:
        self._ran.built = built

    def on_decided(self, told: Decided) -> None:
        self._ran.decided += 1
        if self._ran.decided == self._early:
            self._ran.memory_early, self._ran.own_early = memory_mb()
        if self._on_bar is not None:
            self._on_bar(told, self._ran.built)

    def on_trouble(self, text: str) -> None:
        self._ran.trouble.append(text)


def run(
    settings: NodeSettings,
    *,
    early: int = 0,
    on_bar: Callable[[Decided, Any], None] | None = None,
    at_end: Any = None,
    patient: bool = False,
) -> Ran:
    """Run the node to the end of its replay; ``at_end`` is given the node before it is disposed of.

    ``patient``: the next bar is told when the venue has answered what it was asked.
    """
    ran = Ran(folder=settings.run_folder)
    settings.run_folder.mkdir(parents=True)
    stages: list[Stage] = []

    @asynccontextmanager
    async def rehearsing(rehearsal: Rehearsal) -> AsyncIterator[Stage]:
        async with rehearse(rehearsal) as stage:
            stages.append(stage)
            yield _Patient(stage, ran) if patient else stage

    def on_end(ended: NodeRun) -> None:
        ran.memory_late, ran.own_late = memory_mb()
        seats = getattr(ended.built.strategy, "seats", None)
        feeds = [ended.built.strategy.feed] if seats is None else [seat.feed for seat in seats.values()]
        ran.firsts = [feed._first_ts for feed in feeds]
        if at_end is not None:
            at_end(ended)
        ran.summary = write_results(settings, ended)

    async def work() -> None:
        ran.tasks, ran.sockets = (len(asyncio.all_tasks()), 0), (sockets(), 0)
        await run_node(settings, Observers([_Watch(ran, early, on_bar)]), on_end)
        ran.built = None
        gc.collect()
        for _ in range(40):  # sockets that were closed linger for a moment
            await asyncio.sleep(0.05)
            ran.tasks, ran.sockets = (ran.tasks[0], len(asyncio.all_tasks())), (ran.sockets[0], sockets())
            if ran.tasks[1] <= ran.tasks[0] and ran.sockets[1] <= ran.sockets[0]:
                break

    began = time.perf_counter()
    with mock.patch.object(live, "rehearse", rehearsing):
        asyncio.run(work())
    ran.seconds = time.perf_counter() - began
    book = stages[0].server.exchange.faults
    ran.injected, ran.hits = dict(book.injected), list(book.last)
    return ran


def sockets() -> int:
    """How many sockets this process holds."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process, after a collection; and without the pages of files, libraries mostly."""
    gc.collect()
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    whole, own = (int(found[name].split()[0]) * 1_024 / 1e6 for name in ("VmRSS", "RssAnon"))
    return whole, own


def differences(a: Path, b: Path, names: tuple[str, ...]) -> tuple[int, list[str]]:
    """Do as `explain --diff`: return the bars compared, and what differs, one line an instrument."""
    logs = [read_logs(path) for path in (a, b)]
    compared, found = 0, []
    for name in names:
        told = compare(logs[0][name], logs[1][name])
        compared += told.compared
        if told.stage is not None:
            found.append(f"{name} at {told.ts_close}: {told.stage}, {told.cells[:2]}, {told.bars}")
        found += [f"{name}: {note}" for note in told.notes]
    return compared, found


def same_bits(a: Any, b: Any) -> bool:
    """Say whether two arrays hold the same numbers to the last bit, NaN where NaN."""
    return a.shape == b.shape and bool(((a == b) | (np.isnan(a) & np.isnan(b))).all())


def offline(desk: Desk, first: int, name: str = BTC, model: Path | None = None) -> Any:
    """Raw quantiles [T, HQ] at the bars that are traded, of one pass from the bar closed at ``first`` on."""
    bars = desk.bars[name]
    forecaster = Forecaster(load(model or desk.model), name)
    _, raw_THQ, _ = forecaster.trace(bars[int(np.searchsorted(bars.ts_close, first)) :])
    count = len(bars) - HISTORY
    return raw_THQ[-count:].reshape(count, -1).astype(float)


logging.getLogger("asyncio").setLevel(logging.CRITICAL)
