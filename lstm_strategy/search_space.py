"""The space that `tune` searches: settings within ranges or choices, and features; read strictly, without torch."""

from __future__ import annotations

import difflib
import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
from lstm_strategy.tune_config import OWN_SET, TuneConfig

__all__ = ["FEATURE_SET", "GROUP", "Dimension", "Settings", "Space"]

Value = str | int | float | bool | None

FEATURE_SET, GROUP = "feature_set", "feature_groups."  # what the choices of features are called in a study
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "features": FeaturesConfig,
    "network": NetworkConfig,
    "train": TrainConfig,
}
_REFUSED = {
    "features.features": "name [tune.feature_sets] or [tune.feature_groups] instead",
    **dict.fromkeys(
        ("train.objective", "train.turnover_cost", "train.quantile_weight"),
        "trials are judged by their quantiles' loss, which says nothing of positions",
    ),
    "train.seed": "the luckiest seed is no setting; use walk_forward.seeds to average over several",
}
_COMBINATIONS = 512  # tried when the space is read


@dataclass(frozen=True, slots=True)
class Settings:
    """What a trial may change of an experiment."""

    features: FeaturesConfig
    network: NetworkConfig
    train: TrainConfig


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing that varies: among ``choices``, or from ``low`` to ``high`` (whole numbers where both are)."""

    key: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    @property
    def corners(self) -> tuple[Value, ...]:
        """The choices, or the ends of the range."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of those that can be tried."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return bool(self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9)

    def __str__(self) -> str:
        return str(list(self.choices)) if self.choices else f"{self.low} to {self.high}"


class Space:
    """All dimensions of a search around an experiment's own settings.

    Parameters
    ----------
    config : TuneConfig
    own : Settings

    Raises
    ------
    LSTMStrategyError
        One line naming the key: where it is unknown, a range contradicts itself, the experiment's own value lies
        outside, or a combination (the corners of the space, 512 of them at most) is refused by the settings.
    """

    def __init__(self, config: TuneConfig, own: Settings) -> None:
        self.own_settings = own
        self._config = config
        listed = {feature.name: feature for feature in own.features.features}
        self.feature_sets = _resolve("feature_sets", config.feature_sets, listed)
        self.feature_groups = _resolve("feature_groups", config.feature_groups, listed)
        self.dimensions = tuple(_dimension(key, told) for key, told in _flat(config.space).items())
        self.own: dict[str, Value] = {d.key: _value_at(own, d.key) for d in self.dimensions}
        if self.feature_sets:
            self.dimensions += (Dimension(FEATURE_SET, (OWN_SET, *self.feature_sets)),)
            self.own[FEATURE_SET] = OWN_SET
        for name, members in self.feature_groups.items():
            held = {member.name in listed for member in members}
            if len(held) > 1:
                raise LSTMStrategyError(
                    f"tune.feature_groups.{name} mixes features of the experiment with new ones; make two groups of it"
                )
            self.dimensions += (Dimension(f"{GROUP}{name}", (False, True)),)
            self.own[f"{GROUP}{name}"] = held == {True}
        for dimension in self.dimensions:
            if not dimension.holds(self.own[dimension.key]):
                raise LSTMStrategyError(
                    f"{dimension.key} is {self.own[dimension.key]}, which tune.space does not hold ({dimension}): the"
                    " experiment's own settings are tried first, so widen the space or change the setting"
                )
        for values in self._corners():
            self.settings(values)

    def settings(self, values: Mapping[str, Value]) -> Settings:
        """Return the settings of a trial; refuse values that the settings do not allow together."""
        changed: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            if section in _SECTIONS:
                changed.setdefault(section, {})[name] = value
        features = self._features(values)
        if features is not None:
            changed.setdefault("features", {})["features"] = features
        try:
            made = {name: self._changed(name, changes) for name, changes in changed.items()}
        except (LSTMStrategyError, msgspec.ValidationError) as error:
            told = ", ".join(f"{key} = {value!r}" for key, value in values.items())
            raise LSTMStrategyError(f"tune.space allows {told}, which is refused: {error}; narrow it") from None
        own = self.own_settings
        return Settings(
            made.get("features", own.features), made.get("network", own.network), made.get("train", own.train)
        )

    def _changed(self, section: str, changes: dict[str, Any]) -> Any:
        whole = msgspec.to_builtins(getattr(self.own_settings, section)) | changes
        return msgspec.convert(whole, _SECTIONS[section], from_attributes=True)

    def _features(self, values: Mapping[str, Value]) -> tuple[FeatureConfig, ...] | None:
        if self.feature_sets:
            chosen = values[FEATURE_SET]
            return None if chosen == OWN_SET else self.feature_sets[str(chosen)]
        if not self.feature_groups:
            return None
        left = {m.name for name, members in self.feature_groups.items() if not values[GROUP + name] for m in members}
        own = [feature for feature in self.own_settings.features.features if feature.name not in left]
        there = {feature.name for feature in own}
        added = (m for name, members in self.feature_groups.items() if values[GROUP + name] for m in members)
        return (*own, *(member for member in added if member.name not in there))

    def _corners(self) -> list[dict[str, Value]]:
        """The space's corners; where they are too many, one step off its own settings each way, and a fixed draw."""
        corners = [dimension.corners for dimension in self.dimensions]
        keys = [dimension.key for dimension in self.dimensions]
        if math.prod(map(len, corners)) <= _COMBINATIONS:
            return [dict(zip(keys, values, strict=True)) for values in itertools.product(*corners)]
        found = [self.own | {key: value} for key, values in zip(keys, corners, strict=True) for value in values]
        draw = random.Random(0)
        found += [
            {key: draw.choice(values) for key, values in zip(keys, corners, strict=True)} for _ in range(_COMBINATIONS)
        ]
        return found


def _flat(space: dict[str, Any]) -> dict[str, Any]:
    """By dotted key, whether that was written in quotes or not."""
    found: dict[str, Any] = {}
    for key, told in space.items():
        if key in _SECTIONS and isinstance(told, dict):
            found |= {f"{key}.{name}": inner for name, inner in told.items()}
        else:
            found[key] = told
    return found


def _resolve(
    kind: str, named: dict[str, tuple[FeatureConfig | str, ...]], listed: dict[str, FeatureConfig]
) -> dict[str, tuple[FeatureConfig, ...]]:
    found = {}
    for name, members in named.items():
        for member in members:
            if isinstance(member, str) and member not in listed:
                near = difflib.get_close_matches(member, listed, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(listed)}"
                raise LSTMStrategyError(
                    f"tune.{kind}.{name} names {member[:80]!r}, which is none of the experiment's features; {hint}"
                )
        found[name] = tuple(listed[member] if isinstance(member, str) else member for member in members)
    return found


def _dimension(key: str, told: Any) -> Dimension:
    section, _, name = key.partition(".")
    known = [f"{part}.{field}" for part, kind in _SECTIONS.items() for field in kind.__struct_fields__]
    if key in _REFUSED:
        raise LSTMStrategyError(f"tune.space: {key} cannot vary: {_REFUSED[key]}")
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"settings of {', '.join(_SECTIONS)} can vary"
        raise LSTMStrategyError(f"tune.space: unknown key {key[:80]}; {hint}")
    where = f"tune.space.{key}"
    if not isinstance(told, dict):
        raise LSTMStrategyError(f"{where} is {told!r}; write {{choices = [...]}} or {{low = ..., high = ...}}")
    unknown = sorted(set(told) - {"choices", "low", "high", "step", "log"})
    if unknown:
        raise LSTMStrategyError(f"{where}: unknown key {unknown[0][:80]}; allowed here: choices, high, log, low, step")
    if ("choices" in told) == ("low" in told or "high" in told):
        raise LSTMStrategyError(f"{where} needs either choices, or low and high")
    kind = get_type_hints(_SECTIONS[section])[name]
    return _choices(key, where, told, kind) if "choices" in told else _range(key, where, told, kind)


def _choices(key: str, where: str, told: dict[str, Any], kind: Any) -> Dimension:
    choices = told["choices"]
    if not isinstance(choices, list) or not choices or len(told) > 1:
        raise LSTMStrategyError(f"{where}.choices is {choices!r}; write a list of values, and nothing beside it")
    try:
        converted = tuple(msgspec.convert(choice, kind) for choice in choices)
    except msgspec.ValidationError as error:
        raise LSTMStrategyError(f"{where}.choices is {choices!r}: {error}") from None
    if len(set(converted)) != len(converted):
        raise LSTMStrategyError(f"{where}.choices is {choices!r}; name each once")
    return Dimension(key, converted)


def _range(key: str, where: str, told: dict[str, Any], kind: Any) -> Dimension:
    low: Any
    high: Any
    step: Any
    low, high, step, log = (told.get(name) for name in ("low", "high", "step", "log"))
    shown = f"{where} is {low!r} to {high!r}"
    if kind not in (int, float):
        raise LSTMStrategyError(f"{shown}, but {key} is no number; write choices")
    log = False if log is None else log
    for value in (low, high, *([] if step is None else [step])):
        right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not right or not math.isfinite(value):
            raise LSTMStrategyError(
                f"{shown}, step {step!r}; {'whole' if kind is int else 'finite'} numbers are needed for {key}"
            )
    if not low < high:
        raise LSTMStrategyError(f"{shown}; low must be below high")
    if not isinstance(log, bool) or (log and (step is not None or not low > 0)):
        raise LSTMStrategyError(f"{shown}, log {log!r}; log is true or false, with low above 0 and without a step")
    if step is not None and not (step > 0 and abs((high - low) / step - round((high - low) / step)) < 1e-9):
        raise LSTMStrategyError(f"{shown}, step {step}; a whole number of steps must lead from low to high")
    return Dimension(key, (), kind(low), kind(high), None if step is None else kind(step), log)


def _value_at(settings: Settings, key: str) -> Value:
    section, _, name = key.partition(".")
    value: Value = getattr(getattr(settings, section), name)
    return value
