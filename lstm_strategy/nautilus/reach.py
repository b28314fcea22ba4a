"""Whether a venue can be reached, before a node is built on it; and what its log says of why one was turned away."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from nautilus_trader.common.component import flush_logger

from lstm_strategy.bars import format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.status import Observers

__all__ = ["last_error", "wait_until_reached"]

_TIMEOUT_S, _BETWEEN_S = 10.0, (1.0, 2.0, 5.0, 10.0, 30.0)
_DAY_S, _OLD_DAYS = 86_400.0, 2.0  # a replay that is shifted by whole days ends less than a day ago


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
                    f"{name} cannot be reached: {trouble}, for {waited:.0f} s; {_way_out(settings)}, or wait longer"
                    " (live.start_timeout)"
                )
            wait_s = _BETWEEN_S[min(attempt, len(_BETWEEN_S) - 1)]
            if live.start_timeout is not None:
                wait_s = min(wait_s, max(live.start_timeout - waited, 0.0))
            observers.trouble(f"{name} cannot be reached: {trouble}; trying again in {wait_s:.0f} s, until Ctrl-C")
            await asyncio.sleep(wait_s)
            attempt += 1
        observers.step("venue", f"{name}{' (test network)' if live.testnet else ''} answers")
        if settings.base_url is not None and (newest := await _newest_close(session, settings, url)) is not None:
            days = (time.time() - newest / 1e9) / _DAY_S
            if days > _OLD_DAYS:
                observers.trouble(
                    f"the newest bar at {settings.base_url} is {days:,.0f} days old ({format_ns(newest)}): no history"
                    " will come, and nothing is traded; start that exchange with `lstm-strategy replay --shift`, or use"
                    " `paper --replay`"
                )


async def _ask(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(url) as reply:
            return None if reply.status < 500 else f"{url} answers {reply.status}"
    except TimeoutError:
        return f"{url} has no answer within {_TIMEOUT_S:.0f} s"
    except aiohttp.ClientConnectorError as error:
        code = error.os_error.errno or 0
        why = os.strerror(code) if code > 0 else error.os_error.strerror or str(error)
        return f"{url} ({why.lower()})"
    except (aiohttp.ClientError, OSError) as error:
        return f"{url} ({str(error) or type(error).__name__})"


def _way_out(settings: NodeSettings) -> str:
    if settings.base_url is None:
        return "look at the network and whether the venue is up"
    return "start that exchange (`lstm-strategy replay`), or mend --base-url"


async def _newest_close(session: aiohttp.ClientSession, settings: NodeSettings, ping: str) -> int | None:
    """Return the close (ns) of the newest bar that a local exchange tells; None where it does not speak Binance's."""
    symbol = settings.names[0].rpartition(".")[0].removesuffix("-PERP")
    asked = {"symbol": symbol, "interval": settings.timeframe.text, "limit": "1"}
    try:
        async with session.get(ping.removesuffix("ping") + "klines", params=asked) as reply:
            rows = msgspec.json.decode(await reply.read(), type=list[tuple[Any, ...]])
        return (int(rows[-1][6]) + 1) * 1_000_000
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, IndexError, TypeError, ValueError):
        return None


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
