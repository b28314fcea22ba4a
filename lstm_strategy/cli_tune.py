"""The ``tune`` command: search settings before the last test span, and write the experiment that won."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.cli_evaluate import RayOption, WorkersOption
from lstm_strategy.cli_options import CATALOG, RUNS, CatalogOption, ExperimentArgument, JsonOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.formatting import percent
from lstm_strategy.sources.store import RawStore

if TYPE_CHECKING:
    from lstm_strategy.research.tune import Tuned

__all__ = ["tune_command", "write_tuned"]

_SHOWN = 10  # trials in the table

TrialsOption = Annotated[
    int, typer.Option(min=1, max=100_000, help="Trials wanted in all, those made before included.")
]
TimeoutOption = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds after which no fold is begun.", show_default=False)
]
StorageOption = Annotated[
    str | None, typer.Option(help="A journal file, or an Optuna storage URL; a file below --runs where not given.")
]


def tune_command(
    experiment: ExperimentArgument,
    trials: TrialsOption = 50,
    timeout: TimeoutOption = None,
    workers: WorkersOption = None,
    ray: RayOption = None,
    storage: StorageOption = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the search; each trial draws from it.")] = 0,
    catalog: CatalogOption = CATALOG,
    runs: Annotated[Path, typer.Option("--runs", help="Folder that gets the studies.")] = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Search the settings that the experiment's \\[tune] section lets vary, by pinball loss out of sample.

    The folds end before the last test span, which is not looked at. The best settings are written to tuned.toml, an
    experiment like any other. The same command goes on with a study that was stopped; more --trials prolong it.

    [bold]Example[/bold]: lstm-strategy tune backtests/panel_1h.toml --trials 50 --workers 2
    """
    summary = _tune(experiment, catalog, runs, storage, trials, timeout, workers, ray, seed)
    _print(summary)
    if as_json:
        emit_json(summary)


def _tune(
    source: Path,
    catalog: Path,
    runs: Path,
    storage: str | None,
    trials: int,
    timeout: float | None,
    workers: int | None,
    ray: str | None,
    seed: int,
) -> dict[str, Any]:
    setup = load_experiment(source)
    try:
        from lstm_strategy.research.fold_run import Plan
        from lstm_strategy.research.tune import tune
    except ModuleNotFoundError as error:
        raise LSTMStrategyError(f"tuning needs {error.name}; install lstm-strategy[train]") from error

    if setup.train.objective == "sharpe":
        raise LSTMStrategyError(
            f'{source}: train.objective is "sharpe", but tune judges quantiles alone; tune with "quantiles", then train'
            ' what it found with "sharpe"'
        )
    started = time.perf_counter()
    store, timeframe = RawStore(catalog), Timeframe.parse(setup.data.timeframe)
    plan = Plan(
        name=setup.name,
        history=tuple((store.read(name, timeframe), store.read_instrument(name)) for name in setup.data.instruments),
        features=setup.features,
        target=setup.target,
        network=setup.network,
        train=setup.train,
        models=Path(),
        parts=Path(),
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("trials", total=trials)
        hands = []

        def on_pool(pool: Any) -> None:
            hands.append(pool.size)
            if ray is not None:
                progress.console.print(f"working on {escape(pool.where)}", highlight=False, soft_wrap=True)

        def on_trial(done: int, total: int, trial: Any) -> None:
            progress.update(task, completed=done, total=total)
            told = {
                "complete": f"pinball {_number(trial.pinball)}",
                "pruned": f"given up after {len(trial.folds)} folds, {_number(_mean(trial.folds))}",
            }.get(trial.state, trial.error)
            progress.console.print(f"trial {trial.number}: {escape(str(told))}", highlight=False, soft_wrap=True)

        tuned = tune(
            plan,
            setup.split,
            setup.walk_forward,
            setup.tune,
            runs / setup.name,
            trials=trials,
            storage=storage,
            timeout=timeout,
            workers=workers,
            ray=ray,
            seed=seed,
            on_pool=on_pool,
            on_trial=on_trial,
        )
    target = tuned.folder / "tuned.toml"
    write_tuned(source, target, setup, tuned)
    summary = _summary(setup, tuned) | {
        "tuned": str(target),
        "workers": hands[0],
        "ray": ray,
        "seconds": round(time.perf_counter() - started, 1),
    }
    with atomic_write(tuned.folder / "summary.json") as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    return summary


def write_tuned(source: Path, target: Path, setup: Experiment, tuned: Tuned) -> None:
    """Write ``source`` with the best settings in their places, comments and all else kept, and read it back.

    [tune] gets the study's name and how many settings have been tried in all, what the experiment had tried before
    included.
    """
    import tomlkit

    document = tomlkit.parse(source.read_text(encoding="utf-8"))

    def table(name: str) -> Any:
        if name not in document:
            document[name] = tomlkit.table()
        return document[name]

    def put(section: str, key: str, value: Any) -> None:
        table(section)[key] = value

    for key, value in tuned.best.params.items():
        section, _, name = key.partition(".")
        if section in ("features", "network", "train"):
            put(section, name, value)
    if tuned.settings.features.features != setup.features.features:
        rows = tomlkit.array()
        for feature in tuned.settings.features.features:
            rows.append(_inline(feature))
        put("features", "features", rows.multiline(True))
    for kind in ("feature_sets", "feature_groups"):
        for name, members in getattr(setup.space(), kind).items():  # names alone would point into the former list
            table("tune")[kind][name] = tomlkit.array().multiline(True)
            for member in members:
                table("tune")[kind][name].append(_inline(member))
    record: dict[str, Any] = {"trials_run": setup.tune.trials_run + len(tuned.trials), "study": tuned.study}
    if tuned.pinball_std is not None:
        record["pinball_std"] = tuned.pinball_std
    for key, told in record.items():
        put("tune", key, told)
    with atomic_write(target) as temporary:
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        written = load_experiment(temporary)
        if (written.features, written.network, written.train) != (
            tuned.settings.features,
            tuned.settings.network,
            tuned.settings.train,
        ):
            raise LSTMStrategyError(f"{target} would not hold the best settings; write them into {source} by hand")


def _inline(feature: Any) -> Any:
    import tomlkit

    row = tomlkit.inline_table()
    row.update({key: value for key, value in msgspec.to_builtins(feature).items() if value})
    return row


def _summary(setup: Experiment, tuned: Tuned) -> dict[str, Any]:
    best, own = tuned.best, tuned.own
    if best.pinball is None or own.pinball is None:
        raise LSTMStrategyError(f"study {tuned.study} has no whole trial; run the same command again")
    better = [ours < theirs for ours, theirs in zip(best.folds, own.folds, strict=True)]
    states = [trial.state for trial in tuned.trials]
    share = 1.0 - best.pinball / own.pinball
    spans = [fold.spans["test"] for fold in tuned.bench.folds]
    cut = format_ns(tuned.bench.cut)
    if best.number == own.number:
        note = f"Nothing tried was better than the experiment's own settings: {len(states)} trials"
    else:
        note = (
            f"Best of {len(states)} trials: {percent(share, 2)} below the experiment's own settings, lower in"
            f" {sum(better)} of {len(better)} folds. It was chosen by these very folds, so this flatters: judge it on"
            " the last test span"
        )
    return {
        "name": setup.name,
        "study": tuned.study,
        "storage": tuned.storage,
        "note": f"{note}; no bar after {cut} was looked at.",
        "trials": len(states),
        "trials_run": setup.tune.trials_run + len(states),
        "states": {state: states.count(state) for state in ("complete", "pruned", "failed")},
        "best": msgspec.to_builtins(best),
        "own": msgspec.to_builtins(own),
        "better_by": share,
        "folds_better": sum(better),
        "pinball_std": tuned.pinball_std,
        "importance": tuned.importance,
        "folds": [{"start": format_ns(start or 0), "end": format_ns(end or 0)} for start, end in spans],
        "bars_until": cut,
        "timed_out": tuned.late,
        "table": [msgspec.to_builtins(trial) for trial in sorted(tuned.trials, key=_rank)],
    }


def _rank(trial: Any) -> tuple[int, float, int]:
    """Whole trials first, the best of them at the top; then those given up, the later the better."""
    if trial.pinball is not None:
        return 0, trial.pinball, trial.number
    return 1, -len(trial.folds), trial.number


def _print(summary: dict[str, Any]) -> None:
    if summary["timed_out"]:
        console.print(f"time ran out after {summary['trials']} trials; the same command goes on", highlight=False)
    console.print(f"[bold]{escape(summary['note'])}[/bold]", highlight=False)
    own = summary["own"]["pinball"]
    table = Table(title="Trials, by mean pinball over the folds", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("trial", "pinball", "below own", "settings"):
        table.add_column(heading, justify="left" if heading == "settings" else "right")
    for row in summary["table"][:_SHOWN]:
        told = ", ".join(f"{key} {_shown(value)}" for key, value in row["params"].items())
        share = "own" if row["own"] else "–" if row["pinball"] is None else percent(1.0 - row["pinball"] / own, 2)
        loss = row["state"] if row["pinball"] is None else _number(row["pinball"])
        table.add_row(str(row["number"]), loss, share, escape(told))
    console.print(table)
    states = ", ".join(f"{count} {state}" for state, count in summary["states"].items() if count)
    console.print(f"{summary['trials']} trials: {states}", highlight=False)
    if summary["importance"]:
        told = ", ".join(f"{key} {percent(share, 0)}" for key, share in summary["importance"].items())
        console.print(f"What the loss depended on: {escape(told)}", highlight=False, soft_wrap=True)
    for name in ("storage", "tuned"):
        console.print(f"{name}: {escape(summary[name])}", soft_wrap=True, highlight=False)


def _mean(losses: list[float]) -> float | None:
    return statistics.fmean(losses) if losses else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
