"""Jobs in, results out in the order of the jobs: in this process, in spawned processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["Job", "Pool", "WorkerLostError", "open_pool", "run_all"]


class WorkerLostError(LSTMStrategyError):
    """A worker that died, so that its job has neither a result nor a reason of its own."""


@dataclass(frozen=True, slots=True)
class Job:
    """``work(shared, *arguments)``, to be done by whichever worker is free; what it returns must be picklable."""

    label: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Pool(Protocol):
    """Workers that share one value. Jobs are handed in with a number, and come back with it as they end.

    ``where`` tells people who they are.
    """

    where: str

    @property
    def size(self) -> int:
        """Jobs that run at the same time."""

    def __len__(self) -> int:
        """Jobs handed in that have not come back."""

    def submit(self, number: int, job: Job) -> None:
        """Hand in a job."""

    def next(self, timeout: float | None = None) -> tuple[int, Any] | None:
        """Wait for a job to end; return its number, and its result or the `LSTMStrategyError` that it raised.

        None where ``timeout`` seconds pass first. Any other exception is a fault of this package, and is raised.
        """

    def drop(self) -> None:
        """Take back the jobs that nobody has begun."""


@contextmanager
def open_pool(shared: Any, workers: int | None = None, ray: str | None = None) -> Iterator[Pool]:
    """Yield a pool of ``workers``: this process alone where there is one, else spawned processes.

    ``shared`` is given to every worker once. With ``ray``, "auto", "local" or an address, the workers are of a Ray
    cluster, as many as it has CPUs where ``workers`` is None. What still runs when the block ends in an exception is
    stopped.

    Raises
    ------
    LSTMStrategyError
        Where Ray is not installed, or the cluster does not answer.
    """
    if ray is not None:
        try:
            from lstm_strategy.research.ray_pool import RayPool
        except ModuleNotFoundError as error:
            raise LSTMStrategyError(f"--ray needs {error.name}; install lstm-strategy[ray]") from error
        with RayPool(shared, workers, ray) as away:
            yield away
    elif workers is None or workers == 1:
        yield _Here(shared)
    else:
        before = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _begin_worker, (shared,)) as executor:
            try:
                yield _Processes(executor, workers)
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                for process in set(multiprocessing.active_children()) - before:
                    process.terminate()
                raise


def run_all(
    pool: Pool,
    jobs: Sequence[Job],
    on_done: Callable[[int, int, Job, Any], Any] = lambda done, total, job, result: result,
) -> list[Any]:
    """Return the results in the order of the jobs, whichever ends first; ``on_done`` may put another in their place.

    ``on_done`` gets how many are done, of how many, the job and its result. When a job fails, those that run are
    brought to their end, those that wait are not begun, and the first error is raised after that, named by its job.
    """
    for number, job in enumerate(jobs):
        pool.submit(number, job)
    found: dict[int, Any] = {}
    problem: LSTMStrategyError | None = None
    while len(pool):
        ended = pool.next()
        if ended is None:
            continue
        number, result = ended
        try:
            if isinstance(result, LSTMStrategyError):
                raise result
            found[number] = on_done(len(found) + 1, len(jobs), jobs[number], result)
        except LSTMStrategyError as error:
            problem = problem or _named(jobs[number], error)
            pool.drop()
    if problem is not None:
        raise problem
    return [found[number] for number in range(len(jobs))]


def _named(job: Job, error: LSTMStrategyError) -> LSTMStrategyError:
    if isinstance(error, WorkerLostError) or str(error).startswith("fold "):
        return error
    named = LSTMStrategyError(f"{job.label}: {error}")
    named.__cause__ = error
    return named


class _Here:
    """One job after the other, when its result is asked for."""

    where = "this process"
    size = 1

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self._waiting: deque[tuple[int, Job]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, number: int, job: Job) -> None:
        self._waiting.append((number, job))

    def next(self, timeout: float | None = None) -> tuple[int, Any] | None:
        number, job = self._waiting.popleft()
        try:
            return number, job.work(self._shared, *job.arguments)
        except LSTMStrategyError as error:
            return number, error

    def drop(self) -> None:
        self._waiting.clear()


class _Processes:
    """Spawned processes of this machine; when one dies the executor is lost, and all that was running with it."""

    def __init__(self, executor: ProcessPoolExecutor, size: int) -> None:
        self.where = f"{size} processes"
        self._executor, self._size = executor, size
        self._running: dict[Future[Any], int] = {}

    @property
    def size(self) -> int:
        return self._size

    def __len__(self) -> int:
        return len(self._running)

    def submit(self, number: int, job: Job) -> None:
        try:
            self._running[self._executor.submit(_in_worker, job.work, job.arguments)] = number
        except BrokenProcessPool:
            dead: Future[Any] = Future()
            dead.set_exception(BrokenProcessPool())
            self._running[dead] = number

    def next(self, timeout: float | None = None) -> tuple[int, Any] | None:
        ended = wait(self._running, timeout, return_when=FIRST_COMPLETED).done
        if not ended:
            return None
        future = min(ended, key=self._running.__getitem__)
        number = self._running.pop(future)
        try:
            return number, future.result()
        except LSTMStrategyError as error:
            return number, error
        except BrokenProcessPool:
            return number, WorkerLostError(
                "a worker process died, perhaps for want of memory; try fewer --workers, or a smaller network"
            )

    def drop(self) -> None:
        for future in [future for future in self._running if future.cancel()]:
            del self._running[future]


_shared_by_worker: list[Any] = []  # given once to each worker process, since the bars are many


def _begin_worker(shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent leaves nobody behind

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    _shared_by_worker.append(shared)


def _in_worker(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return work(_shared_by_worker[0], *arguments)
