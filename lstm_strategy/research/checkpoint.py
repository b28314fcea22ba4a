"""Checkpoints: all that a training needs to go on exactly where it was: hashed safetensors, after every epoch."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch
from safetensors.numpy import save
from safetensors.torch import load
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.network import StreamingLSTM

__all__ = ["Checkpoint"]


class _Progress(msgspec.Struct):
    epoch: int
    best_epoch: int
    best: float
    shuffle: dict[str, Any]


class Checkpoint:
    """The progress of one training, mirrored in a file."""

    def __init__(
        self,
        path: Path,
        network: StreamingLSTM,
        optimiser: torch.optim.Optimizer,
        average: AveragedModel | None = None,
    ) -> None:
        self._path, self._network, self._optimiser, self._average = path, network, optimiser, average
        self.epoch, self.best_epoch, self.best = 0, 0, float("inf")
        self.best_weights = _copy(self.judged)

    @property
    def judged(self) -> StreamingLSTM:
        """The network whose loss decides: with the averaged weights, where they are averaged."""
        return self._network if self._average is None else cast(StreamingLSTM, self._average.module)

    def resume(self, shuffle: np.random.Generator) -> bool:
        """Go on from the file, where there is one; return whether there was."""
        if not self._path.exists():
            return False
        digest, content = (data := self._path.read_bytes())[:32], data[32:]
        if hashlib.sha256(content).digest() != digest:
            raise LSTMStrategyError(f"checkpoint {self._path} is damaged; remove it to train anew")
        tensors = load(content)
        progress = msgspec.json.decode(bytes(tensors.pop("progress").tolist()), type=_Progress)
        self.epoch, self.best_epoch, self.best = progress.epoch, progress.best_epoch, progress.best
        shuffle.bit_generator.state = progress.shuffle
        torch.set_rng_state(tensors.pop("random"))
        if "random_cuda" in tensors:
            torch.cuda.set_rng_state(tensors.pop("random_cuda"))
        self._network.load_state_dict(_part(tensors, "network"))
        if self._average is not None:
            self._average.load_state_dict(_part(tensors, "average"))
        self.best_weights = _part(tensors, "best")
        moments = _part(tensors, "optimiser")
        state = self._optimiser.state_dict()
        for name, tensor in moments.items():
            number, key = name.split(".")
            state["state"].setdefault(int(number), {})[key] = tensor
        self._optimiser.load_state_dict(state)
        return True

    def finish_epoch(self, loss: float, shuffle: np.random.Generator) -> None:
        """Count an epoch with this validation loss, keep the best weights, and write the file.

        Raises
        ------
        LSTMStrategyError
            Where the loss is no number and no epoch before had one: what is kept would be the untrained weights.
        """
        self.epoch += 1
        if not math.isfinite(loss) and self.best_epoch == 0:
            raise LSTMStrategyError(
                f"the training diverged: the loss on the stop span is {loss} after epoch {self.epoch}; try a smaller"
                " train.learning_rate, weight_decay or range_weight"
            )
        if loss < self.best:
            self.best, self.best_epoch, self.best_weights = loss, self.epoch, _copy(self.judged)
        tensors = {"random": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random_cuda"] = torch.cuda.get_rng_state()
        tensors |= {f"network.{name}": tensor for name, tensor in _copy(self._network).items()}
        if self._average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in _copy(self._average).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": tensor.contiguous() for key, tensor in moments.items()}
        progress = _Progress(self.epoch, self.best_epoch, self.best, dict(shuffle.bit_generator.state))
        tensors["progress"] = torch.tensor(list(msgspec.json.encode(progress)), dtype=torch.uint8)
        content = save({name: tensor.cpu().numpy() for name, tensor in tensors.items()})  # a third of torch's time
        with atomic_write(self._path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)


def _copy(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
