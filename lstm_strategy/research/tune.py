"""Tuning: trials of settings on folds before the last test span, each given up when it falls behind, all resumable."""

from __future__ import annotations

import hashlib
import math
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from lstm_strategy import __version__
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import SplitConfig, WalkForwardConfig
from lstm_strategy.research.away import without_folders
from lstm_strategy.research.fit import data_hash
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.parallel import Job, Pool, WorkerLostError, open_pool
from lstm_strategy.research.study import (
    Record,
    Trial,
    counts,
    distributions,
    known_folds,
    open_study,
    own_first,
    pruner,
    put_back,
    reclaim,
    recorded,
    told,
)
from lstm_strategy.research.tune_fold import Bench, bench_of, measure
from lstm_strategy.search_space import Settings, Space, TuneConfig

__all__ = ["Tuned", "tune"]

_KEPT = "what is finished is kept, and the same command goes on from there"
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
                search = _Search(study, space, bench, pool, record, work, on_trial, trials, seed)
                try:
                    late = search.run(None if timeout is None else time.monotonic() + timeout)
                except optuna.exceptions.StorageInternalError as error:
                    short = str(error).strip().partition("\n")[0]
                    raise LSTMStrategyError(f"storage {record.shown} failed ({short}); {_KEPT}") from error
                except BaseException:
                    with suppress(Exception):
                        search.put_back_all(crashed=False)
                    raise
            return _sum_up(study, space, bench, record, folder, late)
    finally:
        optuna.logging.set_verbosity(level)


@dataclass(slots=True)
class _Live:
    trial: optuna.Trial
    settings: Settings
    folds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Search:
    """The one who asks for trials, gives their folds to the pool, and tells the study what came of them."""

    study: optuna.Study
    space: Space
    bench: Bench
    pool: Pool
    record: Record
    work: Callable[[Bench, int, Settings], float]
    on_trial: Callable[[int, int, Trial], None]
    wanted: int
    seed: int
    live: dict[int, _Live] = field(default_factory=dict)

    def run(self, deadline: float | None) -> bool:
        """Return whether time ran out first."""
        late = False
        while True:
            late = deadline is not None and time.monotonic() >= deadline
            while not late and len(self.live) < self.pool.size and (self._tried() < self.wanted or self._own_waits()):
                self._begin()
            if not self.live:
                return late and self._tried() < self.wanted
            if late:
                self.pool.drop()
                if not len(self.pool):
                    self.put_back_all(crashed=False)
                    return True
            left = None if deadline is None or late else max(deadline - time.monotonic(), 0.0)
            ended = self.pool.next(left)
            if ended is not None:
                self._take(*ended, late=late or (deadline is not None and time.monotonic() >= deadline))

    def _tried(self) -> int:
        return sum(counts(trial) for trial in self.study.get_trials(deepcopy=False)) + len(self.live)

    def _own_waits(self) -> bool:
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return any(trial.user_attrs.get("own") for trial in waiting)

    def _begin(self) -> None:
        # Drawn by the number of trials so far: an interrupted study goes on as it would have gone.
        draw = int(np.random.SeedSequence([self.seed, self._tried()]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=draw, multivariate=True, constant_liar=self.pool.size > 1)
        trial = self.study.ask(distributions(self.space))
        trial.set_user_attr("host", socket.gethostname())
        trial.set_user_attr("owner", self.record.owner)
        try:
            settings = self.space.settings(trial.params)
        except LSTMStrategyError as error:  # inside the space, where no corner told of it
            self._fail(trial, error)
            return
        live = self.live[trial.number] = _Live(trial, settings)
        self._advance(live, known_folds(self.study, trial.params))

    def _advance(self, live: _Live, found: list[float]) -> None:
        """Report folds one by one; give the next one to the pool, unless the trial is at its end or behind."""
        trial, own = live.trial, live.trial.user_attrs.get("own", False)
        for loss in found:
            live.folds.append(loss)
            trial.set_user_attr("folds", live.folds)
            mean = statistics.fmean(live.folds)
            trial.report(mean, len(live.folds))
            if len(live.folds) == len(self.bench.folds):
                self.study.tell(trial, mean)
                self._end(trial)
                return
            if not own and trial.should_prune():
                self.study.tell(trial, state=TrialState.PRUNED)
                self._end(trial)
                return
        number = len(live.folds)
        label = f"trial {trial.number}, {self.bench.folds[number].label}"
        self.pool.submit(trial.number, Job(label, _loss, (self.work, number, live.settings)))

    def _take(self, number: int, result: Any, *, late: bool) -> None:
        live = self.live[number]
        if isinstance(result, WorkerLostError):
            self.put_back_all(crashed=True)
            raise LSTMStrategyError(f"{result}; {_KEPT}") from result
        if isinstance(result, LSTMStrategyError):
            self._fail(live.trial, result)
        elif late and len(live.folds) + 1 < len(self.bench.folds):
            live.trial.set_user_attr("folds", [*live.folds, result])
            del self.live[number]
            put_back(self.study, self._frozen(live.trial), crashed=False)
        else:
            self._advance(live, [result])

    def _fail(self, trial: optuna.Trial, error: LSTMStrategyError) -> None:
        if trial.user_attrs.get("own"):  # then nothing that is tried here can be trusted to train
            self.live.pop(trial.number, None)
            self.study.tell(trial, state=TrialState.FAIL)
            self.put_back_all(crashed=False)
            raise LSTMStrategyError(f"the experiment's own settings cannot be tried: {error}") from error
        trial.set_user_attr("error", str(error))
        self.study.tell(trial, state=TrialState.FAIL)
        self._end(trial)

    def put_back_all(self, *, crashed: bool) -> None:
        """Have every trial that runs tried again later."""
        for number in sorted(self.live):
            put_back(self.study, self._frozen(self.live.pop(number).trial), crashed=crashed)

    def _end(self, trial: optuna.Trial) -> None:
        self.live.pop(trial.number, None)
        self.on_trial(self._tried() - len(self.live), self.wanted, told(self._frozen(trial)))

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return next(found for found in self.study.get_trials(deepcopy=False) if found.number == trial.number)


def _loss(bench: Bench, work: Callable[[Bench, int, Settings], float], number: int, settings: Settings) -> float:
    return work(bench, number, settings)


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
            f" more --timeout; {_KEPT}"
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
