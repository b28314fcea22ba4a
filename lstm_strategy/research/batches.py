"""Batches: a panel cut into sequences at its resets, and sequences laid out in random chunks for one epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lstm_strategy.bars import Stamps
from lstm_strategy.hyperparameters import TrainConfig
from lstm_strategy.research.labels import Sample, span_mask

__all__ = ["Batch", "Sequence", "batches", "sequences"]


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Bars of one instrument without a reset: x_TF, σ as scale_T, and labels, NaN wherever the loss must not look."""

    instrument_id: str
    ts_close: Stamps
    x_TF: Tensor
    y_TH: Tensor
    next_T: Tensor
    range_T: Tensor
    scale_T: Tensor
    mirrored_F: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B chunks of L bars side by side, with the instrument of each."""

    x_LBF: Tensor
    y_LBH: Tensor
    next_LB: Tensor
    range_LB: Tensor
    scale_LB: Tensor
    instrument_ids: list[str]


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
                next_T, range_T = (
                    np.where(inside[taken], label_T[taken], np.float32(np.nan))
                    for label_T in (sample.next_T, sample.range_T)
                )
                scale_T = sample.matrix.scale_T[taken].astype(np.float32)
                parts = (sample.matrix.x_TF[taken], y_TH, next_T, range_T, scale_T, sample.mirrored_F)
                columns = (torch.from_numpy(part) for part in parts)
                found.append(Sequence(sample.bars.instrument_id, sample.bars.ts_close[taken], *columns))
    return found


def batches(found: list[Sequence], chunk: int, config: TrainConfig, shuffle: np.random.Generator) -> Iterator[Batch]:
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
        next_LB = torch.stack([sequence.next_T[start : start + chunk] for sequence, start in rows], dim=1)
        if config.mirror:
            sign_B1 = torch.from_numpy(1.0 - 2.0 * (shuffle.random((len(rows), 1)) < config.mirror)).float()
            x_LBF, y_LBH = torch.where(found[0].mirrored_F, x_LBF * sign_B1, x_LBF), y_LBH * sign_B1
            next_LB = next_LB * sign_B1[:, 0]
        range_LB = torch.stack([sequence.range_T[start : start + chunk] for sequence, start in rows], dim=1)
        scale_LB = torch.stack([sequence.scale_T[start : start + chunk] for sequence, start in rows], dim=1)
        yield Batch(x_LBF, y_LBH, next_LB, range_LB, scale_LB, [sequence.instrument_id for sequence, _ in rows])
