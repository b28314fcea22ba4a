"""What every peer's script uses: the task's files, a clock that can stand still, and one JSON line as its answer.

Runs in the peers' environments: the standard library, NumPy and pandas only.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Clock", "answer", "load_task", "one_thread", "pinball", "timed"]


def one_thread() -> None:
    """Call this before anything heavy is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    warnings.simplefilter("ignore")


def load_task(folder: str) -> tuple[SimpleNamespace, pd.DataFrame]:
    """Return the task and its table (see ``task.make_task``)."""
    task = SimpleNamespace(**json.loads((Path(folder) / "task.json").read_text()))
    return task, pd.read_parquet(Path(folder) / "table.parquet")


def pinball(q_NQ: np.ndarray, y_N: np.ndarray, levels: list[float]) -> float:
    """Mean pinball loss over levels and rows."""
    error, tau = y_N[:, None] - q_NQ, np.array(levels)
    return float(np.maximum(tau * error, (tau - 1.0) * error).mean())


class Clock:
    """CPU seconds of this process while it runs, and the validation losses by them."""

    def __init__(self, longest: float, patience: float) -> None:
        self.longest, self.patience = longest, patience
        self.curve: list[tuple[float, float]] = []
        self._spent = 0.0
        self._since: float | None = None

    def go(self) -> None:
        """Let it run; nothing where it does already."""
        if self._since is None:
            self._since = time.process_time()

    def stand(self) -> float:
        """Let it stand still, and return the CPU seconds so far."""
        if self._since is not None:
            self._spent += time.process_time() - self._since
            self._since = None
        return self._spent

    def note(self, loss: float) -> bool:
        """Note a validation loss while the clock stands; return whether the training may end."""
        self.curve.append((round(self._spent, 3), loss))
        best_at = min(self.curve, key=lambda point: point[1])[0]
        print(f"  {self._spent:6.1f} CPU s: {loss:.5f}", file=sys.stderr, flush=True)
        return self._spent > self.longest or self._spent - best_at > self.patience


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Fill in ``cpu`` and ``wall`` seconds of what happens inside."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found["cpu"], found["wall"] = time.process_time() - cpu, time.perf_counter() - wall


def answer(found: dict[str, Any]) -> None:
    """Print the one line that the parent reads, the last of standard output."""
    print(json.dumps(found), flush=True)
