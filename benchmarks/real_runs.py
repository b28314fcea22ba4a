"""The record of what has been run on the test span: one entry per configuration, in ``real_runs.toml``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.experiment import Experiment

__all__ = ["Run", "configuration_of", "count", "note", "read_runs"]

_HEAD = """\
# Every configuration whose forecasts of the test span (2024) have been looked at; `make bench-real` adds to it.
# The more there are, the less the best of them means. Choose on the stop span, not here.
"""


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One configuration, and what came of it: pooled pinball losses, and skill over the best baseline (0.01 is 1 %)."""

    date: str
    configuration: str
    what: str
    folds: int
    pinball: float
    best_baseline: str
    skill_over_best: float
    pinball_last_fold: float | None = None
    skill_over_best_last_fold: float | None = None


def configuration_of(experiment: Experiment) -> str:
    """Return a short hash of all that shapes the forecasts; costs, sizing and names do not."""
    shaping = ("data", "split", "features", "target", "network", "train", "walk_forward")
    told = msgspec.json.encode([getattr(experiment, name) for name in shaping])
    return hashlib.sha256(told).hexdigest()[:8]


def read_runs(path: Path) -> list[Run]:
    """Return the runs in the record, oldest first."""
    if not path.is_file():
        return []
    return msgspec.toml.decode(path.read_bytes(), type=dict[str, list[Run]]).get("run", [])


def count(path: Path) -> int:
    """How many configurations have been run: forecasts that differ count, be it by settings or by code."""
    return len(read_runs(path))


def note(path: Path, run: Run) -> bool:
    """Add a run to the record; False where one with the same figures, and so the same forecasts, is there already."""
    held = read_runs(path)
    if any(_figures(each)[:2] == _figures(run)[:2] and _figures(each)[2] in (None, _figures(run)[2]) for each in held):
        return False
    with atomic_write(path) as temporary:
        temporary.write_text(_HEAD + "".join(f"\n[[run]]\n{_lines(each)}" for each in [*held, run]), encoding="utf-8")
    return True


def _figures(run: Run) -> tuple[int, float, float | None]:
    return run.folds, run.pinball, run.pinball_last_fold


def _lines(run: Run) -> str:
    # JSON's strings and numbers are TOML's too.
    values = msgspec.to_builtins(run)
    told = {name: msgspec.json.encode(value).decode() for name, value in values.items() if value is not None}
    return "".join(f"{name} = {value}\n" for name, value in told.items())
