"""Checkpoints: all that a training needs to go on exactly where it was: hashed safetensors, after every epoch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["Checkpoint"]


class _Progress(msgspec.Struct):
    epoch: int
    best_epoch: int
    best: float
    shuffle: dict[str, Any]


class Checkpoint:
    """The progress of one training, mirrored in a file."""

    def __init__(self, path: Path, network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self._path, self._network, self._optimiser = path, network, optimiser
        self.epoch, self.best_epoch, self.best = 0, 0, float("inf")
        self.best_weights = self._weights()

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
        self._network.load_state_dict(_part(tensors, "network"))
        self.best_weights = _part(tensors, "best")
        moments = _part(tensors, "optimiser")
        state = self._optimiser.state_dict()
        for name, tensor in moments.items():
            number, key = name.split(".")
            state["state"].setdefault(int(number), {})[key] = tensor
        self._optimiser.load_state_dict(state)
        return True

    def finish_epoch(self, loss: float, shuffle: np.random.Generator) -> None:
        """Count an epoch with this validation loss, keep the best weights, and write the file."""
        self.epoch += 1
        if loss < self.best:
            self.best, self.best_epoch, self.best_weights = loss, self.epoch, self._weights()
        tensors = {"random": torch.get_rng_state()}
        tensors |= {f"network.{name}": tensor for name, tensor in self._weights().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": tensor.contiguous() for key, tensor in moments.items()}
        progress = _Progress(self.epoch, self.best_epoch, self.best, dict(shuffle.bit_generator.state))
        tensors["progress"] = torch.tensor(list(msgspec.json.encode(progress)), dtype=torch.uint8)
        content = save(tensors)
        with atomic_write(self._path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self._network.state_dict().items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
