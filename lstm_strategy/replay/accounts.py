"""Account: what a client of the exchange has of each asset, free or locked by its orders, in exact decimals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.refusals import RefusedError

__all__ = ["Account", "Balance"]

_ZERO = Decimal(0)


@dataclass(slots=True)
class Balance:
    """One asset's amounts, in units of the asset; neither is ever negative."""

    free: Decimal = _ZERO
    locked: Decimal = _ZERO


class Account:
    """Balances by asset.

    Attributes
    ----------
    balances : dict of str to Balance
    changed : set of str
        Assets that changed since the set was last emptied by its reader.

    Raises
    ------
    LSTMStrategyError
        Where a balance to begin with is no amount.
    """

    def __init__(self, balances: Mapping[str, Decimal]) -> None:
        for asset, amount in balances.items():
            if not amount.is_finite() or amount < 0:
                raise LSTMStrategyError(f"replay: balance of {asset} is {amount}; it must be 0 or more")
        self.balances = {asset: Balance(amount) for asset, amount in balances.items()}
        self.changed: set[str] = set()

    def of(self, asset: str) -> Balance:
        """Return one asset's balance, nothing where it was never held."""
        return self.balances.setdefault(asset, Balance())

    def lock(self, asset: str, amount: Decimal) -> None:
        """Set free balance aside; raises `RefusedError` where there is too little."""
        balance = self.of(asset)
        if amount > balance.free:
            raise RefusedError(-2010)
        balance.free -= amount
        balance.locked += amount
        self.changed.add(asset)

    def unlock(self, asset: str, amount: Decimal) -> None:
        """Give back what was set aside."""
        balance = self.of(asset)
        balance.locked -= amount
        balance.free += amount
        self.changed.add(asset)

    def pay(self, asset: str, amount: Decimal) -> None:
        """Hand over what was set aside."""
        self.of(asset).locked -= amount
        self.changed.add(asset)

    def receive(self, asset: str, amount: Decimal) -> None:
        """Take in what is free from then on."""
        self.of(asset).free += amount
        self.changed.add(asset)
