"""Book: one spot market's orders, matched against the replayed price path under an account's balances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_UP, Decimal
from itertools import count

from lstm_strategy.replay.accounts import Account
from lstm_strategy.replay.market import Market
from lstm_strategy.replay.orders import STOPS, Order, Rules, Status, Trade, check
from lstm_strategy.replay.price_path import Leg, legs, price_at
from lstm_strategy.replay.refusals import RefusedError

__all__ = ["Book", "Report"]

_EIGHT = Decimal("0.00000001")  # the venue's smallest amount of any asset
_ZERO = Decimal(0)
_BARS_KEPT, _ORDERS_KEPT = 4, 5_000  # what a long run may remember

# Told of each thing that happens to an order, as it happens: what (Binance's execution types), and the fill, if one.
type Report = Callable[[Order, str, Trade | None], None]


class Book:
    """The orders of one market.

    What the replay cannot know is settled so: there is always a bid and an ask, half of ``spread`` (a fraction) below
    and above the path, rounded away from it to the tick. Orders that take liquidity fill there at once; of one bar's
    volume the share ``volume_share`` is offered at that price, and what a market order wants beyond it fills one tick
    worse. An order that rests fills, at its limit, when the path goes beyond the limit, in parts where the bar's share
    is used up. A stop is triggered where the path touches it; where a bar's open has jumped it, at that open, and if
    that is beyond its limit, too, it rests at the limit.

    Parameters
    ----------
    now : int
        The venue's time from which on the book follows the path, ns UTC.
    order_ids, trade_ids
        Where numbers come from, shared by all books of an exchange.
    """

    def __init__(
        self,
        market: Market,
        rules: Rules,
        account: Account,
        report: Report,
        *,
        now: int,
        spread: float,
        volume_share: float,
        order_ids: Iterator[int] | None = None,
        trade_ids: Iterator[int] | None = None,
    ) -> None:
        self.market, self.rules, self.account = market, rules, account
        self.orders: dict[int, Order] = {}
        self.open: dict[int, Order] = {}
        self._report, self._now = report, now
        self._half, self._share = Decimal(str(spread)) / 2, Decimal(str(volume_share))
        self._order_ids, self._trade_ids = order_ids or count(1), trade_ids or count(1)
        self._used: dict[int, Decimal] = {}  # by row of a bar

    def find(self, *, order_id: int | None = None, client_id: str = "") -> Order | None:
        """Return an order by either identifier; of several with one client identifier, the last."""
        if order_id is not None:
            return self.orders.get(order_id)
        return next((order for order in reversed(self.orders.values()) if order.client_id == client_id), None)

    def follow(self, now: int) -> None:
        """Match what rests against the path up to ``now``, ns UTC."""
        if now <= self._now:
            return
        if self.open:
            for leg in legs(self.market, self._now, now):
                self._pass(leg)
                if not self.open:
                    break
        self._now = now
        for old in list(self._used)[:-_BARS_KEPT]:
            del self._used[old]
        for old in list(self.orders)[: max(0, len(self.orders) - _ORDERS_KEPT)]:
            if old not in self.open:
                del self.orders[old]

    def place(self, order: Order, *, most: Decimal = Decimal(1)) -> Order:
        """Take an order in and match it with what is offered now; its ``id`` and stamps are given here.

        Parameters
        ----------
        most : Decimal
            The share of it that is offered at once; of a market order, the rest expires.

        Raises
        ------
        RefusedError
            As Binance refuses; the account is then as before.
        """
        rules, now = self.rules, self._now
        if any(other.client_id == order.client_id for other in self.open.values()):
            raise RefusedError(-2010, "Duplicate order sent.")
        offered = price_at(self.market, now)
        if offered is None:
            raise RefusedError(-1013, "Market is closed.")
        price, row = Decimal(repr(offered[0])), offered[1]
        touch = self._touch(order, price)
        if order.quote_quantity:
            order.quantity = order.quote_quantity / touch // rules.lot * rules.lot
        check(order, rules, touch, len(self.open))
        if order.type in STOPS:
            if order.reached(price):
                raise RefusedError(-2010, "Stop price would trigger immediately.")
            order.working = False
        crosses = order.type == "MARKET" or self._crosses(order, touch)
        if order.type == "LIMIT_MAKER" and crosses:
            raise RefusedError(-2010, "Order would immediately match and take.")
        self._lock(order, touch, row)
        order.id, order.created = next(self._order_ids), now
        order.updated = order.worked = now
        self.orders[order.id] = self.open[order.id] = order
        self._report(order, "NEW", None)
        if order.working and crosses:
            room = (order.quantity * most // rules.lot * rules.lot) if most < 1 else order.quantity
            within = min(room, self._left(row)) if order.type != "MARKET" else room
            if order.time_in_force != "FOK" or within == order.quantity:
                self._take(order, touch, row, now, room)
        if order.id in self.open and (order.type == "MARKET" or order.time_in_force != "GTC"):
            self._end(order, "EXPIRED", now)
        return order

    def cancel(self, order: Order) -> None:
        """Take an order off the book; raises `RefusedError` where it is not there any more."""
        if order.id not in self.open:
            raise RefusedError(-2011)
        self._end(order, "CANCELED", self._now)

    def _touch(self, order: Order, price: Decimal) -> Decimal:
        """Return the price at which an order that takes is filled: the ask or the bid around ``price``."""
        away, mode = (self._half, ROUND_CEILING) if order.buys else (-self._half, ROUND_FLOOR)
        tick = self.rules.tick  # in eight decimals, since the path is not exact to the last bit
        steps = (price * (1 + away) / tick).quantize(_EIGHT).to_integral_value(mode)
        return max(steps, Decimal(1)) * tick

    def _crosses(self, order: Order, touch: Decimal) -> bool:
        return order.price >= touch if order.buys else order.price <= touch

    def _left(self, row: int) -> Decimal:
        """Return what a bar still offers, in whole lots."""
        lot = self.rules.lot
        whole = Decimal(repr(float(self.market.base.volume[row]))) * self._share
        return max(whole // lot * lot - self._used.get(row, _ZERO), _ZERO)

    def _lock(self, order: Order, touch: Decimal, row: int) -> None:
        if not order.buys:
            order.locked = order.quantity
        elif order.type == "MARKET":
            beyond = max(order.quantity - self._left(row), _ZERO)
            order.locked = _amount(order.quantity * touch) + _amount(beyond * self.rules.tick)
        else:
            order.locked = _amount(order.quantity * order.price)
        try:
            self.account.lock(self._paid(order), order.locked)
        except RefusedError:
            order.locked = _ZERO
            raise

    def _paid(self, order: Order) -> str:
        return self.rules.quote if order.buys else self.rules.base

    def _take(self, order: Order, touch: Decimal, row: int, ts: int, room: Decimal) -> None:
        """Fill an order that takes, up to ``room``."""
        offered = min(room, self._left(row))
        if offered:
            self._fill(order, touch, offered, row, ts, maker=False)
        if order.type == "MARKET" and room > offered:
            worse = touch + self.rules.tick if order.buys else max(touch - self.rules.tick, self.rules.tick)
            self._fill(order, worse, room - offered, row, ts, maker=False)

    def _pass(self, leg: Leg) -> None:
        """Match all that rests against one leg, in the order in which the path meets it, older orders first."""
        met = sorted((self._distance(order, leg), order.id) for order in self.open.values())
        for _, identity in met:
            self._meet(self.open[identity], leg)

    def _distance(self, order: Order, leg: Leg) -> float:
        """Return how far the path goes before it meets an order."""
        if order.working:
            return 0.0 if self._beyond(order, leg.first) else abs(float(order.price) - leg.first)
        return 0.0 if order.reached(Decimal(repr(leg.first))) else abs(float(order.stop) - leg.first)

    def _meet(self, order: Order, leg: Leg) -> None:
        first, last = leg.first, leg.last
        if not order.working:
            ends = Decimal(repr(first)), Decimal(repr(last))
            if order.reached(ends[0]):
                price = ends[0]
            elif order.reached(ends[1]):
                price = order.stop
            else:
                return
            ts = leg.when(float(price))
            order.working, order.worked, order.updated = True, ts, ts
            touch = self._touch(order, price)
            if self._crosses(order, touch):
                within = self._left(leg.row)
                if order.time_in_force != "FOK" or within >= order.left:
                    self._take(order, touch, leg.row, ts, order.left)
            if order.id in self.open and order.time_in_force != "GTC":
                self._end(order, "EXPIRED", ts)
            first = float(price)
        if order.id not in self.open:
            return
        if self._beyond(order, first) or self._beyond(order, last):
            quantity = min(order.left, self._left(leg.row))
            if quantity:
                ts = max(leg.begun, order.worked, leg.when(float(order.price)))
                self._fill(order, order.price, quantity, leg.row, ts, maker=True)

    def _beyond(self, order: Order, price: float) -> bool:
        """Say whether the path has traded through an order that rests."""
        return price < float(order.price) if order.buys else price > float(order.price)

    def _fill(self, order: Order, price: Decimal, quantity: Decimal, row: int, ts: int, *, maker: bool) -> None:
        rules, account = self.rules, self.account
        quote = (quantity * price).quantize(_EIGHT, ROUND_DOWN)
        order.executed += quantity
        order.quote_executed += quote
        order.status = "FILLED" if not order.left else "PARTIALLY_FILLED"
        order.updated = ts
        self._used[row] = self._used.get(row, _ZERO) + quantity
        paid, received = (quote, quantity) if order.buys else (quantity, quote)
        asset = rules.base if order.buys else rules.quote
        commission = (received * (rules.maker if maker else rules.taker)).quantize(_EIGHT, ROUND_DOWN)
        account.pay(self._paid(order), paid)
        order.locked -= paid
        account.receive(asset, received - commission)
        self._release(order)
        trade = Trade(
            id=next(self._trade_ids),
            order_id=order.id,
            price=price,
            quantity=quantity,
            quote=quote,
            commission=commission,
            asset=asset,
            ts=ts,
            maker=maker,
            buyer=order.buys,
        )
        order.trades.append(trade)
        if not order.left:
            del self.open[order.id]
        self._report(order, "TRADE", trade)

    def _release(self, order: Order) -> None:
        """Unlock what an order does not need any more: the price was better than its limit, or it has ended."""
        needed = _ZERO
        if order.left:
            market = order.type == "MARKET"
            needed = order.left if not order.buys else order.locked if market else _amount(order.left * order.price)
        if order.locked > needed:
            self.account.unlock(self._paid(order), order.locked - needed)
            order.locked = needed

    def _end(self, order: Order, status: Status, ts: int) -> None:
        order.status, order.updated = status, ts
        del self.open[order.id]
        self.account.unlock(self._paid(order), order.locked)
        order.locked = _ZERO
        self._report(order, status, None)


def _amount(value: Decimal) -> Decimal:
    return value.quantize(_EIGHT, ROUND_UP)
