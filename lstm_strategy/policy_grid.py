"""A grid of policies: the sizing and limits of every combination of the values that ``[sweep]`` lists."""

from __future__ import annotations

import difflib
import itertools
import math
from typing import Any

import msgspec

from lstm_strategy.decision import LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["SweepGrid", "policies"]

type SweepGrid = dict[str, tuple[bool | int | float | str | None, ...]]

_LARGEST = 10_000
_SECTIONS: dict[str, type[SizingConfig] | type[LimitsConfig]] = {"sizing": SizingConfig, "limits": LimitsConfig}


def policies(
    grid: SweepGrid, sizing: SizingConfig, limits: LimitsConfig
) -> dict[str, tuple[SizingConfig, LimitsConfig]]:
    """Return sizing and limits by label, such as ``sizing.tilt=1 limits.max_exposure=0.5``, in the grid's order.

    Parameters
    ----------
    grid : dict
        Values by dotted key; all combinations are made, the last key running fastest.

    Raises
    ------
    LSTMStrategyError
        For a key that is no setting, an empty list, a value given twice or not allowed, more than 10,000 combinations.
    """
    for key, values in grid.items():
        _require_key(key)
        if not values or len({msgspec.json.encode(value) for value in values}) != len(values):
            raise LSTMStrategyError(f'sweep."{key}" is {list(values)}; name at least one value, each once')
    count = math.prod(len(values) for values in grid.values())
    if count > _LARGEST:
        raise LSTMStrategyError(f"sweep has {count:,} combinations; {_LARGEST:,} at most, leave some values out")
    plain: dict[str, dict[str, Any]] = {"sizing": msgspec.to_builtins(sizing), "limits": msgspec.to_builtins(limits)}
    found = {}
    for chosen in itertools.product(*grid.values()):
        changed = {name: dict(section) for name, section in plain.items()}
        for key, value in zip(grid, chosen, strict=True):
            section, _, field = key.partition(".")
            changed[section][field] = value
        label = " ".join(f"{key}={_told(value)}" for key, value in zip(grid, chosen, strict=True))
        try:
            found[label] = (
                msgspec.convert(changed["sizing"], SizingConfig),
                msgspec.convert(changed["limits"], LimitsConfig),
            )
        except (msgspec.ValidationError, LSTMStrategyError) as error:
            raise LSTMStrategyError(f"sweep, {label}: {error}") from None
    return found


def _require_key(key: str) -> None:
    section = key.partition(".")[0]
    known = [f"{name}.{field.name}" for name, kind in _SECTIONS.items() for field in msgspec.structs.fields(kind)]
    if section not in _SECTIONS or key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "it sweeps settings of sizing and limits, such as sizing.tilt"
        raise LSTMStrategyError(f'sweep."{key}" is no setting; {hint}')


def _told(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
