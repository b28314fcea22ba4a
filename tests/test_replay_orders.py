"""The signed side of the local exchange over real sockets: who may ask, what is answered and told, what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from replay_support import bounded, simulated
from trading_support import HMAC_SECRET, KEY, Trader, listening, new_secret, trading

from lstm_strategy.cli import app
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.credentials import Credentials, check_timestamp
from lstm_strategy.replay.faults import Fault, FaultPlan
from lstm_strategy.replay.rates import Rates
from lstm_strategy.replay.refusals import RefusedError
from lstm_strategy.replay.server import ReplayConfig, ReplayServer, serve
from lstm_strategy.replay.trading import TradingConfig

MARKET = simulated(bars=60)
OPEN = float(MARKET.bars.open[20])  # what a market order meets when 20 bars have closed


@asynccontextmanager
async def exchange(
    *faults: Fault, secret: str = HMAC_SECRET, account: bool = True, **options: Any
) -> AsyncIterator[tuple[ReplayServer, Trader]]:
    """A server that stands still after 20 bars, and a client of it."""
    config = ReplayConfig(
        markets=(MARKET,),
        step=True,
        start="20",
        updates=0,
        faults=FaultPlan(faults=faults),
        trading=trading(secret, **options) if account else None,
    )
    async with serve(config) as server, aiohttp.ClientSession() as session:
        yield server, Trader(session, server.http_url, secret)


def price(factor: float) -> str:
    return f"{OPEN * factor:.2f}"


STOP = {"timeInForce": "GTC", "price": price(0.5), "stopPrice": price(0.6)}


# -- who may ask -----------------------------------------------------------------------------------------------------


def test_requests_are_answered_to_who_signs_them() -> None:
    async def work(secret: str) -> None:
        async with exchange(secret=secret) as (_, trader):
            status, account = await trader.ask("GET", "/api/v3/account", recvWindow=5000)
            assert status == 200
            assert account["balances"] == [{"asset": "USDT", "free": "100000.00000000", "locked": "0.00000000"}]
            assert trader.headers["X-MBX-USED-WEIGHT-1M"] == "20"
            for change, status, code in (
                ({"key": ""}, 401, -2014),
                ({"key": "short"}, 401, -2014),
                ({"key": "anotherKEY0123456789"}, 401, -2015),
                ({"secret": "another-secret"}, 400, -1022),
                ({"secret": new_secret()}, 400, -1022),
            ):
                other = Trader(trader.session, trader.url, secret)
                for name, value in change.items():
                    setattr(other, name, value)
                got, told = await other.ask("GET", "/api/v3/account")
                assert (got, told["code"]) == (status, code), change
                assert KEY not in str(told)
            payload = f"symbol=BTCUSDT&timestamp={time.time_ns() // 1_000_000}"
            got, told = await trader.send("GET", f"/api/v3/openOrders?{payload}x&signature={trader.sign(payload)}")
            assert told["code"] == -1022, "what was changed on the way"
            got, told = await trader.send("GET", f"/api/v3/openOrders?{payload}")
            assert (got, told["code"]) == (400, -1102)

    bounded(work(HMAC_SECRET))
    bounded(work(new_secret()))


def test_stale_and_future_requests_are_refused() -> None:
    async def work() -> None:
        async with exchange(Fault(kind="clock_skew", seconds=7.0, nth=2, path="GET /api/v3/account")) as (
            server,
            trader,
        ):
            now = time.time_ns() // 1_000_000
            for stamp in (now - 6_000, now + 2_000, server.exchange.now() // 1_000_000 - 6_000):
                status, told = await trader.ask("GET", "/api/v3/openOrders", timestamp=stamp)
                assert (status, told["code"]) == (400, -1021)
            for stamp in (now - 1_000, server.exchange.now() // 1_000_000):  # its own clock, or the venue's
                assert (await trader.ask("GET", "/api/v3/openOrders", timestamp=stamp))[0] == 200
            assert (await trader.ask("GET", "/api/v3/account"))[0] == 200
            assert (await trader.ask("GET", "/api/v3/account"))[1]["code"] == -1021, "the venue's clock is off"
            assert (await trader.ask("GET", "/api/v3/account", recvWindow=60_001))[1]["code"] == -1131

    bounded(work())
    check_timestamp("1000", "1", 1000)
    with pytest.raises(RefusedError, match="timestamp"):
        check_timestamp("soon", "5000", 0)


def test_without_an_account_there_is_nothing_to_sign_for() -> None:
    async def work() -> None:
        async with exchange(account=False) as (server, trader):
            assert await trader.ask("GET", "/api/v3/account") == (
                401,
                {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
            )
            assert "trading" not in (await trader.send("GET", "/replay/state"))[1]
            assert server.trading is None

    bounded(work())


def test_keys_show_nowhere_and_bad_ones_are_told_without_them() -> None:
    config = trading(new_secret())
    for text in (repr(config), str(config.credentials), repr(ReplayConfig(markets=(), trading=config))):
        assert KEY not in text
        assert "MC4C" not in text
        assert "Ed25519" in text
    assert "HMAC" in repr(trading())
    for key, secret in (("short", "x" * 20), ("with space in it", "x" * 20), ("a" * 129, "x" * 20), (KEY, "short")):
        with pytest.raises(LSTMStrategyError) as error:
            Credentials(key, secret)
        assert key not in str(error.value)
        assert secret not in str(error.value)
    for bad in ({"spread": -0.1}, {"spread": 0.5}, {"volume_share": 0.0}, {"volume_share": 1.1}):
        with pytest.raises(LSTMStrategyError, match=next(iter(bad))):
            trading(**bad)


def test_rates_are_limited_and_stubbornness_is_banned() -> None:
    now = [600.0]
    rates = Rates(lambda: now[0])
    for _ in range(300):
        headers = rates.ask(20)
    assert headers["X-MBX-USED-WEIGHT-1M"] == "6000"
    with pytest.raises(RefusedError) as refused:
        rates.ask(20)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, -1003, 60)
    now[0] += 60
    assert rates.ask(20)["X-MBX-USED-WEIGHT-1M"] == "20"
    statuses = []
    for _ in range(400):
        try:
            rates.ask(20)
        except RefusedError as error:
            statuses.append(error.status)
    assert statuses[0] == 429
    assert statuses[-1] == 418
    now[0] += 121
    for count in range(100):
        assert rates.ask(1, 1)["X-MBX-ORDER-COUNT-10S"] == str(count + 1)
    with pytest.raises(RefusedError, match="Too many new orders"):
        rates.ask(1, 1)
    now[0] += 10
    rates.ask(1, 1)


# -- what is answered ------------------------------------------------------------------------------------------------


def test_the_life_of_orders_over_rest() -> None:
    async def work() -> None:
        async with exchange() as (server, trader):
            status, bought = await trader.order("BUY", "MARKET", "0.5", newClientOrderId="b1")
            assert (status, bought["status"], bought["executedQty"]) == (200, "FILLED", "0.50000000")
            assert float(bought["fills"][0]["price"]) == pytest.approx(OPEN, abs=0.011)
            assert bought["fills"][0]["commissionAsset"] == "BTC"
            status, stop = await trader.order("SELL", "STOP_LOSS_LIMIT", "0.499", newClientOrderId="s1", **STOP)
            assert set(stop) == {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"}, "an ACK"
            await server.step(3)
            _, opened = await trader.ask("GET", "/api/v3/openOrders", symbol="BTCUSDT")
            (mine,) = opened
            assert (mine["clientOrderId"], mine["stopPrice"], mine["isWorking"]) == (
                "s1",
                f"{float(price(0.6)):.8f}",
                False,
            )
            assert mine["status"] == "NEW"
            for name in ({"orderId": stop["orderId"]}, {"origClientOrderId": "s1"}):
                assert (await trader.ask("GET", "/api/v3/order", symbol="BTCUSDT", **name))[1] == mine
            _, gone = await trader.ask("DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="s1")
            assert (gone["status"], gone["origClientOrderId"]) == ("CANCELED", "s1")
            assert gone["clientOrderId"] != "s1"
            _, told = await trader.ask("DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="s1")
            assert told == {"code": -2011, "msg": "Unknown order sent."}
            _, told = await trader.ask("GET", "/api/v3/order", symbol="BTCUSDT", orderId=99)
            assert told == {"code": -2013, "msg": "Order does not exist."}
            _, every = await trader.ask("GET", "/api/v3/allOrders", symbol="BTCUSDT")
            assert [order["status"] for order in every] == ["FILLED", "CANCELED"]
            _, trades = await trader.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT")
            (trade,) = trades
            assert (trade["orderId"], trade["isBuyer"], trade["isMaker"]) == (bought["orderId"], True, False)
            assert trade["time"] == bought["transactTime"]
            day = {"startTime": trade["time"], "endTime": trade["time"] + 86_400_001}
            assert (await trader.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT", **day))[1]["code"] == -1127
            fees = (await trader.ask("GET", "/sapi/v1/asset/tradeFee"))[1]
            assert fees == [{"symbol": "BTCUSDT", "makerCommission": "0.001", "takerCommission": "0.001"}]
            _, account = await trader.ask("GET", "/api/v3/account")
            held = {entry["asset"]: Decimal(entry["free"]) for entry in account["balances"]}
            assert held["BTC"] == Decimal("0.5") - Decimal(trade["commission"])
            assert held["USDT"] == 100_000 - Decimal(trade["quoteQty"])

    bounded(work())


def test_all_open_orders_go_at_once() -> None:
    async def work() -> None:
        async with exchange(balances={"BTC": "2"}) as (server, trader):
            for name in ("a", "b"):
                await trader.order("SELL", "STOP_LOSS_LIMIT", "1", newClientOrderId=name, **STOP)
            _, gone = await trader.ask("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")
            assert [order["origClientOrderId"] for order in gone] == ["a", "b"]
            assert (await trader.ask("DELETE", "/api/v3/openOrders", symbol="BTCUSDT"))[1]["code"] == -2011
            assert server.state()["unknown"] == {}

    bounded(work())


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"kind": "STOP_LOSS", "quantity": "1", "stopPrice": "1"}, -1116),
        ({"kind": "LIMIT", "quantity": "1", "price": "1"}, -1102),
        ({"kind": "LIMIT", "quantity": "1", "timeInForce": "GTC"}, -1102),
        ({"kind": "LIMIT", "quantity": "1", "price": "-1", "timeInForce": "GTC"}, -1100),
        ({"kind": "LIMIT", "quantity": "1", "price": "0", "timeInForce": "GTC"}, -1013),
        ({"kind": "LIMIT", "quantity": "1", "price": "1e3", "timeInForce": "GTC"}, -1100),
        ({"kind": "LIMIT", "quantity": "1", "price": "100", "timeInForce": "GTX"}, -1115),
        ({"kind": "LIMIT", "quantity": "1", "price": "100.001", "timeInForce": "GTC"}, -1013),
        ({"kind": "MARKET"}, -1102),
        ({"kind": "MARKET", "quantity": "1", "price": "1"}, -1106),
        ({"kind": "MARKET", "quantity": "1", "newClientOrderId": "x" * 37}, -1100),
        ({"kind": "MARKET", "quantity": "1", "symbol": "ETHUSDT"}, -1121),
        ({"kind": "MARKET", "quantity": "1", "side": "HOLD"}, -1117),
        ({"kind": "MARKET", "quantity": "900"}, -2010),
        ({"kind": "LIMIT", "quantity": "1", "price": "100", "timeInForce": "GTC", "icebergQty": "1"}, -1106),
    ],
)
def test_what_is_no_order_is_refused_by_code(asked: dict[str, str], code: int) -> None:
    async def work() -> None:
        async with exchange() as (server, trader):
            kind, side = asked["kind"], asked.get("side", "BUY")
            params = {"symbol": "BTCUSDT"} | {name: asked[name] for name in asked if name not in ("kind", "side")}
            status, told = await trader.ask("POST", "/api/v3/order", side=side, type=kind, **params)
            assert (status, told["code"]) == (400, code)
            assert server.trading is not None
            assert server.trading.state() == {"open_orders": 0, "orders": 0, "events": 0, "listeners": 0}

    bounded(work())


# -- what is told ----------------------------------------------------------------------------------------------------


def test_the_user_stream_tells_in_order_and_before_the_bar() -> None:
    async def work() -> None:
        async with exchange() as (server, trader), listening(trader, server.ws_url) as ear:
            klines = await trader.session.ws_connect(server.ws_url + "/ws/btcusdt@kline_1h")
            await trader.order("BUY", "MARKET", "0.5", newClientOrderId="b1")
            low = float(MARKET.bars.low[20:23].min())
            await trader.order("BUY", "LIMIT", "1", price=f"{low + 1:.2f}", timeInForce="GTC", newClientOrderId="l1")
            await server.step(3)
            await asyncio.wait_for(klines.receive(), 30.0)
            assert ear.reports() == [("NEW", "NEW"), ("TRADE", "FILLED"), ("NEW", "NEW"), ("TRADE", "FILLED")]
            first, trade = ear.events[0], ear.events[1]
            assert (first["c"], first["C"], first["o"], first["S"], first["r"]) == ("b1", "", "MARKET", "BUY", "NONE")
            assert (trade["l"], trade["z"], trade["N"], trade["t"]) == ("0.50000000", "0.50000000", "BTC", 1)
            position = ear.events[2]
            assert (position["e"], [entry["a"] for entry in position["B"]]) == (
                "outboundAccountPosition",
                ["BTC", "USDT"],
            )
            assert ear.events[-1]["B"][1]["l"] == "0.00000000"
            assert ear.events[-2]["m"] is True
            await klines.close()

    bounded(work())


def test_a_cancel_names_the_request_and_the_order() -> None:
    async def work() -> None:
        async with exchange(balances={"BTC": "1"}) as (server, trader), listening(trader, server.ws_url) as ear:
            await trader.order("SELL", "STOP_LOSS_LIMIT", "1", newClientOrderId="s1", **STOP)
            await trader.ask("DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="s1", newClientOrderId="x9")
            await ear.until(lambda: len(ear.events) >= 4)
            event = ear.events[2]
            assert (event["x"], event["X"], event["c"], event["C"]) == ("CANCELED", "CANCELED", "x9", "s1")
            assert ear.events[3]["B"] == [{"a": "BTC", "f": "1.00000000", "l": "0.00000000"}]

    bounded(work())


def test_only_ed25519_may_log_on_and_only_who_did_may_listen() -> None:
    async def ask(secret: str) -> list[Any]:
        async with exchange(secret=secret) as (server, trader), listening(trader, server.ws_url) as ear:
            stamp = time.time_ns() // 1_000_000
            signature = trader.sign(f"apiKey={KEY}&timestamp={stamp}")
            answers = [await ear.request("userDataStream.subscribe")]
            answers += [
                await ear.request("session.logon", apiKey=KEY, timestamp=stamp, signature=signature[:-4] + "AAAA")
            ]
            answers += [await ear.request("session.logon", apiKey=KEY, timestamp=stamp, signature=signature)]
            answers += [await ear.request("userDataStream.subscribe"), await ear.request("order.place")]
            answers += [await ear.request("userDataStream.unsubscribe")]
            assert server.trading is not None
            assert server.trading.state()["listeners"] == 0
            assert server.state()["unknown"] == {"WS order.place": 1}
            assert KEY not in str(answers)
            return [answer.get("error", {}).get("code", "result") for answer in answers]

    assert bounded(ask(new_secret())) == [-2015, -1022, "result", "result", -1000, "result"]
    assert bounded(ask(HMAC_SECRET)) == [-2015, -4056, -4056, -2015, -1000, "result"]


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_answer_may_be_lost_late_or_false_though_the_order_stands() -> None:
    async def work() -> None:
        for kind, status in (("answer_lost", None), ("answer_late", 200), ("answer_failed", 503)):
            fault = Fault(kind=kind, nth=1, path="POST /api/v3/order", seconds=0.3)
            async with exchange(fault) as (server, trader), listening(trader, server.ws_url) as ear:
                begun = time.monotonic()
                sending = asyncio.create_task(trader.order("BUY", "MARKET", "0.5", newClientOrderId="b1"))
                if kind == "answer_late":
                    await ear.until(lambda: len(ear.reports()) >= 2)
                    assert ear.reports()[-1] == ("TRADE", "FILLED"), "filled before it is acknowledged"
                    assert not sending.done()
                try:
                    got, told = await sending
                    assert got == status
                    assert kind != "answer_failed" or told["code"] == -1007
                except aiohttp.ClientError:
                    assert status is None
                assert kind != "answer_late" or time.monotonic() - begun >= 0.3
                _, order = await trader.ask("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="b1")
                assert order["status"] == "FILLED"
                assert server.exchange.faults.injected == {kind: 1}

    bounded(work())


def test_a_request_carried_out_twice_doubles_a_market_order_but_not_one_that_rests() -> None:
    async def work() -> None:
        fault = Fault(kind="twice", nth=1, every=1, path="POST /api/v3/order")
        async with exchange(fault, balances={"USDT": "100000", "BTC": "1"}) as (_, trader):
            status, told = await trader.order("SELL", "STOP_LOSS_LIMIT", "0.5", newClientOrderId="s1", **STOP)
            assert (status, told) == (400, {"code": -2010, "msg": "Duplicate order sent."})
            assert len((await trader.ask("GET", "/api/v3/openOrders"))[1]) == 1
            status, told = await trader.order("BUY", "MARKET", "0.5", newClientOrderId="b1")
            assert status == 200
            assert len((await trader.ask("GET", "/api/v3/myTrades", symbol="BTCUSDT"))[1]) == 2, "as at Binance"

    bounded(work())


def test_orders_may_be_rejected_and_filled_in_part_by_script() -> None:
    async def work() -> None:
        faults = (
            Fault(kind="reject", on="orders", nth=1),
            Fault(kind="reject", on="orders", nth=1, code=-1013, path="SELL"),
            Fault(kind="partial", on="orders", nth=1, amount=0.4, path="BUY MARKET"),
        )
        async with exchange(*faults) as (server, trader), listening(trader, server.ws_url) as ear:
            assert (await trader.order("BUY", "MARKET", "0.5"))[1]["code"] == -2010
            assert (await trader.order("SELL", "MARKET", "0.5"))[1]["code"] == -1013
            _, part = await trader.order("BUY", "MARKET", "0.5")
            assert (part["status"], part["executedQty"]) == ("EXPIRED", "0.20000000")
            await ear.until(lambda: len(ear.reports()) >= 3)
            assert ear.reports() == [("NEW", "NEW"), ("TRADE", "PARTIALLY_FILLED"), ("EXPIRED", "EXPIRED")]
            assert server.exchange.faults.injected == {"reject": 2, "partial": 1}

    bounded(work())


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        ("skip", [("TRADE", "FILLED")]),
        ("duplicate", [("NEW", "NEW"), ("NEW", "NEW"), ("TRADE", "FILLED")]),
        ("reorder", [("TRADE", "FILLED"), ("NEW", "NEW")]),
        ("delay", [("TRADE", "FILLED"), ("NEW", "NEW")]),
        ("drop", []),
    ],
)
def test_the_user_stream_may_be_spoilt(kind: str, heard: list[tuple[str, str]]) -> None:
    async def work() -> None:
        fault = Fault(kind=kind, on="user", nth=1, path="executionReport NEW", seconds=0.05)
        async with exchange(fault) as (server, trader), listening(trader, server.ws_url) as ear:
            assert (await trader.order("BUY", "MARKET", "0.5"))[0] == 200
            await asyncio.sleep(0.15)  # in which no more than that comes
            await ear.until(lambda: len(ear.reports()) >= len(heard))
            assert ear.reports() == heard
            assert server.trading is not None
            await ear.until(lambda: server.trading.state()["listeners"] == (kind != "drop"))

    bounded(work())


def test_an_account_that_makes_no_sense_is_refused() -> None:
    async def work() -> None:
        config = TradingConfig(credentials=Credentials(KEY, HMAC_SECRET), balances={"USDT": Decimal("-1")})
        async with serve(ReplayConfig(markets=(MARKET,), trading=config)):
            pass

    with pytest.raises(LSTMStrategyError, match="balance of USDT is -1"):
        bounded(work())


# -- time ------------------------------------------------------------------------------------------------------------


def test_the_same_orders_and_script_give_the_same_answers() -> None:
    async def work() -> list[Any]:
        faults = (
            Fault(kind="partial", on="orders", probability=0.5, amount=0.5),
            Fault(kind="reject", on="orders", nth=5),
        )
        told: list[Any] = []
        async with exchange(*faults, spread=0.001) as (server, trader):
            for bar in range(12):
                side, kind = ("BUY", "MARKET") if bar % 3 else ("BUY", "LIMIT")
                more = {} if bar % 3 else {"price": price(0.995), "timeInForce": "GTC"}
                told.append(await trader.order(side, kind, "0.1", **more))
                await server.step()
            paths = ("/api/v3/allOrders", "/api/v3/myTrades", "/api/v3/openOrders")
            told += [await trader.ask("GET", path, symbol="BTCUSDT") for path in paths]
            told.append(await trader.ask("GET", "/api/v3/account"))
        return told

    first = bounded(work())
    assert first == bounded(work())
    assert {"FILLED", "EXPIRED"} <= {order["status"] for order in first[12][1]}


def test_orders_fill_while_the_clock_runs() -> None:
    async def work() -> None:
        market = simulated(timeframe="1s", bars=2_000)
        config = ReplayConfig(markets=(market,), start="500", speed=20.0, updates=0, trading=trading(spread=0.0001))
        async with serve(config) as server, aiohttp.ClientSession() as session:
            trader = Trader(session, server.http_url)
            async with listening(trader, server.ws_url) as ear:
                here = float((await trader.send("GET", "/api/v3/ticker/price?symbol=BTCUSDT"))[1]["price"])
                for side, off in (("BUY", 0.9999), ("BUY", 1.0), ("BUY", 0.9995)):
                    status, _ = await trader.order(side, "LIMIT", "0.01", price=f"{here * off:.2f}", timeInForce="GTC")
                    assert status == 200
                for _ in range(400):
                    if ear.reports().count(("TRADE", "FILLED")) >= 2:
                        break
                    await asyncio.sleep(0.02)
                fills = [event for event in ear.events if event.get("x") == "TRADE"]
                assert len(fills) >= 2
                assert all(event["O"] <= event["T"] <= event["E"] for event in fills)

    bounded(work())


# -- as a command ----------------------------------------------------------------------------------------------------

COMMAND = [
    "replay",
    "--simulate",
    "60",
    "--instrument",
    "BTCUSDT.BINANCE",
    "--timeframe",
    "1h",
    "--start",
    "20",
    "--step",
]


def test_the_command_takes_orders_for_who_brings_a_key() -> None:
    secret = new_secret()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from lstm_strategy.cli import main; main()", *COMMAND),
            *("--balance", "USDT=1000", "--balance", "BTC=0.5", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"LSTM_STRATEGY_REPLAY_KEY": KEY, "LSTM_STRATEGY_REPLAY_SECRET": secret},
    )
    try:
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())

        async def work() -> None:
            async with aiohttp.ClientSession() as session:
                trader = Trader(session, urls["http"], secret)
                status, sold = await trader.order("SELL", "MARKET", "0.4")
                assert (status, sold["status"]) == (200, "FILLED")
                assert (await trader.order("SELL", "MARKET", "0.2"))[1]["code"] == -2010

        bounded(work())
        process.terminate()
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    for text in (KEY, secret):
        assert text not in out + err


@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        (["--balance", "USDT"], {}, "--balance USDT is not ASSET=AMOUNT"),
        (["--balance", "usdt=1"], {}, "--balance usdt=1 is not ASSET=AMOUNT"),
        (["--balance", "USDT=-1"], {}, "--balance USDT=-1 is not ASSET=AMOUNT"),
        (["--balance", "USDT=1"], {}, "needs LSTM_STRATEGY_REPLAY_KEY and LSTM_STRATEGY_REPLAY_SECRET"),
        (
            ["--balance", "USDT=1"],
            {"LSTM_STRATEGY_REPLAY_KEY": "k", "LSTM_STRATEGY_REPLAY_SECRET": "s"},
            "the key must",
        ),
        (
            ["--balance", "USDT=1", "--spread", "0.7"],
            {"LSTM_STRATEGY_REPLAY_KEY": KEY, "LSTM_STRATEGY_REPLAY_SECRET": HMAC_SECRET},
            "spread is 0.7",
        ),
    ],
)
def test_what_the_command_cannot_trade_with_is_one_line(
    options: list[str], environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LSTMStrategyError, match=told) as error:
        app([*COMMAND, *options], standalone_mode=False)
    assert "\n" not in str(error.value)
