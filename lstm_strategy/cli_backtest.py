"""The ``backtest`` command: a test span on the engine, what stands beside it, and how much costs and delays matter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe
from lstm_strategy.cli_jobs import Places, job_of, margin_told, new_run_folder, recorded_job
from lstm_strategy.cli_options import (
    CATALOG,
    MODELS,
    RUNS,
    CatalogOption,
    ExperimentArgument,
    JsonOption,
    ModelOption,
    ModelsOption,
    RunsOption,
    WorkersOption,
)
from lstm_strategy.cli_tables import print_backtest
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.schedule import Schedule

if TYPE_CHECKING:
    from lstm_strategy.nautilus.backtest import BacktestSettings
    from lstm_strategy.nautilus.grid import Job

__all__ = ["backtest_command", "run_experiment"]


def backtest_command(
    experiment: ExperimentArgument,
    instrument: Annotated[str | None, typer.Option(help="One of the experiment's; all on one account else.")] = None,
    model: ModelOption = None,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    runs: RunsOption = RUNS,
    in_sample: Annotated[bool, typer.Option("--in-sample", help="Allow bars that the model was trained on.")] = False,
    beside: Annotated[bool, typer.Option(help="Run simple rules beside it, on the same bars and costs.")] = True,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Run again at 5 multiples of the costs and 4 delays.")
    ] = False,
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Trade the experiment's test span on the NautilusTrader engine, and write tables and an HTML report.

    A decision at a bar's close is filled at the next bar's open, with the venue's fee, spread and slippage. With
    model.from = "walk_forward" each bar has the model that `evaluate` trained before it. Several instruments share one
    account, as portfolio says; name one with --instrument to trade it alone.

    [bold]Example[/bold]: lstm-strategy backtest backtests/btcusdt_1h.toml --sensitivity --workers 2
    """
    setup = load_experiment(experiment)
    flags = {"in_sample": in_sample, "beside": beside, "sensitivity": sensitivity}
    summary = run_experiment(setup, instrument, Places(catalog, models, runs, model), workers=workers, **flags)
    print_backtest(summary)
    if as_json:
        emit_json(summary)


def run_experiment(
    setup: Experiment,
    instrument: str | None,
    places: Places,
    *,
    in_sample: bool = False,
    beside: bool = True,
    sensitivity: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Backtest one instrument, or all on one account, and write the report.

    Returns
    -------
    dict
        The summary as it stands in the run folder.
    """
    from lstm_strategy.nautilus.backtest import run_backtest
    from lstm_strategy.nautilus.grid import members_of
    from lstm_strategy.nautilus.panel_backtest import PanelSettings, run_panel

    job, version = job_of(setup, instrument, places, in_sample=in_sample)
    folder = new_run_folder(places.runs / setup.name, version)
    job = msgspec.structs.replace(job, run_folder=folder)
    with console.status("the engine runs"):
        summary = run_panel(job).summary if isinstance(job, PanelSettings) else run_backtest(job).summary
    names = [member.instrument_id for member in members_of(job)]
    told: dict[str, Any] = {"margin": margin_told(setup, places.catalog, names)}
    if beside or sensitivity:
        job = recorded_job(job, folder / "forecasts.parquet")
    if beside:
        with console.status("the engine runs what stands beside it"):
            told |= {"beside": _beside(job, folder)}
    if sensitivity:
        told |= {"sensitivity": _sensitivity(job, workers)}
    return _report(summary, told, folder)


def _report(summary: dict[str, Any], told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put what was run beside into the run folder's summary, and write its page."""
    from lstm_strategy.report.page import write_report

    if told:
        summary |= told
        with atomic_write(folder / "summary.json") as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    with console.status("writing the report"):
        summary["report"] = str(write_report(folder))
    return summary


def _beside(job: Job, folder: Path) -> list[dict[str, Any]]:
    """Run the companions one after the other; keep their equity by bar, and say of each what came of it.

    Several instruments have each companion together; the best classical forecaster may be another for each of them.
    """
    from lstm_strategy.exits import ExitsConfig
    from lstm_strategy.nautilus.grid import members_of, with_members

    found: dict[str, list[BacktestSettings]] = {}
    with TemporaryDirectory(prefix="lstm-strategy-") as place:
        members = members_of(job)
        for number, member in enumerate(members):
            own = Path(place) / str(number)
            own.mkdir()
            for name, made in _companions(member, own).items():
                found.setdefault(name if len(members) == 1 else name.partition(":")[0], []).append(made)
        jobs = {}
        for name, same in found.items():
            exits = same[0].exits if all(made.exits == same[0].exits for made in same) else ExitsConfig()
            shared = [msgspec.structs.replace(made, sizing=same[0].sizing, exits=exits) for made in same]
            jobs[name] = with_members(job, shared)
        return _run_beside(jobs, folder)


def _companions(settings: BacktestSettings, place: Path) -> dict[str, BacktestSettings]:
    from lstm_strategy.nautilus.beside import companions
    from lstm_strategy.nautilus.catalog import read_catalog

    bars = read_catalog(settings.catalog, settings.instrument_id, Timeframe.parse(settings.timeframe))
    return companions(settings, cast("Schedule", settings.model), bars, place)


def _run_beside(jobs: Mapping[str, Job], folder: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lstm_strategy.nautilus.grid import run_job

    told: list[dict[str, Any]] = []
    lines: dict[str, Any] = {}
    for name, job in jobs.items():
        try:
            outcome = run_job(job)
        except LSTMStrategyError as error:
            told.append({"name": name, "error": str(error)})
            continue
        told.append({"name": name, "error": ""} | outcome.figures)
        lines |= {"ts_close": pa.array(outcome.ts_close, pa.timestamp("ns", "UTC")), name: outcome.equity}
    if lines:
        with atomic_write(folder / "beside.parquet") as temporary:
            pq.write_table(pa.table(lines), temporary, compression="zstd")
    return told


def _sensitivity(job: Job, workers: int) -> dict[str, Any]:
    """Run again over the recorded forecasts at other costs and delays: Sharpe ratios by multiple (row) and delay."""
    from lstm_strategy.nautilus.grid import DELAYS, MULTIPLES, run_grid, sensitivity_grid

    began = time.perf_counter()
    jobs = sensitivity_grid(job)
    with console.status("the engine runs again") as status:
        done: list[str] = []

        def on_done(name: str, _: object) -> None:
            done.append(name)
            status.update(f"the engine runs again: {len(done)} of {len(jobs)}")

        outcomes = run_grid(jobs, workers=workers, on_done=on_done)
    cells = [[outcomes[f"{multiple:g}/{delay}"].figures for delay in DELAYS] for multiple in MULTIPLES]
    return {
        "multiples": list(MULTIPLES),
        "delays": list(DELAYS),
        "sharpe": [[cell["sharpe"] for cell in row] for row in cells],
        "net_return": [[cell["net_return"] for cell in row] for row in cells],
        "seconds": time.perf_counter() - began,
    }
