"""Evaluation: every fold and seed of a walk-forward, and every baseline on the same bars, in parallel and resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.fold_index import index_folds
from lstm_strategy.hyperparameters import SplitConfig, WalkForwardConfig
from lstm_strategy.research.away import Done, bring_home, send_away, without_folders
from lstm_strategy.research.fold_run import BaselineMaker, Plan, baseline_part, run_baseline, run_network
from lstm_strategy.research.parallel import Job, Pool, open_pool, run_all
from lstm_strategy.research.walk_forward import Fold, folds, require_bars

__all__ = ["Evaluated", "evaluate"]

_KEPT = "what is finished is kept, and the same command goes on from there"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Out-of-sample forecasts of every fold and seed, and the baselines' on the same bars; both also as files.

    ``forecasts``: ts_close, instrument, horizon, levels, quantiles (log return), scale, model_version, fold, seed,
    uncalibrated (quantiles), outcome (log return, null where the test span ends before it). ``baselines``: ts_close,
    instrument, horizon, quantiles (in units of scale √horizon), baseline, fold. ``folds_path`` is the index of the
    folds' models by date (`lstm_strategy.fold_index`); ``networks`` are their folders by fold and seed.
    """

    folds: list[Fold]
    seeds: tuple[int, ...]
    forecasts: pa.Table
    baselines: pa.Table | None
    forecasts_path: Path
    baselines_path: Path | None
    folds_path: Path
    artefacts: list[Path]
    networks: dict[tuple[int, int], Path]


def evaluate(
    plan: Plan,
    split: SplitConfig,
    config: WalkForwardConfig,
    runs: Path,
    baselines: dict[str, BaselineMaker],
    *,
    workers: int | None = None,
    ray: str | None = None,
    on_pool: Callable[[Pool], None] = lambda pool: None,
    on_done: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> Evaluated:
    """Run every fold, seed and baseline; write forecasts.parquet and baselines.parquet to ``runs/evaluation-<hash>/``.

    The hash is that of settings and data. The tables do not depend on ``workers``, nor on whether they are processes
    or those of a Ray cluster. Whatever a killed run finished is found again, by such a hash too, and not done twice.

    Raises
    ------
    LSTMStrategyError
        One line naming fold and instrument where there is too little data; where a fold fails, the others running are
        brought to their end first, and kept.
    """
    stamps = [(int(bars.ts_close[0]), int(bars.ts_close[-1])) for bars, _ in plan.history if len(bars)]
    if len(stamps) < len(plan.history):
        empty = next(bars for bars, _ in plan.history if not len(bars))
        raise LSTMStrategyError(f"{empty.instrument_id}: there are no bars; import some first")
    first, last = min(start for start, _ in stamps), max(end for _, end in stamps)
    found = folds(config, split, plan.target, plan.history[0][0].timeframe, first, last)
    for fold in found:
        for bars, _ in plan.history:
            require_bars(fold, bars, plan.features.warmup, plan.target.horizons)
    seeds = config.seeds or (plan.train.seed,)
    jobs = [Job(f"seed {seed}", _chain, (found, seed, config.warm_epochs)) for seed in seeds if config.warm_start]
    if not config.warm_start:
        jobs = [Job(f"{fold.label}, seed {seed}", _chain, ([fold], seed)) for fold in found for seed in seeds]
    networks = len(jobs)
    jobs += [
        Job(f"{fold.label}, baseline {name}", _baseline, (fold, name, make))
        for fold in found
        for name, make in baselines.items()
    ]
    done = _run(plan, jobs, workers, ray, on_pool, on_done)
    names = sorted(part.name for parts in done for part, _ in parts)
    folder = runs / f"evaluation-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:8]}"
    forecasts = _together(part for parts in done[:networks] for part, _ in parts)
    others = _together(part for parts in done[networks:] for part, _ in parts) if baselines else None
    artefacts = [path for parts in done[:networks] for _, path in parts if path is not None]
    order = [(f, s) for s in seeds for f in found] if config.warm_start else [(f, s) for f in found for s in seeds]
    made = list(zip(order, artefacts, strict=True))
    tests = {fold.number: (fold.spans["test"][0] or first, fold.spans["test"][1] or last) for fold in found}
    forecasts_path = _write(folder / "forecasts.parquet", forecasts)
    baselines_path = None if others is None else _write(folder / "baselines.parquet", others)
    folds_path = folder / "folds.json"  # the last, since where it stands a backtest takes the evaluation for whole
    index_folds(folds_path, [(fold.number, seed, path, *tests[fold.number]) for (fold, seed), path in made])
    return Evaluated(
        folds=found,
        seeds=seeds,
        forecasts=forecasts,
        baselines=others,
        forecasts_path=forecasts_path,
        baselines_path=baselines_path,
        folds_path=folds_path,
        artefacts=artefacts,
        networks={(fold.number, seed): path for (fold, seed), path in made},
    )


def _chain(plan: Plan, chained: list[Fold], seed: int, warm_epochs: int | None = None) -> Done:
    """Run folds one after the other, each training going on from the one before, for ``warm_epochs`` at most."""
    done: Done = []
    parent = None
    for fold in chained:
        try:
            part, parent = run_network(plan, fold, seed, parent)
        except LSTMStrategyError as error:
            raise LSTMStrategyError(f"{fold.label}: {error}") from error
        done.append((part, parent))
        if warm_epochs is not None:
            plan = replace(plan, train=msgspec.structs.replace(plan.train, epochs=warm_epochs))
    return done


def _baseline(plan: Plan, fold: Fold, name: str, make: BaselineMaker) -> Done:
    return [(run_baseline(plan, fold, name, make), None)]


def _run(
    plan: Plan,
    jobs: list[Job],
    workers: int | None,
    ray: str | None,
    on_pool: Callable[[Pool], None],
    on_done: Callable[[int, int, str], None],
) -> list[Done]:
    def home(done: int, total: int, job: Job, result: Any) -> Done:
        found = result if ray is None else bring_home(plan, result)
        on_done(done, total, job.label)
        return found

    workers = min(workers or 1, len(jobs)) if ray is None else workers
    with open_pool(plan if ray is None else without_folders(plan), workers, ray) as pool:
        on_pool(pool)
        if ray is not None:
            jobs = [send_away(job, plan, _known(plan, job)) for job in jobs]
        try:
            return run_all(pool, jobs, home)
        except LSTMStrategyError as error:
            raise LSTMStrategyError(f"{error}; {_KEPT}") from error


def _known(plan: Plan, job: Job) -> list[Path]:
    """Files of a former run that a worker without this disc has to see, so as not to do them again."""
    if job.work is _baseline:
        return [part for part in [baseline_part(plan, job.arguments[0], job.arguments[1])[0]] if part.exists()]
    found, seed, *_ = job.arguments
    versions = [f"fold{fold.number:02d}-seed{seed}-*" for fold in found]
    models = plan.models / plan.name
    return [path for version in versions for path in (*models.glob(version), *plan.parts.glob(f"{version}.parquet"))]


def _together(parts: Iterable[Path]) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in parts]).replace_schema_metadata(None).combine_chunks()


def _write(path: Path, table: pa.Table) -> Path:
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
    return path
