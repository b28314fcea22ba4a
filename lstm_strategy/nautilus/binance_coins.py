"""Whose the coins of a Binance spot account are: a strategy may sell what its own orders bought, and nothing else.

The venue knows balances alone. So the first start of a strategy wants an account free of coins, or told of by
`live.keep`: those are hidden from the strategy from then on. What its own orders have traded since is counted from
there at every start; coins that neither accounts for are somebody's, and refuse the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from nautilus_trader.adapters.binance import BinanceExecClientConfig
from nautilus_trader.model.objects import AccountBalance, Money

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError

__all__ = [
    "CoinsRecord",
    "Held",
    "SpotExecConfig",
    "belongs",
    "hidden",
    "locked_by",
    "own_coins",
    "read_records",
    "traded",
    "write",
]

_NAME = "coins.json"


class SpotExecConfig(BinanceExecClientConfig, frozen=True, kw_only=True):
    """The adapter's settings, and whose the coins are.

    Parameters
    ----------
    keep : dict of str
        By coin, the amount that is not the strategy's.
    record_dir : str, optional
        Where it is kept what was the strategy's at a start; without it all coins are, and so are all orders.
    """

    keep: dict[str, str] = msgspec.field(default_factory=dict)
    record_dir: str | None = None


class CoinsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was the strategy's at a start, of one symbol: beside what was kept, as of the last trade counted.

    ``keep`` is None where nothing had been said of the coin.
    """

    keep: str | None
    own: str
    last_trade: int


class Held(NamedTuple):
    """What the account holds of a coin, free and locked; below ``dust`` nothing is told apart."""

    coin: str
    total: Decimal
    dust: Decimal


def own_coins(
    held: Held, keep: str | None, record: CoinsRecord | None, gained: Decimal, place: Path
) -> tuple[Decimal, Decimal]:
    """Return how many coins are the strategy's, and how many of them nothing accounts for (negative: are missing).

    Parameters
    ----------
    keep : str, optional
        As ``live.keep`` says; None where it says nothing of the coin.
    gained : Decimal
        What the strategy's own trades since the record have brought, less commissions in coins.

    Raises
    ------
    LSTMStrategyError
        Where there are more than that, or less than what is to be kept.
    """
    kept = Decimal(keep or 0)
    rest = held.total - kept
    if rest < -held.dust:
        raise LSTMStrategyError(
            f"the account holds {_short(held.total)} {held.coin}, less than the {_short(kept)} that live.keep leaves"
            f" alone; correct live.keep.{held.coin}; nothing was sent"
        )
    rest = max(rest, Decimal(0))
    same = record is not None and _amount(record.keep) == _amount(keep)
    if not same and keep is not None:  # somebody has just said whose they are
        return rest, Decimal(0)
    expected = Decimal(0) if record is None or not same else max(Decimal(record.own) + gained, Decimal(0))
    more = rest - expected
    if more <= held.dust:
        return rest, more
    what = "that no order of this strategy accounts for"
    leave = f'[live] keep = {{ {held.coin} = "{_short(kept + more)}" }} leaves them alone'
    take = (
        f'keep = {{ {held.coin} = "0" }} lets the strategy trade, and sell, them'
        if keep is None
        else f"without {place / _NAME} they are the strategy's, to trade and to sell"
    )
    raise LSTMStrategyError(f"the account holds {_short(more)} {held.coin} {what}: {leave}, {take}; nothing was sent")


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _short(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def traded(trades: Iterable[Any], coin: str, mine: Callable[[int], bool]) -> Decimal:
    """Return what trades of our orders have brought, less commissions in coins."""
    total = Decimal(0)
    for trade in trades:
        if mine(trade.orderId):
            total += Decimal(trade.qty) * (1 if trade.isBuyer else -1)
            if trade.commissionAsset == coin:
                total -= Decimal(trade.commission)
    return total


def belongs(trader_tag: str) -> Callable[[str], bool]:
    """Return what tells an order of one trader by the identifier that it was sent with."""
    pattern = re.compile(rf"O-\d{{8}}-\d{{6}}-{re.escape(trader_tag)}-[^-]+-\d+")
    return lambda client_order_id: pattern.fullmatch(client_order_id) is not None


def hidden(
    balances: list[AccountBalance], keep: dict[str, str], ours: dict[str, Decimal] | None
) -> list[AccountBalance]:
    """Return balances without what is kept, be it free or locked by somebody's order.

    Parameters
    ----------
    ours : dict of Decimal, optional
        By coin, what the strategy's own orders lock: whatever else is locked is kept before anything that is free. None
        where that is not known: then all that is locked may be the strategy's.
    """
    found, none = [], Decimal(0)
    for balance in balances:
        coin = balance.currency.code
        kept = Decimal(keep.get(coin, "0"))
        if not kept:
            found.append(balance)
            continue
        free, locked = balance.free.as_decimal(), balance.locked.as_decimal()
        others = none if ours is None else min(max(locked - ours.get(coin, none), none), kept)
        left, locked = max(free - (kept - others), none), locked - others
        found.append(AccountBalance(*(Money(amount, balance.currency) for amount in (left + locked, locked, left))))
    return found


def locked_by(orders: Iterable[Any], left: dict[str, Decimal], instruments: Callable[[Any], Any]) -> dict[str, Decimal]:
    """Return what orders lock, by coin.

    Parameters
    ----------
    left : dict of Decimal
        By identifier, what the venue has told already of what an order has still to fill.
    instruments : callable
        Gives the instrument of an order's ``instrument_id``.
    """
    found: dict[str, Decimal] = {}
    for order in orders:
        leaves = left.get(order.client_order_id.value, order.leaves_qty.as_decimal())
        instrument = instruments(order.instrument_id)
        if order.is_sell:
            coin = instrument.base_currency.code
        elif order.has_price:
            coin, leaves = instrument.quote_currency.code, leaves * order.price.as_decimal()
        else:
            continue
        found[coin] = found.get(coin, Decimal(0)) + leaves
    return found


def read_records(place: Path) -> dict[str, CoinsRecord]:
    """Return what was kept, by symbol; nothing where there is nothing.

    Raises
    ------
    LSTMStrategyError
        Where it cannot be read: it would be guessed whose the coins are.
    """
    file = place / _NAME
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, CoinsRecord])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise LSTMStrategyError(
            f"{file} cannot be read ({error}): look at the account, then remove it, and say in live.keep whose the"
            " coins are"
        ) from None


def write(place: Path, records: dict[str, CoinsRecord]) -> None:
    """Keep it, down to the disk."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with atomic_write(place / _NAME) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=1))
    except OSError as error:
        raise LSTMStrategyError(f"{place / _NAME} cannot be written: {error.strerror or error}") from None
