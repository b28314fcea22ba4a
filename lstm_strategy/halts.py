"""Halts: what each one was to bound, and what it cost until the position was closed; pure, from a run's own records."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps, utc_day
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.reasons import Reason
from lstm_strategy.risk import FLAT

__all__ = ["Charges", "Fills", "Halt", "find_halts"]

_KINDS: dict[str, Literal["daily_loss", "drawdown"]] = {
    Reason.HALT_DAILY_LOSS.value: "daily_loss",
    Reason.HALT_DRAWDOWN.value: "drawdown",
}
_ROUNDING = 1e-7  # of an amount: what venues round prices and balances by


class Fills(NamedTuple):
    """A run's fills in time order [N]: when, which name (its row), signed quantity, price, fee in quote currency.

    ``sent``: when their orders were sent.
    """

    ts: Stamps
    name: npt.NDArray[np.int64]
    quantity: Float
    price: Float
    fee: Float
    sent: Stamps


class Charges(NamedTuple):
    """What holding cost [N], in quote currency: positive where it was paid, negative where it was earned."""

    ts: Stamps
    amount: Float


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """One halt; amounts in quote currency, losses positive.

    Parameters
    ----------
    ts_close : int
        The breaching close: the first one at which the loss had reached the limit, ns.
    ts_flat : int or None
        The first close at which the position was gone, None where it was not when the halt's orders should have filled.
    reference : float
        Equity that the loss is measured from: at the day's start, or at its peak.
    limit : float
        Largest loss allowed, as a fraction of ``reference``.
    loss_at_close : float
        At the breaching close: what the bar took beyond the limit before anybody could know is in it (`gap`).
    exposure : float
        Value of the position at that close, absolute, all names summed, and what was ``under_way``.
    under_way : float
        Value of what orders sent before that close still added to the position after it: no limit can recall an order
        that the venue already has (`backtest.delay`).
    moved : float
        Lost on that exposure from that close (what was under way: from its own fill) to the price it was sold at on
        average; 0 where prices moved in favour. Spread and slippage are in it. What was not sold is valued at the last
        close of the halt.
    costs : float
        Fees, funding and interest from that close until it was flat.
    added : float
        Value of what orders sent at that close or later added to the position. No halt may do that, and what it loses
        is in no bound.
    loss : float
        At ``ts_flat``, or at the last close of the halt.
    bars : int
        Closes from the breaching one until it was flat.
    """

    kind: Literal["daily_loss", "drawdown"]
    ts_close: int
    ts_flat: int | None
    reference: float
    limit: float
    loss_at_close: float
    exposure: float
    under_way: float
    moved: float
    costs: float
    added: float
    loss: float
    bars: int

    @property
    def equity(self) -> float:
        """At the breaching close."""
        return self.reference - self.loss_at_close

    @property
    def allowed(self) -> float:
        """The limit as an amount."""
        return self.limit * self.reference

    @property
    def gap(self) -> float:
        """What the breaching bar lost beyond the limit before it closed."""
        return self.loss_at_close - self.allowed

    @property
    def move(self) -> float:
        """The adverse move from the breaching close to the fills, as a fraction of the position's value."""
        return self.moved / self.exposure if self.exposure else 0.0

    @property
    def bound(self) -> float:
        """What the loss may be at most: limit, gap through it, exposure times adverse move, costs."""
        return self.allowed + self.gap + self.moved + self.costs

    @property
    def held(self) -> bool:
        """Whether the loss stayed within it: nothing was bought on after the breach, and all was closed."""
        return self.ts_flat is not None and self.loss <= self.bound + _ROUNDING * self.reference

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        told = f"lost {self.loss:,.2f}, at most {self.bound:,.2f} was possible"
        if self.under_way:
            told += f", with {self.under_way:,.2f} that earlier orders still added to the position"
        if self.ts_flat is None:
            return f"Not closed while the halt lasted: {told}."
        if self.held:
            return f"Held: {told}."
        why = f"; orders sent after the breach had added {self.added:,.2f} to the position" if self.added else ""
        return f"BROKEN: {told}{why}."

    def told(self) -> dict[str, Any]:
        """All of it as plain values, for summary.json."""
        also = ("equity", "allowed", "gap", "move", "bound", "held", "words")
        return msgspec.structs.asdict(self) | {name: getattr(self, name) for name in also}


def find_halts(
    ts_close: Stamps,
    equity: Float,
    reasons: list[str],
    price_ST: Float,
    fills: Fills,
    charges: Charges,
    limits: LimitsConfig,
    *,
    under_way: int = 1,
) -> list[Halt]:
    """Return the halts for a daily loss and for a drawdown in the order they began.

    Parameters
    ----------
    ts_close, equity : int64 [T], float64 [T]
        Of the account, marked to market at each close.
    reasons : list of str [T]
        Why the account's decision of each close was what it was.
    price_ST : float64 [S, T]
        Each name's last close.
    under_way : int
        Closes until an order has filled: a daily halt may be over by then.
    """
    days = utc_day(ts_close)
    position_ST = _positions(ts_close, fills, len(price_ST))
    value_ST = np.nan_to_num(position_ST * price_ST)
    found = []
    for row, kind in _starts(reasons, days):
        reference, limit = _reference(kind, row, equity, days, limits)
        last = row
        while last + 1 < len(reasons) and reasons[last + 1] in _KINDS and _goes_on(kind, days, row, last + 1):
            last += 1
        last = min(last + under_way, len(reasons) - 1)
        gross_T = np.abs(value_ST[:, row : last + 1]).sum(axis=0)
        arrived = (fills.sent < ts_close[row]) & (fills.ts > ts_close[row]) & (fills.ts <= ts_close[last])
        settled = int(np.searchsorted(ts_close[row : last + 1], fills.ts[arrived].max())) if arrived.any() else 0
        flat = settled + np.flatnonzero(gross_T[settled:] <= FLAT * np.abs(equity[row + settled : last + 1]))
        end = row + int(flat[0]) if len(flat) else last
        after, until = int(ts_close[row]), int(ts_close[end])
        ways = []
        for name in sorted({*np.flatnonzero(value_ST[:, row]).tolist(), *fills.name[arrived].tolist()}):
            price, last_price = float(price_ST[name, row]), float(price_ST[name, end])
            ways.append(_way_out(name, float(position_ST[name, row]), price, last_price, fills, after, until))
        due = (charges.ts > after) & (charges.ts <= until)
        found.append(
            Halt(
                kind=kind,
                ts_close=after,
                ts_flat=until if len(flat) else None,
                reference=reference,
                limit=limit,
                loss_at_close=reference - float(equity[row]),
                exposure=float(gross_T[0]) + sum(way.under_way for way in ways),
                under_way=sum(way.under_way for way in ways),
                moved=max(sum(way.lost for way in ways), 0.0),
                costs=sum(way.fees for way in ways) + float(charges.amount[due].sum()),
                added=sum(way.added for way in ways),
                loss=reference - float(equity[end]),
                bars=end - row,
            )
        )
    return found


def _starts(reasons: list[str], days: npt.NDArray[np.int64]) -> list[tuple[int, Literal["daily_loss", "drawdown"]]]:
    """Return the rows at which a halt begins; one of the daily loss begins anew with each day."""
    found = []
    for row, reason in enumerate(reasons):
        kind = _KINDS.get(reason)
        if kind is None:
            continue
        same = row > 0 and reasons[row - 1] == reason
        if not same or (kind == "daily_loss" and days[row] != days[row - 1]):
            found.append((row, kind))
    return found


def _goes_on(kind: str, days: npt.NDArray[np.int64], row: int, other: int) -> bool:
    return kind == "drawdown" or bool(days[row] == days[other])


def _reference(
    kind: str, row: int, equity: Float, days: npt.NDArray[np.int64], limits: LimitsConfig
) -> tuple[float, float]:
    known = equity[: row + 1]
    if kind == "drawdown":
        return float(np.nanmax(known)), limits.max_drawdown
    earlier = known[days[: row + 1] < days[row]]
    earlier = earlier[np.isfinite(earlier)]
    return float(earlier[-1] if len(earlier) else known[np.isfinite(known)][0]), limits.daily_loss


class _WayOut(NamedTuple):
    """What a position lost from a close to its fills, their fees, and what was added to it: by earlier and by later
    orders."""

    lost: float
    fees: float
    under_way: float
    added: float


def _way_out(name: int, position: float, price: float, last: float, fills: Fills, after: int, until: int) -> _WayOut:
    """Follow a position from a close's price until it is gone; what is left is valued at ``last``.

    Orders sent before that close belong to it, whatever they do. Of later ones only what closes it does: what they open
    is left out, so that the bound does not cover it.
    """
    left, extra = position, 0.0  # of what is followed, and of what later orders opened
    worth, fees, under_way, added = position * price if position else 0.0, 0.0, 0.0, 0.0
    for row in np.flatnonzero((fills.name == name) & (fills.ts > after) & (fills.ts <= until)).tolist():
        quantity, at = float(fills.quantity[row]), float(fills.price[row])
        counted = _closing(quantity, left)
        if fills.sent[row] < after:
            under_way += abs(quantity - counted) * at
            counted = quantity
        rest = quantity - counted if abs(quantity - counted) > _ROUNDING * abs(quantity) else 0.0
        added += abs(rest - _closing(rest, extra)) * at
        left, extra = left + counted, extra + rest
        worth += counted * at
        fees += float(fills.fee[row]) * counted / quantity
    return _WayOut(worth - (left * last if left else 0.0), fees, under_way, added)


def _closing(quantity: float, position: float) -> float:
    """Return the part of a signed quantity that takes from a position."""
    return math.copysign(min(abs(quantity), abs(position)), quantity) if quantity * position < 0.0 else 0.0


def _positions(ts_close: Stamps, fills: Fills, names: int) -> Float:
    """Return what was held of each name at each close, float64 [S, T]."""
    held_ST = np.zeros((names, len(ts_close)))
    for name in range(names):
        own = fills.name == name
        total = np.concatenate([[0.0], np.cumsum(fills.quantity[own])])
        held_ST[name] = total[np.searchsorted(fills.ts[own], ts_close, side="right")]
    return held_ST
