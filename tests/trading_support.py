"""What the tests of the exchange's signed side share: keys made for the run, signed requests, a listener of events."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from lstm_strategy.replay.credentials import Credentials
from lstm_strategy.replay.trading import TradingConfig

KEY = "canaryKEY0123456789"
HMAC_SECRET = "canary-secret-0123456789"  # noqa: S105


def new_secret() -> str:
    """Return an Ed25519 private key as base64 of PKCS#8, made now."""
    key = Ed25519PrivateKey.generate()
    return base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


def trading(secret: str = HMAC_SECRET, **options: Any) -> TradingConfig:
    balances = {name: Decimal(amount) for name, amount in options.pop("balances", {"USDT": "100000"}).items()}
    return TradingConfig(credentials=Credentials(KEY, secret), balances=balances, **options)


class Trader:
    """Signs and sends."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str = HMAC_SECRET) -> None:
        self.session, self.url, self.secret, self.key = session, url, secret, KEY
        self.headers: Any = {}

    def sign(self, payload: str) -> str:
        if self.secret == HMAC_SECRET or not self.secret.startswith("MC4C"):
            return hmac.new(self.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
        key = load_der_private_key(base64.b64decode(self.secret), None)
        assert isinstance(key, Ed25519PrivateKey)
        return base64.b64encode(key.sign(payload.encode())).decode()

    async def ask(self, method: str, path: str, **params: Any) -> tuple[int, Any]:
        stamp = params.pop("timestamp", None) or time.time_ns() // 1_000_000
        payload = urlencode(params | {"timestamp": stamp})
        query = payload + "&" + urlencode({"signature": self.sign(payload)})
        return await self.send(method, f"{path}?{query}")

    async def send(self, method: str, path: str) -> tuple[int, Any]:
        headers = {"X-MBX-APIKEY": self.key} if self.key else {}
        async with self.session.request(method, self.url + path, headers=headers) as reply:
            self.headers = reply.headers
            return reply.status, await reply.json(content_type=None)

    async def order(self, side: str, kind: str, quantity: str = "", **more: Any) -> tuple[int, Any]:
        sized = {"quantity": quantity} if quantity else {}
        return await self.ask("POST", "/api/v3/order", symbol="BTCUSDT", side=side, type=kind, **sized, **more)


class Ear:
    """A user-data stream that keeps what it hears."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.events, self.answers = socket, [], []

    async def listen(self) -> None:
        async for message in self.socket:
            told = json.loads(message.data)
            (self.events if "event" in told else self.answers).append(told.get("event", told))

    async def request(self, method: str, **params: Any) -> Any:
        count = len(self.answers)
        await self.socket.send_str(json.dumps({"id": count, "method": method, "params": params}))
        for _ in range(3_000):
            if len(self.answers) > count:
                return self.answers[count]
            await asyncio.sleep(0.01)
        raise AssertionError(f"{method} was not answered")

    async def until(self, held: Callable[[], bool]) -> None:
        """Wait for it, however slow the machine."""
        async with asyncio.timeout(30.0):
            while not held():
                await asyncio.sleep(0.01)

    def reports(self) -> list[tuple[str, str]]:
        return [(event["x"], event["X"]) for event in self.events if event["e"] == "executionReport"]


@asynccontextmanager
async def listening(trader: Trader, ws_url: str) -> AsyncIterator[Ear]:
    """Subscribe by signature, as a client with any kind of key may."""
    async with trader.session.ws_connect(ws_url + "/ws-api/v3") as socket:
        ear = Ear(socket)
        task = asyncio.create_task(ear.listen())
        try:
            stamp = time.time_ns() // 1_000_000
            signature = trader.sign(f"apiKey={trader.key}&timestamp={stamp}")
            asked = {"apiKey": trader.key, "timestamp": stamp, "signature": signature}
            answer = await ear.request("userDataStream.subscribe.signature", **asked)
            assert "result" in answer, answer
            yield ear
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
