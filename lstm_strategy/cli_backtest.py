"""The ``backtest`` command: a test span on the engine, what stands beside it, and how much costs and delays matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe, format_ns, parse_ns
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
    instrument_of,
    model_folder,
    model_of,
    warn_of_other_training,
)
from lstm_strategy.cli_tables import print_backtest
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.schedule import Schedule, newest_evaluation, walk_forward_schedule
from lstm_strategy.sources.store import RawStore

if TYPE_CHECKING:
    from lstm_strategy.nautilus.backtest import BacktestSettings
    from lstm_strategy.nautilus.grid import Outcome
    from lstm_strategy.nautilus.panel_backtest import PanelSettings

__all__ = ["backtest_command", "run_experiment", "run_panel_experiment", "settings_of"]


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
    if instrument is None and len(setup.data.instruments) > 1:
        summary = run_panel_experiment(setup, model, catalog, models, runs, **flags)
    else:
        name = instrument_of(setup, instrument)
        summary = run_experiment(setup, name, model, catalog, models, runs, workers=workers, **flags)
    print_backtest(summary)
    if as_json:
        emit_json(summary)


def run_experiment(
    setup: Experiment,
    instrument_id: str,
    model: str | None,
    catalog: Path,
    models: Path,
    runs: Path,
    *,
    in_sample: bool = False,
    beside: bool = True,
    sensitivity: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Backtest one instrument and write the report; return the summary as it stands in the run folder."""
    from lstm_strategy.nautilus.backtest import run_backtest

    settings, version = settings_of(setup, instrument_id, model, catalog, models, runs, in_sample=in_sample)
    folder = _run_folder(setup, version, runs)
    settings = msgspec.structs.replace(settings, run_folder=folder)
    with console.status("the engine runs"):
        summary = run_backtest(settings).summary
    told: dict[str, Any] = {}
    if beside:
        with console.status("the engine runs what stands beside it"):
            told |= {"beside": _beside(settings, folder)}
    if sensitivity:
        told |= {"sensitivity": _sensitivity(settings, folder, workers)}
    return _report(summary, told, folder)


def run_panel_experiment(
    setup: Experiment,
    model: str | None,
    catalog: Path,
    models: Path,
    runs: Path,
    *,
    in_sample: bool = False,
    beside: bool = True,
    sensitivity: bool = False,
) -> dict[str, Any]:
    """Backtest all instruments on one account and write the report; return the summary as it stands in the folder."""
    from lstm_strategy.nautilus.panel_backtest import PanelSettings, run_panel

    if sensitivity:
        raise LSTMStrategyError("--sensitivity runs one instrument over and over; name it with --instrument")
    pairs = [
        settings_of(setup, name, model, catalog, models, runs, in_sample=in_sample) for name in setup.data.instruments
    ]
    folder = _run_folder(setup, pairs[0][1], runs)
    settings = PanelSettings(members=tuple(member for member, _ in pairs), portfolio=setup.portfolio, run_folder=folder)
    with console.status("the engine runs"):
        summary = run_panel(settings).summary
    told: dict[str, Any] = {}
    if beside:
        with console.status("the engine runs what stands beside it"):
            told |= {"beside": _beside_panel(settings, folder)}
    return _report(summary, told, folder)


def _run_folder(setup: Experiment, version: str, runs: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return runs / setup.name / f"{stamp}-{version[-8:]}"


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


def settings_of(
    setup: Experiment,
    instrument_id: str,
    model: str | None,
    catalog: Path,
    models: Path,
    runs: Path,
    *,
    in_sample: bool = False,
) -> tuple[BacktestSettings, str]:
    """Return what an experiment's backtest runs, and the version that it runs on; refuse bars the model has seen."""
    from lstm_strategy.nautilus.backtest import BacktestSettings

    start, end = setup.split.spans()["test"]
    source: Path | Schedule
    if setup.model.source == "walk_forward" and model is None:
        source = _walk_forward(setup, instrument_id, runs)
        version = source.label
        start, end = source.turns[0].first - 1, source.turns[-1].last
    else:
        loaded = model_of(setup, models, model)
        loaded.require_instrument(instrument_id)
        source, version = model_folder(setup, models, model), loaded.manifest.version
        start = parse_ns(setup.backtest.start) if setup.backtest.start else start
        if not in_sample and (start is None or start < loaded.trained_until):
            begins, last = format_ns(start) if start else "the first bar", format_ns(loaded.trained_until)
            raise LSTMStrategyError(
                f"the backtest starts at {begins}, but model {loaded.label} was trained on bars up to {last}:"
                " its results would flatter; start later, or say --in-sample"
            )
    settings = BacktestSettings(
        catalog=catalog,
        instrument_id=instrument_id,
        timeframe=setup.data.timeframe,
        model=source,
        sizing=setup.sizing,
        calibration=setup.calibration,
        limits=setup.limits,
        exits=setup.exits,
        execution=setup.execution,
        costs=setup.costs.of(RawStore(catalog).read_instrument(instrument_id)),
        start=parse_ns(setup.backtest.start) if setup.backtest.start else start,
        end=parse_ns(setup.backtest.end) if setup.backtest.end else end,
        cash=setup.backtest.cash,
        account=setup.backtest.account,
        delay=setup.backtest.delay,
        funding=setup.backtest.funding,
        borrow=setup.backtest.borrow,
        maintenance=setup.backtest.maintenance,
        liquidation_fee=setup.backtest.liquidation_fee,
        participation=setup.backtest.participation,
    )
    return settings, version


def _walk_forward(setup: Experiment, instrument_id: str, runs: Path) -> Schedule:
    evaluation = newest_evaluation(runs, setup.name, setup.model.evaluation)
    recorded = setup.model.forecasts == "recorded"
    schedule = walk_forward_schedule(evaluation, instrument_id, seed=setup.model.seed, recorded=recorded)
    loaded = artefact.load(Path(str(schedule.turns[0].folder)))
    loaded.require(timeframe=setup.data.timeframe, features=setup.features)
    loaded.shrinkage(setup.sizing.horizon)
    warn_of_other_training(setup, loaded)
    return schedule


def _recorded(settings: BacktestSettings, folder: Path) -> Schedule:
    """Return what the finished run in ``folder`` forecast, to be said again without a network."""
    from lstm_strategy.nautilus.source import recorded_from

    model = settings.model if isinstance(settings.model, Schedule) else artefact.load(settings.model)
    return recorded_from(model, settings.instrument_id, folder / "forecasts.parquet")


def _beside(settings: BacktestSettings, folder: Path) -> list[dict[str, Any]]:
    """Run the companions one after the other; keep their equity by bar, and say of each what came of it."""
    from lstm_strategy.nautilus.grid import run_grid

    with TemporaryDirectory(prefix="lstm-strategy-") as place:
        jobs = _companions(settings, folder, Path(place))
        return _run_beside({name: partial(run_grid, {name: job}) for name, job in jobs.items()}, folder)


def _beside_panel(settings: PanelSettings, folder: Path) -> list[dict[str, Any]]:
    """Run each companion on all instruments at once; the best classical forecaster may be another for each."""
    from lstm_strategy.nautilus.grid import run_panel_job
    from lstm_strategy.nautilus.panel_backtest import PanelSettings

    members: dict[str, list[BacktestSettings]] = {}
    with TemporaryDirectory(prefix="lstm-strategy-") as place:
        for number, member in enumerate(settings.members):
            own = Path(place) / str(number)
            own.mkdir()
            for name, job in _companions(member, folder, own).items():
                members.setdefault(name.partition(":")[0], []).append(job)
        jobs = {}
        for name, found in members.items():
            same = [msgspec.structs.replace(job, sizing=found[0].sizing) for job in found]
            jobs[name] = partial(run_panel_job, name, PanelSettings(members=tuple(same), portfolio=settings.portfolio))
        return _run_beside(jobs, folder)


def _companions(settings: BacktestSettings, folder: Path, place: Path) -> dict[str, BacktestSettings]:
    from lstm_strategy.nautilus.beside import companions
    from lstm_strategy.nautilus.catalog import read_catalog

    bars = read_catalog(settings.catalog, settings.instrument_id, Timeframe.parse(settings.timeframe))
    return companions(settings, _recorded(settings, folder), bars, place)


def _run_beside(jobs: Mapping[str, Callable[[], dict[str, Outcome]]], folder: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    told: list[dict[str, Any]] = []
    lines: dict[str, Any] = {}
    for name, job in jobs.items():
        try:
            outcome = job()[name]
        except LSTMStrategyError as error:
            told.append({"name": name, "error": str(error)})
            continue
        told.append({"name": name, "error": ""} | outcome.figures)
        lines |= {"ts_close": pa.array(outcome.ts_close, pa.timestamp("ns", "UTC")), name: outcome.equity}
    if lines:
        with atomic_write(folder / "beside.parquet") as temporary:
            pq.write_table(pa.table(lines), temporary, compression="zstd")
    return told


def _sensitivity(settings: BacktestSettings, folder: Path, workers: int) -> dict[str, Any]:
    """Run again over the recorded forecasts at other costs and delays: Sharpe ratios by multiple (row) and delay."""
    from lstm_strategy.nautilus.grid import DELAYS, MULTIPLES, run_grid, sensitivity_grid

    began = time.perf_counter()
    jobs = sensitivity_grid(msgspec.structs.replace(settings, model=_recorded(settings, folder)))
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
