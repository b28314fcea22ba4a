"""Training: random chunks of a panel, loss at every step after a burn-in, early stopping on a purged span."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import NetworkConfig, Spans, TargetConfig, TrainConfig
from lstm_strategy.network import StreamingLSTM
from lstm_strategy.research.checkpoint import Checkpoint
from lstm_strategy.research.labels import Sample, span_mask

__all__ = ["Sequence", "Trained", "constant_quantiles", "forecast_sequences", "pinball", "sequences", "train"]

RUN_IN = 512  # bars before a span that fill the state when the span is judged


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Bars without a reset: x_TF, and y_TH with NaN wherever the loss must not look."""

    x_TF: Tensor
    y_TH: Tensor


@dataclass(frozen=True, slots=True)
class Trained:
    """The best network by validation loss, and how it was found; a target is a bar with a loss, at any horizon."""

    network: StreamingLSTM
    baseline_HQ: Tensor
    pinball: float
    pinball_baseline: float
    epochs: int
    seconds: float
    targets_per_second: float


def sequences(
    samples: list[Sample], span: tuple[int | None, int | None], purge: int, run_in: int = 0
) -> list[Sequence]:
    """Cut a span of every instrument at its resets; ``run_in`` earlier bars come along without labels."""
    found = []
    for sample in samples:
        inside = span_mask(sample.bars, span, purge)
        valid = sample.matrix.valid_T
        for rows in np.split(np.arange(len(inside)), np.flatnonzero(sample.matrix.count_T == 1)):
            wanted = rows[inside[rows] & valid[rows]]
            if len(wanted):
                taken = rows[(rows >= wanted[0] - run_in) & (rows <= wanted[-1]) & valid[rows]]
                y_TH = np.where(inside[taken, None], sample.y_TH[taken], np.float32(np.nan))
                found.append(Sequence(torch.from_numpy(sample.matrix.x_TF[taken]), torch.from_numpy(y_TH)))
    return found


def pinball(q_NHQ: Tensor, y_NH: Tensor, levels_Q: Tensor) -> Tensor:
    """Mean pinball loss over levels and all labels that are not NaN."""
    error = y_NH[..., None] - q_NHQ
    loss = torch.maximum(levels_Q * error, (levels_Q - 1.0) * error).mean(dim=-1)
    known = ~torch.isnan(y_NH)
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp_min(1)


def constant_quantiles(found: list[Sequence], levels: tuple[float, ...]) -> Tensor:
    """Empirical quantiles [H, Q] of all labels: what a forecaster without features would say."""
    y_NH = torch.cat([sequence.y_TH for sequence in found]).numpy()
    if np.isnan(y_NH).all(axis=0).any():
        raise LSTMStrategyError("the fit span holds no label for a horizon; move split.fit_end or shorten the horizon")
    return torch.from_numpy(np.nanquantile(y_NH, levels, axis=0).T.astype(np.float32))


@torch.no_grad()
def forecast_sequences(network: StreamingLSTM, found: list[Sequence]) -> tuple[Tensor, Tensor]:
    """Stream every sequence from rest; return (q_NHQ, y_NH) of the rows that have a label."""
    network.eval()
    device = network.feature_mean.device
    forecasts, labels = [], []
    for sequence in found:
        h, c = network.initial_state(1)
        q_TBN, _, _ = network(sequence.x_TF[:, None].to(device), h, c)
        judged = ~torch.isnan(sequence.y_TH).all(dim=1)
        q_THQ = q_TBN[:, 0].cpu().unflatten(-1, (sequence.y_TH.shape[1], -1))
        forecasts.append(q_THQ[judged])
        labels.append(sequence.y_TH[judged])
    return torch.cat(forecasts), torch.cat(labels)


def train(
    samples: list[Sample],
    spans: Spans,
    target: TargetConfig,
    network_config: NetworkConfig,
    config: TrainConfig,
    checkpoint: Path,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, best: None,
    start: dict[str, Tensor] | None = None,
) -> Trained:
    """Fit a network on the fit span, stopping by the stop span.

    After every epoch a checkpoint is written; a run that finds its own checkpoint goes on from there and ends with the
    same weights as one that was never interrupted. CUDA is used where present.
    """
    torch.set_num_threads(config.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    levels_Q = torch.tensor(target.levels)
    purge = target.horizons[-1]
    fit, stop = sequences(samples, spans["fit"], purge), sequences(samples, spans["stop"], purge, RUN_IN)
    chunk = min(config.chunk, max((len(s.x_TF) for s in fit), default=0))
    if not stop or chunk <= config.burn_in:
        short = "stop" if not stop else "fit"
        problem = f"the {short} span holds too few bars with features and labels for chunks of {config.chunk} bars"
        raise LSTMStrategyError(f"{problem}; move split.{short}_end or import more history")
    inputs = torch.cat([sequence.x_TF for sequence in fit])
    std = inputs.std(dim=0)
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    baseline_HQ = constant_quantiles(fit, target.levels)

    torch.manual_seed(config.seed)
    network = StreamingLSTM(network_config, inputs.mean(dim=0), std, baseline_HQ).to(device)
    if start is not None:
        own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("feature_")}
        network.load_state_dict(start | own)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    state = Checkpoint(checkpoint, network, optimiser)
    shuffle = np.random.default_rng([config.seed, 1])
    state.resume(shuffle)

    targets, started = 0, time.perf_counter()
    while state.epoch < config.epochs and state.epoch - state.best_epoch < config.patience:
        network.train()
        for group in optimiser.param_groups:  # a cosine from the learning rate to zero
            group["lr"] = config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * state.epoch / config.epochs))
        for x_LBF, y_LBH in _batches(fit, chunk, config, shuffle):
            h, c = network.initial_state(x_LBF.shape[1])
            q_LBN, _, _ = network(x_LBF.to(device), h, c)
            q_LBHQ = q_LBN[config.burn_in :].unflatten(-1, (len(target.horizons), -1))
            loss = pinball(q_LBHQ, y_LBH[config.burn_in :].to(device), levels_Q.to(device))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimiser.step()
            targets += int((~torch.isnan(y_LBH[config.burn_in :])).any(dim=-1).sum())
        judged = float(pinball(*forecast_sequences(network, stop), levels_Q))
        state.finish_epoch(judged, shuffle)
        on_epoch(state.epoch, judged, state.best)
    seconds = time.perf_counter() - started

    network.load_state_dict(state.best_weights)
    stop_labels = torch.cat([sequence.y_TH for sequence in stop])
    baseline = float(pinball(baseline_HQ.expand(len(stop_labels), -1, -1), stop_labels, levels_Q))
    rate = targets / seconds if seconds > 0 else 0.0
    return Trained(network.cpu().eval(), baseline_HQ, state.best, baseline, state.epoch, seconds, rate)


def _batches(
    found: list[Sequence], chunk: int, config: TrainConfig, shuffle: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch: every sequence laid out in overlapping chunks from a random first bar on, in random order."""
    stride = chunk - config.burn_in
    starts: list[tuple[int, int]] = []
    for number, sequence in enumerate(found):
        last = len(sequence.x_TF) - chunk
        if last >= 0:
            first = int(shuffle.integers(0, min(stride, last + 1)))
            starts += [(number, start) for start in (*range(first, last, stride), last)]
    order: npt.NDArray[np.int64] = shuffle.permutation(len(starts))
    for batch in np.array_split(order, max(1, round(len(order) / config.batch))):
        rows = [(found[number], start) for number, start in (starts[i] for i in batch)]
        x_LBF = torch.stack([sequence.x_TF[start : start + chunk] for sequence, start in rows], dim=1)
        y_LBH = torch.stack([sequence.y_TH[start : start + chunk] for sequence, start in rows], dim=1)
        yield x_LBF, y_LBH
