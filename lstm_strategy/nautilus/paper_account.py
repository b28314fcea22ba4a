"""The paper account on disk: balances, positions and orders of the simulated venue, as a venue keeps them of a client.

Written after whatever changes it, when the strategy's own state is written already, as on a venue, which is told of an
order after that. It lies in a `StateFolder`: numbered, hashed, two whole copies, one process. Inside it is JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from lstm_strategy.bars import format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.paper_exchange import PaperVenueConfig
from lstm_strategy.state_file import SEATS, Kept, unpack_seats
from lstm_strategy.state_folder import StateFolder

__all__ = ["SHARED", "AccountBook", "KeptAccount", "KeptBar", "KeptOrder", "KeptPosition", "account_of", "open_book"]

_WHO, _PART = "paper account", "account"
SHARED = ""
"""Among the names of instruments: the balances, and the interest that events of any instrument change."""


class KeptPosition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One open position: signed quantity, average price of its entry, and when that was (ns)."""

    instrument: str
    strategy: str
    quantity: str
    entry: float
    ts_opened: int


class KeptOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order that may still fill.

    Parameters
    ----------
    init : dict
        As the engine's `OrderInitialized` gives itself, with the quantity that is left.
    submitted_due, cancelled_due : int, optional
        When it, or its end, reaches the venue (ns of the venue's time), where it is under way.
    triggered : bool
        Whether a stop-limit has become a limit.
    """

    init: dict[str, Any]
    submitted_due: int | None = None
    cancelled_due: int | None = None
    triggered: bool = False


class KeptBar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bar as it was told, stamped at its close (ns)."""

    bar_type: str
    ts_close: int
    prices: tuple[str, str, str, str]
    volume: str


class KeptAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A paper account.

    Parameters
    ----------
    kind : str
        "CASH" or "MARGIN".
    balances : dict of str
        Totals by currency.
    bars : dict of KeptBar
        By instrument, the last one that was told to the strategies.
    owed : dict of float
        By instrument, interest that is not charged yet, in quote currency.
    since_ns : int
        When the account began.
    reckoned : dict of int
        By instrument, until when (ns) that interest and its funding are reckoned; its last bar's close where not given.
    """

    kind: str
    balances: dict[str, str]
    positions: list[KeptPosition]
    orders: list[KeptOrder]
    bars: dict[str, KeptBar]
    owed: dict[str, float]
    since_ns: int
    reckoned: dict[str, int] = {}

    @property
    def held(self) -> set[str]:
        """The instruments of positions and orders."""
        orders = {str(one.init["instrument_id"]) for one in self.orders}
        return orders | {one.instrument for one in self.positions}

    @property
    def names(self) -> set[str]:
        """All instruments that it knows of."""
        return self.held | set(self.bars)


def account_of(found: Kept) -> KeptAccount:
    """Return what a folder holds: an account, and of single instruments what has become of them since.

    Raises
    ------
    KeyError, msgspec.MsgspecError, LSTMStrategyError
        Where that is none.
    """
    account = msgspec.json.decode(found.parts[_PART], type=KeptAccount)
    if SEATS in found.parts:
        for name, content in unpack_seats(found.parts[SEATS]).items():
            account = _amended(account, name, msgspec.json.decode(content, type=KeptAccount))
    return account


def _amended(account: KeptAccount, name: str, part: KeptAccount) -> KeptAccount:
    if name == SHARED:
        owed, reckoned = account.owed | part.owed, account.reckoned | part.reckoned
        return msgspec.structs.replace(account, balances=part.balances, owed=owed, reckoned=reckoned)
    return msgspec.structs.replace(
        account,
        positions=[one for one in account.positions if one.instrument != name] + part.positions,
        orders=[one for one in account.orders if one.init["instrument_id"] != name] + part.orders,
        bars=account.bars | part.bars,
        owed=account.owed | part.owed,
    )


class AccountBook:
    """Reads and writes one paper account.

    Attributes
    ----------
    kept : KeptAccount or None
        As it was found; None where there was none.
    story : str
        In words, which account this is.
    """

    def __init__(self, path: Path, *, trader: str, kind: str, names: Iterable[str], cash: str, now_ns: int) -> None:
        """Take the folder, and read what is in it.

        Raises
        ------
        LSTMStrategyError
            Where another process holds it, nothing in it is whole, or it is an account that cannot go on here.
        """
        self._folder, self._kind = StateFolder(path), kind
        self._last, self._balances = b"", dict[str, str]()
        self._folder.acquire(f"{_WHO} of {trader}")
        try:
            found, problem = self._folder.read()
            self.kept = None if found is None else self._decode(found, set(names))
        except LSTMStrategyError:
            self._folder.release()
            raise
        self.since_ns = now_ns if self.kept is None else self.kept.since_ns
        if self.kept is None or found is None:
            self.story = f"new, with {cash}; kept in {path}"
        else:
            told = f"goes on from {format_ns(found.saved_ns)}, begun {format_ns(self.since_ns)}"
            self.story = f"{told}, kept in {path} (--anew begins another){f'; {problem}' if problem else ''}"

    def write(self, account: KeptAccount, now_ns: int) -> None:
        """Write the account, where it has changed."""
        self._balances = dict(account.balances)
        content = msgspec.json.encode(account)
        if content != self._last:
            self._folder.write(Kept(_WHO, {}, now_ns, "", {_PART: content}))
            self._last = content

    def amend(self, parts: dict[str, KeptAccount], now_ns: int) -> bool:
        """Write what has become of some instruments, each with the balances of its currencies, and of what they share.

        Returns
        -------
        bool
            Whether that could be done: false where the whole account is to be written.
        """
        self._last = b""
        changed = {name: msgspec.json.encode(part) for name, part in parts.items()}
        for part in parts.values():  # quote currency is of all of them: what counts is the last word on each
            self._balances |= part.balances
        empty = KeptAccount(self._kind, {}, [], [], {}, {}, self.since_ns)
        shared = msgspec.structs.replace(parts.get(SHARED, empty), balances=self._balances)
        return self._folder.amend(now_ns, changed | {SHARED: msgspec.json.encode(shared)})

    def close(self) -> None:
        """Give the folder back, with all of it on the disk."""
        self._folder.release()

    def _decode(self, found: Kept, names: set[str]) -> KeptAccount:
        anew = f"begin another with --anew, or look at {self._folder.path}"
        try:
            account = account_of(found)
        except (KeyError, msgspec.MsgspecError, LSTMStrategyError) as error:
            raise LSTMStrategyError(f"{self._folder.path} holds no paper account ({error}); {anew}") from None
        if account.kind != self._kind:
            told = f"a {account.kind.lower()} account, and the experiment asks for a {self._kind.lower()} one"
            raise LSTMStrategyError(f"the paper account in {self._folder.path} is {told}; {anew}")
        if others := sorted(account.held - names):
            told = f"holds {', '.join(others)}, which is not traded here"
            raise LSTMStrategyError(f"the paper account in {self._folder.path} {told}; {anew}")
        return account


def open_book(config: PaperVenueConfig, trader: str, now_ns: int) -> AccountBook | None:
    """Return the book of a simulated venue's account, None where it is not kept; raises as `AccountBook` does."""
    if config.account_dir is None:
        return None
    cash = ", ".join(config.starting_balances)
    return AccountBook(
        Path(config.account_dir), trader=trader, kind=config.account_type, names=config.terms, cash=cash, now_ns=now_ns
    )
