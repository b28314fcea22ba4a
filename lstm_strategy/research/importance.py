"""Importance: what each feature is worth to the trained networks, by shuffling it in time and streaming them anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy import artefact
from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureMatrix, Features
from lstm_strategy.forecast import Float32
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.measures import labels
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.walk_forward import Fold

__all__ = ["Importance", "block_order", "importance"]

_BLOCK = 256  # bars, on average


class Importance(msgspec.Struct, frozen=True):
    """How much worse the forecasts become when a feature no longer says when; none of it where it is not listened to.

    Features that say the same share what they are worth: shuffling one, the network still has the other. So a small
    figure is no proof that a feature can go, and the figures do not add up.

    Parameters
    ----------
    feature : str
    increase : float
        Mean rise of the pinball loss over the test spans, in units of σ√h; ``share`` is that of the loss itself.
    spread : float
        Standard deviation of the rise from one shuffling to the next, each over all folds and instruments; None
        where there was one.
    by_fold : list of float
        The rise in each fold.
    """

    feature: str
    increase: float
    share: float
    spread: float | None
    by_fold: list[float]


@dataclass(frozen=True, slots=True)
class _Part:
    """Summed losses of one fold and instrument: as it was, and [F, R] by feature and repeat; over ``rows`` outcomes."""

    fold: int
    rows: int
    plain: float
    shuffled_FR: npt.NDArray[np.float64]


def importance(
    plan: Plan,
    folds: list[Fold],
    artefacts: dict[int, Path],
    repeats: int,
    *,
    seed: int = 0,
    workers: int = 1,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Importance]:
    """Return the features of the saved networks, the weightiest first.

    One feature's series over a test span is cut into blocks of random lengths, 256 bars on average, and these are
    laid out in another order, while all other features stay: it keeps its own course from bar to bar, but no longer
    belongs to its time. As a network remembers, the whole span is streamed anew each time, through the ONNX graph with
    its scaler and calibration as stored, after a run-in on true bars. Random lengths, since blocks of whole days would
    leave an hour of the day where it was.

    Parameters
    ----------
    artefacts : dict of fold number to folder
        One network a fold.
    repeats : int
        Shufflings of each feature; the time it takes is folds × instruments × (features × repeats + 1) streams of a
        test span.
    seed : int
        The same seed gives the same figures, whatever the number of ``workers`` (threads).
    """
    if repeats < 1:
        raise LSTMStrategyError(f"importance: repeats is {repeats}; it must be 1 or above")
    jobs = [(fold, place) for fold in folds for place in range(len(plan.history))]
    parts = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        running = pool.map(lambda job: _part(plan, job[0], job[1], artefacts[job[0].number], repeats, seed), jobs)
        for part in running:
            parts.append(part)
            on_done(len(parts), len(jobs))
    return sorted(_together(parts, plan.features.names), key=lambda row: -row.increase)


def block_order(rows: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the places 0 to rows - 1 in blocks of random lengths, two at least, laid out in another order."""
    if rows < 2:
        return np.arange(rows)
    blocks = max(2, round(rows / _BLOCK))
    cuts = np.sort(random.choice(np.arange(1, rows), blocks - 1, replace=False))
    pieces = np.split(np.arange(rows), cuts)
    order = random.permutation(blocks)
    while (order == np.arange(blocks)).all():
        order = random.permutation(blocks)
    return np.concatenate([pieces[number] for number in order])


def _part(plan: Plan, fold: Fold, place: int, folder: Path, repeats: int, seed: int) -> _Part:
    model = artefact.load(folder)
    start, end = fold.spans["test"]
    bars = plan.history[place][0].between(None, end)
    name, manifest = bars.instrument_id, model.manifest
    fit, timeframe = model.require_instrument(name), Timeframe.parse(manifest.timeframe)
    matrix = Features(manifest.features, timeframe, fit.tick, fit.scale_floor).run(bars)
    tested = bars.ts_close > (start or 0)
    forecaster = Forecaster(model, name)
    first = max(int(tested.argmax()) - forecaster.warmup_bars, 0)
    y_TH = np.stack(
        [
            labels(bars.close, bars.ts_close, matrix.scale_T, h, timeframe.ns, manifest.features.closed_ns)
            for h in manifest.horizons
        ],
        axis=1,
    )
    seen = slice(first, None)
    bars, y_TH, tested = bars[seen], np.where(tested[:, None], y_TH, np.nan)[seen], tested[seen]
    matrix = FeatureMatrix(matrix.x_TF[seen], matrix.scale_T[seen], matrix.count_T[seen], 0)
    shuffled = np.flatnonzero(tested & matrix.valid_T)

    given = forecaster.features = _Given(manifest.features, timeframe, fit.tick, fit.scale_floor)
    at_rest = forecaster.state()

    def loss(x_TF: Float32) -> tuple[float, int]:
        forecaster.restore(at_rest)
        given.matrix = replace(matrix, x_TF=x_TF)
        q_THQ = forecaster.run(bars).quantiles_THQ.astype(np.float64)
        q_THQ /= (matrix.scale_T[:, None] * np.sqrt(np.array(manifest.horizons)))[:, :, None]
        known = ~np.isnan(y_TH) & ~np.isnan(q_THQ[:, :, 0])
        error, level = y_TH[known][:, None] - q_THQ[known], np.array(manifest.levels)
        return float(np.maximum(level * error, (level - 1.0) * error).mean(axis=1).sum()), int(known.sum())

    plain, rows = loss(matrix.x_TF)
    found = np.empty((len(manifest.features.features), repeats))
    for column, repeat, order in _orders(len(shuffled), found.shape, [seed, fold.number, place]):
        x_TF = matrix.x_TF.copy()
        x_TF[shuffled, column] = x_TF[shuffled[order], column]
        found[column, repeat] = loss(x_TF)[0]
    return _Part(fold.number, rows, plain, found)


def _orders(rows: int, shape: tuple[int, ...], seed: list[int]) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    for column in range(shape[0]):
        for repeat in range(shape[1]):
            yield column, repeat, block_order(rows, np.random.default_rng([*seed, column, repeat]))


def _together(parts: list[_Part], names: tuple[str, ...]) -> list[Importance]:
    rows, plain = sum(part.rows for part in parts), sum(part.plain for part in parts)
    if not rows:
        raise LSTMStrategyError("importance: no bar of the test spans has a forecast and an outcome")
    rise_FR = np.sum([part.shuffled_FR - part.plain for part in parts], axis=0) / rows
    by_fold = []
    for number in dict.fromkeys(part.fold for part in parts):
        own = [part for part in parts if part.fold == number]
        risen = np.sum([(part.shuffled_FR - part.plain).mean(axis=1) for part in own], axis=0)
        by_fold.append(risen / max(sum(part.rows for part in own), 1))
    return [
        Importance(
            feature=name,
            increase=float(rise_FR[column].mean()),
            share=float(rise_FR[column].mean() * rows / plain),
            spread=float(rise_FR[column].std(ddof=1)) if rise_FR.shape[1] > 1 else None,
            by_fold=[float(risen_F[column]) for risen_F in by_fold],
        )
        for column, name in enumerate(names)
    ]


class _Given(Features):
    """Features that are what ``matrix`` says, in the place of those that a forecaster computes."""

    matrix: FeatureMatrix

    def run(self, bars: Bars) -> FeatureMatrix:
        """Return the matrix."""
        if len(bars) != len(self.matrix.x_TF):
            raise LSTMStrategyError(f"importance: {len(bars)} bars for {len(self.matrix.x_TF)} rows of features")
        return self.matrix
