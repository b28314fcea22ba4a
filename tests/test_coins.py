"""Coins of somebody's in the strategy's account: they are kept, or refuse the start; none of them is ever sold."""

from __future__ import annotations

import asyncio
import signal
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from nautilus_trader.model.currencies import BTC as COIN
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.objects import AccountBalance, Money
from test_live import KEYS, SECRET, Desk
from test_redis import Venue, desk, own_runs, until, venue  # noqa: F401 - desk is a fixture
from trading_support import Trader

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import LiveConfig
from lstm_strategy.nautilus.binance_coins import (
    CoinsRecord,
    Held,
    belongs,
    hidden,
    locked_by,
    own_coins,
    read_records,
    traded,
    write,
)

DUST = Decimal("0.001")
PLACE = Path("state")


def own(total: str, keep: str | None = None, record: CoinsRecord | None = None, gained: str = "0") -> Decimal:
    held = Held("BTC", Decimal(total), DUST)
    return own_coins(held, keep, record, Decimal(gained), PLACE)[0]


def at(kept: str | None, mine: str) -> CoinsRecord:
    return CoinsRecord(keep=kept, own=mine, last_trade=7)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (("0",), "0"),
        (("0.0009",), "0.0009"),  # what no order can sell
        (("0.5", "0.5"), "0"),
        (("0.7", "0.5"), "0.2"),  # somebody has just said so
        (("0.7", "0"), "0.7"),
        (("0.2", None, at(None, "0"), "0.2"), "0.2"),  # bought since
        (("0.7", "0.5", at("0.5", "0"), "0.2"), "0.2"),
        (("0.5", "0.5", at("0.5", "0.2"), "-0.2"), "0"),  # a stop has filled meanwhile
        (("0.1", None, at(None, "0.2"), "0"), "0.1"),  # somebody has taken some
        (("0.7", "0.4", at("0.5", "0.2"), "0"), "0.3"),  # says otherwise now
        (("0.4995", "0.5"), "0"),
        (("0.7", "0", at(None, "0.2"), "0"), "0.7"),  # hands them over
        (("0.7", "0", at("0", "0.7"), "0"), "0.7"),
    ],
)
def test_the_strategys_are_those_that_its_orders_bought_beside_what_is_kept(told: tuple[Any, ...], wanted: str) -> None:
    assert own(*told) == Decimal(wanted)


@pytest.mark.parametrize(
    ("told", "more", "leave"),
    [
        (("0.5",), "0.5", 'BTC = "0.5"'),
        (("0.7", None, at(None, "0"), "0.2"), "0.5", 'BTC = "0.5"'),
        (("1.7", "0.5", at("0.5", "0"), "0.2"), "1", 'BTC = "1.5"'),
        (("0.2", None, at(None, "0.2"), "-0.2"), "0.2", 'BTC = "0.2"'),
    ],
)
def test_coins_that_nothing_accounts_for_refuse_the_start_with_the_way_out(
    told: tuple[Any, ...], more: str, leave: str
) -> None:
    with pytest.raises(LSTMStrategyError) as error:
        own(*told)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"the account holds {more} BTC that no order of this strategy accounts for")
    assert leave in text
    assert text.endswith("; nothing was sent")
    # What it says works.
    amount = leave.split('"')[1]
    assert own(told[0], amount, *told[2:]) == Decimal(told[0]) - Decimal(amount)
    if len(told) == 1 or told[1] is None:
        assert 'keep = { BTC = "0" } lets the strategy trade' in text
        assert own(told[0], "0", *told[2:]) == Decimal(told[0])
    else:
        assert "without state/coins.json they are the strategy's" in text
        assert own(told[0], told[1]) == Decimal(told[0]) - Decimal(told[1])


def test_less_than_what_is_to_be_kept_is_refused() -> None:
    with pytest.raises(LSTMStrategyError, match=r"holds 0\.3 BTC, less than the 0\.5 that live\.keep leaves alone"):
        own("0.3", "0.5")


def test_balances_are_told_without_what_is_kept() -> None:
    def balance(total: str, locked: str, coin: Any = COIN) -> AccountBalance:
        free = Decimal(total) - Decimal(locked)
        return AccountBalance(Money(Decimal(total), coin), Money(Decimal(locked), coin), Money(free, coin))

    for total, locked, keep, ours, left in (
        ("0.7", "0", "0.5", "0", ("0.2", "0", "0.2")),
        ("0.7", "0.2", "0.5", "0.2", ("0.2", "0.2", "0")),  # our stop locks ours
        ("0.7", "0.2", "0.5", None, ("0.2", "0.2", "0")),  # who locks it is not known
        ("0.7", "0.4", "0.5", "0", ("0.2", "0", "0.2")),  # somebody's order locks what is kept: ours is free
        ("0.7", "0.6", "0.5", "0.2", ("0.2", "0.2", "0")),  # and beside it our stop rests
        ("0.7", "0.6", "0.5", "0", ("0.2", "0.1", "0.1")),  # or some of ours
        ("0.7", "0", "0.5", "0.2", ("0.2", "0", "0.2")),  # an order that the venue does not know yet
        ("0.3", "0", "0.5", "0", ("0", "0", "0")),
        ("0.7", "0.1", "0", "0", ("0.7", "0.1", "0.6")),
    ):
        locks = None if ours is None else {"BTC": Decimal(ours)}
        (found,) = hidden([balance(total, locked)], {"BTC": keep}, locks)
        assert (found.total.as_decimal(), found.locked.as_decimal(), found.free.as_decimal()) == tuple(
            map(Decimal, left)
        )
    both = [balance("1", "0"), balance("900", "0", USDT)]
    assert [one.total.as_decimal() for one in hidden(both, {"USDT": "400"}, {})] == [Decimal(1), Decimal(500)]


def test_what_our_orders_lock_goes_by_what_the_venue_has_told_of_them() -> None:
    def order(name: str, leaves: str, price: str | None, *, sells: bool) -> SimpleNamespace:
        told = None if price is None else SimpleNamespace(as_decimal=lambda: Decimal(price))
        return SimpleNamespace(
            client_order_id=SimpleNamespace(value=name),
            instrument_id="BTCUSDT",
            leaves_qty=SimpleNamespace(as_decimal=lambda: Decimal(leaves)),
            is_sell=sells,
            has_price=price is not None,
            price=told,
        )

    pair = SimpleNamespace(base_currency=COIN, quote_currency=USDT)
    alive = [
        order("stop", "0.3", "90", sells=True),
        order("sale", "0.2", None, sells=True),
        order("buy", "0.5", "100", sells=False),
        order("now", "9", None, sells=False),
    ]
    assert locked_by(alive, {}, {"BTCUSDT": pair}.get) == {"BTC": Decimal("0.5"), "USDT": Decimal(50)}
    told = {"stop": Decimal(0), "buy": Decimal("0.1")}  # cancelled, and filled in part, which the engine hears next
    assert locked_by(alive, told, {"BTCUSDT": pair}.get) == {"BTC": Decimal("0.2"), "USDT": Decimal(10)}


def test_our_trades_are_told_from_others() -> None:
    ours = belongs("LIVE")
    assert ours("O-20261121-180000-LIVE-000-12")
    for other in ("O-20261121-180000-DESK-000-12", "web_1234", "O-20261121-180000-LIVE-000", "", "x-O-20261121"):
        assert not ours(other)
    trades = [
        SimpleNamespace(orderId=1, qty="0.5", isBuyer=True, commission="0.0005", commissionAsset="BTC"),
        SimpleNamespace(orderId=2, qty="9", isBuyer=True, commission="0.1", commissionAsset="BTC"),
        SimpleNamespace(orderId=3, qty="0.2", isBuyer=False, commission="3", commissionAsset="USDT"),
        SimpleNamespace(orderId=3, qty="0.1", isBuyer=False, commission="0.01", commissionAsset="BNB"),
    ]
    assert traded(trades, "BTC", {1: True, 2: False, 3: True}.__getitem__) == Decimal("0.1995")


def test_what_was_kept_is_read_again_or_refused(tmp_path: Path) -> None:
    assert read_records(tmp_path) == {}
    write(tmp_path, {"BTCUSDT": at("0.5", "0.1")})
    assert read_records(tmp_path) == {"BTCUSDT": at("0.5", "0.1")}
    (tmp_path / "coins.json").write_text('{"BTCUSDT": {"keep": "1"}}')
    with pytest.raises(LSTMStrategyError, match=r"coins\.json cannot be read.*live\.keep"):
        read_records(tmp_path)


@pytest.mark.parametrize("wrong", [{"btc": "1"}, {"BTC": "-1"}, {"BTC": "nan"}, {"BTC": "much"}])
def test_an_amount_is_checked(wrong: dict[str, str]) -> None:
    with pytest.raises(LSTMStrategyError, match=r"live\.keep says .* it must be a coin and an amount"):
        LiveConfig(keep=wrong)


# -- with NautilusTrader's own Binance client, on the local exchange ---------------------------------------------------

MORE = """
[exits]
stop = 4.0
horizon = 4
[live]
mode = "live"
start_timeout = 5
flatten_on_stop = true
{keep}
"""


class LiveNode:
    """What a `lstm-strategy live` says, and how it ends."""

    def __init__(self, desk: Desk, keep: str, url: str) -> None:  # noqa: F811
        path = desk.experiment(MORE.format(keep=keep))
        sizing = 'mode = "volatility_target"\ntilt = 0.0\ntarget_volatility = 0.2\n'
        text = path.read_text().replace('mode = "mean_variance"\n', sizing).replace("kelly_fraction = 0.05\n", "")
        path.write_text(text)
        self.process = desk.start("live", path, "--yes-trade-real-money", "--base-url", url, **KEYS, COLUMNS="300")
        self.said: list[str] = []

    def wait_for(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if word in line:
                return line
        raise AssertionError("".join(self.said))

    def end(self, how: int = signal.SIGTERM) -> str:
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=60)
        return "".join(self.said) + rest

    def refused(self) -> str:
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 1, said
        (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
        return error


def test_a_users_own_coins_are_never_sold(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    own_desk = own_runs(desk, tmp_path / "own")
    with venue(own_desk) as exchange:
        url, account = exchange.server.http_url, exchange.trading.account
        account.receive("BTC", Decimal("0.5"))  # somebody's, of long ago

        told = LiveNode(own_desk, "", url).refused()
        assert told.startswith(
            "error: binance: the account holds 0.5 BTC that no order of this strategy accounts for: "
            '[live] keep = { BTC = "0.5" } leaves them alone'
        )
        assert exchange.sent == 0

        keep = 'keep = { BTC = "0.5" }'
        node = LiveNode(own_desk, keep, url)
        told = node.wait_for("✓ account")
        assert told.strip().endswith(": 0.00 BTC, 100,000.00 USDT; no position, 0 open orders; 0.5 BTC is kept"), told
        node.wait_for("✓ history")
        trade(exchange, node)
        bought = exchange.coins - Decimal("0.5")
        assert bought > Decimal("0.01")
        by_hand(exchange, "0.05")  # somebody sells some of theirs: no affair of the strategy's
        trade(exchange, node, count=1)
        assert "BTC, less than the 0.5 that live.keep leaves alone and the position of " in node.wait_for("! ")
        assert sum(exchange.stops) <= exchange.coins - Decimal("0.45"), "of the strategy's coins alone"

        # Killed and started again with its position: it counts its own trades, not what the account holds.
        said = node.end(signal.SIGKILL)
        assert "error" not in said
        sent = exchange.sent
        node = LiveNode(own_desk, keep, url)
        held = Decimal(node.wait_for("✓ account").split("; ")[1].split()[0])
        assert abs(held - (exchange.coins - Decimal("0.5"))) < Decimal("0.001"), "half a coin is kept, as it says"
        node.wait_for("✓ history")
        assert exchange.sent == sent, "a start sends nothing"

        # The end closes the position: what was somebody's is there to the last coin, and in an order of theirs.
        resting = by_hand(exchange, "0.4", price="900000")
        time.sleep(0.5)
        node.end()
        by_hand(exchange, "", cancel=resting)
        assert node.process.returncode == 0
        assert Decimal("0.5") <= exchange.coins < Decimal("0.501")
        assert not exchange.stops

        # Coins that come in while nobody is there are somebody's as well.
        account.receive("BTC", Decimal("1.0"))
        sent = exchange.sent
        told = LiveNode(own_desk, keep, url).refused()
        assert "error: binance: the account holds 1" in told
        assert exchange.sent == sent


def trade(exchange: Venue, node: LiveNode, count: int = 3) -> None:
    """Close bars until the strategy holds coins under a stop."""
    for _ in range(count):
        asyncio.run_coroutine_threadsafe(exchange.server.step(), exchange.loop).result(20)
        time.sleep(1.0)
    until(lambda: len(exchange.stops) == 1)


def by_hand(exchange: Venue, quantity: str, *, price: str = "", cancel: int = 0) -> int:
    """Sell, or offer, by another program than the node; or call such an order back. Return its number."""

    async def send() -> int:
        async with aiohttp.ClientSession() as session:
            trader = Trader(session, exchange.server.http_url, SECRET)
            if cancel:
                status, told = await trader.ask("DELETE", "/api/v3/order", symbol="BTCUSDT", orderId=cancel)
            elif price:
                status, told = await trader.order("SELL", "LIMIT", quantity, price=price, timeInForce="GTC")
            else:
                status, told = await trader.order("SELL", "MARKET", quantity, newClientOrderId="web_1")
            assert status == 200, told
            return int(told["orderId"])

    return asyncio.run_coroutine_threadsafe(send(), exchange.loop).result(20)
