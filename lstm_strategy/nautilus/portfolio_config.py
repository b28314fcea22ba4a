"""Settings of a strategy of several instruments: which they are, and how they share one account."""

from __future__ import annotations

from pathlib import Path

import msgspec
from nautilus_trader.trading.config import StrategyConfig

from lstm_strategy.decision import Costs
from lstm_strategy.decision_log import file_name
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.engine import BarType, InstrumentId
from lstm_strategy.nautilus.strategy_config import LSTMStrategyConfig, TradingConfig
from lstm_strategy.portfolio import PortfolioConfig

__all__ = ["LSTMPortfolioStrategyConfig", "PanelMember", "require_one_account", "sorted_members"]


class PanelMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instrument of a portfolio: its bars, its model, what trading it costs."""

    instrument_id: InstrumentId
    bar_type: BarType
    model: str
    costs: Costs = Costs()


class LSTMPortfolioStrategyConfig(TradingConfig, frozen=True, kw_only=True):
    """Settings of `LSTMPortfolioStrategy`: those of `TradingConfig`, and

    Parameters
    ----------
    members : tuple of PanelMember
        On one venue, in one quote currency, at one timeframe.
    portfolio : PortfolioConfig
        How they share the account.
    """

    members: tuple[PanelMember, ...]
    portfolio: PortfolioConfig = PortfolioConfig()

    def of(self, member: PanelMember) -> LSTMStrategyConfig:
        """Return what a strategy of this member alone would be set to; its decisions go to a log of its own."""
        shared = {name: getattr(self, name) for name in _SHARED}
        if self.decision_log is not None:
            shared["decision_log"] = str(Path(self.decision_log) / file_name(member.instrument_id.value))
        return LSTMStrategyConfig(**msgspec.structs.asdict(member), **shared)


_SHARED = [name for name in TradingConfig.__struct_fields__ if name not in StrategyConfig.__struct_fields__]


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


def require_one_account(members: list[PanelMember], quotes: set[str], timeframes: set[str]) -> None:
    """Refuse members that cannot share one equity.

    Raises
    ------
    LSTMStrategyError
        Where they have more than one venue, quote currency or timeframe.
    """
    venues = {member.instrument_id.venue.value for member in members}
    for what, found in (("venue", venues), ("quote currency", quotes), ("timeframe", timeframes)):
        if len(found) > 1:
            told = ", ".join(sorted(found))
            raise LSTMStrategyError(f"a portfolio shares one {what}; its instruments have {told}: split it")
