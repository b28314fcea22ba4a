"""What the local exchange does wrong on purpose: each fault alone, as a client meets it, and all of them counted."""

from __future__ import annotations

import asyncio
import json
import math
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import ccxt.async_support as ccxt
import numpy as np
import pandas as pd
import pytest
from replay_support import bounded, client, rows_of, simulated

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay import exchange as exchange_module
from lstm_strategy.replay.faults import (
    PAGE_KINDS,
    REQUEST_KINDS,
    STREAM_KINDS,
    Fault,
    FaultBook,
    FaultPlan,
    load_faults,
)
from lstm_strategy.replay.server import ReplayConfig, ReplayServer, serve

MARKET = simulated(bars=60)
RIGHT = rows_of(MARKET.bars)
KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=20"


def served(*faults: Fault, seed: int = 1, **options: Any):
    return serve(ReplayConfig(markets=(MARKET,), faults=FaultPlan(faults=faults), seed=seed, updates=0, **options))


def numbers(rows: list[list[Any]]) -> list[list[float]]:
    return [[row[0], *map(float, row[1:6])] for row in rows]


async def ask(session: aiohttp.ClientSession, url: str) -> list[list[float]]:
    async with session.get(url) as reply:
        assert reply.status == 200
        return numbers(await reply.json())


# -- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "hits"),
    [
        ({"nth": 3}, [3]),
        ({"nth": 3, "times": 2}, [3, 4]),
        ({"nth": 3, "times": 0}, [3, 4, 5, 6, 7, 8, 9, 10]),
        ({"nth": 2, "every": 4}, [2, 6, 10]),
        ({"nth": 2, "every": 4, "times": 2}, [2, 6]),
        ({"at": "1970-01-01T00:00:07"}, [7]),
        ({"at": "1970-01-01T00:00:06.500", "times": 2}, [7, 8]),
        ({"probability": 1.0, "times": 2}, [1, 2]),
        ({"probability": 0.0}, []),
    ],
)
def test_a_fault_comes_when_it_was_told_to(when: dict[str, Any], hits: list[int]) -> None:
    book = FaultBook(FaultPlan(faults=(Fault(kind="drop", **when),)), seed=1)
    got = [
        second
        for second in range(1, 11)
        for _ in book.draw("rest", REQUEST_KINDS, first=second * 10**9, last=second * 10**9)
    ]
    assert got == hits
    assert book.injected["drop"] == len(hits)


def test_chance_is_the_seeds() -> None:
    plan = FaultPlan(faults=(Fault(kind="drop", probability=0.3), Fault(kind="delay", probability=0.3)))

    def hits(seed: int) -> list[list[str]]:
        book = FaultBook(plan, seed)
        return [[f.kind for f, _ in book.draw("rest", REQUEST_KINDS, first=0, last=0)] for _ in range(400)]

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 80 < sum("drop" in hit for hit in hits(1)) < 160


def test_faults_are_chosen_by_path_and_symbol() -> None:
    plan = FaultPlan(faults=(Fault(kind="drop", nth=1, path="/klines", symbol="ETHUSDT"),))
    book = FaultBook(plan, 1)
    for path, symbol, count in (("/time", "ETHUSDT", 0), ("/klines", "BTCUSDT", 0), ("/klines", "ETHUSDT", 1)):
        assert len(list(book.draw("rest", REQUEST_KINDS, first=0, last=0, path=path, symbol=symbol))) == count
    assert not list(book.draw("stream", STREAM_KINDS, first=0, last=0, symbol="ETHUSDT"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[faults]]\nkind = "drop"\n', "exactly one of nth, probability and at"),
        ('[[faults]]\nkind = "drop"\nnth = 1\nprobability = 0.5\n', "exactly one of"),
        ('[[faults]]\nkind = "drop"\nnth = 0\n', "nth is 0"),
        ('[[faults]]\nkind = "drop"\nprobability = 1.5\n', "probability is 1.5"),
        ('[[faults]]\nkind = "dance"\nnth = 1\n', "kind"),
        ('[[faults]]\nkind = "redirect"\non = "stream"\nnth = 1\n', "one that happens on stream"),
        ('[[faults]]\nkind = "drop"\nnth = 1\nevrey = 2\n', "evrey"),
        ('[[faults]]\nkind = "drop"\nevery = 2\nprobability = 0.1\n', "beside nth"),
        ('[[faults]]\nkind = "drop"\nat = "soon"\n', "not a date"),
        ('[[faults]]\nkind = "status"\nnth = 1\nstatus = 200\n', "400 to 599"),
        ("[[fault]]\n", "fault"),
        ("faults = [", "not valid TOML"),
    ],
)
def test_a_wrong_script_is_refused_by_name(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(LSTMStrategyError, match=told) as refused:
        load_faults(path)
    assert str(path) in str(refused.value)


def test_a_script_is_read(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(
        '[[faults]]\nkind = "skip"\non = "stream"\nat = 2024-01-02T00:00:00\n\n'
        '[[faults]]\nkind = "status"\nstatus = 429\nretry_after = 2\nprobability = 0.01\npath = "/klines"\n'
    )
    first, second = load_faults(path).faults
    assert (first.kind, first.on, first.at) == ("skip", "stream", "2024-01-02T00:00:00")
    assert (second.status, second.retry_after, second.path) == (429, 2, "/klines")


# -- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("cut", 503, "ExchangeError"),  # not NetworkError: ccxt takes whatever aiohttp raises for the venue's word
        ("status", 429, "DDoSProtection"),
        ("status", 418, "DDoSProtection"),
        ("status", 500, "OperationFailed"),  # -1001
        ("status", 502, "ExchangeNotAvailable"),  # no JSON
        ("status", 503, "OperationFailed"),
        ("maintenance", 503, "OnMaintenance"),
        ("redirect", 503, "ExchangeError"),
    ],
)
def test_ccxt_fails_once(kind: Any, status: int, error: str) -> None:
    async def work() -> None:
        fault = Fault(kind=kind, status=status, nth=1, path="/klines", seconds=0.1)
        async with served(fault) as server, client("binance", server.http_url) as venue:
            await venue.load_markets()
            with pytest.raises(ccxt.BaseError) as failed:
                await venue.fetch_ohlcv("BTC/USDT", "1h")
            assert type(failed.value).__name__ == error
            await asyncio.sleep(0.15 if kind == "maintenance" else 0.0)
            assert await venue.fetch_ohlcv("BTC/USDT", "1h") == RIGHT
            assert server.exchange.faults.injected == {kind: 1}
            assert server.state()["faults"] == {kind: 1}

    bounded(work())


@pytest.mark.parametrize("kind", ["truncated", "malformed"])
def test_ccxt_takes_what_is_not_json_for_candles(kind: Any) -> None:
    """A reason to check every row: each letter of the text becomes a candle without prices."""

    async def work() -> None:
        async with (
            served(Fault(kind=kind, nth=1, path="/klines")) as server,
            client("binance", server.http_url) as venue,
        ):
            await venue.load_markets()
            rows = await venue.fetch_ohlcv("BTC/USDT", "1h")
            assert not any(row in RIGHT for row in rows)
            assert all(row[1:] == [None] * 5 for row in rows)
            assert await venue.fetch_ohlcv("BTC/USDT", "1h") == RIGHT

    bounded(work())


def test_a_dropped_request_is_asked_again_by_the_client() -> None:
    async def work() -> None:
        async with served(Fault(kind="drop", nth=2), Fault(kind="drop", nth=3, times=2)) as server:
            async with aiohttp.ClientSession() as session:
                url = server.http_url + KLINES
                for _ in range(2):  # the second is dropped on a connection that was used before: aiohttp tries again
                    assert await ask(session, url) == RIGHT[-20:]
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await session.get(url)
            assert server.exchange.faults.injected["drop"] == 3

    bounded(work())


def test_what_a_spoilt_reply_looks_like() -> None:
    async def work() -> None:
        faults = (
            Fault(kind="status", status=429, retry_after=7, nth=1),
            Fault(kind="status", status=418, nth=1),
            Fault(kind="content_type", nth=1),
            Fault(kind="truncated", nth=1),
            Fault(kind="malformed", nth=1),
            Fault(kind="redirect", nth=1),
            Fault(kind="delay", nth=1, seconds=0.3),
        )
        async with served(*faults) as server, aiohttp.ClientSession() as session:
            url = server.http_url + KLINES
            async with session.get(url) as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (429, "7")
                assert (await reply.json())["code"] == -1003
            async with session.get(url) as reply:
                assert reply.status == 418
                assert "Retry-After" not in reply.headers
            async with session.get(url) as reply:
                assert reply.content_type == "text/html"
                assert numbers(json.loads(await reply.text())) == RIGHT[-20:]
            for _ in range(2):
                async with session.get(url) as reply:
                    assert reply.status == 200
                    with pytest.raises(ValueError):  # noqa: PT011
                        await reply.json()
            with pytest.raises(aiohttp.TooManyRedirects):
                await session.get(url)
            began = asyncio.get_running_loop().time()
            assert await ask(session, url) == RIGHT[-20:]
            assert asyncio.get_running_loop().time() - began >= 0.29

    bounded(work())


def test_a_huge_reply_takes_no_memory_here() -> None:
    async def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with served(Fault(kind="huge_reply", nth=1)) as server, aiohttp.ClientSession() as session:
            got = 0
            async with session.get(server.http_url + KLINES) as reply:
                assert reply.content_type == "application/json"
                async for chunk in reply.content.iter_chunked(1 << 20):
                    got += len(chunk)
                    if got > 200 << 20:  # the rest would be more of it
                        break
                reply.close()
            assert await ask(session, server.http_url + KLINES) == RIGHT[-20:]
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB

    bounded(work())


def test_a_skewed_clock_tells_another_time() -> None:
    async def work() -> None:
        async with served(Fault(kind="clock_skew", nth=2, seconds=-90.0), step=True) as server:
            async with aiohttp.ClientSession() as session:
                times = []
                for _ in range(3):
                    await ask(session, server.http_url + KLINES)  # is no occasion: a page tells no time
                    async with session.get(server.http_url + "/api/v3/time") as reply:
                        times.append((await reply.json())["serverTime"])
            assert [ts - times[0] for ts in times] == [0, -90_000, 0]

    bounded(work())


def test_maintenance_refuses_everything_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def work() -> None:
        async with (
            served(Fault(kind="maintenance", nth=2, seconds=0.5)) as server,
            aiohttp.ClientSession() as session,
        ):
            url, answers = server.http_url + "/api/v3/ping", []
            for _ in range(4):
                async with session.get(url) as reply:
                    answers.append(reply.status)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(server.ws_url + "/ws")
            async with session.get(server.http_url + "/products") as reply:
                assert (reply.status, await reply.json()) == (503, {"message": "System is under maintenance."})
            for passed in (0.4, 0.2):
                now[0] += passed
                async with session.get(url) as reply:
                    answers.append(reply.status)
            assert answers == [200, 503, 503, 503, 503, 200]

    bounded(work())


# -- pages -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def page(fault: Fault, query: str = "") -> AsyncIterator[tuple[list[list[float]], list[list[float]]]]:
    """The spoilt page and the next one."""
    async with served(fault) as server, aiohttp.ClientSession() as session:
        url = server.http_url + KLINES + query
        yield await ask(session, url), await ask(session, url)
        assert server.exchange.faults.injected == {fault.kind: 1}


@pytest.mark.parametrize("kind", sorted(PAGE_KINDS))
def test_a_spoilt_page_is_right_the_next_time(kind: str) -> None:
    async def work() -> None:
        since = f"&startTime={RIGHT[10][0]}"
        asked = "" if kind in ("revise", "unfinished") else since
        right = RIGHT[-20:] if asked == "" else RIGHT[10:30]
        async with page(Fault(kind=kind, nth=1, rows=2), asked) as (wrong, again):
            assert again == right
            stamps, expected = [row[0] for row in wrong], [row[0] for row in right]
            differing = [row for row in wrong if row not in right]
            if kind == "duplicate":
                assert len(wrong) == 22
                assert sorted(set(stamps)) == expected
            elif kind == "skip":
                assert len(wrong) == 18
                assert (stamps[0], stamps[-1]) == (expected[0], expected[-1])
            elif kind == "reorder":
                assert stamps != expected
                assert sorted(stamps) == expected
            elif kind == "short_page":
                assert wrong == right[:18]
            elif kind == "overlap":
                assert wrong == RIGHT[8:30]
            elif kind == "since_ignored":
                assert wrong == RIGHT[-20:]
            elif kind == "revise":
                assert differing == wrong[-1:]
                assert wrong[-1][4] == pytest.approx(right[-1][4] * 1.01)
            elif kind == "unfinished":
                assert differing == wrong[-1:]
                assert 0 < wrong[-1][5] < right[-1][5]
                assert wrong[-1][1] == right[-1][1]
            elif kind == "wrong_unit":
                assert stamps == [ts // 1_000 for ts in expected]
            else:
                assert len(differing) == 2
                column, value = {
                    "nan": (4, math.nan),
                    "huge_price": (2, 1e308),
                    "negative_volume": (5, -1.0),
                    "future": (0, None),
                }[kind]
                for row in differing:
                    if kind == "future":
                        assert row[0] > RIGHT[-1][0] + 9 * 365 * 86_400_000
                    else:
                        np.testing.assert_equal(row[column], value)

    bounded(work())


def test_faults_of_pages_come_at_a_bar() -> None:
    async def work() -> None:
        bar = pd.Timestamp(RIGHT[33][0], unit="ms").isoformat()
        async with (
            served(Fault(kind="skip", at=bar, rows=5)) as server,
            aiohttp.ClientSession() as session,
        ):
            pages = [await ask(session, f"{server.http_url}{KLINES}&startTime={RIGHT[row][0]}") for row in (0, 20, 40)]
            assert [len(rows) for rows in pages] == [20, 15, 20]

    bounded(work())


def test_coinbase_pages_are_spoilt_too() -> None:
    async def work() -> None:
        faults = (Fault(kind="nan", nth=1), Fault(kind="wrong_unit", nth=1), Fault(kind="short_page", nth=1, rows=50))
        async with served(*faults) as server, client("coinbaseexchange", server.http_url) as venue:
            await venue.load_markets()
            first = await venue.fetch_ohlcv("BTC/USDT", "1h")
            assert len(first) == 10
            assert await venue.fetch_ohlcv("BTC/USDT", "1h") == RIGHT
            assert server.exchange.faults.injected == {"nan": 1, "wrong_unit": 1, "short_page": 1}

    bounded(work())


# -- streams ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(*faults: Fault) -> AsyncIterator[tuple[ReplayServer, aiohttp.ClientWebSocketResponse]]:
    async with (
        served(*faults, step=True, start="20") as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(server.ws_url + "/ws/btcusdt@kline_1h") as socket,
    ):
        yield server, socket


async def heard(socket: aiohttp.ClientWebSocketResponse, seconds: float = 0.1) -> list[str]:
    texts = []
    try:
        while True:
            message = await asyncio.wait_for(socket.receive(), seconds)
            if message.type is not aiohttp.WSMsgType.TEXT:
                texts.append("closed")
                return texts
            texts.append(message.data)
    except TimeoutError:
        return texts


def bars_in(texts: list[str]) -> list[list[float]]:
    klines = [json.loads(text)["k"] for text in texts]
    assert all(kline["x"] for kline in klines)
    return [[kline["t"], *(float(kline[name]) for name in "ohlcv")] for kline in klines]


@pytest.mark.parametrize("kind", sorted(STREAM_KINDS))
def test_a_spoilt_stream(kind: str) -> None:
    async def work() -> None:
        at = pd.Timestamp(int(MARKET.bars.ts_close[22])).isoformat()  # of five bars, 20 to 24, the third
        async with listening(Fault(kind=kind, on="stream", at=at, rows=2, seconds=0.3)) as (server, socket):
            await server.step(5)
            texts, right = await heard(socket, 0.2), RIGHT[20:25]
            if kind in ("drop", "maintenance"):
                assert texts[2:] == ["closed"]
                assert bars_in(texts[:2]) == right[:2]
                async with aiohttp.ClientSession() as session:
                    assert await ask(session, server.http_url + KLINES) == RIGHT[5:25]  # history has it
            elif kind == "delay":
                assert bars_in(texts) == [row for row in right if row != right[2]]
                assert bars_in(await heard(socket, 0.5)) == [right[2]]
            elif kind == "duplicate":
                assert bars_in(texts) == [*right[:3], *right[2:]]
            elif kind == "reorder":
                assert bars_in(texts) == [right[0], right[1], right[3], right[2], right[4]]
            elif kind == "skip":
                assert bars_in(texts) == [*right[:2], *right[3:]]
            elif kind in ("revise", "unfinished"):
                got = bars_in(texts)
                assert [*got[:2], *got[3:]] == right
                assert got[2][0] == right[2][0]
                assert got[2] != right[2]
            elif kind in ("truncated", "malformed"):
                with pytest.raises(json.JSONDecodeError):
                    json.loads(texts[2])
                assert bars_in([*texts[:2], *texts[3:]]) == [*right[:2], *right[3:]]
            elif kind == "clock_skew":
                events = [json.loads(text) for text in texts]
                assert [event["E"] - event["k"]["T"] for event in events] == [1, 1, 301, 1, 1]
                assert bars_in(texts) == right
            else:
                assert len(texts) == 5
                got = bars_in(texts)
                assert [*got[:2], *got[3:]] == [*right[:2], *right[3:]]
                assert got[2] != right[2]
            assert server.exchange.faults.injected == {kind: 1}
            hit = (kind, "stream", "BTCUSDT", int(MARKET.bars.ts_close[22]))
            assert list(server.exchange.faults.last) == [hit]

    bounded(work())


def test_maintenance_of_the_stream_lasts_for_its_bars() -> None:
    async def work() -> None:
        async with listening(Fault(kind="maintenance", on="stream", nth=2, rows=3)) as (server, socket):
            url = server.http_url + "/api/v3/ping"
            async with aiohttp.ClientSession() as session:
                answers = []
                for _ in range(6):
                    await server.step()
                    async with session.get(url) as reply:
                        answers.append(reply.status)
                assert answers == [200, 503, 503, 200, 200, 200]
                assert bars_in((await heard(socket))[:1]) == RIGHT[20:21]

    bounded(work())


def test_the_last_bar_is_never_held_back() -> None:
    async def work() -> None:
        async with listening(Fault(kind="reorder", on="stream", probability=1.0)) as (server, socket):
            assert await server.step(100) == 40
            assert sorted(bars_in(await heard(socket))) == RIGHT[20:]

    bounded(work())


def test_a_socket_may_be_refused() -> None:
    async def work() -> None:
        async with (
            served(Fault(kind="status", status=503, nth=1, path="/ws"), Fault(kind="drop", nth=1)) as server,
            aiohttp.ClientSession() as session,
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(server.ws_url + "/ws")
            socket = await session.ws_connect(server.ws_url + "/ws")  # not hit by the drop, which names no path
            await socket.close()
            assert server.exchange.faults.injected == {"status": 1}

    bounded(work())


def test_ten_thousand_bars_with_every_fault_mixed_are_all_there_in_the_end() -> None:
    """A client that asks again, checks rows and sorts them gets the recording."""

    async def work(seed: int) -> tuple[list[list[float]], dict[str, int]]:
        market = simulated(timeframe="1m", bars=10_000)
        kinds = sorted((PAGE_KINDS | REQUEST_KINDS) - {"huge_reply", "redirect", "clock_skew", "revise", "unfinished"})
        plan = FaultPlan(faults=tuple(Fault(kind=kind, probability=0.02, seconds=0.01) for kind in kinds))
        config = ReplayConfig(markets=(market,), faults=plan, seed=seed, step=True)
        right = rows_of(market.bars)
        known = {row[0]: row for row in right}
        got: dict[float, list[float]] = {}
        async with serve(config) as server, aiohttp.ClientSession() as session:
            since = right[0][0]
            while since <= right[-1][0]:
                url = f"{server.http_url}/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=20&startTime={int(since)}"
                try:
                    async with session.get(url) as reply:
                        if reply.status != 200:
                            continue
                        rows = numbers(await reply.json())
                except (aiohttp.ClientError, ValueError):
                    continue
                fine = [row for row in rows if known.get(row[0]) == row]
                got |= {row[0]: row for row in fine}
                while since in got:
                    since += 60_000
            return [got[ts] for ts in sorted(got)], dict(server.exchange.faults.injected)

    right = rows_of(simulated(timeframe="1m", bars=10_000).bars)
    rows, injected = bounded(work(1))
    assert rows == right
    assert sum(injected.values()) > 50
    assert len(injected) >= 12
