"""The local exchange against hostile clients: other sites' web pages, and a socket that asks much and reads nothing."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
import pytest
from replay_support import bounded, simulated

from lstm_strategy.replay.connection import Connection
from lstm_strategy.replay.server import ReplayConfig, serve

JSON = "application/json"
HANDSHAKE = (
    b"GET /ws/btcusdt@kline_1h HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def replay(**options: object) -> ReplayConfig:
    return ReplayConfig(markets=(simulated(bars=60),), step=True, start="10", updates=0, **options)


def frame(message: object) -> bytes:
    """A client's text frame, masked with zeros."""
    text = json.dumps(message).encode()
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


# -- other sites -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "LocalHost:1234"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": ""}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost:80@evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://127.0.0.1"}, 200),
        ({"Origin": "http://[::1]:5"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
    ],
)
def test_other_sites_are_refused_everywhere(headers: dict[str, str], status: int) -> None:
    async def work() -> None:
        async with serve(replay()) as server, aiohttp.ClientSession(headers=headers) as session:
            for path in ("/api/v3/ping", "/products", "/replay/state"):
                async with session.get(server.http_url + path) as reply:
                    assert reply.status == status, path
            async with session.get(server.http_url + "/nowhere") as reply:
                assert reply.status == (404 if status == 200 else 403)
            async with session.post(server.http_url + "/replay/step", json={}) as reply:
                assert reply.status == status
            for path in ("/ws", "/stream?streams=btcusdt@kline_1h"):
                if status == 200:
                    async with session.ws_connect(server.ws_url + path):
                        pass
                else:
                    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                        await session.ws_connect(server.ws_url + path)
                    assert refused.value.status == 403
            assert server.state()["closed"] == (11 if status == 200 else 10)
            assert status == 200 or not server.state()["requests"], "what is refused uses up no fault"

    bounded(work())


def test_a_server_for_the_network_takes_any_host_but_no_foreign_origin() -> None:
    async def work() -> None:
        everywhere = "0.0.0.0"  # noqa: S104
        async with serve(replay(host=everywhere)) as server, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{server.port}/api/v3/ping"
            for headers, status in (({"Host": "replay.lan"}, 200), ({"Origin": "http://evil.example"}, 403)):
                async with session.get(url, headers=headers) as reply:
                    assert reply.status == status

    bounded(work())


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (JSON, 200),
        (f"{JSON}; charset=utf-8", 200),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        (None, 415),
    ],
)
def test_a_step_must_be_json(kind: str | None, status: int) -> None:
    async def work() -> None:
        async with serve(replay()) as server, aiohttp.ClientSession() as session:
            async with session.post(
                server.http_url + "/replay/step",
                data=b"{}",
                headers={"Content-Type": kind} if kind else {},
                skip_auto_headers=["Content-Type"],
            ) as reply:
                assert reply.status == status
            assert server.state()["closed"] == (11 if status == 200 else 10)

    bounded(work())


@pytest.mark.parametrize(
    ("count", "status"), [("1", 302), ("9999999", 302), ("abc", 404), ("-1", 404), ("7" * 5_000, 404)]
)
def test_a_redirect_counts_no_further_than_it_can(count: str, status: int) -> None:
    async def work() -> None:
        async with (
            serve(replay()) as server,
            aiohttp.ClientSession() as session,
            session.get(f"{server.http_url}/replay/redirect/{count}", allow_redirects=False) as reply,
        ):
            assert reply.status == status

    bounded(work())


# -- sockets ---------------------------------------------------------------------------------------------------------


def test_names_of_streams_are_short_and_of_a_known_shape() -> None:
    wrong = ["x" * 56 + "@kline_1h", 'a"@kline_1h', "a b@trade", "@trade", "btcusdt", "btcusdt@", "a@b\n", "", 7, None]
    right = ["!ticker@arr", "btcusdt@depth5@100ms", "btcusdt@kline_1d@+08:00", "x" * 55 + "@kline_1h"]

    async def work() -> None:
        async with (
            serve(replay()) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(server.ws_url + "/ws") as socket,
        ):

            async def ask(method: str, *params: object) -> dict:
                await socket.send_json({"method": method, "params": params, "id": 1})
                return await socket.receive_json(timeout=5.0)

            for name in wrong:
                for method in ("SUBSCRIBE", "UNSUBSCRIBE"):
                    refusal = await ask(method, "btcusdt@kline_1h", name)
                    assert (refusal["id"], set(refusal["error"])) == (1, {"code", "msg"}), name
            assert (await ask("LIST_SUBSCRIPTIONS"))["result"] == []
            assert await ask("SUBSCRIBE", *right) == {"result": None, "id": 1}
            assert (await ask("LIST_SUBSCRIPTIONS"))["result"] == right
            for path in ("/ws/btcusdt", f"/ws/{'x' * 100}@trade", "/stream?streams=btcusdt@trade/%22@trade"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(server.ws_url + path)
                assert refused.value.status == 400, path

    bounded(work())


def test_a_client_that_asks_much_and_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    offer = Connection.offer

    def watched(self: Connection, text: str) -> None:
        offer(self, text)
        held.append(sum(map(len, self._waiting._queue)))  # type: ignore[attr-defined]

    monkeypatch.setattr(Connection, "offer", watched)

    async def work() -> None:
        async with serve(replay()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_024)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            for first in range(0, 1_000, 200):
                names = [f"{number:04}{'x' * 50}@kline_1h" for number in range(first, first + 200)]
                writer.write(frame({"method": "SUBSCRIBE", "params": names, "id": 1}))

            async def ask_on() -> None:
                while True:
                    writer.write(frame({"method": "LIST_SUBSCRIPTIONS", "id": 1}) * 100)
                    await writer.drain()

            with pytest.raises(ConnectionError):
                await ask_on()
            assert 1 << 20 < max(held) <= 8 << 20
            assert held[-1] == 0
            writer.close()

    bounded(work())


@pytest.mark.parametrize("reads", [True, False])
def test_the_end_does_not_wait_for_a_client_that_will_not_close(reads: bool) -> None:
    async def work() -> float:
        async with serve(replay()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_024)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            if not reads:  # fill the way to the client, so that not even the close frame leaves
                names = [f"{number:04}{'x' * 50}@kline_1h" for number in range(200)]
                writer.write(frame({"method": "SUBSCRIBE", "params": names, "id": 1}))
                writer.write(frame({"method": "LIST_SUBSCRIPTIONS", "id": 1}) * 500)
                await asyncio.sleep(0.5)
            begun = time.monotonic()
        took = time.monotonic() - begun
        writer.close()
        return took

    assert bounded(work()) < 15.0  # a server waits a minute by itself
