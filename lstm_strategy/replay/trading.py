"""Trading: the one account of a replay, the books of its spot markets, and who is told what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any, Protocol

from aiohttp import web

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.accounts import Account
from lstm_strategy.replay.binance_events import account_position, execution_report
from lstm_strategy.replay.binance_rules import exchange_info
from lstm_strategy.replay.credentials import Credentials
from lstm_strategy.replay.exchange import Exchange
from lstm_strategy.replay.faults import ORDER_KINDS, USER_KINDS
from lstm_strategy.replay.matching import Book
from lstm_strategy.replay.orders import Order, Rules, Trade
from lstm_strategy.replay.refusals import MESSAGES, RefusedError

__all__ = ["TRADING", "Subscriber", "Trading", "TradingConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingConfig:
    """What a client trades with.

    Parameters
    ----------
    credentials : Credentials
        The key that requests must be signed with.
    balances : mapping of str to Decimal
        What the account holds at the beginning, by asset.
    spread : float
        Between bid and ask, as a fraction of the price.
    volume_share : float
        The share of a bar's volume that is offered to all orders together.
    may_trade : bool
        Whether the account may send orders (`canTrade`), or only be read.
    """

    credentials: Credentials
    balances: Mapping[str, Decimal] = field(default_factory=lambda: {"USDT": Decimal(10_000)})
    spread: float = 0.0
    volume_share: float = 0.25
    may_trade: bool = True

    def __post_init__(self) -> None:
        for name, allowed, what in (
            ("spread", 0.0 <= self.spread < 0.5, "at least 0 and below 0.5"),
            ("volume_share", 0.0 < self.volume_share <= 1.0, "above 0, at most 1"),
        ):
            if not allowed:
                raise LSTMStrategyError(f"replay: {name} is {getattr(self, name)}; it must be {what}")


class Subscriber(Protocol):
    """A connection that is told of the account."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Put one event on its way."""

    def cut(self) -> None:
        """End the connection without a word."""

    async def drained(self) -> None:
        """Wait until all that was told has left."""


class Trading:
    """Orders in, events out; all of it at the venue's time, and in one order.

    Attributes
    ----------
    subscribers : set of Subscriber
        Who is told; what happens while there is none is told to nobody.
    events : int
        How many events there were.
    """

    def __init__(self, exchange: Exchange, config: TradingConfig) -> None:
        self.exchange, self.config = exchange, config
        self.account = Account(config.balances)
        self.subscribers: set[Subscriber] = set()
        self.events = 0
        self.ids = count(1)  # of what Binance names itself
        self.cancelling = ""  # the identifier of the request that cancels
        self._held: list[Mapping[str, Any]] = []
        self._late: set[asyncio.Task[None]] = set()
        markets = [market for market in exchange.plan.markets if not market.perpetual]
        entries = exchange_info(markets, 0, exchange.exchange_info)["symbols"]
        numbers: dict[str, Iterator[int]] = {"order_ids": count(1), "trade_ids": count(1)}
        self.books = {
            market.symbol: Book(
                market,
                Rules.of(entry, maker=market.instrument.maker_fee, taker=market.instrument.taker_fee),
                self.account,
                self._report,
                now=exchange.now(),
                spread=config.spread,
                volume_share=config.volume_share,
                **numbers,
            )
            for market, entry in zip(markets, entries, strict=True)
        }

    async def advance(self, before: int, now: int, in_time: bool) -> None:
        """Match what rests up to ``now``; see `exchange.Listener`."""
        self.catch_up(now)
        if self.exchange.clock.by_hand:
            for subscriber in list(self.subscribers):
                await subscriber.drained()

    def catch_up(self, now: int | None = None) -> None:
        """Follow the path to the venue's time, so that what is asked next is answered at it."""
        for book in self.books.values():
            book.follow(self.exchange.now() if now is None else now)
        self._tell_balances()

    def book(self, symbol: str) -> Book:
        """Return a market's book, which has followed the path; raises `RefusedError` for an unknown symbol."""
        if symbol not in self.books:
            raise RefusedError(-1121)
        self.catch_up()
        return self.books[symbol]

    def place(self, order: Order) -> Order:
        """Take an order in, with the fault that hits it; raises `RefusedError` as Binance refuses."""
        book, most, now = self.book(order.symbol), Decimal(1), self.exchange.now()
        drawn = self.exchange.faults.draw(
            "orders", ORDER_KINDS, first=now, last=now, path=f"{order.side} {order.type}", symbol=order.symbol
        )
        for fault, _ in drawn:
            if fault.kind == "reject":
                raise RefusedError(fault.code, MESSAGES.get(fault.code, "Order was rejected."))
            most = Decimal(str(fault.amount))
        order.client_id = order.client_id or self.new_id()
        try:
            return book.place(order, most=most)
        finally:
            self._tell_balances()

    def cancel(self, symbol: str, order: Order | None, request_id: str = "") -> Order:
        """Take an order off its book; raises `RefusedError` where it is not there (any more)."""
        if order is None:
            raise RefusedError(-2011)
        self.cancelling = request_id or self.new_id()
        self.books[symbol].cancel(order)
        self._tell_balances()
        return order

    def new_id(self) -> str:
        """Return a client identifier as Binance gives where a client sent none."""
        return f"replay-{next(self.ids)}"

    def state(self) -> dict[str, int]:
        """Return how much there is of what, for people and tests."""
        books = self.books.values()
        return {
            "open_orders": sum(len(book.open) for book in books),
            "orders": sum(len(book.orders) for book in books),
            "events": self.events,
            "listeners": len(self.subscribers),
        }

    async def close(self) -> None:
        """Forget what waits to be told late."""
        for task in list(self._late):
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    def _report(self, order: Order, what: str, trade: Trade | None) -> None:
        self._tell(execution_report(order, what, trade, self._now_ms(), self.cancelling), order.symbol)

    def _tell_balances(self) -> None:
        changed, self.account.changed = sorted(self.account.changed), set()
        if changed:
            self._tell(account_position(self.account, changed, self._now_ms()), "")

    def _now_ms(self) -> int:
        return self.exchange.now() // 1_000_000

    def _tell(self, event: Mapping[str, Any], symbol: str) -> None:
        """Tell an event, with the fault that hits it."""
        self.events += 1
        now = self.exchange.now()
        told = f"{event['e']} {event.get('x', '')}".strip()
        drawn = self.exchange.faults.draw("user", USER_KINDS, first=now, last=now, path=told, symbol=symbol)
        held, self._held = self._held, []
        events = [event, *held]
        for fault, _ in drawn:
            if fault.kind == "drop":
                for subscriber in list(self.subscribers):
                    subscriber.cut()
                self.subscribers.clear()
                return
            if fault.kind == "skip":
                events = held
            elif fault.kind == "duplicate":
                events = [event, event, *held]
            elif fault.kind == "reorder":
                self._held, events = [event], held
            else:
                self._later(event, fault.seconds)
                events = held
            break
        for what in events:
            self._send(what)

    def _send(self, event: Mapping[str, Any]) -> None:
        for subscriber in list(self.subscribers):
            subscriber.tell(event)

    def _later(self, event: Mapping[str, Any], seconds: float) -> None:
        async def send() -> None:
            await asyncio.sleep(max(0.0, seconds))
            self._send(event)

        task = asyncio.get_running_loop().create_task(send())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


TRADING = web.AppKey("trading", Trading)
