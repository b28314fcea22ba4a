"""The search: asks a study for trials, gives their folds to the pool, and tells the study what came of them."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.research.parallel import Job, Pool, WorkerLostError
from lstm_strategy.research.study import Record, Trial, counts, distributions, known_folds, put_back, told
from lstm_strategy.research.tune_fold import Bench
from lstm_strategy.search_space import Settings, Space

__all__ = ["KEPT", "Search"]

KEPT = "what is finished is kept, and the same command goes on from there"


@dataclass(slots=True)
class _Live:
    trial: optuna.Trial
    settings: Settings
    folds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Search:
    """The trials that run now; each fold's loss decides whether its trial goes on.

    Parameters
    ----------
    work : callable
        What gives the loss of one fold.
    wanted : int
        Trials that the study shall have, those of earlier runs included.
    seed : int
        Of what is drawn, with the number of trials so far.
    live : dict
        What runs now, by the trial's number.
    """

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
            raise LSTMStrategyError(f"{result}; {KEPT}") from result
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
