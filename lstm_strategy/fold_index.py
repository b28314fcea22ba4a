"""Which model of a walk-forward may speak when: an index of the folds' artefacts by date, kept beside the forecasts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["FoldIndex", "FoldModel", "index_folds", "read_fold_index"]


class FoldModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fold's network: it knows bars up to ``trained_until``, and is judged on those after ``test_start``.

    ``model`` is name/version as in the forecasts' ``model_version``, ``path`` its folder as seen from the index,
    ``digest`` its manifest's. The bar that closes at ``test_end`` is the last. Stamps are UTC.
    """

    fold: int
    seed: int
    model: str
    path: str
    digest: str
    trained_until: str
    test_start: str
    test_end: str


class FoldIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The folds in order of time, once for each seed."""

    folds: list[FoldModel]

    def at(self, ts_close: int, seed: int | None = None) -> FoldModel | None:
        """Return the model that forecasts at a bar's close, out of sample; None before the first and after the last.

        ``seed`` may be left out where there is one.
        """
        seeds = {row.seed for row in self.folds}
        if seed is None and len(seeds) > 1:
            raise LSTMStrategyError(f"the folds have seeds {', '.join(map(str, sorted(seeds)))}; say which is meant")
        wanted = seeds if seed is None else {seed}
        for row in self.folds:
            if row.seed in wanted and parse_ns(row.test_start) < ts_close <= parse_ns(row.test_end):
                return row
        return None


def index_folds(path: Path, rows: Iterable[tuple[int, int, Path, int, int]]) -> FoldIndex:
    """Write the index to ``path``, whole or not at all.

    Parameters
    ----------
    rows : (fold, seed, artefact's folder, start and end of the test span in ns)

    Raises
    ------
    LSTMStrategyError
        Where a model has seen bars of its own test span, or one fold's test span reaches into another's.
    """
    found = []
    for fold, seed, folder, start, end in rows:
        model = artefact.load(folder)
        found.append(
            FoldModel(
                fold=fold,
                seed=seed,
                model=model.label,
                path=os.path.relpath(folder, path.parent),
                digest=model.manifest.digest,
                trained_until=format_ns(model.trained_until),
                test_start=format_ns(start),
                test_end=format_ns(end),
            )
        )
    index = _checked(FoldIndex(folds=sorted(found, key=lambda row: (row.seed, row.fold))), path)
    with atomic_write(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=1))
    return index


def read_fold_index(path: Path) -> FoldIndex:
    """Read an index; refuse one that is damaged, or whose models have seen what they would be judged on."""
    try:
        return _checked(msgspec.json.decode(path.read_bytes(), type=FoldIndex), path)
    except OSError as error:
        raise LSTMStrategyError(f"{path} cannot be read ({error.strerror}); evaluate first") from None
    except msgspec.MsgspecError as error:
        raise LSTMStrategyError(f"{path} is no index of folds ({error}); evaluate again") from None


def _checked(index: FoldIndex, path: Path) -> FoldIndex:
    ends: dict[int, int] = {}
    for row in index.folds:
        start, end = parse_ns(row.test_start), parse_ns(row.test_end)
        if parse_ns(row.trained_until) > start:
            raise LSTMStrategyError(
                f"{path}: model {row.model} was trained until {row.trained_until}, but fold {row.fold} is tested from"
                f" {row.test_start}; evaluate again"
            )
        if start >= end or start < ends.get(row.seed, start):
            raise LSTMStrategyError(
                f"{path}: the test span of fold {row.fold}, {row.test_start} to {row.test_end}, is empty or begins"
                " before the one before it ends; evaluate again"
            )
        ends[row.seed] = end
    return index
