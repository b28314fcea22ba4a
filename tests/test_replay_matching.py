"""The matching of the local exchange, alone: what fills, when, at what price, and that no money appears or is lost."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.instrument import Instrument
from lstm_strategy.replay.accounts import Account
from lstm_strategy.replay.binance_rules import exchange_info
from lstm_strategy.replay.market import Market
from lstm_strategy.replay.matching import Book
from lstm_strategy.replay.orders import Order, Rules, Trade
from lstm_strategy.replay.price_path import legs, price_at
from lstm_strategy.replay.refusals import RefusedError

D = Decimal
HOUR = 3_600_000_000_000
START = 1_704_067_200_000_000_000  # 2024-01-01
PRICES = ((100.0, 110.0, 90.0, 105.0), (105.0, 106.0, 95.0, 96.0), (80.0, 85.0, 75.0, 84.0), (84.0, 99.0, 83.0, 98.0))


def market(rows: tuple[tuple[float, float, float, float], ...] = PRICES, volume: float = 100.0) -> Market:
    prices = np.array(rows)
    bars = Bars(
        "BTCUSDT.BINANCE",
        Timeframe.parse("1h"),
        START + HOUR * np.arange(1, len(rows) + 1),
        *(np.ascontiguousarray(prices[:, column]) for column in range(4)),
        np.full(len(rows), volume),
    )
    instrument = Instrument(
        id="BTCUSDT.BINANCE",
        kind="spot",
        base="BTC",
        quote="USDT",
        tick="0.01",
        lot="0.001",
        min_quantity="0.001",
        max_quantity="1000",
        min_notional=5.0,
        maker_fee=0.0005,
        taker_fee=0.001,
    )
    return Market(bars, instrument)


class Desk:
    """A book with an account, and what it reported."""

    def __init__(self, *, usdt: str = "10000", btc: str = "10", now: int = START, **options: Any) -> None:
        self.market = options.pop("market", None) or market(volume=options.pop("volume", 100.0))
        entry = exchange_info([self.market], 0, {})["symbols"][0]
        rules = Rules.of(entry, maker=0.0005, taker=0.001)
        self.account = Account({"USDT": D(usdt), "BTC": D(btc)})
        self.told: list[tuple[int, str, Trade | None]] = []
        options = {"spread": 0.0, "volume_share": 1.0} | options
        self.book = Book(self.market, rules, self.account, self._report, now=now, **options)
        self.names = 0

    def _report(self, order: Order, what: str, trade: Trade | None) -> None:
        self.told.append((order.id, what, trade))
        check_account(self)

    def order(self, side: Any, kind: Any, quantity: str, price: str = "0", stop: str = "0", **more: Any) -> Order:
        self.names += 1
        lasting, name, most = more.pop("lasting", "GTC"), more.pop("name", f"c{self.names}"), more.pop("most", D(1))
        asked = Order(
            id=0,
            client_id=name,
            symbol="BTCUSDT",
            side=side,
            type=kind,
            time_in_force=lasting,
            quantity=D(quantity),
            price=D(price),
            stop=D(stop),
            **more,
        )
        return self.book.place(asked, most=most)

    def kinds(self, order: Order) -> list[str]:
        return [what for identity, what, _ in self.told if identity == order.id]

    def trades(self) -> list[Trade]:
        return [trade for _, _, trade in self.told if trade is not None]


def check_account(desk: Desk) -> None:
    """No balance below zero, and what is locked is what open orders keep."""
    locked = {"USDT": D(0), "BTC": D(0)}
    for order in desk.book.open.values():
        locked["USDT" if order.buys else "BTC"] += order.locked
    for asset, balance in desk.account.balances.items():
        assert balance.free >= 0, asset
        assert balance.locked == locked[asset], asset


def at(hours: float) -> int:
    return START + int(hours * HOUR)


# -- the path --------------------------------------------------------------------------------------------------------


def test_the_path_is_the_bars_and_jumps_between_them() -> None:
    tour = list(legs(market(), START, at(4)))
    for row, (first, high, low, last) in enumerate(PRICES):
        mine = [leg for leg in tour if leg.row == row]
        ends = [value for leg in mine for value in (leg.first, leg.last)]
        assert (ends[0], max(ends), min(ends), ends[-1]) == (first, high, low, last)
        assert mine[0].begun == mine[0].ended == at(row), "the jump to the open takes no time"
        assert all(one.ended == two.begun and one.last == two.first for one, two in pairwise(mine))
    assert price_at(market(), START - 1) is None
    assert price_at(market(), at(1)) == (105.0, 1), "at a close the next bar's open is offered"
    assert price_at(market(), at(2)) == (80.0, 2)
    assert price_at(market(), at(9)) == (98.0, 3), "after the last bar, its close"


# -- orders that take ------------------------------------------------------------------------------------------------


def test_a_market_order_fills_at_the_next_open_with_half_the_spread() -> None:
    desk = Desk(now=at(2), spread=0.001)
    bought = desk.order("BUY", "MARKET", "2")
    assert desk.kinds(bought) == ["NEW", "TRADE"]
    (trade,) = desk.trades()
    assert (trade.price, trade.quantity, trade.asset, trade.maker) == (D("80.04"), D(2), "BTC", False)
    assert trade.commission == D("0.002")
    assert desk.account.of("BTC").free == D("11.998")
    assert desk.account.of("USDT").free == D("10000") - D("160.08")
    sold = desk.order("SELL", "MARKET", "1.5")
    assert sold.trades[0].price == D("79.96")
    assert (sold.trades[0].asset, sold.trades[0].commission) == ("USDT", D("0.11994"))


def test_a_market_order_pays_a_tick_more_beyond_the_bars_share() -> None:
    desk = Desk(now=at(2), volume=10.0, volume_share=0.25)
    order = desk.order("BUY", "MARKET", "4")
    assert [(t.price, t.quantity) for t in order.trades] == [(D(80), D("2.5")), (D("80.01"), D("1.5"))]
    assert order.status == "FILLED"
    assert desk.account.of("USDT").locked == 0


def test_a_market_order_may_be_sized_in_quote_currency() -> None:
    order = Desk(now=at(2)).order("BUY", "MARKET", "0", quote_quantity=D("100.04"))
    assert (order.quantity, order.status) == (D("1.250"), "FILLED")


def test_a_market_order_that_is_offered_a_part_expires_with_the_rest() -> None:
    desk = Desk(now=at(2))
    order = desk.order("SELL", "MARKET", "2", most=D("0.25"))
    assert desk.kinds(order) == ["NEW", "TRADE", "EXPIRED"]
    assert (order.executed, order.status, desk.account.of("BTC").locked) == (D("0.5"), "EXPIRED", 0)


@pytest.mark.parametrize(
    ("lasting", "quantity", "kinds", "executed"),
    [
        ("GTC", "30", ["NEW", "TRADE"], "25"),
        ("IOC", "30", ["NEW", "TRADE", "EXPIRED"], "25"),
        ("FOK", "30", ["NEW", "EXPIRED"], "0"),
        ("FOK", "20", ["NEW", "TRADE"], "20"),
        ("IOC", "20", ["NEW", "TRADE"], "20"),
    ],
)
def test_time_in_force(lasting: str, quantity: str, kinds: list[str], executed: str) -> None:
    desk = Desk(now=at(2), volume_share=0.25)
    order = desk.order("BUY", "LIMIT", quantity, "81", lasting=lasting)
    assert desk.kinds(order) == kinds
    assert order.executed == D(executed)
    assert all(trade.price == 80 for trade in order.trades), "never worse than what is offered"


# -- orders that rest ------------------------------------------------------------------------------------------------


def test_a_limit_fills_when_the_path_goes_beyond_it_and_not_at_a_touch() -> None:
    desk = Desk()
    touched, crossed = desk.order("BUY", "LIMIT", "1", "90"), desk.order("BUY", "LIMIT", "1", "90.01")
    desk.book.follow(at(1))
    assert (touched.status, crossed.status) == ("NEW", "FILLED")
    (trade,) = crossed.trades
    assert (trade.price, trade.maker, trade.commission) == (D("90.01"), True, D("0.0005"))
    assert START < trade.ts < at(1)


def test_a_limit_fills_in_parts_bar_by_bar() -> None:
    desk = Desk(volume=10.0, volume_share=0.25)
    order = desk.order("SELL", "LIMIT", "6", "95.5")  # takes 2.5 at 100, and the rest of it rests
    desk.book.follow(at(1))
    assert (order.executed, order.trades[0].price, order.status) == (D("2.5"), D(100), "PARTIALLY_FILLED")
    desk.book.follow(at(2))
    assert order.executed == 5
    assert order.trades[1].price == D("95.5")
    desk.book.follow(at(3))
    assert order.executed == 5, "the third bar never gets there"
    desk.book.follow(at(4))
    assert order.status == "FILLED"


def test_a_post_only_order_that_would_take_is_refused() -> None:
    desk = Desk()
    with pytest.raises(RefusedError, match=r"Order would immediately match and take\.") as refused:
        desk.order("BUY", "LIMIT_MAKER", "1", "100")
    assert refused.value.code == -2010
    assert desk.order("BUY", "LIMIT_MAKER", "1", "99.99").status == "NEW"


def test_a_stop_limit_is_triggered_inside_a_bar() -> None:
    desk = Desk()
    order = desk.order("SELL", "STOP_LOSS_LIMIT", "2", "91", "92")
    assert not order.working
    assert desk.account.of("BTC").locked == 2
    desk.book.follow(at(1))
    (trade,) = order.trades
    assert (trade.price, trade.maker, order.status) == (D(92), False, "FILLED")


def test_a_jumped_stop_limit_fills_at_the_open_or_waits_at_its_limit() -> None:
    desk = Desk(now=at(1))
    wide, narrow = (
        desk.order("SELL", "STOP_LOSS_LIMIT", "1", "79", "94"),
        desk.order("SELL", "STOP_LOSS_LIMIT", "1", "93", "94"),
    )
    desk.book.follow(at(2) + 1)
    assert wide.trades[0].price == 80, "96 to 80 without a trade between: at the open"
    assert (narrow.status, narrow.working) == ("NEW", True), "80 is below its limit: it rests"
    desk.book.follow(at(3))
    assert narrow.status == "NEW"
    desk.book.follow(at(4))
    assert (narrow.trades[0].price, narrow.trades[0].maker) == (D(93), True), "when the price is back"


def test_a_stop_for_a_short_and_a_take_profit_look_the_other_way() -> None:
    desk = Desk()
    bought = desk.order("BUY", "STOP_LOSS_LIMIT", "1", "109", "108")
    taken = desk.order("SELL", "TAKE_PROFIT_LIMIT", "1", "107", "108")
    cheap = desk.order("BUY", "TAKE_PROFIT_LIMIT", "1", "93", "92")
    desk.book.follow(at(1))
    assert [order.trades[0].price for order in (bought, taken, cheap)] == [D(108), D(108), D(92)]


@pytest.mark.parametrize(
    ("side", "kind", "stop"),
    [("SELL", "STOP_LOSS_LIMIT", "100"), ("BUY", "STOP_LOSS_LIMIT", "99"), ("SELL", "TAKE_PROFIT_LIMIT", "100")],
)
def test_a_stop_that_would_trigger_at_once_is_refused(side: str, kind: str, stop: str) -> None:
    desk = Desk()
    with pytest.raises(RefusedError, match=r"Stop price would trigger immediately\.") as refused:
        desk.order(side, kind, "1", "100", stop)
    assert refused.value.code == -2010
    assert desk.told == []


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "price", "told"),
    [
        ("1", "99.995", "PRICE_FILTER"),
        ("1", "1000001", "PRICE_FILTER"),
        ("0.0005", "99", "LOT_SIZE"),
        ("0.0015", "99", "LOT_SIZE"),
        ("1000.001", "99", "LOT_SIZE"),
        ("0.05", "99", "NOTIONAL"),
    ],
)
def test_the_markets_rules_are_kept(quantity: str, price: str, told: str) -> None:
    desk = Desk(usdt="1000000000")
    with pytest.raises(RefusedError, match=f"Filter failure: {told}") as refused:
        desk.order("BUY", "LIMIT", quantity, price)
    assert refused.value.code == -1013
    assert desk.account.of("USDT").free == 1_000_000_000


def test_money_that_is_not_there_cannot_be_spent_twice() -> None:
    desk = Desk(usdt="1000", btc="1")
    desk.order("BUY", "LIMIT", "9", "90")
    for side, kind, quantity, price in (
        ("BUY", "LIMIT", "3", "90"),
        ("BUY", "MARKET", "2", "0"),
        ("SELL", "LIMIT", "1.001", "200"),
    ):
        with pytest.raises(RefusedError, match="insufficient balance"):
            desk.order(side, kind, quantity, price)
    assert desk.account.of("USDT").free == 190
    everything = Desk(usdt="200", btc="0", now=at(2), spread=0.0)
    assert everything.order("BUY", "MARKET", "2.5").status == "FILLED", "to the last cent"
    assert everything.account.of("USDT").free == 0


def test_a_client_identifier_is_unique_among_open_orders_alone() -> None:
    desk = Desk()
    first = desk.order("BUY", "LIMIT", "1", "90", name="mine")
    with pytest.raises(RefusedError, match=r"Duplicate order sent\.") as refused:
        desk.order("BUY", "LIMIT", "1", "91", name="mine")
    assert refused.value.code == -2010
    desk.book.cancel(first)
    second = desk.order("BUY", "MARKET", "1", name="mine")
    assert desk.order("BUY", "MARKET", "1", name="mine").status == "FILLED", (
        "as at Binance: the first is not open any more"
    )
    assert desk.book.find(client_id="mine") is not first
    assert desk.book.find(order_id=second.id) is second


def test_what_is_gone_cannot_be_cancelled() -> None:
    desk = Desk()
    order = desk.order("BUY", "LIMIT", "1", "90")
    desk.book.cancel(order)
    assert desk.account.of("USDT") == type(desk.account.of("USDT"))(free=D(10_000))
    with pytest.raises(RefusedError, match="Unknown order sent") as refused:
        desk.book.cancel(order)
    assert refused.value.code == -2011


def test_before_the_first_bar_there_is_no_market() -> None:
    with pytest.raises(RefusedError, match=r"Market is closed\."):
        Desk(now=START - 1).order("BUY", "MARKET", "1")


# -- properties ------------------------------------------------------------------------------------------------------

PRICE = st.integers(7_000, 11_500).map(lambda cents: str(D(cents) / 100))
STEP = st.tuples(
    st.floats(0.0, 0.7),
    st.sampled_from(("BUY", "SELL")),
    st.sampled_from(("MARKET", "LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT", "CANCEL")),
    st.integers(1, 60_000).map(lambda lots: str(D(lots) / 1000)),
    PRICE,
    PRICE,
    st.sampled_from(("GTC", "IOC", "FOK")),
)


def play(desk: Desk, steps: list[tuple[Any, ...]], parts: int = 1) -> Counter[str]:
    """Send orders at their moments; ``parts``: how often the book is looked at in between."""
    now, refused = START, Counter()
    for pause, side, kind, quantity, price, stop, lasting in steps:
        before, now = now, min(now + int(pause * HOUR), at(4))
        for part in range(1, parts + 1):
            desk.book.follow(before + (now - before) * part // parts)
        try:
            if kind == "CANCEL":
                desk.book.cancel(
                    next(
                        iter(desk.book.open.values()),
                        Order(
                            id=-1,
                            client_id="",
                            symbol="",
                            side="BUY",
                            type="MARKET",
                            time_in_force="GTC",
                            quantity=D(1),
                        ),
                    )
                )
            else:
                market, stops = kind == "MARKET", kind.startswith(("STOP", "TAKE"))
                lasts = "GTC" if kind in ("MARKET", "LIMIT_MAKER") else lasting
                desk.order(side, kind, quantity, "0" if market else price, stop if stops else "0", lasting=lasts)
        except RefusedError as error:
            refused[str(error)] += 1
        check_account(desk)
    desk.book.follow(at(4))
    return refused


@settings(max_examples=120, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=25), st.sampled_from((0.0, 0.002)), st.sampled_from((0.05, 1.0)))
def test_money_is_conserved(steps: list[tuple[Any, ...]], spread: float, share: float) -> None:
    desk = Desk(usdt="3000", btc="30", spread=spread, volume_share=share)
    play(desk, steps)
    paid = {"USDT": D(3_000), "BTC": D(30)}
    for trade in desk.trades():
        sign = 1 if trade.buyer else -1
        paid["BTC"] += sign * trade.quantity
        paid["USDT"] -= sign * trade.quote
        paid[trade.asset] -= trade.commission
        assert abs(trade.quote - trade.price * trade.quantity) < D("0.00000001")
        assert 70 <= trade.price <= 115
    for asset, total in paid.items():
        balance = desk.account.of(asset)
        assert balance.free + balance.locked == total, asset
    for order in desk.book.orders.values():
        assert order.executed == sum((trade.quantity for trade in order.trades), D(0)) <= order.quantity
        if order.price:
            assert all(
                (trade.price <= order.price) if order.buys else (trade.price >= order.price) for trade in order.trades
            )
        assert (order.id in desk.book.open) == (order.status in ("NEW", "PARTIALLY_FILLED"))
    budget = Counter()
    for trade in desk.trades():
        if trade.maker:
            budget[min((trade.ts - START) // HOUR, 3)] += trade.quantity
    assert all(used <= D(100) * D(str(share)) for used in budget.values()), "no bar gives more to resting orders"


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=15), st.integers(2, 7))
def test_how_often_the_book_looks_changes_nothing(steps: list[tuple[Any, ...]], parts: int) -> None:
    once, often = (Desk(usdt="3000", btc="30", volume_share=0.2) for _ in range(2))
    assert play(once, steps) == play(often, steps, parts)
    assert [(i, what, t and (t.price, t.quantity)) for i, what, t in once.told] == [
        (i, what, t and (t.price, t.quantity)) for i, what, t in often.told
    ]


def test_a_long_run_forgets_what_is_long_over() -> None:
    desk = Desk(usdt="1000000")
    resting = desk.order("BUY", "LIMIT", "1", "50")
    for _ in range(6_000):
        desk.book.cancel(desk.order("BUY", "LIMIT", "1", "60"))
    desk.book.follow(at(0.5))
    assert len(desk.book.orders) == 5_001
    assert desk.book.find(order_id=resting.id) is resting, "never what is open"
