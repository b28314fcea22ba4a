"""Evaluation: every fold and seed of a walk-forward, and every baseline on the same bars, in parallel and resumable."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import SplitConfig, WalkForwardConfig
from lstm_strategy.research.fold_run import BaselineMaker, Plan, run_baseline, run_network
from lstm_strategy.research.walk_forward import Fold, folds, require_bars

__all__ = ["Evaluated", "evaluate"]

_KEPT = "what is finished is kept, and the same command goes on from there"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Out-of-sample forecasts of every fold and seed, and the baselines' on the same bars; both also as files.

    ``forecasts``: ts_close, instrument, horizon, levels, quantiles (log return), scale, model_version, fold, seed,
    uncalibrated (quantiles), outcome (log return, null where the test span ends before it). ``baselines``: ts_close,
    instrument, horizon, quantiles (in units of scale √horizon), baseline, fold.
    """

    folds: list[Fold]
    seeds: tuple[int, ...]
    forecasts: pa.Table
    baselines: pa.Table | None
    forecasts_path: Path
    baselines_path: Path | None
    artefacts: list[Path]


@dataclass(frozen=True, slots=True)
class _Job:
    label: str
    work: Callable[..., list[tuple[Path, Path | None]]]
    arguments: tuple[Any, ...]


def evaluate(
    plan: Plan,
    split: SplitConfig,
    config: WalkForwardConfig,
    runs: Path,
    baselines: dict[str, BaselineMaker],
    *,
    workers: int = 1,
    on_done: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> Evaluated:
    """Run every fold, seed and baseline; write forecasts.parquet and baselines.parquet to ``runs/evaluation-<hash>/``.

    The hash is that of settings and data. The tables do not depend on ``workers``. Whatever a killed run finished is
    found again, by such a hash too, and not done twice.

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
    jobs = [_Job(f"seed {seed}", _chain, (found, seed)) for seed in seeds if config.warm_start]
    if not config.warm_start:
        jobs = [_Job(f"{fold.label}, seed {seed}", _chain, ([fold], seed)) for fold in found for seed in seeds]
    networks = len(jobs)
    jobs += [
        _Job(f"{fold.label}, baseline {name}", _baseline, (fold, name, make))
        for fold in found
        for name, make in baselines.items()
    ]
    done = _run_all(plan, jobs, workers, on_done)
    names = sorted(part.name for parts in done for part, _ in parts)
    folder = runs / f"evaluation-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:8]}"
    forecasts = _together(part for parts in done[:networks] for part, _ in parts)
    others = _together(part for parts in done[networks:] for part, _ in parts) if baselines else None
    return Evaluated(
        folds=found,
        seeds=seeds,
        forecasts=forecasts,
        baselines=others,
        forecasts_path=_write(folder / "forecasts.parquet", forecasts),
        baselines_path=None if others is None else _write(folder / "baselines.parquet", others),
        artefacts=[path for parts in done[:networks] for _, path in parts if path is not None],
    )


def _chain(plan: Plan, chained: list[Fold], seed: int) -> list[tuple[Path, Path | None]]:
    """Run folds one after the other, each training going on from the one before."""
    done: list[tuple[Path, Path | None]] = []
    parent = None
    for fold in chained:
        try:
            part, parent = run_network(plan, fold, seed, parent)
        except LSTMStrategyError as error:
            raise LSTMStrategyError(f"{fold.label}: {error}") from error
        done.append((part, parent))
    return done


def _baseline(plan: Plan, fold: Fold, name: str, make: BaselineMaker) -> list[tuple[Path, Path | None]]:
    return [(run_baseline(plan, fold, name, make), None)]


def _run_all(
    plan: Plan, jobs: list[_Job], workers: int, on_done: Callable[[int, int, str], None]
) -> list[list[tuple[Path, Path | None]]]:
    """Results in the order of the jobs, whichever ends first."""
    if workers == 1:
        results = []
        for number, job in enumerate(jobs, 1):
            try:
                results.append(job.work(plan, *job.arguments))
            except LSTMStrategyError as error:
                raise _failed(job, error) from error
            on_done(number, len(jobs), job.label)
        return results
    context = multiprocessing.get_context("spawn")
    found: dict[int, list[tuple[Path, Path | None]]] = {}
    problem: LSTMStrategyError | None = None
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _begin_worker, (plan,)) as pool:
        waiting: dict[Future[Any], int] = {
            pool.submit(_in_worker, job.work, job.arguments): number for number, job in enumerate(jobs)
        }
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    number = waiting.pop(future)
                    try:
                        if not future.cancelled():
                            found[number] = future.result()
                            on_done(len(found), len(jobs), jobs[number].label)
                    except (LSTMStrategyError, BrokenProcessPool) as error:
                        problem = problem or _failed(jobs[number], error)
                        pool.shutdown(wait=False, cancel_futures=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    if problem is not None:
        raise problem
    return [found[number] for number in range(len(jobs))]


def _failed(job: _Job, error: Exception) -> LSTMStrategyError:
    if isinstance(error, BrokenProcessPool):
        told = "a worker process died, perhaps for want of memory; try fewer --workers"
        return LSTMStrategyError(f"{told}; {_KEPT}")
    told = str(error)
    told = told if told.startswith("fold ") else f"{job.label}: {told}"
    return LSTMStrategyError(f"{told}; {_KEPT}")


_plan_of_worker: list[Plan] = []  # given once to each worker process, since the bars are many


def _begin_worker(plan: Plan) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent leaves nobody behind

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    _plan_of_worker.append(plan)


def _in_worker(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return work(_plan_of_worker[0], *arguments)


def _together(parts: Iterable[Path]) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in parts]).replace_schema_metadata(None).combine_chunks()


def _write(path: Path, table: pa.Table) -> Path:
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
    return path
