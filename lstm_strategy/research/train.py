"""Training: random chunks of a panel, loss at every step after a burn-in, early stopping on a purged span."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import NetworkConfig, Spans, TargetConfig, TrainConfig
from lstm_strategy.network import SLICE, Ensemble, Streaming, StreamingLSTM
from lstm_strategy.research.batches import Sequence, batches, sequences
from lstm_strategy.research.checkpoint import Checkpoint
from lstm_strategy.research.labels import Sample
from lstm_strategy.research.losses import Loss, constant_quantiles, label_quantiles, loss_of, pinball, range_loss
from lstm_strategy.research.members import average_of, begin_at, checkpoints, member_seeds, require_possible, starts
from lstm_strategy.research.objective import hold_nothing, net_returns, sharpe

__all__ = ["RUN_IN", "Trained", "forecast_sequences", "judged_rows", "stream", "train"]

RUN_IN = 512  # bars before a span that fill the state when the span is judged


@dataclass(frozen=True, slots=True)
class Trained:
    """The best network by validation loss, and how it was found; a target is a bar with a loss, at any horizon.

    ``pinball`` is that of the whole on the stop span; ``losses`` are those by which each member was chosen there.
    """

    network: StreamingLSTM | Ensemble
    baseline_HQ: Tensor
    pinball: float
    pinball_baseline: float
    losses: tuple[float, ...]
    epochs: int
    seconds: float
    targets_per_second: float


@dataclass(frozen=True, slots=True)
class _Member:
    network: StreamingLSTM
    loss: float
    epochs: int
    targets: int
    seconds: float


@torch.no_grad()
def stream(network: Streaming, sequence: Sequence) -> tuple[Tensor, ...]:
    """Stream a sequence from rest; return q_THQ and, where there is one, position_T: what the network says."""
    network.eval()
    device = network.feature_mean.device
    slice_ = SLICE if "memory" in network.state_shapes else len(sequence.x_TF)
    state: Iterable[Tensor] = network.initial_state(1)
    number_B = network.numbers_of([sequence.instrument_id])
    parts = []
    for x_TBF in torch.split(sequence.x_TF[:, None], slice_):
        found = network(x_TBF.to(device), *state, instrument_B=number_B)
        said, state = found[: len(network.says)], found[len(network.says) :]
        parts.append([told[:, 0].cpu() for told in said])
    q_TN, *position = (torch.cat(part) for part in zip(*parts, strict=True))
    return q_TN.reshape(len(q_TN), sequence.y_TH.shape[1], -1), *(told[:, 0] for told in position)


def forecast_sequences(network: Streaming, found: list[Sequence]) -> tuple[Tensor, Tensor]:
    """Stream every sequence from rest; return (q_NHQ, y_NH) of the rows that have a label."""
    return _labelled([stream(network, sequence)[0] for sequence in found], found)


def judged_rows(sequence: Sequence) -> Tensor:
    """Return which rows have a label, bool [T]: those that `forecast_sequences` returns."""
    return ~torch.isnan(sequence.y_TH).all(dim=1)


def _labelled(forecasts: list[Tensor], found: list[Sequence]) -> tuple[Tensor, Tensor]:
    judged = [judged_rows(sequence) for sequence in found]
    q_NHQ = torch.cat([q_THQ[rows] for q_THQ, rows in zip(forecasts, judged, strict=True)])
    return q_NHQ, torch.cat([sequence.y_TH[rows] for sequence, rows in zip(found, judged, strict=True)])


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
    """Fit a network on the fit span, stopping by the stop span; the members of an ensemble one after the other.

    After every epoch a checkpoint is written; a run that finds its own checkpoints goes on from there and ends with the
    same weights as one that was never interrupted. CUDA is used where present. ``on_epoch`` hears an epoch's number,
    its loss on the stop span and the best so far; the first epoch of member n has the number n * epochs + 1.
    """
    torch.set_num_threads(config.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    instruments = tuple(sorted(sample.bars.instrument_id for sample in samples))
    require_possible(network_config, config, instruments, device)
    purge = target.horizons[-1]
    fit, stop = sequences(samples, spans["fit"], purge), sequences(samples, spans["stop"], purge, RUN_IN)
    chunk = min(config.chunk, max((len(s.x_TF) for s in fit), default=0))
    if not stop or chunk <= config.burn_in:
        short = "stop" if not stop else "fit"
        problem = f"the {short} span holds too few bars with features and labels for chunks of {config.chunk} bars"
        raise LSTMStrategyError(f"{problem}; move split.{short}_end or import more history")
    taught = {sequence.instrument_id for sequence in fit if len(sequence.x_TF) >= chunk}
    if untaught := [name for name in instruments if name not in taught]:
        raise LSTMStrategyError(
            f"{untaught[0]} would teach nothing: its fit span holds no {chunk} bars with features in a row; leave it"
            " out, lower train.chunk, or import more history"
        )
    inputs = torch.cat([sequence.x_TF for sequence in fit])
    std = inputs.std(dim=0)
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    baseline_HQ = constant_quantiles(fit, target.levels)
    judge = loss_of(network_config, target)

    members: list[_Member] = []
    plans = zip(
        member_seeds(config), starts(start, config.members), checkpoints(checkpoint, config.members), strict=True
    )
    for number, (seed, own_start, path) in enumerate(plans):
        torch.manual_seed(seed)
        scaler = (inputs.mean(dim=0), std)
        heads = (config.range_weight > 0, config.objective == "sharpe")
        network = StreamingLSTM(network_config, *scaler, baseline_HQ, instruments, *heads).to(device)
        if own_start is not None:
            begin_at(network, own_start)
        first = number * config.epochs

        def on_own(epoch: int, loss: float, best: float, first: int = first) -> None:
            on_epoch(first + epoch, loss, best)

        members.append(_train_member(network, seed, fit, stop, chunk, judge, config, path, on_own))

    whole = Ensemble([member.network for member in members]) if len(members) > 1 else members[0].network
    if network_config.head != "quantiles":
        _spread_residuals(members, whole, fit, target.levels, config.burn_in)
    levels_Q = torch.tensor(target.levels)
    found = float(pinball(*forecast_sequences(whole, stop), levels_Q))
    stop_labels = torch.cat([sequence.y_TH for sequence in stop])
    baseline = float(pinball(baseline_HQ.expand(len(stop_labels), -1, -1), stop_labels, levels_Q))
    seconds = sum(member.seconds for member in members)
    rate = sum(member.targets for member in members) / seconds if seconds > 0 else 0.0
    losses, epochs = tuple(member.loss for member in members), sum(member.epochs for member in members)
    return Trained(whole.cpu().eval(), baseline_HQ, found, baseline, losses, epochs, seconds, rate)


def _train_member(
    network: StreamingLSTM,
    seed: int,
    fit: list[Sequence],
    stop: list[Sequence],
    chunk: int,
    judge: Loss,
    config: TrainConfig,
    checkpoint: Path,
    on_epoch: Callable[[int, float, float], None],
) -> _Member:
    """Train from the checkpoint or the given weights on; the network ends with the best weights."""
    device = network.feature_mean.device
    # foreach: all weights at once; half the time of one after the other, and the same to the last bit (fused is not).
    decay = config.weight_decay
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=decay, foreach=True)
    average = AveragedModel(network, multi_avg_fn=average_of(config.ema)) if config.ema else None
    state = Checkpoint(checkpoint, network, optimiser, average)
    shuffle = np.random.default_rng([seed, 1])
    state.resume(shuffle)
    range_of = range_loss(fit) if config.range_weight else None
    forward = network.tasks if range_of or "position" in network.says else network
    if config.compile:
        forward = torch.compile(forward)

    targets, started = 0, time.perf_counter()
    while state.epoch < config.epochs and state.epoch - state.best_epoch < config.patience:
        network.train()
        for group in optimiser.param_groups:  # a cosine from the learning rate to zero
            group["lr"] = config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * state.epoch / config.epochs))
        for batch in batches(fit, chunk, config, shuffle):
            number_B = network.numbers_of(batch.instrument_ids)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                state_0 = network.initial_state(batch.x_LBF.shape[1])
                q_LBN, ranges_LB, position_LB, *_ = forward(batch.x_LBF.to(device), *state_0, instrument_B=number_B)
            q_LBHQ = q_LBN[config.burn_in :].float().unflatten(-1, (batch.y_LBH.shape[-1], -1))
            loss = judge(q_LBHQ, batch.y_LBH[config.burn_in :].to(device))
            if "position" in network.says:
                labels = batch.next_LB.to(device), batch.scale_LB.to(device)
                net_LB = net_returns(position_LB.float(), *labels, config.turnover_cost or 0.0)
                loss = config.quantile_weight * loss - sharpe(net_LB[config.burn_in :])
            if range_of is not None:
                told = range_of(ranges_LB[config.burn_in :].float(), batch.range_LB[config.burn_in :].to(device))
                loss = loss + config.range_weight * told
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm, foreach=True)
            optimiser.step()
            if average is not None:
                average.update_parameters(network)
            targets += int((~torch.isnan(batch.y_LBH[config.burn_in :])).any(dim=-1).sum())
        judged = _judged(state.judged, stop, judge, config)[0]
        state.finish_epoch(judged, shuffle)
        on_epoch(state.epoch, judged, state.best)
    seconds = time.perf_counter() - started
    network.load_state_dict(state.best_weights)
    lowest = state.best
    if "position" in network.says and not _judged(network, stop, judge, config)[1] > 0.0:
        hold_nothing(network)  # rather than what lost
        lowest = _judged(network, stop, judge, config)[0]
    return _Member(network, lowest, state.epoch, targets, seconds)


def _judged(network: Streaming, found: list[Sequence], judge: Loss, config: TrainConfig) -> tuple[float, float]:
    """Return the loss that training minimises, over all of a span at once, and the net Sharpe ratio in it (or 0)."""
    said = [stream(network, sequence) for sequence in found]
    loss = float(judge(*_labelled([q_THQ for q_THQ, *_ in said], found)))
    if "position" not in network.says:
        return loss, 0.0
    pairs = zip(said, found, strict=True)
    net = [net_returns(told[1], own.next_T, own.scale_T, config.turnover_cost or 0.0) for told, own in pairs]
    earned = float(sharpe(torch.cat(net)))
    return config.quantile_weight * loss - earned, earned


@torch.no_grad()
def _spread_residuals(
    members: list[_Member], whole: Streaming, fit: list[Sequence], levels: tuple[float, ...], burn_in: int
) -> None:
    """Set around the point of each member the quantiles of what the whole missed by on the fit span."""
    warm = [replace(sequence, y_TH=sequence.y_TH.clone()) for sequence in fit]
    for sequence in warm:
        sequence.y_TH[:burn_in] = torch.nan  # from rest, the first bars miss by more
    q_NHQ, y_NH = forecast_sequences(whole, warm)
    residual_HQ = label_quantiles(y_NH - q_NHQ[..., len(levels) // 2], levels)
    for member in members:
        member.network.residual_HQ.copy_(residual_HQ)
