"""Tuning: trials of settings on folds before the last test span, each given up when it falls behind, all resumable."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import optuna

from lstm_strategy import __version__
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.hyperparameters import SplitConfig, WalkForwardConfig
from lstm_strategy.research.away import without_folders
from lstm_strategy.research.fit import data_hash
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.parallel import Pool, open_pool
from lstm_strategy.research.search import KEPT, Search
from lstm_strategy.research.study import (
    Record,
    Trial,
    counts,
    open_study,
    own_first,
    pruner,
    reclaim,
    recorded,
    told,
)
from lstm_strategy.research.tune_fold import Bench, bench_of, measure
from lstm_strategy.search_space import Settings, Space
from lstm_strategy.tune_config import TuneConfig

__all__ = ["Tuned", "tune"]

_IMPORTANCE = 8  # whole trials before it says anything


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a study has found: all its trials, and those that were best and the experiment's own.

    ``importance`` is the share of the losses' variance that each setting explains (fANOVA), empty where the trials
    are few. ``late``: whether time ran out before all trials were made.
    """

    study: str
    storage: str
    folder: Path
    bench: Bench
    trials: list[Trial]
    best: Trial
    own: Trial
    settings: Settings
    importance: dict[str, float]
    pinball_std: float | None
    late: bool


def tune(
    plan: Plan,
    split: SplitConfig,
    walk: WalkForwardConfig,
    config: TuneConfig,
    runs: Path,
    *,
    trials: int,
    storage: str | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    ray: str | None = None,
    seed: int = 0,
    work: Callable[[Bench, int, Settings], float] = measure,
    on_pool: Callable[[Pool], None] = lambda pool: None,
    on_trial: Callable[[int, int, Trial], None] = lambda done, total, trial: None,
) -> Tuned:
    """Search ``config``'s space until the study has ``trials`` trials, those of earlier runs included.

    The loss is the mean pinball over folds that end before the last test span; no bar from there on is looked at. The
    study is kept by a hash of settings and data, so that no other experiment's is continued. With one worker the same
    ``seed`` gives the same trials, interrupted or not; with several, what is tried depends on what ended first.

    Parameters
    ----------
    storage : str, optional
        Path of a journal file, or an Optuna storage URL; a journal in ``runs/tune-<hash>/`` where not given.
    timeout : float, optional
        Seconds after which no fold is begun.
    work : callable
        What gives the loss of one fold.

    Raises
    ------
    LSTMStrategyError
        Where the space is empty, the data too little, the storage out of reach, a worker dead, or the experiment's own
        settings cannot be trained.
    """
    space = Space(config, Settings(plan.features, plan.network, plan.train))
    if not space.dimensions:
        raise LSTMStrategyError(
            'tune.space is empty; say what may vary, such as [tune.space] with "network.hidden" = {choices = [32, 64]}'
        )
    if trials < 1 or (timeout is not None and not timeout > 0):
        raise LSTMStrategyError(f"trials is {trials}, timeout {timeout}; both must be above 0")
    bench = bench_of(plan, split, walk, config)
    name = f"{plan.name}-{_identity(bench, space, config)[:8]}"
    folder = runs / f"tune-{name.rpartition('-')[2]}"
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with recorded(storage, folder) as record:
            study = open_study(record.storage, name, pruner(config))
            reclaim(study, record.locks, len(space.dimensions))
            own_first(study, space)
            sent = Bench(without_folders(bench.plan), bench.folds, bench.seeds, bench.cut)
            with open_pool(sent, workers if ray is not None else min(workers or 1, trials), ray) as pool:
                on_pool(pool)
                search = Search(study, space, bench, pool, record, work, on_trial, trials, seed)
                try:
                    late = search.run(None if timeout is None else time.monotonic() + timeout)
                except optuna.exceptions.StorageInternalError as error:
                    short = first_line_of(error)
                    raise LSTMStrategyError(f"storage {record.shown} failed ({short}); {KEPT}") from error
                except BaseException:
                    with suppress(Exception):
                        search.put_back_all(crashed=False)
                    raise
            return _sum_up(study, space, bench, record, folder, late)
    finally:
        optuna.logging.set_verbosity(level)


def _identity(bench: Bench, space: Space, config: TuneConfig) -> str:
    plan = bench.plan
    data = [[bars.instrument_id, str(bars.timeframe), each.tick, data_hash(bars)] for bars, each in plan.history]
    own = [plan.features, plan.target, plan.network, plan.train]
    asked = [[d.key, d.choices, d.low, d.high, d.step, d.log] for d in space.dimensions]
    features = [space.feature_sets, space.feature_groups]
    folds = [fold.spans for fold in bench.folds]
    hashed = [__version__, own, asked, features, config.pruner, folds, bench.seeds, data]
    return hashlib.sha256(msgspec.json.encode(hashed)).hexdigest()


def _sum_up(study: optuna.Study, space: Space, bench: Bench, record: Record, folder: Path, late: bool) -> Tuned:
    found = [told(trial) for trial in study.get_trials(deepcopy=False) if counts(trial)]
    whole = [trial for trial in found if trial.pinball is not None]
    own = next((trial for trial in whole if trial.own), None)
    if own is None:
        raise LSTMStrategyError(
            f"time ran out before the experiment's own settings were judged on all {len(bench.folds)} folds; allow"
            f" more --timeout; {KEPT}"
        )
    best = min(whole, key=lambda trial: (trial.pinball or math.inf, trial.number))
    losses = [trial.pinball for trial in whole if trial.pinball is not None]
    importance: dict[str, float] = {}
    if len(whole) >= _IMPORTANCE and len(set(losses)) > 1:
        with suppress(ValueError, RuntimeError):  # settings that never varied explain nothing
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
            importance = {key: float(share) for key, share in shares.items()}
    return Tuned(
        study=study.study_name,
        storage=record.shown,
        folder=folder,
        bench=bench,
        trials=found,
        best=best,
        own=own,
        settings=space.settings(best.params),
        importance=importance,
        pinball_std=statistics.stdev(losses) if len(losses) > 1 else None,
        late=late,
    )
