"""Baselines for tests of what is done with them; light to import, since the processes of a pool do so."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Constant:
    """The same quantiles for all; ``offset`` in the unit of the outcome."""

    offset: float = 0.0

    def forecast(self, samples, spans, target):
        row = np.linspace(-2, 2, len(target.levels)) + self.offset
        shape = (len(target.horizons), len(target.levels))
        return [np.broadcast_to(row, (len(sample.bars), *shape)).astype(np.float32) for sample in samples]


@dataclass
class Killed(Constant):
    """A baseline whose process the system kills, as it does where memory runs out; once ``spared`` exists it is not."""

    spared: Path = Path()

    def forecast(self, samples, spans, target):
        if not self.spared.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forecast(samples, spans, target)


@dataclass
class Hungry(Constant):
    """A baseline that asks for more memory than an address can reach."""

    def forecast(self, samples, spans, target):
        np.empty((2**26, 2**20))
