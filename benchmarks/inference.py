"""Inference: a whole history at once, and one bar at a time, beside the same network on 64-bar windows in torch."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Figure, market, model, progress, report, side_by_side
from benchmarks.windows import WINDOW, forecast_windows
from lstm_strategy.artefact import Artefact
from lstm_strategy.bars import Bars
from lstm_strategy.features import Features
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.network import StreamingLSTM

__all__ = ["run"]

_HISTORY, _RIVAL_HISTORY, _REPETITIONS = 100_000, 10_000, 5
_ROUNDS, _UPDATES, _RIVAL_UPDATES = 5, 4_000, 400


def run() -> list[Figure]:
    """Both sides compute the same features; the windows run in the faster of two batch sizes."""
    torch.set_num_threads(1)
    artefact = model()
    bars, _ = market(_HISTORY)
    network = _torch_network(artefact)
    return [_history(artefact, network, bars), _live(artefact, network, bars)]


def _torch_network(artefact: Artefact) -> StreamingLSTM:
    """The same architecture and size; the weights do not matter to the clock."""
    manifest = artefact.manifest
    mean, std = (torch.tensor([getattr(f, name) for f in manifest.feature_ranges]) for name in ("mean", "std"))
    return StreamingLSTM(manifest.network, mean, std, torch.tensor(manifest.baseline)).eval()


def _features(artefact: Artefact, bars: Bars) -> Features:
    fit = artefact.require_instrument(bars.instrument_id)
    return Features(artefact.manifest.features, bars.timeframe, fit.tick, fit.scale_floor)


def _history(artefact: Artefact, network: StreamingLSTM, bars: Bars) -> Figure:
    progress("inference: a history")
    some = bars[:_RIVAL_HISTORY]

    def ours() -> None:
        Forecaster(artefact, bars.instrument_id).run(bars)

    @torch.inference_mode()
    def windowed(batch: int) -> None:
        matrix = _features(artefact, some).run(some)
        x_TF = torch.from_numpy(matrix.x_TF[matrix.valid_T])
        for x_BFW in x_TF.unfold(0, WINDOW, 1).split(batch):
            forecast_windows(network, x_BFW.permute(2, 0, 1))

    found = [side_by_side(ours, lambda batch=batch: windowed(batch), _REPETITIONS) for batch in (64, 256)]
    rate = len(bars) / median(seconds for seconds, _ in found)
    rival_rate = max(len(some) / seconds for _, seconds in found)
    return Figure(
        name="forecasting a history, features included",
        value=rate,
        unit="bars/s",
        rival="64-bar windows in batches, torch",
        rival_value=rival_rate,
        ratio=rate / rival_rate,
        target="≥ 15 ×",
        met=rate >= 15 * rival_rate,
    )


def _live(artefact: Artefact, network: StreamingLSTM, bars: Bars) -> Figure:
    progress("inference: one live update")
    forecaster, features = Forecaster(artefact, bars.instrument_id), _features(artefact, bars)
    start = 2_000
    forecaster.warm_up(bars[:start])
    features.run(bars[:start])
    window = torch.zeros(WINDOW, 1, len(artefact.manifest.features.features))

    @torch.inference_mode()
    def windowed(row: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        window[:-1] = window[1:].clone()
        window[-1, 0] = row
        return forecast_windows(network, window).numpy()

    stream = list(bars[start:])
    ours: list[float] = []
    theirs: list[float] = []
    position = rival_position = 0
    for _ in range(_ROUNDS):
        taken = []
        for bar in stream[position : position + _UPDATES]:
            started = time.perf_counter_ns()
            forecaster.update(bar)
            taken.append(time.perf_counter_ns() - started)
        ours.append(median(taken) / 1e3)
        taken = []
        for bar in stream[rival_position : rival_position + _RIVAL_UPDATES]:
            started = time.perf_counter_ns()
            row = features.update(bar)
            assert row is not None
            windowed(torch.from_numpy(row[0]))
            taken.append(time.perf_counter_ns() - started)
        theirs.append(median(taken) / 1e3)
        position, rival_position = position + _UPDATES, rival_position + _RIVAL_UPDATES
    value, rival = median(ours), median(theirs)
    return Figure(
        name="one live update, p50, features included",
        value=value,
        unit="µs",
        rival="64-bar window, torch eager",
        rival_value=rival,
        ratio=rival / value,
        target="≤ 50 µs, ≥ 8 ×",
        met=value <= 50 and rival >= 8 * value,
    )


if __name__ == "__main__":
    report(run)
