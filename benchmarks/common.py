"""What every benchmark shares: the figure it returns, the clock, the table, and one small model to measure."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from lstm_strategy.artefact import Artefact, load
from lstm_strategy.bars import Bars
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, Spans, SplitConfig, TargetConfig, TrainConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

__all__ = [
    "Figure",
    "fitted",
    "market",
    "model",
    "print_table",
    "progress",
    "report",
    "seconds_of",
    "side_by_side",
    "spans_of",
]

_EDGE = 0.1


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure. ``ratio``: how many times better than the rival; ``met`` is null without a target."""

    name: str
    value: float
    unit: str
    rival: str = ""
    rival_value: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


def seconds_of(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def side_by_side(ours: Callable[[], object], rival: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median wall times of two calls taken in turns, after one call of each that does not count."""
    ours()
    rival()
    times = [(seconds_of(ours), seconds_of(rival)) for _ in range(repetitions)]
    return median(first for first, _ in times), median(second for _, second in times)


@cache
def market(bars: int, timeframe: str = "1h") -> tuple[Bars, Instrument]:
    """A simulated market with regimes, seasons and a small momentum."""
    config = SimulationConfig(bars=bars, timeframe=timeframe, seed=3, edge=_EDGE)
    return simulate(config), simulated_instrument(config)


def spans_of(bars: Bars) -> Spans:
    """Fit on the first 70 %, stop on the next 15 %, calibrate on the rest."""
    fit_end, stop_end, last = (int(bars.ts_close[int(share * (len(bars) - 1))]) for share in (0.7, 0.85, 1.0))
    return {"fit": (None, fit_end), "stop": (fit_end, stop_end), "calibrate": (stop_end, last), "test": (last, None)}


@cache
def model() -> Artefact:
    """An artefact of the package's default network and features; briefly trained, for its speed alone."""
    with tempfile.TemporaryDirectory() as folder:
        return load(fitted(*market(12_000), Path(folder)))


def fitted(bars: Bars, instrument: Instrument, folder: Path) -> Path:
    """Train that artefact on these bars, and return where it lies inside ``folder``."""
    from lstm_strategy.bars import format_ns
    from lstm_strategy.research.fit import fit_model

    ends = [format_ns(end or 0) for _, end in list(spans_of(bars).values())[:3]]
    split = SplitConfig(fit_end=ends[0], stop_end=ends[1], calibrate_end=ends[2])
    network, train = NetworkConfig(), TrainConfig(epochs=5)
    settings = (FeaturesConfig(), TargetConfig(), split, network, train)
    return fit_model("bench", [(bars, instrument)], *settings, folder).path


def print_table(figures: list[Figure]) -> None:
    """Print all figures as one table on standard output."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading, justify in (
        ("benchmark", "left"),
        ("figure", "right"),
        ("rival", "left"),
        ("its figure", "right"),
        ("times better", "right"),
        ("target", "left"),
        ("met", "left"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{_short(figure.value)} {figure.unit}",
            figure.rival,
            "" if figure.rival_value is None else f"{_short(figure.rival_value)} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.1f}",
            figure.target,
            {None: "", True: "yes", False: "NO"}[figure.met],
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    console.print(table)


def report(run: Callable[[], list[Figure]]) -> None:
    """Run one benchmark alone."""
    print_table(run())


def progress(text: str) -> None:
    """Say on standard error what is being measured."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
