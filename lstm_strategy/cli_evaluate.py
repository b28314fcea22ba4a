"""The ``evaluate`` command: walk forward, set the network beside its baselines, and say what that is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe
from lstm_strategy.cli_options import CATALOG, MODELS, RUNS, CatalogOption, ExperimentArgument, JsonOption, ModelsOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.formatting import BETTER, fixed, p_value, percent
from lstm_strategy.sources.store import RawStore

__all__ = ["RayOption", "WorkersOption", "evaluate_command"]

BaselinesOption = Annotated[
    str | None, typer.Option(help="Names with commas between them, or none; all that are installed where not given.")
]

WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Processes that share the work; 1 where not given, with --ray all CPUs.",
        show_default=False,
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        help="Work on Ray: a cluster's address (ray://host:10001), auto for one that runs here, else local: a new one."
    ),
]


def evaluate_command(
    experiment: ExperimentArgument,
    workers: WorkersOption = None,
    ray: RayOption = None,
    baselines: BaselinesOption = None,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    runs: Annotated[Path, typer.Option("--runs", help="Folder that gets the evaluations.")] = RUNS,
    importance: Annotated[
        int, typer.Option(min=0, max=1000, help="Shufflings of each feature to tell what it is worth; 0 for none.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """Judge the experiment's network out of sample, fold by fold, beside simpler methods on the same bars.

    Every fold's model is kept in models/NAME/folds; it never becomes the current one. An interrupted evaluation goes
    on where it was when the same command is run again.

    [bold]Example[/bold]: lstm-strategy evaluate backtests/panel_1h.toml --workers 2 --baselines ewma,har_range
    """
    summary = _evaluate(load_experiment(experiment), catalog, models, runs, workers, ray, baselines, importance)
    _print(summary)
    if as_json:
        emit_json(summary)


def _evaluate(
    setup: Experiment,
    catalog: Path,
    models: Path,
    runs: Path,
    workers: int | None,
    ray: str | None,
    wanted: str | None,
    repeats: int,
) -> dict[str, Any]:
    try:
        from lstm_strategy.research.drift import drift_between_folds
        from lstm_strategy.research.evaluate import evaluate
        from lstm_strategy.research.fold_run import Plan
        from lstm_strategy.research.importance import importance
        from lstm_strategy.research.judgement import sum_up
        from lstm_strategy.research.scores import score
    except ModuleNotFoundError as error:
        raise LSTMStrategyError(f"evaluation needs {error.name}; install lstm-strategy[train]") from error
    from lstm_strategy.report.evaluation_page import write_evaluation_page

    started = time.perf_counter()
    chosen = _baselines(wanted)
    store, timeframe = RawStore(catalog), Timeframe.parse(setup.data.timeframe)
    history = tuple((store.read(name, timeframe), store.read_instrument(name)) for name in setup.data.instruments)
    plan = Plan(
        name=setup.name,
        history=history,
        features=setup.features,
        target=setup.target,
        network=setup.network,
        train=setup.training([instrument for _, instrument in history]),
        models=models / setup.name / "folds",
        parts=runs / setup.name / "folds",
        tuned=setup.tune,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("folds and baselines", total=None)

        def on_done(done: int, total: int, label: str) -> None:
            progress.update(task, completed=done, total=total)
            progress.console.print(f"finished {escape(label)}", highlight=False, soft_wrap=True)

        hands = []

        def on_pool(pool: Any) -> None:
            hands.append(pool.size)
            if ray is not None:
                progress.console.print(f"working on {escape(pool.where)}", highlight=False, soft_wrap=True)

        evaluated = evaluate(
            plan,
            setup.split,
            setup.walk_forward,
            runs / setup.name,
            chosen,
            workers=workers,
            ray=ray,
            on_pool=on_pool,
            on_done=on_done,
        )
        weighed = []
        if repeats:
            networks = {
                number: path for (number, seed), path in evaluated.networks.items() if seed == evaluated.seeds[0]
            }
            weighing = progress.add_task("importance of features", total=None)
            weighed = importance(
                plan,
                evaluated.folds,
                networks,
                repeats,
                workers=workers or 1,
                on_done=lambda done, total: progress.update(weighing, completed=done, total=total),
            )
    with console.status("scores and their uncertainty"):
        summary = sum_up(evaluated, score)
        drift = drift_between_folds(plan, evaluated.folds)
    folder = evaluated.forecasts_path.parent
    summary |= {
        "name": setup.name,
        "instruments": list(setup.data.instruments),
        "timeframe": setup.data.timeframe,
        "horizons": list(setup.target.horizons),
        "bar_ns": timeframe.ns,
        "importance": weighed,
        "importance_repeats": repeats,
        "drift": drift,
        "workers": hands[0],
        "ray": ray,
        "seconds": round(time.perf_counter() - started, 1),
        "report": str(folder / "report.html"),
    }
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(summary)
    with atomic_write(folder / "summary.json") as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(plain), indent=1))
    with console.status("writing the report"):
        write_evaluation_page(folder)
    return plain


def _baselines(wanted: str | None) -> dict[str, Callable[[], Any]]:
    """The baselines to run, by name; those of an extra that is not installed are left out unless they are named."""
    from importlib.util import find_spec

    from lstm_strategy.research.baselines import BASELINES

    if wanted is None:
        if find_spec("prophet") is None and "prophet" in BASELINES:
            console.print("baseline prophet is left out: it needs lstm-strategy\\[prophet]", highlight=False)
        return {name: make for name, make in BASELINES.items() if name != "prophet" or find_spec("prophet")}
    names = [] if wanted.strip() in ("", "none") else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in BASELINES:
            raise LSTMStrategyError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    return {name: BASELINES[name] for name in names}


def _print(summary: dict[str, Any]) -> None:
    console.print(f"[bold]{escape(summary['verdict'])}[/bold]", highlight=False)
    table = Table(title="Mean pinball loss, out of sample", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "network", "best baseline", BETTER, "p", "in 80 %", "in 98 %"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, group in ({"pooled": summary} | summary["by_instrument"]).items():
        best = group["best_baseline"]
        told = "–" if best is None else escape(best)
        shares = (percent(group["coverage"].get(share), 2) for share in ("0.8", "0.98"))
        figures = (percent(group["skill_over_best"], 2, signed=True), p_value(group["dm_p"]), *shares)
        table.add_row(escape(name), fixed(group["pinball"], 5), told, *figures)
    console.print(table)
    if summary["baselines"]:
        table = Table(title="Beside each baseline, pooled", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "pinball", f"network {BETTER}", "p (Holm)"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, loss in sorted(summary["baselines"].items(), key=lambda item: item[1]):
            told = p_value(summary["dm"][name]["p_holm"] if name in summary["dm"] else None)
            table.add_row(escape(name), fixed(loss, 5), percent(summary["skill"][name], 2, signed=True), told)
        console.print(table)
    table = Table(title="By fold", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("fold", "tested from", "network", "best baseline", BETTER, "in 80 %", "raw"):
        table.add_column(heading, justify="right")
    for row in summary["by_fold"]:
        best = min(row["baselines"], key=row["baselines"].__getitem__, default=None)
        test = (row["spans"]["test"][0] or "")[:10]
        told = "–" if best is None else escape(best)
        better = None if best is None else row["skill"][best]
        shares = (percent(row[name]["0.8"], 2) for name in ("coverage", "coverage_uncalibrated"))
        table.add_row(str(row["fold"]), test, fixed(row["pinball"], 5), told, percent(better, 2, signed=True), *shares)
    console.print(table)
    for told in summary["drift"]["told"]:
        console.print(escape(told), highlight=False, soft_wrap=True)
    if summary["importance"]:
        heaviest = ", ".join(f"{row['feature']} {percent(row['share'], 2)}" for row in summary["importance"][:5])
        console.print(
            f"Worth most to the network (rise of the loss when shuffled): {escape(heaviest)}", highlight=False
        )
    if len(summary["seeds"]) > 1:
        told = ", ".join(f"{seed}: {fixed(loss, 5)}" for seed, loss in summary["seed_pinball"].items())
        console.print(f"network by seed: {told}; the figures above are those of their average", highlight=False)
    for name in ("forecasts_path", "report"):
        console.print(f"{name.removesuffix('_path')}: {escape(summary[name])}", soft_wrap=True, highlight=False)
