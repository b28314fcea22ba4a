"""Settings of a strategy of several instruments: which they are, and how they share one account."""

from __future__ import annotations

import msgspec
from nautilus_trader.trading.config import StrategyConfig

from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.nautilus.engine import BarType, InstrumentId
from lstm_strategy.nautilus.strategy import LSTMStrategyConfig
from lstm_strategy.portfolio import PortfolioConfig

__all__ = ["LSTMPortfolioStrategyConfig", "PanelMember", "sorted_members"]


class PanelMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instrument of a portfolio: its bars, its model, what trading it costs."""

    instrument_id: InstrumentId
    bar_type: BarType
    model: str
    costs: Costs = Costs()


class LSTMPortfolioStrategyConfig(StrategyConfig, frozen=True, kw_only=True):
    """Settings of `LSTMPortfolioStrategy`: as `LSTMStrategyConfig`, and besides

    Parameters
    ----------
    members : tuple of PanelMember
        On one venue, in one quote currency, at one timeframe.
    portfolio : PortfolioConfig
        How they share the account.
    """

    members: tuple[PanelMember, ...]
    portfolio: PortfolioConfig = PortfolioConfig()
    sizing: SizingConfig = SizingConfig()
    limits: LimitsConfig = LimitsConfig()
    exits: ExitsConfig = ExitsConfig()
    execution: ExecutionConfig = ExecutionConfig()
    cash_buffer: float = 0.002
    retarget_tolerance: float = 0.02
    flatten_on_stop: bool = False
    delay_bars: int = 0
    history_timeout_s: float = 30.0
    history_attempts: int = 10
    refill_holes: bool = True
    record: bool = False

    def of(self, member: PanelMember) -> LSTMStrategyConfig:
        """Return what a strategy of this member alone would be set to."""
        shared = {
            name: getattr(self, name)
            for name in LSTMStrategyConfig.__struct_fields__
            if name in self.__struct_fields__ and name not in StrategyConfig.__struct_fields__
        }
        return LSTMStrategyConfig(
            instrument_id=member.instrument_id,
            bar_type=member.bar_type,
            model=member.model,
            costs=member.costs,
            **shared,
        )


def sorted_members(members: tuple[PanelMember, ...]) -> list[PanelMember]:
    """Return the members in the order that holds for good.

    Raises
    ------
    LSTMStrategyError
        For none, and for one named twice.
    """
    names = [member.instrument_id.value for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        told = f"names {twice[0]} twice" if twice else "has no instrument"
        raise LSTMStrategyError(f"the portfolio {told}; name each instrument once")
    return sorted(members, key=lambda member: member.instrument_id.value)
