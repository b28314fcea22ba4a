"""A grid of policies: sizing, limits, exits, execution and portfolio of every combination that ``[sweep]`` lists."""

from __future__ import annotations

import difflib
import itertools
import math
from typing import Any

import msgspec

from lstm_strategy.decision import LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.portfolio import PortfolioConfig

__all__ = ["Policy", "SweepGrid", "policies"]

type SweepGrid = dict[str, tuple[bool | int | float | str | None, ...]]

_LARGEST = 10_000
_NO_TIME = "portfolio.grace_s"  # a backtest waits for nobody


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All that makes orders of forecasts. ``portfolio`` is looked at where several instruments share the account."""

    sizing: SizingConfig = msgspec.field(default_factory=SizingConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    exits: ExitsConfig = msgspec.field(default_factory=ExitsConfig)
    execution: ExecutionConfig = msgspec.field(default_factory=ExecutionConfig)
    portfolio: PortfolioConfig = msgspec.field(default_factory=PortfolioConfig)


_SECTIONS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Policy)}


def policies(grid: SweepGrid, policy: Policy, instruments: int = 1) -> dict[str, Policy]:
    """Return a policy by label, such as ``sizing.tilt=1 limits.max_exposure=0.5``, in the grid's order.

    Parameters
    ----------
    grid : dict
        Values by dotted key; all combinations are made, the last key running fastest.
    policy : Policy
        What is not in the grid.
    instruments : int
        How many share the account.

    Raises
    ------
    LSTMStrategyError
        For a key that is no setting or changes nothing, an empty list, a value given twice or not allowed, more than
        10,000 combinations.
    """
    for key, values in grid.items():
        _require_key(key, instruments)
        if not values or len({msgspec.json.encode(value) for value in values}) != len(values):
            raise LSTMStrategyError(f'sweep."{key}" is {list(values)}; name at least one value, each once')
    count = math.prod(len(values) for values in grid.values())
    if count > _LARGEST:
        raise LSTMStrategyError(f"sweep has {count:,} combinations; {_LARGEST:,} at most, leave some values out")
    plain: dict[str, dict[str, Any]] = msgspec.to_builtins(policy)
    found = {}
    for chosen in itertools.product(*grid.values()):
        changed = {name: dict(section) for name, section in plain.items()}
        for key, value in zip(grid, chosen, strict=True):
            section, _, field = key.partition(".")
            changed[section][field] = value
        label = " ".join(f"{key}={_told(value)}" for key, value in zip(grid, chosen, strict=True))
        try:
            found[label] = msgspec.convert(changed, Policy)
        except (msgspec.ValidationError, LSTMStrategyError) as error:
            raise LSTMStrategyError(f"sweep, {label}: {error}") from None
    return found


def _require_key(key: str, instruments: int) -> None:
    known = [f"{name}.{field.name}" for name, kind in _SECTIONS.items() for field in msgspec.structs.fields(kind)]
    known.remove(_NO_TIME)
    if key == _NO_TIME:
        raise LSTMStrategyError(f'sweep."{key}" changes nothing: a backtest waits for nobody; leave it out')
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"it sweeps settings of {', '.join(_SECTIONS)}, such as sizing.tilt"
        raise LSTMStrategyError(f'sweep."{key}" is no setting; {f"did you mean {near[0]}?" if near else hint}')
    if key.startswith("portfolio.") and instruments < 2:
        raise LSTMStrategyError(
            f'sweep."{key}" changes nothing: one instrument is no portfolio; leave it out, or sweep several together'
        )


def _told(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
