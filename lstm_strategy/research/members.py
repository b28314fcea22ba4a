"""Members of an ensemble: their seeds, progress files and weights to go on from; and what a training refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
from lstm_strategy.network import StreamingLSTM

__all__ = ["average_of", "begin_at", "checkpoints", "member_seeds", "require_possible", "starts"]


def member_seeds(config: TrainConfig) -> list[int]:
    """Return the seed of each member: the first has ``seed`` itself, the others hashes that no near seed shares."""
    words = [np.random.SeedSequence([config.seed, n]).generate_state(1, np.uint64) for n in range(1, config.members)]
    return [config.seed, *(int(word[0] >> 1) for word in words)]


def checkpoints(path: Path, members: int) -> list[Path]:
    """Return the file of each member's progress; the first has ``path`` itself."""
    return [path, *(path.with_stem(f"{path.stem}-{number}") for number in range(1, members))]


def require_possible(
    network_config: NetworkConfig, config: TrainConfig, instruments: tuple[str, ...], device: torch.device
) -> None:
    """Refuse settings that this panel or this machine cannot follow."""
    if network_config.embedding and len(instruments) < 2:
        raise LSTMStrategyError(
            f"network.embedding is {network_config.embedding}, but there is one instrument, {instruments[0]}; use 0, or"
            " train a panel"
        )
    if config.objective == "sharpe" and config.turnover_cost is None:
        raise LSTMStrategyError(
            'train.objective is "sharpe", but train.turnover_cost is not given; name what trading costs, such as 0.001'
        )
    told = "train.compile is true" if config.compile else f'train.precision is "{config.precision}"'
    if device.type != "cuda" and (config.compile or config.precision != "float32"):
        raise LSTMStrategyError(f'{told}, but there is no CUDA device here; use compile = false and "float32"')


def starts(start: dict[str, Tensor] | None, members: int) -> list[dict[str, Tensor]] | list[None]:
    """Return the weights that each member goes on from."""
    if start is None:
        return [None] * members
    numbers = {int(name.split(".")[1]) for name in start if name.startswith("members.")}
    if (len(numbers) or 1) != members:
        raise LSTMStrategyError(
            f"the weights to start from are of {len(numbers) or 1} members, train.members is {members}; make them the"
            " same, or train from scratch"
        )
    prefixes = [f"members.{number}." for number in sorted(numbers)] or [""]
    return [{k.removeprefix(p): tensor for k, tensor in start.items() if k.startswith(p)} for p in prefixes]


def begin_at(network: StreamingLSTM, start: dict[str, Tensor]) -> None:
    """Load weights of a network of the same shape; scaler and residuals stay the network's own."""
    own = network.state_dict()
    differing = sorted(start.keys() ^ own.keys())
    differing += [name for name in own if name in start and own[name].shape != start[name].shape]
    if differing:
        raise LSTMStrategyError(
            f"the weights to start from are of a network of another shape ({differing[0]} differs); use the same"
            " [network], [target] and instruments, or train from scratch"
        )
    network.load_state_dict(start | {k: t for k, t in own.items() if k.startswith(("feature_", "residual_"))})


def average_of(ema: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Return the exponential moving average of weights, faster over the first steps, for torch's `AveragedModel`."""

    def follow(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        decay = min(ema, (1 + int(steps)) / (10 + int(steps)))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, 1.0 - decay)

    return follow
