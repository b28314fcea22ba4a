"""The ``[tune]`` section of an experiment: what may vary, and the folds that judge it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features_config import FeatureConfig

__all__ = ["NOT_TUNED", "OWN_SET", "TuneConfig"]

OWN_SET = "experiment"  # what the experiment's own list of features is called among the sets


class TuneConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The search: what may vary, and the folds that judge it; they lie before the last test span, which is not seen.

    Parameters
    ----------
    space : dict
        By dotted key into [features], [network] or [train]: ``{choices = [32, 64]}``, or ``{low = 1e-4, high = 1e-2}``
        with ``log = true`` or a ``step``.
    feature_sets : dict
        By name: lists of features of which one is taken, the experiment's own list being one more.
    feature_groups : dict
        By name: features that are taken or left together. What no group names always stays.
    folds : int
        How many test spans follow each other, the last of them up to where the last training's data ends.
    test_bars : int, optional
        Length of each; that of the last test span where not given.
    pruner : "median", "halving" or "none"
        How a trial is given up after a fold: worse than the median there, outside of the best part, or never.
    trials_run, study, pinball_std : int, str, float
        Written by `tune`: how many settings were tried, all studies together, the last study's name, and the standard
        deviation of its trials' losses. An artefact carries them, since the best of many flatters.
    """

    space: dict[str, Any] = {}
    feature_sets: dict[str, tuple[FeatureConfig | str, ...]] = {}
    feature_groups: dict[str, tuple[FeatureConfig | str, ...]] = {}
    folds: int = 3
    test_bars: int | None = None
    pruner: Literal["median", "halving", "none"] = "median"
    trials_run: int = 0
    study: str = ""
    pinball_std: float | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("folds", 1, 1_000), ("test_bars", 1, 100_000_000), ("trials_run", 0, 10_000_000)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise LSTMStrategyError(f"tune.{name} is {value}; it must be {low} to {high}")
        if self.feature_sets and self.feature_groups:
            raise LSTMStrategyError("tune.feature_sets and tune.feature_groups exclude each other; remove one")
        if OWN_SET in self.feature_sets:
            raise LSTMStrategyError(f"tune.feature_sets.{OWN_SET} is the name of the experiment's own; choose another")
        for kind in ("feature_sets", "feature_groups"):
            empty = [name for name, members in getattr(self, kind).items() if not members]
            if empty:
                raise LSTMStrategyError(f"tune.{kind}.{empty[0]} is empty; name features or remove it")


NOT_TUNED = TuneConfig()
