"""The ``sweep`` command: a grid of policies over forecasts made once, and how far the best of them can be trusted."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe
from lstm_strategy.cli_evaluate import RayOption, WorkersOption
from lstm_strategy.cli_jobs import Places, job_of, recorded_job
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
)
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.formatting import fixed, percent
from lstm_strategy.measures import daily_returns
from lstm_strategy.overfitting import deflated_sharpe, moments, probabilistic_sharpe, probability_of_overfitting
from lstm_strategy.schedule import Schedule

if TYPE_CHECKING:
    from lstm_strategy.nautilus.backtest import BacktestSettings
    from lstm_strategy.nautilus.grid import Job, Outcome
    from lstm_strategy.policy_grid import Policy

__all__ = ["sweep_command"]

_BLOCKS, _SHOWN = 16, 20
# Of a backtest's settings what the results do not depend on, or what is told in another way.
_APART = ("catalog", "instrument_id", "model", "sizing", "limits", "exits", "execution", "run_folder", "tearsheet")


def sweep_command(
    experiment: ExperimentArgument,
    instrument: Annotated[str | None, typer.Option(help="One of the experiment's; all on one account else.")] = None,
    model: ModelOption = None,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    runs: RunsOption = RUNS,
    workers: WorkersOption = None,
    ray: RayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run every combination of the experiment's \\[sweep] over forecasts that are made once.

    \\[sweep] lists values by dotted key, such as "sizing.target_volatility" = \\[0.2, 0.35, 0.5]: of sizing, limits,
    exits and execution, and of portfolio where several instruments share the account. The best is judged as the best of
    many: deflated Sharpe ratio, probability of backtest overfitting. An interrupted sweep goes on where it was when the
    same command is run again. With --ray the settings are run on a cluster that shares no disc.

    [bold]Example[/bold]: lstm-strategy sweep backtests/btcusdt_1h.toml --workers 2
    """
    from lstm_strategy.nautilus.grid import members_of

    began = time.perf_counter()
    setup = load_experiment(experiment)
    if len(chosen := setup.policies(1 if instrument else None)) < 2:
        told = "[sweep] gives one setting alone" if setup.sweep else "there is no [sweep]"
        raise LSTMStrategyError(f'{experiment}: {told}; give values to compare, such as "sizing.tilt" = [0, 1]')
    job, _ = job_of(setup, instrument, Places(catalog, models, runs, model))
    folder = runs / setup.name / f"sweep-{_hash([_identity(job), setup.sizing.horizon])}"
    job, schedule = _forecasts(job, folder)
    jobs = {label: _with_policy(job, label, policy) for label, policy in chosen.items()}
    rows, hands = _run(jobs, chosen, folder, workers, ray)
    names = [member.instrument_id for member in members_of(job)]
    summary = _judge(rows, schedule.trials + setup.backtest.tried - 1) | {
        "name": setup.name,
        "instrument": names[0] if len(names) == 1 else None,
        "instruments": names,
        "model": schedule.label,
        "workers": hands,
        "ray": ray,
        "seconds": round(time.perf_counter() - began, 1),
        "path": str(folder / "summary.json"),
    }
    with atomic_write(folder / "summary.json") as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    _print(summary)
    if as_json:
        emit_json(summary)


def _with_policy(job: Job, label: str, policy: Policy) -> Job:
    """Return the job by another policy; what does not fit names the setting."""
    from msgspec.structs import replace

    from lstm_strategy.nautilus.grid import members_of, with_members
    from lstm_strategy.nautilus.panel_backtest import PanelSettings

    own = {name: getattr(policy, name) for name in ("sizing", "limits", "exits", "execution")}
    try:
        if isinstance(job, PanelSettings):  # at once: each part of it has to fit the others
            members = tuple(replace(member, **own) for member in job.members)
            return replace(job, members=members, portfolio=policy.portfolio, run_folder=None)
        return with_members(job, [replace(member, **own) for member in members_of(job)])
    except LSTMStrategyError as error:
        raise LSTMStrategyError(f"sweep, {label}: {error}") from None


def _identity_of(settings: BacktestSettings) -> list[Any]:
    from lstm_strategy.nautilus.catalog import read_catalog

    bars = read_catalog(settings.catalog, settings.instrument_id, Timeframe.parse(settings.timeframe))
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    data = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
    model = settings.model
    made = [artefact.load(model).manifest.digest] if isinstance(model, Path) else [turn.version for turn in model.turns]
    told: list[Any] = [settings.instrument_id, data, made]
    return [*told, *(getattr(settings, name) for name in settings.__struct_fields__ if name not in _APART)]


def _identity(job: Job) -> list[Any]:
    """What the results depend on, beside the policy: models, bars, costs, dates, account."""
    from lstm_strategy.nautilus.grid import members_of

    return [_identity_of(member) for member in members_of(job)]


def _forecasts(job: Job, folder: Path) -> tuple[Job, Schedule]:
    """Return the job on recorded forecasts, an evaluation's or those of one run that steps, made once and kept."""
    from lstm_strategy.nautilus.grid import forecasts_of, members_of

    path = folder / "forecasts.parquet"
    if not all(isinstance(member.model, Schedule) for member in members_of(job)) and not path.exists():
        with console.status("the models step once through the bars"):
            table = forecasts_of(job)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    job = recorded_job(job, path)
    return job, cast("Schedule", members_of(job)[0].model)


def _run(
    jobs: dict[str, Job], policies: dict[str, Policy], folder: Path, workers: int | None, ray: str | None
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return each setting's figures and daily returns, and how many worked; what a former run finished is read."""
    from lstm_strategy.nautilus.grid import members_of, run_grid

    paths = {label: folder / "settings" / f"{_hash(policies[label])}.parquet" for label in jobs}
    found = {label: _read(path) for label, path in paths.items()}
    waiting = {label: job for label, job in jobs.items() if found[label] is None}
    hands = workers or 1
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("settings", total=len(jobs), completed=len(jobs) - len(waiting))

        def on_done(label: str, outcome: Outcome) -> None:
            _write(paths[label], outcome, members_of(jobs[label])[0].cash)
            progress.advance(task)

        if ray is None:
            run_grid(waiting, workers=hands, on_done=on_done)
        elif waiting:
            hands = _run_away(waiting, workers, ray, on_done)
    rows = {label: _read(path) for label, path in paths.items()}
    return {label: row for label, row in rows.items() if row is not None}, hands


def _run_away(jobs: dict[str, Job], workers: int | None, ray: str, on_done: Callable[[str, Outcome], None]) -> int:
    """Run the jobs on a Ray cluster; return how many of them it runs at a time."""
    from lstm_strategy.nautilus.parcel import pack, run_away
    from lstm_strategy.research.parallel import Job as Task
    from lstm_strategy.research.parallel import open_pool, run_all

    files, sent = pack(jobs)
    with open_pool(files, workers, ray) as pool:
        console.print(f"working on {escape(pool.where)}", highlight=False, soft_wrap=True)
        tasks = [Task(label, run_away, (job,)) for label, job in sent.items()]
        run_all(pool, tasks, lambda done, total, task, outcome: on_done(task.label, outcome))
        return pool.size


def _write(path: Path, outcome: Outcome, cash: float) -> None:
    days, returns = daily_returns(outcome.ts_close, outcome.equity, cash)
    ruined = bool((outcome.equity <= 0.0).any())
    told = msgspec.json.encode(outcome.figures | {"ruined": ruined})
    with atomic_write(path) as temporary:
        pq.write_table(pa.table({"day": days, "return": returns}).replace_schema_metadata({"figures": told}), temporary)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        table = pq.read_table(path)
        figures = msgspec.json.decode((table.schema.metadata or {})[b"figures"], type=dict[str, Any])
    except (OSError, pa.ArrowException, KeyError, msgspec.MsgspecError):
        return None  # to be run
    return figures | {"day": table["day"].to_numpy(), "return": table["return"].to_numpy()}


def _judge(rows: dict[str, dict[str, Any]], trials: int) -> dict[str, Any]:
    """Return the settings, best Sharpe ratio first, and what being the best of so many is worth."""
    sound = {label: row for label, row in rows.items() if not row["ruined"]}
    found = {label: moments(row["return"]) for label, row in sound.items()}
    sharpes = [of.sharpe for of in found.values() if math.isfinite(of.sharpe)]
    variance = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else None
    trials = len(rows) + trials - 1  # the network was chosen among some as well
    table = []
    for label, row in rows.items():
        figures = {name: value for name, value in row.items() if name not in ("day", "return")}
        own = found.get(label)
        table.append({"setting": label} | figures | {"probabilistic_sharpe": own and probabilistic_sharpe(own)})
    table.sort(key=lambda row: -math.inf if row["sharpe"] is None else row["sharpe"], reverse=True)
    best = found.get(table[0]["setting"])
    crossed, why = None, ""
    try:
        days = min(len(row["day"]) for row in sound.values()) if sound else 0
        returns = np.column_stack([row["return"] for row in sound.values()]) if sound else np.empty((0, 0))
        crossed = probability_of_overfitting(returns, max(min(_BLOCKS, days // 4 * 2), 2))
    except LSTMStrategyError as error:
        why = str(error)
    return {
        "settings": table,
        "trials": trials,
        "ruined": len(rows) - len(sound),
        "deflated_sharpe": None if best is None else deflated_sharpe(best, trials, variance),
        "probability_of_overfitting": None if crossed is None else crossed.probability,
        "probability_of_loss": None if crossed is None else crossed.loss,
        "splits": None if crossed is None else crossed.splits,
        "missing": why,
    }


def _print(summary: dict[str, Any]) -> None:
    settings = summary["settings"]
    names = summary["instruments"]
    on = escape(names[0]) if len(names) == 1 else f"{len(names)} instruments, one account"
    title = f"{len(settings):,} settings on {on}, by Sharpe ratio after costs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    keys = [part.partition("=")[0] for part in settings[0]["setting"].split(" ")]
    short = [key.partition(".")[2] for key in keys]
    for key, name in zip(keys, short, strict=True):  # a horizon may be that of the sizing, or of the exits
        table.add_column(escape((name if short.count(name) == 1 else key).replace("_", " ")))
    for heading in ("net return", "Sharpe", "maximum drawdown", "orders", "turnover a year"):
        table.add_column(heading, justify="right")
    for row in settings[:_SHOWN]:
        values = [escape(part.partition("=")[2]) for part in row["setting"].split(" ")]
        shares = (percent(row["net_return"], signed=True), fixed(row["sharpe"]), percent(row["max_drawdown"]))
        table.add_row(*values, *shares, f"{row['orders']:,.0f}", fixed(row["turnover"], 1))
    console.print(table)
    if len(settings) > _SHOWN:
        console.print(f"and {len(settings) - _SHOWN:,} more")
    deflated, chance = summary["deflated_sharpe"], summary["probability_of_overfitting"]
    told = f"The best of {summary['trials']:,} trials: probability that its true Sharpe ratio is above zero (deflated)"
    console.print(f"{told} {percent(deflated)}.", highlight=False)
    if chance is None:
        console.print(f"No probability of overfitting: {escape(summary['missing'])}", highlight=False)
    else:
        lost = percent(summary["probability_of_loss"])
        console.print(
            f"Probability of backtest overfitting {percent(chance)}: in that share of {summary['splits']:,} splits the"
            f" best of one half was no better than the median on the other; it lost money there in {lost}.",
            highlight=False,
        )
    console.print(f"all settings: {escape(summary['path'])}", soft_wrap=True)


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:8]
