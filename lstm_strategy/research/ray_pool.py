"""Workers of a Ray cluster: one that runs already, or one started on this machine alone."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import warnings
from collections import deque
from types import TracebackType
from typing import Any, Self

import ray
from ray import exceptions
from ray._private import ray_constants
from ray._private import worker as ray_worker

from lstm_strategy import __version__
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.research.parallel import Job, WorkerLostError

__all__ = ["RayPool"]

_RETRIES = 4  # of a job whose worker or node died, each on another worker
_SECONDS = 5.0  # for a first answer at an address
_TRIES = 3  # to join a cluster that answers


class RayPool:
    """Jobs as Ray tasks, one CPU each; the shared value lies in the object store once.

    A task whose worker or node dies is done again on another, `_RETRIES` times. Nothing is asked of a node's disc but
    a temporary folder. More ``workers`` than the cluster has CPUs make an autoscaler add nodes.
    """

    def __init__(self, shared: Any, workers: int | None, address: str) -> None:
        self._workers = workers
        self._waiting: deque[tuple[int, Job]] = deque()
        self._running: dict[Any, int] = {}
        self._began = not ray.is_initialized()
        self.where = _connect(address, workers) if self._began else "the Ray cluster of this process"
        self._shared = ray.put(shared)
        self._task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_in_task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reference in self._running:
            ray.cancel(reference, force=True)
        if self._began:
            ray.shutdown()

    @property
    def size(self) -> int:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return self._workers or max(1, int(resources.get("CPU", 1)))

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    def submit(self, number: int, job: Job) -> None:
        self._waiting.append((number, job))

    def next(self, timeout: float | None = None) -> tuple[int, Any] | None:
        while self._waiting and len(self._running) < self.size:
            number, job = self._waiting.popleft()
            task = self._task.options(name=job.label)
            self._running[task.remote(self._shared, __version__, job.work, job.arguments)] = number
        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        if not ended:
            return None
        number = self._running.pop(ended[0])
        try:
            return number, ray.get(ended[0])
        except exceptions.RayTaskError as error:
            raise error.cause or error from error
        except exceptions.RayError as error:
            told = f"{type(error).__name__} after {_RETRIES} tries more"
            return number, WorkerLostError(
                f"the Ray workers that had a job died ({told}), perhaps for want of memory; look at `ray status`, or"
                " try a smaller network"
            )

    def drop(self) -> None:
        self._waiting.clear()


def _in_task(shared: Any, version: str, work: Any, arguments: tuple[Any, ...]) -> Any:
    if version != __version__:
        node = socket.gethostname()
        return LSTMStrategyError(
            f"Ray node {node} has lstm-strategy {__version__}, this machine {version}; install the same on every node"
        )
    try:
        return work(shared, *arguments)
    except LSTMStrategyError as error:
        return LSTMStrategyError(str(error))  # its text alone: subclasses may not survive the journey


def _connect(address: str, workers: int | None) -> str:
    ray_worker._worker_logs_enabled = False  # else Ray prints on standard output, even where log_to_driver is False
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        return _start(workers, quiet)
    if address == "auto":
        try:
            ray.init(address="auto", **quiet)
            return f"the Ray cluster running at {ray.get_runtime_context().gcs_address}"
        except ConnectionError as error:
            if "multiple" in str(error):
                raise LSTMStrategyError(
                    "several Ray clusters run here; name one by its address, or use local"
                ) from None
            return _start(workers, quiet)
    match = re.fullmatch(r"(?:ray://)?([^/\s:]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise LSTMStrategyError(f"--ray {address!r} is no address; write auto, local, ray://host:10001 or host:6379")
    way_out = "start it with `ray start --head`, or use --ray local"
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=_SECONDS).close()
    except OSError as error:
        raise LSTMStrategyError(f"no Ray cluster answers at {address} ({error.strerror or error}); {way_out}") from None
    for attempt in range(_TRIES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's own, such as of the file descriptors allowed
                ray.init(address=address, **quiet)
            break
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
            if isinstance(error, ConnectionError) and attempt + 1 < _TRIES:
                time.sleep(1.0)  # a client server that has just been started refuses now and then
                continue
            told = " ".join(str(error).split())
            told = told if len(told) <= 300 else f"{told[:100]} ... {told[-200:]}"  # the cause stands last
            raise LSTMStrategyError(f"no Ray cluster could be joined at {address} ({told}); {way_out}") from None
    return f"the Ray cluster at {address}"


def _start(workers: int | None, quiet: dict[str, Any]) -> str:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False  # listen on loopback alone
    try:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
    return f"a Ray cluster of this machine alone, started for this command, with {workers or os.cpu_count()} CPUs"
