"""A study on disk or in a database: opened, told from others, and put right after a crash."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.search_space import Dimension, Space, Value
from lstm_strategy.tune_config import TuneConfig

__all__ = ["Record", "Trial", "counts", "distributions", "known_folds", "open_study", "own_first", "pruner", "put_back"]
__all__ += ["reclaim", "recorded", "told"]

_ATTEMPTS = 3  # after so many crashes in the same fold a trial is given up
_STARTUP = 5  # trials that are never given up between folds
_SECONDS = 10  # for a database's first answer


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return what Optuna draws from, by name."""
    return {dimension.key: _distribution(dimension) for dimension in space.dimensions}


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: its settings, its loss in each fold as far as it came, and their mean where it came to the end."""

    number: int
    state: str  # complete, pruned or failed
    own: bool
    params: dict[str, Value]
    folds: list[float]
    pinball: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Record:
    """Where a study is kept: its storage, how people are told of it, and the locks of those who hold its trials.

    ``owner`` names this process among them, and ``locks`` is their folder.
    """

    storage: BaseStorage
    shown: str
    owner: str
    locks: Path


@contextmanager
def recorded(storage: str | None, folder: Path) -> Iterator[Record]:
    """Yield the record: a journal in ``folder`` where ``storage`` is None, at that path where it is no URL, a database.

    Raises
    ------
    LSTMStrategyError
        Where it cannot be reached or read, without the password that a URL may hold.
    """
    url = storage if storage is not None and "://" in storage else None
    path = Path(storage) if storage is not None and url is None else folder / "journal.log"
    locks = folder / "running" if url is not None else path.with_name(f"{path.name}.running")
    owner = f"{os.getpid()}-{secrets.token_hex(4)}"
    mine, unready = locks / owner, locks / f".{owner}"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = unready.open("w")
    except OSError as error:
        raise LSTMStrategyError(f"storage {path} cannot be used ({error.strerror}); name another --storage") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unready.rename(mine)  # under this name it is held from the beginning
        try:
            if url is None:
                yield Record(_journal(path, alone=_alive(locks) == {owner}), str(path), owner, locks)
                return
            database = _database(url)
            try:
                yield Record(database, _shown(url), owner, locks)
            finally:
                database.remove_session()
                database.engine.dispose()
        finally:
            mine.unlink(missing_ok=True)


def open_study(storage: BaseStorage, name: str, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """Return the study of this name, new or continued."""
    try:
        return optuna.create_study(
            storage=storage, study_name=name, pruner=pruner, direction="minimize", load_if_exists=True
        )
    except Exception as error:
        short = first_line_of(error)
        raise LSTMStrategyError(
            f"study {name} cannot be read from its storage ({short}); name another --storage"
        ) from None


def pruner(config: TuneConfig) -> optuna.pruners.BasePruner:
    """Return what gives trials up between folds."""
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    if config.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial has been tried: ended, given up between folds, or refused by its training for a reason."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs


def told(trial: FrozenTrial) -> Trial:
    """Return a trial as it is reported."""
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    return Trial(
        number=trial.number,
        state=states.get(trial.state, "failed"),
        own=bool(trial.user_attrs.get("own")),
        params=dict(trial.params),
        folds=list(trial.user_attrs.get("folds", [])),
        pinball=trial.value if trial.state == TrialState.COMPLETE else None,
        error=trial.user_attrs.get("error"),
    )


def known_folds(study: optuna.Study, params: Mapping[str, Value]) -> list[float]:
    """Return the losses that an earlier trial with the same settings got, fold by fold, as far as it came."""
    found: list[float] = []
    for trial in study.get_trials(deepcopy=False):
        folds = trial.user_attrs.get("folds", [])
        if len(folds) > len(found) and _params(trial) == dict(params):
            found = list(folds)
    return found


def own_first(study: optuna.Study, space: Space) -> None:
    """See to it that the experiment's own settings are tried, before all others where the study is new."""
    if not any(
        trial.user_attrs.get("own") and (counts(trial) or not trial.state.is_finished()) for trial in study.trials
    ):
        study.enqueue_trial(dict(space.own), user_attrs={"own": True})


def put_back(study: optuna.Study, trial: FrozenTrial, crashed: bool) -> None:
    """End a running trial without a result and have it tried again; what its folds gave is remembered.

    ``crashed``: whether it may be to blame; one that never gets beyond a fold is given up in the end.
    """
    storage = study._storage  # a trial of another process has no public handle
    attributes = dict(trial.user_attrs)
    folds, params = len(attributes.get("folds", [])), _params(trial)
    before = attributes.get("crashes", {"fold": -1, "times": 0})
    times = (before["times"] if before["fold"] == folds else 0) + int(crashed)
    if times >= _ATTEMPTS and not attributes.get("own"):
        reason = f"its worker died {times} times, perhaps for want of memory"
        storage.set_trial_user_attr(trial._trial_id, "error", reason)
    study.tell(trial.number, state=TrialState.FAIL)
    if params and (times < _ATTEMPTS or attributes.get("own")):
        kept = {key: attributes[key] for key in ("own", "folds") if key in attributes}
        study.enqueue_trial(params, user_attrs=kept | {"crashes": {"fold": folds, "times": times}})


def reclaim(study: optuna.Study, locks: Path, complete: int) -> int:
    """Put back trials that a killed process of this machine left running; return how many.

    ``complete`` is how many settings a whole trial has.
    """
    alive = _alive(locks)
    found = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("host", socket.gethostname()) != socket.gethostname():
            continue  # another machine's
        if trial.user_attrs.get("owner") not in alive:
            if len(_params(trial)) < complete:  # killed while it was being drawn
                study.tell(trial.number, state=TrialState.FAIL)
            else:
                put_back(study, trial, crashed=True)
            found += 1
    return found


def _params(trial: FrozenTrial) -> dict[str, Value]:
    return dict(trial.params) or dict(trial.system_attrs.get("fixed_params", {}))


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    low, high, step = dimension.low, dimension.high, dimension.step
    if isinstance(low, int):
        return IntDistribution(low, int(high), log=dimension.log, step=int(step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=step)


def _journal(path: Path, *, alone: bool) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if alone:  # a killed process may have left its lock, and half a line
                for left in (Path(f"{path}.lock"), *path.parent.glob(f"{path.name}.lock*.rename")):
                    left.unlink(missing_ok=True)
            _mend(path, alone=alone)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise LSTMStrategyError(f"storage {path} cannot be used ({error.strerror}); name another --storage") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LSTMStrategyError(f"storage {path} is damaged ({error}); restore it, or name another --storage") from None


def _mend(path: Path, *, alone: bool) -> None:
    """Cut off the half line of a process that was killed while it wrote; refuse what is no journal."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    first = data[:whole].partition(b"\n")[0]
    with suppress(ValueError):
        if (not data[:whole] and data[:1] in (b"", b"{")) or "op_code" in json.loads(first):
            if alone and whole < len(data):
                with path.open("r+b") as file:
                    file.truncate(whole)
            return
    raise LSTMStrategyError(f"storage {path} is no Optuna journal; name another --storage, a database by its URL")


def _database(url: str) -> RDBStorage:
    timeouts = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "sqlite": "timeout"}
    timeout = timeouts.get(url.partition(":")[0].partition("+")[0])
    options: dict[str, Any] = {"connect_args": {timeout: _SECONDS}} if timeout else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RDBStorage(url, engine_kwargs=options)
    except ModuleNotFoundError as error:
        raise LSTMStrategyError(f"storage {_shown(url)} needs {error.name}; install it") from None
    except Exception as error:  # whatever its driver raises
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise LSTMStrategyError(f"storage {_shown(url)} needs {error.__cause__.name}; install it") from None
        short = first_line_of(getattr(error, "orig", None) or error).replace(url, _shown(url))
        raise LSTMStrategyError(
            f"storage {_shown(url)} cannot be reached ({short}); see that it runs, or leave --storage out for a file"
        ) from None


def _shown(url: str) -> str:
    """The URL without its password."""
    scheme, _, rest = url.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{scheme}://{account.partition(':')[0]}{':***' if ':' in account else ''}{at}{host}"


def _alive(locks: Path) -> set[str]:
    """Names of the processes of this machine that hold a study here; the files of dead ones are removed."""
    found = set()
    for path in locks.glob("[!.]*"):
        with suppress(FileNotFoundError), path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                found.add(path.name)
    return found
