"""Drift: how far each feature strayed, fold by fold, from what the network was taught with; and which never moved."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np

from lstm_strategy.bars import Bars
from lstm_strategy.features import Features
from lstm_strategy.forecast import Float32
from lstm_strategy.instrument import Instrument
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.scores import drift
from lstm_strategy.research.walk_forward import Fold

__all__ = ["Drift", "DriftRow", "drift_between_folds"]

_SMALL, _LARGE = 0.1, 0.25  # the customary reading of a PSI
_STILL = 1e-6  # a deviation below this is a constant to the scaler


class DriftRow(msgspec.Struct, frozen=True):
    """Population stability index of each feature, all instruments together, from one span to a later one.

    ``earlier`` and ``later`` name the spans, such as "fit of fold 0" and "test of fold 0".
    """

    fold: int
    earlier: str
    later: str
    psi: dict[str, float]


class Drift(msgspec.Struct, frozen=True):
    """Drift within folds (fit to test) and from test span to test span; what is wrong with features, in words.

    ``constant`` are the features that never change over the whole fit span, by fold: they teach the network nothing,
    and what it says where they move was never learned.
    """

    rows: list[DriftRow]
    constant: dict[int, list[str]]
    told: list[str]


def drift_between_folds(plan: Plan, folds: list[Fold]) -> Drift:
    """Compare the features of every fold's test span with its fit span, and with the test span before."""
    names = plan.features.names
    matrices = [_matrix(plan, *pair) for pair in plan.history]
    spans = {name: [_span(plan, matrices, fold, name) for fold in folds] for name in ("fit", "test")}
    rows = [
        DriftRow(fold.number, f"fit of fold {fold.number}", f"test of fold {fold.number}", _psi(names, fit, test))
        for fold, fit, test in zip(folds, spans["fit"], spans["test"], strict=True)
    ]
    for (before, was), (fold, now) in pairwise(zip(folds, spans["test"], strict=True)):
        told = (f"test of fold {before.number}", f"test of fold {fold.number}")
        rows.append(DriftRow(fold.number, *told, _psi(names, was, now)))
    constant: dict[int, list[str]] = {}
    moved: dict[int, list[str]] = {}
    for fold, fit, test in zip(folds, spans["fit"], spans["test"], strict=True):
        still_F = np.ptp(fit, axis=0) < _STILL if len(fit) else np.ones(len(names), np.bool_)
        if still_F.any():
            constant[fold.number] = [names[place] for place in np.flatnonzero(still_F)]
            moves_F = still_F & (np.ptp(test, axis=0) >= _STILL) if len(test) else np.zeros_like(still_F)
            moved[fold.number] = [names[place] for place in np.flatnonzero(moves_F)]
    return Drift(rows, constant, [_largest(rows), *_still(constant, moved)])


def _matrix(plan: Plan, bars: Bars, instrument: Instrument) -> tuple[Bars, Float32]:
    """Features without the floor of σ, which differs from fold to fold and holds only where prices stand still."""
    x_TF = Features(plan.features, bars.timeframe, float(instrument.tick)).run(bars).x_TF
    return bars, x_TF


def _span(plan: Plan, matrices: list[tuple[Bars, Float32]], fold: Fold, name: str) -> Float32:
    """Rows past the warm-up, all instruments together."""
    start, end = fold.spans[name]
    found = []
    for bars, x_TF in matrices:
        kept = np.ones(len(bars), np.bool_) if start is None else bars.ts_close > start
        kept &= True if end is None else bars.ts_close <= end
        found.append(x_TF[kept & ~np.isnan(x_TF).all(axis=1)])
    return np.concatenate(found)


def _psi(names: tuple[str, ...], was_NF: Float32, now_NF: Float32) -> dict[str, float]:
    return dict(zip(names, drift(was_NF, now_NF).tolist(), strict=True))


def _largest(rows: list[DriftRow]) -> str:
    found = [(value, name, row) for row in rows for name, value in row.psi.items() if not math.isnan(value)]
    if not found:
        return "Drift of features cannot be told: a span holds no bar past the warm-up."
    value, name, row = max(found, key=lambda each: each[0])
    large = [each for each in found if each[0] > _LARGE]
    judged = "large" if value > _LARGE else "some" if value > _SMALL else "none to speak of"
    told = f"Largest drift of a feature: {name}, from the {row.earlier} to the {row.later}, PSI {value:.2f} ({judged})"
    if len(large) > 1:
        names = len({name for _, name, _ in large})
        told += f"; {len(large)} of {len(found)} comparisons, of {names} features, lie above {_LARGE}"
    return f"{told}."


def _still(constant: dict[int, list[str]], moved: dict[int, list[str]]) -> list[str]:
    """Say each feature once, with its folds."""
    told = []
    for name in dict.fromkeys(name for names in constant.values() for name in names):
        still = ", ".join(str(number) for number, names in constant.items() if name in names)
        later = ", ".join(str(number) for number, names in moved.items() if name in names)
        said = f"Feature {name} never changes over the whole fit span of fold {still} and teaches nothing there"
        told.append(f"{said}; yet it moves in the test span of fold {later}." if later else f"{said}.")
    return told
