"""Training: targets a second and CPU seconds to the same validation loss, beside the same network on 64-bar windows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.common import Figure, market, progress, report, seconds_of, spans_of
from benchmarks.windows import WindowTrainer
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, TargetConfig, TrainConfig
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.labels import Sample, build_sample
from lstm_strategy.research.train import RUN_IN, Trained, train

__all__ = ["run"]

_BARS = 60_000
_SEEDS = (0, 1, 2)
_SHARE = 0.95  # of the smaller of both gains over constant quantiles
_BATCHES = {64: 2.0, 256: 4.0}  # and how many times sooner we mean to be there

Curve = list[tuple[float, float]]


def run() -> list[Figure]:
    """Streaming pays for its own validation and set-up on the clock, the windows only for their gradient steps.

    Both learn from the same features, labels and bars with the same optimiser; each is validated in its own way on the
    same bars. "The same loss" is 95 % of the improvement over constant quantiles that both reach.
    """
    torch.set_num_threads(1)
    bars, instrument = market(_BARS)
    spans, target = spans_of(bars), TargetConfig()
    sample = build_sample(bars, instrument, FeaturesConfig(), target.horizons, spans)
    purge = target.horizons[-1]
    fit, stop = sequences([sample], spans["fit"], purge), sequences([sample], spans["stop"], purge, RUN_IN)
    _stream(sample, TrainConfig(epochs=1))

    rates: list[float] = []
    rival_rates: dict[int, list[float]] = {batch: [] for batch in _BATCHES}
    times: dict[int, list[tuple[float, float]]] = {batch: [] for batch in _BATCHES}
    for seed in _SEEDS:
        config = TrainConfig(seed=seed)
        trained, curve = _stream(sample, config)
        rates.append(trained.targets_per_second)
        for batch in _BATCHES:
            progress(f"training: seed {seed}, windows in batches of {batch}")
            rival = WindowTrainer(fit, stop, target, config, batch)
            rival_curve = rival.curve(interval=0.5, patience=4.0, longest=25.0)
            epoch = len(rival.fit) * rival.cpu_seconds / rival.targets + seconds_of(rival.judge)
            rival_rates[batch].append(len(rival.fit) / epoch)
            best = max(min(loss for _, loss in points) for points in (curve, rival_curve))
            wanted = trained.pinball_baseline - _SHARE * (trained.pinball_baseline - best)
            times[batch].append((_reached(curve, wanted), _reached(rival_curve, wanted)))

    fastest = max(_BATCHES, key=lambda batch: median(rival_rates[batch]))
    ours, theirs = median(rates), median(rival_rates[fastest])
    figures = [
        Figure(
            name="training, validation included",
            value=ours,
            unit="targets/s",
            rival=f"64-bar windows, batch {fastest}",
            rival_value=theirs,
            ratio=ours / theirs,
            target="≥ 30 ×",
            met=ours >= 30 * theirs,
        )
    ]
    for batch, least in _BATCHES.items():
        ours, theirs = (median(column) for column in zip(*times[batch], strict=True))
        figures.append(
            Figure(
                name="training to the same validation loss",
                value=ours,
                unit="CPU s",
                rival=f"64-bar windows, batch {batch}",
                rival_value=theirs,
                ratio=theirs / ours,
                target=f"≥ {least:.0f} ×",
                met=theirs >= least * ours,
            )
        )
    return figures


def _stream(sample: Sample, config: TrainConfig) -> tuple[Trained, Curve]:
    curve: Curve = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        trained = train(
            [sample],
            spans_of(sample.bars),
            TargetConfig(),
            NetworkConfig(),
            config,
            Path(folder) / "checkpoint.safetensors",
            lambda epoch, loss, best: curve.append((time.process_time() - started, loss)),
        )
    return trained, curve


def _reached(curve: Curve, wanted: float) -> float:
    return next(seconds for seconds, loss in curve if loss <= wanted)


if __name__ == "__main__":
    report(run)
