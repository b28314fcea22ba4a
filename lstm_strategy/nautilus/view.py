"""A strategy of several instruments, seen as one instrument's desk and session know a strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lstm_strategy.nautilus.record import RunRecord

if TYPE_CHECKING:
    from lstm_strategy.nautilus.strategy_config import LSTMStrategyConfig

__all__ = ["View"]


class View:
    """The strategy, with settings and a record of the instrument's own."""

    def __init__(self, strategy: Any, settings: LSTMStrategyConfig, record: RunRecord | None) -> None:
        self._strategy, self.settings, self.record = strategy, settings, record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)
