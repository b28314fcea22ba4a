"""Whether a venue can be reached, before a node is built on it; and what its log says of why one was turned away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import msgspec
from nautilus_trader.common.component import flush_logger

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.status import Observers

__all__ = ["last_error", "wait_until_reached"]

_TIMEOUT_S, _BETWEEN_S = 10.0, (1.0, 2.0, 5.0, 10.0, 30.0)


async def wait_until_reached(settings: NodeSettings, observers: Observers) -> None:
    """Wait for an answer, and say so; a node that starts while its venue is down would idle for ever.

    Raises
    ------
    LSTMStrategyError
        Where ``live.start_timeout`` passes without one.
    """
    url, live, name = settings.ping, settings.live, settings.adapter.name
    if url is None:
        return
    began, attempt = time.monotonic(), 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=True) as session:
        while (trouble := await _ask(session, url)) is not None:
            waited = time.monotonic() - began
            if live.start_timeout is not None and waited >= live.start_timeout:
                raise LSTMStrategyError(
                    f"{name} cannot be reached ({trouble}) after {waited:.0f} s; see live.start_timeout"
                )
            wait_s = _BETWEEN_S[min(attempt, len(_BETWEEN_S) - 1)]
            if live.start_timeout is not None:
                wait_s = min(wait_s, max(live.start_timeout - waited, 0.0))
            observers.trouble(f"{name} cannot be reached ({trouble}); trying again in {wait_s:.0f} s")
            await asyncio.sleep(wait_s)
            attempt += 1
    observers.step("venue", f"{name}{' (test network)' if live.testnet else ''} answers")


async def _ask(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(url) as reply:
            return None if reply.status < 500 else f"it answers {reply.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return str(error) or type(error).__name__


def last_error(folder: Path) -> str:
    """Return the last error in a node's log, as the end of a sentence; empty where there is none."""
    flush_logger()
    found = ""
    for path in sorted(folder.glob("node*.json*")):
        for line in path.read_bytes().splitlines():
            try:
                entry = msgspec.json.decode(line, type=dict[str, object])
            except msgspec.DecodeError:
                continue
            if entry.get("level") == "ERROR":
                found = str(entry.get("message", ""))
    text = " ".join(found.split())[:300]
    return f" ({text})" if text else ""
