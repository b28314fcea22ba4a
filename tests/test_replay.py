"""The local exchange, asked by plain requests, by ccxt, and by a NautilusTrader node."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import pandas as pd
import pytest
from replay_support import bounded, client, download, rows_of, simulated

from lstm_strategy.bars import Bars, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.faults import Fault, FaultPlan
from lstm_strategy.replay.intervals import BINANCE_INTERVALS
from lstm_strategy.replay.market import Candles, Funding, Market
from lstm_strategy.replay.recordings import load_funding, market_from_catalog, market_from_file
from lstm_strategy.replay.server import ReplayConfig, serve
from lstm_strategy.replay.timeline import plan
from lstm_strategy.sources.store import RawStore

HOUR = 3_600_000_000_000
MINUTE = HOUR // 60


def holed(market: Market, missing: slice) -> Market:
    """The market without some of its bars."""
    kept = np.delete(np.arange(len(market.bars)), np.r_[missing])
    bars = market.bars
    columns = {name: getattr(bars, name)[kept] for name in ("ts_close", "open", "high", "low", "close", "volume")}
    return Market(Bars(bars.instrument_id, bars.timeframe, **columns), market.instrument)


def equal(one: Candles, other: Candles) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Candles.__slots__)


# -- markets and time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "rule"), [("1h", "1h"), ("4h", "4h"), ("1d", "1D"), ("1w", "W-MON"), ("1M", "MS")]
)
def test_longer_candles_are_those_of_pandas(interval: str, rule: str) -> None:
    market = holed(simulated(timeframe="15m", bars=6_000), slice(40, 60))
    made = market.candles(BINANCE_INTERVALS[interval])
    frame = pd.DataFrame(
        {name: getattr(market.base, name) for name in ("open", "high", "low", "close", "volume")},
        index=pd.to_datetime(market.base.opened),
    )
    ways = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    right = frame.resample(rule, label="left", closed="left").agg(ways).dropna()
    assert made.opened.tolist() == right.index.as_unit("ns").astype("int64").tolist()
    for name in ("open", "high", "low", "close"):
        assert getattr(made, name).tolist() == right[name].tolist()
    np.testing.assert_allclose(made.volume, right["volume"], rtol=1e-12)
    assert (made.closed[:-1] <= made.opened[1:]).all()


def test_an_hour_of_real_minutes_is_the_real_hour(data_folder: Path) -> None:
    minutes = market_from_file(data_folder / "crypto" / "BTCUSDT-1m.parquet", "BTCUSDT.BINANCE")
    hours = market_from_file(data_folder / "crypto" / "BTCUSDT-1h.parquet", "BTCUSDT.BINANCE").base
    assert minutes.timeframe.text == "1m"
    made = minutes.candles(BINANCE_INTERVALS["1h"])
    native = hours.take(np.flatnonzero(np.isin(hours.opened, made.opened)))
    assert np.isin(made.opened, hours.opened).all()
    assert len(made) > 8_700
    for name in ("open", "high", "low", "close"):
        assert (getattr(made, name) == getattr(native, name)).mean() > 0.999
    np.testing.assert_allclose(made.volume, native.volume, rtol=1e-6)


def test_shorter_or_crooked_candles_are_not_offered() -> None:
    market = simulated(timeframe="4h", bars=10)
    offered = {text for text, interval in BINANCE_INTERVALS.items() if market.offers(interval)}
    assert offered == {"4h", "8h", "12h", "1d", "3d", "1w", "1M"}


@pytest.mark.parametrize("interval", ["1m", "1h"])
def test_a_forming_candle_grows_into_the_recorded_one(interval: str) -> None:
    market = simulated(timeframe="1m", bars=600)
    length = BINANCE_INTERVALS[interval]
    whole = market.candles(length).take(slice(3, 4))
    opened, closed = int(whole.opened[0]), int(whole.closed[0])
    assert len(market.forming(length, opened)) == 0
    high, low, volume = 0.0, np.inf, 0.0
    for now in (opened + np.linspace(1, closed - opened - 1, 97).astype(np.int64)).tolist():
        forming = market.forming(length, now)
        assert (int(forming.opened[0]), int(forming.closed[0])) == (opened, closed)
        assert forming.open == whole.open
        assert forming.high >= high
        assert forming.low <= low
        assert forming.volume >= volume
        assert forming.low <= forming.close <= forming.high
        high, low, volume = float(forming.high[0]), float(forming.low[0]), float(forming.volume[0])
        assert equal(market.forming(length, now), forming)
    assert high <= whole.high
    assert low >= whole.low
    assert volume <= whole.volume
    assert abs(float(forming.close[0]) - float(whole.close[0])) <= 0.011
    other = simulated(timeframe="1m", bars=600).moved(0, seed=9)
    assert not equal(other.forming(length, opened + MINUTE // 2), market.forming(length, opened + MINUTE // 2))


def test_pages_are_those_of_a_plain_loop() -> None:
    market = holed(simulated(timeframe="15m", bars=400), slice(100, 117))
    source = np.random.default_rng(5)
    for _ in range(300):
        interval = BINANCE_INTERVALS[str(source.choice(["15m", "1h", "4h"]))]
        now = int(market.base.opened[0] + source.integers(0, 400 * 15) * MINUTE)
        start, end = (
            None if source.random() < 0.3 else int(market.base.opened[0] + source.integers(-100, 6_100) * MINUTE)
            for _ in range(2)
        )
        limit = int(source.integers(1, 60))
        made = market.candles(interval)
        shown = [(int(ts), False) for ts, end_ in zip(made.opened, made.closed, strict=True) if end_ <= now]
        shown += [(int(ts), True) for ts in market.forming(interval, now).opened]
        shown = [row for row in shown if (start is None or row[0] >= start) and (end is None or row[0] <= end)]
        right = shown[:limit] if start is not None else shown[-limit:]
        page = market.page(interval, now, start=start, end=end, limit=limit)
        assert page.opened.tolist() == [ts for ts, _ in right]
        closed = market.page(interval, now, start=start, end=end, limit=1_000, unfinished=False)
        assert closed.opened.tolist() == [ts for ts, open_ in shown if not open_]


def test_the_beginning_is_told_by_date_or_count() -> None:
    market = simulated(bars=100)
    closes = market.bars.ts_close

    def origin(start: str | None) -> int:
        return plan([market], start=start, shift=False, by_hand=False, seed=1).origin

    assert origin(None) == closes[-1] + 1_000_000
    assert origin("40") == closes[39]
    assert origin("0") < closes[0]
    assert origin("2024-01-02") == parse_ns("2024-01-02")
    for wrong in ("101", "2023-01-01", "20230101", "soon"):
        with pytest.raises(LSTMStrategyError):
            origin(wrong)
    with pytest.raises(LSTMStrategyError, match="both be BTCUSDT"):
        plan([market, simulated("BTC-USDT.COINBASE")], start=None, shift=False, by_hand=False, seed=1)
    with pytest.raises(LSTMStrategyError, match="no market"):
        plan([], start=None, shift=False, by_hand=False, seed=1)


@pytest.mark.parametrize(("timeframe", "unit"), [("1h", 1), ("1d", 1), ("3d", 3)])
def test_a_shift_is_of_whole_days_and_ends_now(timeframe: str, unit: int) -> None:
    market = simulated(timeframe=timeframe, bars=300)
    for start in (None, "200"):
        laid = plan([market], start=start, shift=True, by_hand=False, seed=1)
        now = time.time_ns()
        assert laid.shift_days % unit == 0
        assert set(laid.closes - market.bars.ts_close) == {laid.shift_days * 24 * HOUR}
        assert abs(laid.origin - now) < 10**9
        meant = laid.closes[-1 if start is None else 199]
        assert -(10**9) <= meant - now <= unit * 24 * HOUR  # history may begin a little earlier, never later
    by_hand = plan([market], start="200", shift=True, by_hand=True, seed=1)
    assert by_hand.origin in by_hand.closes
    assert by_hand.origin <= time.time_ns()


# -- Binance over HTTP -----------------------------------------------------------------------------------------------


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, object]:
    async with session.get(url) as reply:
        return reply.status, await reply.json()


def test_binance_answers_in_its_own_shapes() -> None:
    async def work() -> None:
        market = simulated(bars=1_700)
        config = ReplayConfig(markets=(market,), step=True, start="1500")
        async with serve(config) as server, aiohttp.ClientSession() as session:
            api = server.http_url + "/api/v3"
            now_ms = int(market.bars.ts_close[1_499]) // 1_000_000
            assert await _get(session, f"{api}/ping") == (200, {})
            assert await _get(session, f"{api}/time") == (200, {"serverTime": now_ms})

            async def klines(query: str) -> tuple[int, object]:
                return await _get(session, f"{api}/klines?symbol=BTCUSDT&interval=1h{query}")

            status, rows = await klines("")
            assert (status, len(rows)) == (200, 500)
            assert [float(cell) if isinstance(cell, str) else cell for cell in rows[-1][:6]] == rows_of(market.bars)[
                1_499
            ]
            assert rows[-1][6] == now_ms - 1
            assert [type(cell) for cell in rows[-1]] == [int, *[str] * 5, int, str, int, str, str, str]
            assert len((await klines("&limit=5000"))[1]) == 1_000
            first = int(market.base.opened[0]) // 1_000_000
            assert [row[0] for row in (await klines(f"&startTime={first + 1}&limit=2"))[1]] == [
                first + 3_600_000,
                first + 7_200_000,
            ]
            assert (await klines(f"&startTime={now_ms + 1}"))[1] == []
            await server.step()
            assert len((await klines(f"&startTime={now_ms}"))[1]) == 1

            for query, code in (
                ("symbol=NOPE&interval=1h", -1121),
                ("symbol=btcusdt&interval=1h", -1121),
                ("symbol=BTCUSDT&interval=7h", -1120),
                ("symbol=BTCUSDT&interval=1m", -1120),  # shorter than what was recorded
                ("interval=1h", -1102),
                ("symbol=BTCUSDT", -1102),
                ("symbol=BTCUSDT&interval=1h&startTime=soon", -1100),
                ("symbol=BTCUSDT&interval=1h&limit=-1", -1100),
                ("symbol=BTCUSDT&interval=1h&limit=0", -1130),
            ):
                status, refusal = await _get(session, f"{api}/klines?{query}")
                assert (status, refusal["code"]) == (400, code), query
                assert set(refusal) == {"code", "msg"}
            for query, code in (("symbol=NOPE", -1121), ('symbols=["BTCUSDT","NOPE"]', -1121), ("symbols=NOPE", -1100)):
                status, refusal = await _get(session, f"{api}/exchangeInfo?{query}")
                assert (status, refusal["code"]) == (400, code)
            for query in ("", "?symbol=BTCUSDT", '?symbols=["BTCUSDT"]'):
                status, info = await _get(session, f"{api}/exchangeInfo{query}")
                assert [entry["symbol"] for entry in info["symbols"]] == ["BTCUSDT"]
            filters = {entry["filterType"]: entry for entry in info["symbols"][0]["filters"]}
            assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
            assert filters["LOT_SIZE"]["stepSize"] == "0.00100000"
            assert "NOTIONAL" in filters
            status, refusal = await _get(session, f"{api}/depth?symbol=BTCUSDT")
            assert status == 404
            assert server.state()["unknown"] == {"GET /api/v3/depth": 1}
            async with session.get(f"{api}/klines?symbol={'A' * 20_000}") as reply:
                assert reply.status == 400

    bounded(work())


def test_the_unfinished_candle_is_served_unless_unwanted() -> None:
    async def work(unfinished: bool) -> list[list[object]]:
        market = simulated(bars=50)
        start = pd.Timestamp(market.bars.ts_close[39] + HOUR // 3).isoformat()
        config = ReplayConfig(markets=(market,), step=True, start=start, unfinished=unfinished)
        async with serve(config) as server, aiohttp.ClientSession() as session:
            return (await _get(session, f"{server.http_url}/api/v3/klines?symbol=BTCUSDT&interval=1h"))[1]

    with_it, without = bounded(work(True)), bounded(work(False))
    assert (len(with_it), len(without)) == (41, 40)
    assert with_it[:40] == without


# -- ccxt, as it comes -----------------------------------------------------------------------------------------------


def test_ccxt_binance_downloads_everything() -> None:
    async def work() -> None:
        market, other = holed(simulated(bars=2_300), slice(700, 760)), simulated("ETHUSDT.BINANCE", bars=30, seed=2)
        async with serve(ReplayConfig(markets=(market, other))) as server, client("binance", server.http_url) as venue:
            markets = await venue.load_markets()
            assert set(markets) == {"BTC/USDT", "ETH/USDT"}
            assert markets["BTC/USDT"]["precision"]["price"] == 0.01
            assert markets["BTC/USDT"]["precision"]["amount"] == 0.001
            now = await venue.fetch_time()
            assert 0 <= now - int(market.bars.ts_close[-1]) // 1_000_000 < 60_000
            right = rows_of(market.bars)
            got = await download(venue, "BTC/USDT", "1h", int(right[0][0]), 1_000, int(right[-1][0]))
            assert got == right
            days = await venue.fetch_ohlcv("BTC/USDT", "1d", int(right[0][0]), 1_000)
            assert days == [
                [*row[:5], pytest.approx(row[5], abs=1e-8)] for row in rows_of(market.candles(BINANCE_INTERVALS["1d"]))
            ]
            with pytest.raises(Exception, match="does not have market symbol"):
                await venue.fetch_ohlcv("NO/PE", "1h")
            assert server.state()["unknown"] == {}

    bounded(work())


def test_ccxt_coinbase_downloads_everything() -> None:
    async def work() -> None:
        market = holed(simulated("BTC-USD.COINBASE", bars=1_000), slice(350, 380))
        market = Market(market.bars, msgspec.structs.replace(market.instrument, base="BTC", quote="USD"))
        async with (
            serve(ReplayConfig(markets=(market,))) as server,
            client("coinbaseexchange", server.http_url) as venue,
            aiohttp.ClientSession() as session,
        ):
            assert set(await venue.load_markets()) == {"BTC/USD"}
            assert venue.markets["BTC/USD"]["precision"]["price"] == 0.01
            assert 0 <= await venue.fetch_time() - int(market.bars.ts_close[-1]) // 1_000_000 < 60_000
            right = rows_of(market.bars)
            assert await download(venue, "BTC/USD", "1h", int(right[0][0]), 300, int(right[-1][0])) == right
            candles = server.http_url + "/products/BTC-USD/candles?granularity=3600"
            status, newest = await _get(session, candles)
            assert (status, len(newest)) == (200, 300)
            assert newest[0][0] == right[-1][0] // 1_000
            assert newest[0][1:] == [right[-1][column] for column in (3, 2, 1, 4, 5)]
            assert await _get(session, f"{candles}&start=2020-01-01T00:00:00Z") == (200, newest)
            for url, status in (
                (f"{candles}&start=2024-01-01T00:00:00Z&end=2024-02-01T00:00:00Z", 400),
                (f"{candles}&start=2024-01-02&end=2024-01-01", 400),
                (f"{candles}&start=soon&end=later", 400),
                (candles.replace("3600", "7"), 400),
                (candles.replace("BTC-USD", "NO-PE"), 404),
            ):
                refused, body = await _get(session, url)
                assert (refused, list(body)) == (status, ["message"])

    bounded(work())


def test_ccxt_futures_download_bars_and_funding() -> None:
    async def work() -> None:
        spot, swap = simulated(bars=100), simulated("BTCUSDT-PERP.BINANCE", bars=2_000, seed=3)
        swap.funding = Funding(swap.bars.ts_close[7::8], np.linspace(-1e-4, 3e-4, 250))
        async with serve(ReplayConfig(markets=(spot, swap))) as server, client("binanceusdm", server.http_url) as venue:
            assert set(await venue.load_markets()) == {"BTC/USDT:USDT"}
            assert venue.markets["BTC/USDT:USDT"]["linear"]
            right = rows_of(swap.bars)
            assert await download(venue, "BTC/USDT:USDT", "1h", int(right[0][0]), 1_000, int(right[-1][0])) == right
            since, funding = int(right[0][0]), []
            while page := await venue.fetch_funding_rate_history("BTC/USDT:USDT", since, 100):
                funding += [(row["timestamp"], row["fundingRate"]) for row in page]
                since = page[-1]["timestamp"] + 1
            assert [ts for ts, _ in funding] == (swap.funding.ts // 1_000_000).tolist()
            np.testing.assert_allclose([rate for _, rate in funding], swap.funding.rate, atol=5e-9)
            async with client("binance", server.http_url) as both:
                assert set(await both.load_markets()) == {"BTC/USDT", "BTC/USDT:USDT"}

    bounded(work())


def test_real_bitcoin_comes_back_whole_with_the_venues_rules(data_folder: Path) -> None:
    async def work() -> None:
        market = market_from_file(data_folder / "crypto" / "BTCUSDT-1h.parquet", "BTCUSDT.BINANCE")
        info = data_folder / "meta" / "binance_spot_exchangeInfo_majors.json"
        config = ReplayConfig(markets=(market,), exchange_info=info)
        async with serve(config) as server, client("binance", server.http_url) as venue:
            await venue.load_markets()
            assert venue.markets["BTC/USDT"]["precision"]["amount"] == 0.00001
            assert venue.markets["BTC/USDT"]["limits"]["cost"]["min"] == 5.0
            right = rows_of(market.bars)
            assert len(right) == 64_524
            assert await download(venue, "BTC/USDT", "1h", int(right[0][0]), 1_000, int(right[-1][0])) == right

    bounded(work())


# -- streams ---------------------------------------------------------------------------------------------------------


async def _events(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[dict]:
    return [json.loads((await asyncio.wait_for(socket.receive(), 30.0)).data) for _ in range(count)]


def test_streams_tell_of_candles_as_they_form_and_close() -> None:
    async def work() -> None:
        market, other = simulated(timeframe="1m", bars=400), simulated("ETHUSDT.BINANCE", "1m", bars=400, seed=2)
        config = ReplayConfig(markets=(market, other), step=True, start="119", updates=1)
        async with serve(config) as server, aiohttp.ClientSession() as session:
            both = await session.ws_connect(server.ws_url + "/stream?streams=btcusdt@kline_1m/ethusdt@kline_1h")
            single = await session.ws_connect(server.ws_url + "/ws/btcusdt@kline_1m")
            assert server.state()["closed"] == 119
            assert await server.step() == 1
            events = await _events(both, 4)
            assert [event["data"]["k"]["x"] for event in events] == [False, False, True, True]
            minute, hour = (
                {event["stream"]: event["data"] for event in events[2:]}[name]
                for name in (
                    "btcusdt@kline_1m",
                    "ethusdt@kline_1h",
                )
            )
            right = rows_of(market.bars)[119]
            kline = minute["k"]
            assert [kline["t"], *(float(kline[name]) for name in "ohlcv")] == right
            assert (kline["T"], kline["s"], kline["i"]) == (right[0] + 59_999, "BTCUSDT", "1m")
            assert (minute["e"], minute["s"], minute["E"]) == ("kline", "BTCUSDT", right[0] + 60_000)
            assert set(kline) == set("tTsifLochlvnxqVQB")
            made = rows_of(other.candles(BINANCE_INTERVALS["1h"]))[1]
            assert [hour["k"]["t"], *(float(hour["k"][name]) for name in "ohlc")] == made[:5]
            assert [event["k"]["x"] for event in await _events(single, 2)] == [False, True]
            await both.close()
            await single.close()

    bounded(work())


def test_subscriptions_come_and_go() -> None:
    async def work() -> None:
        market = simulated(bars=60)
        async with (
            serve(ReplayConfig(markets=(market,), step=True, start="10", updates=0)) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(server.ws_url + "/ws") as socket,
        ):

            async def ask(**message: object) -> dict:
                await socket.send_json(message)
                return (await _events(socket, 1))[0]

            name = "btcusdt@kline_1h"
            assert await ask(method="SUBSCRIBE", params=[name, "nope@trade"], id=1) == {"result": None, "id": 1}
            assert (await ask(method="LIST_SUBSCRIPTIONS", id=2))["result"] == [name, "nope@trade"]
            assert await server.step() == 1
            assert (await _events(socket, 1))[0]["k"]["x"]
            assert await ask(method="UNSUBSCRIBE", params=[name], id="three") == {"result": None, "id": "three"}
            await server.step(3)
            assert (await ask(method="LIST_SUBSCRIPTIONS", id=4))["result"] == ["nope@trade"]
            assert await ask(method="SET_PROPERTY", params=["combined", True], id=5) == {"result": None, "id": 5}
            await ask(method="SUBSCRIBE", params=[name], id=6)
            await server.step()
            assert (await _events(socket, 1))[0]["stream"] == name
            for wrong in ({"method": "DANCE", "id": 7}, {"method": "SUBSCRIBE", "params": "x", "id": 8}):
                refusal = await ask(**wrong)
                assert (refusal["id"], set(refusal["error"])) == (wrong["id"], {"code", "msg"})
            for text in ("not JSON", "[]", "{}"):
                await socket.send_str(text)
                assert "error" in (await _events(socket, 1))[0]
            many = [f"{number}@kline_1h" for number in range(1_100)]
            assert "error" in await ask(method="SUBSCRIBE", params=many, id=9)
            await socket.send_str("x" * 100_000)  # more than a client may say
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert not server.exchange.unknown

    bounded(work())


def test_a_running_clock_streams_every_bar_in_order() -> None:
    async def work() -> None:
        market = simulated(timeframe="1m", bars=500)
        config = ReplayConfig(markets=(market,), start="100", speed=60 * 400, updates=1)
        async with (
            serve(config) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(server.ws_url + "/ws/btcusdt@kline_1m") as socket,
        ):
            got = []
            while len(got) < 300:
                kline = (await _events(socket, 1))[0]["k"]
                if kline["x"]:
                    got.append([kline["t"], *(float(kline[name]) for name in "ohlcv")])
            right = rows_of(market.bars)
            first = right.index(got[0])
            assert got == right[first : first + 300]
            await asyncio.wait_for(server.driver, 60.0)  # ends with the last bar
            assert server.state()["left"] == 0

    bounded(work())


def test_an_error_of_the_streams_reaches_the_caller() -> None:
    async def broken(before: int, now: int, in_time: bool) -> None:
        raise RuntimeError("a listener broke")

    async def work() -> None:
        async with serve(ReplayConfig(markets=(simulated(bars=20),), start="10", speed=1e6)) as server:
            server.exchange.listeners.append(broken)
            await asyncio.wait({server.driver}, timeout=60.0)

    with pytest.raises(RuntimeError, match="a listener broke"):
        bounded(work())


def test_the_clock_is_stepped_over_http() -> None:
    async def work() -> None:
        async with (
            serve(ReplayConfig(markets=(simulated(bars=20),), step=True, start="10")) as server,
            aiohttp.ClientSession() as session,
        ):
            headers = {"Content-Type": "application/json"}

            async def post(body: bytes) -> tuple[int, dict]:
                async with session.post(server.http_url + "/replay/step", data=body, headers=headers) as reply:
                    return reply.status, await reply.json(content_type=None) if reply.status < 413 else {}

            assert (await post(b""))[1]["closed"] == 1
            assert (await post(b'{"bars": 4}'))[1]["closed"] == 4
            assert (await post(b'{"bars": 100}'))[1]["closed"] == 5
            for wrong in (b'{"bars": 0}', b'{"bars": "x"}', b"["):
                assert (await post(wrong))[0] == 400
            assert (await post(b'{"bars": 1}' + b" " * 100_000))[0] == 413
            status, state = await _get(session, server.http_url + "/replay/state")
            assert (status, state["closed"], state["left"], state["sockets"]) == (200, 20, 0, 0)
            assert state["markets"][0]["instrument"] == "BTCUSDT.BINANCE"

    bounded(work())


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_strategy.replay.connection._MOST_WAITING", 40_000)

    async def work() -> None:
        market = simulated(timeframe="1s", bars=60_000)
        async with serve(ReplayConfig(markets=(market,), start="1", speed=1e6, updates=0)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_024)
            writer.write(
                b"GET /ws/btcusdt@kline_1s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.wait_for(server.driver, 60.0)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):  # the end of a stream cut off
                await reader.readexactly(1 << 30)
            assert server.state()["left"] == 0
            writer.close()

    bounded(work())


# -- where bars come from, and the command ---------------------------------------------------------------------------


def test_a_catalog_and_funding_are_read(tmp_path: Path) -> None:
    market = simulated(bars=50)
    store = RawStore(tmp_path)
    store.merge(market.bars)
    store.write_instrument(market.instrument)
    held = market_from_catalog(tmp_path, "BTCUSDT.BINANCE")
    assert held.instrument == market.instrument
    assert rows_of(held.bars) == rows_of(market.bars)
    path = tmp_path / "funding.parquet"
    pd.DataFrame({"ts": pd.to_datetime(market.bars.ts_close, utc=True), "funding_rate": 1e-4}).to_parquet(path)
    assert load_funding(path).ts.tolist() == market.bars.ts_close.tolist()
    with pytest.raises(LSTMStrategyError, match=r"none\.parquet: funding rates cannot be read"):
        load_funding(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "exactly one of --data, --catalog and --simulate"),
        (["--simulate", "10"], "name an --instrument"),
        (["--data", "none.parquet", "--instrument", "A.B", "--instrument", "C.D"], "in the same order"),
        (["--data", "none.parquet", "--instrument", "A.B"], "no such file"),
        (["--simulate", "10", "--instrument", "A.B", "--speed", "0"], "speed is 0"),
        (["--simulate", "10", "--instrument", "A.B", "--start", "11"], "start is 11 bars"),
        (["--simulate", "10", "--instrument", "A.B", "--host", "203.0.113.7"], "cannot listen"),
        (["--simulate", "10", "--instrument", "A.B", "--faults", "none.toml"], "none.toml: no such file"),
        (["--simulate", "10", "--instrument", "A.B", "--exchange-info", "none.json"], "none.json: cannot be read"),
        (["--simulate", "10", "--instrument", "A.B", "--funding", "none.parquet"], "for 0 perpetuals"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], told: str, tmp_path: Path, monkeypatch, capsys) -> None:
    from lstm_strategy import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lstm-strategy", "replay", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_and_ends_on_a_signal(name: signal.Signals, tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text('[[faults]]\nkind = "status"\nstatus = 429\nnth = 1\n')
    script = "from lstm_strategy.cli import main; main()"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", script, "replay", "--simulate", "100", "--instrument", "BTCUSDT.BINANCE", "--json"),
            *("--timeframe", "1m", "--start", "50", "--shift", "--faults", str(faults)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        urls = json.loads(process.stdout.readline())
        assert urls["http"] == f"http://127.0.0.1:{urls['port']}"
        assert urls["ws"] == f"ws://127.0.0.1:{urls['port']}"

        async def work() -> None:
            async with aiohttp.ClientSession() as session, session.ws_connect(urls["ws"] + "/ws/btcusdt@kline_1m"):
                assert (await _get(session, urls["http"] + "/api/v3/ping"))[0] == 429
                served = (await _get(session, urls["http"] + "/api/v3/time"))[1]
                assert abs(served["serverTime"] / 1_000 - time.time()) < 5.0
                process.send_signal(name)

        bounded(work())
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert out == ""
    assert "stamps moved by" in err
    assert "injected {'status': 1}" in err
    assert "Traceback" not in err


# -- a NautilusTrader node, in a process of its own ------------------------------------------------------------------


def node_on(market: Market, **options: object) -> dict:
    """What a node heard: rows of history and stream with stamps in s (the close less 1 ms), and the steps."""
    script = Path(__file__).parent / "live" / "replay_node.py"

    async def work() -> dict:
        async with serve(ReplayConfig(markets=(market,), start="700", speed=5.0, **options)) as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(script),
                *(server.http_url, server.ws_url, "BTCUSDT.BINANCE-1-SECOND-LAST-EXTERNAL", "2024-01-01", "12", "20"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                out, _ = await asyncio.wait_for(process.communicate(), 180.0)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            text = out.decode()
            assert process.returncode == 0, text
            assert "RESULT " in text, text
            assert server.state()["unknown"] == {}, "the adapter asks for what is not served"
            return json.loads(text.partition("RESULT ")[2])

    heard = asyncio.run(work())
    for name in ("history", "live"):
        heard[name] = [[ts // 10**9, *(round(value, 8) for value in values)] for ts, *values in heard[name]]
    return heard


def seconds_of(market: Market) -> list[list[float]]:
    return [[ts_ms // 1_000, *values] for ts_ms, *values in rows_of(market.bars)]


def test_a_nautilus_node_is_content() -> None:
    market = simulated(timeframe="1s", bars=3_000)
    heard, right = node_on(market, unfinished=False), seconds_of(market)
    history, live = heard["history"], heard["live"]
    assert len(history) >= 700
    assert history == right[: len(history)]
    assert len(live) == 12
    first = right.index(live[0])
    assert live == right[first : first + 12]
    assert first <= len(history), "no bar is missing between history and stream"
    assert heard["steps"] == {"tick": "0.01000000", "lot": "0.00100000", "min_notional": "0.00000000 USDT"}


def test_what_a_nautilus_node_makes_of_faults() -> None:
    market = simulated(timeframe="1s", bars=3_000)
    faults = (
        Fault(kind="drop", on="stream", nth=2),
        Fault(kind="nan", on="stream", nth=3),
        Fault(kind="truncated", on="stream", nth=4),
        Fault(kind="duplicate", on="stream", nth=5),
    )
    heard, right = node_on(market, faults=FaultPlan(faults=faults)), seconds_of(market)
    live = heard["live"]
    assert all(row in right for row in live), "nothing wrong is passed on"
    steps = np.diff([row[0] for row in live]).tolist()
    assert steps.count(0) == 1, "the doubled bar is heard twice"
    assert sum(step > 1 for step in steps) >= 1, "what was lost is not asked for"
    assert max(steps) < 12, "back within two seconds"
    # The adapter tells an unfinished candle by its own clock: here the venue's is years behind, so it takes one.
    assert heard["history"][:-1] == right[: len(heard["history"]) - 1]
    assert heard["history"][-1] not in right
