"""The engine's cache in a Redis database: orders and positions that are known again before the venue is asked.

It replaces nothing: the venue is asked at every start, and what a strategy must not forget lies in its state folder,
which is written before an order leaves. Here orders arrive a moment after, and states at a clean stop alone.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec
from nautilus_trader.cache.config import CacheConfig
from nautilus_trader.common.config import DatabaseConfig, pyo3_config_json
from nautilus_trader.core.nautilus_pyo3 import UUID4, RedisCacheDatabase, TraderId

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import CACHE_PASSWORD, CACHE_PORT
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.status import Observers

__all__ = ["cache_answers", "cache_config", "require_cache", "told_of_cache", "watch_cache"]

_CONNECT_S, _ANSWER_S, _LOOK_S = 5, 5, 2.0
_RETRIES, _LONGEST_S = 1, 1  # the engine ends only when it has tried them all, for each write that waits


def cache_config(settings: NodeSettings) -> CacheConfig | None:
    """Return the engine's configuration, None where nothing is to outlive the node there.

    The simulated venue keeps its account itself, and a replay none: a position from elsewhere would be nobody's.
    """
    if settings.live.cache is None or not settings.real:
        return None
    parts = urlsplit(settings.live.cache)
    return CacheConfig(
        database=DatabaseConfig(
            type="redis",
            host=parts.hostname,
            port=parts.port or CACHE_PORT,
            password=os.environ.get(CACHE_PASSWORD) or None,
            ssl=parts.scheme == "rediss",
            connection_timeout=_CONNECT_S,
            response_timeout=_ANSWER_S,
            number_of_retries=_RETRIES,
            max_delay=_LONGEST_S,
        ),
        persist_account_events=False,  # the venue tells the account at each start; a list of them would only grow
        use_instance_id=False,  # the next process must find it
        flush_on_start=False,
    )


def require_cache(settings: NodeSettings) -> None:
    """Refuse to start without the database: the engine would try again for hours, silently.

    Raises
    ------
    LSTMStrategyError
        Where it does not answer, or lets nobody in.
    """
    config = cache_config(settings)
    if config is None or config.database is None:
        return
    once = msgspec.structs.replace(config.database, number_of_retries=0, max_delay=1)
    try:
        made: Any = RedisCacheDatabase  # its types say less than it has
        database = made(
            trader_id=TraderId(settings.trader_id),
            instance_id=UUID4(),
            config_json=pyo3_config_json(msgspec.structs.replace(config, database=once)),
        )
        database.keys("orders:none")
        database.close()
    except RuntimeError as error:
        raise LSTMStrategyError(
            f"live.cache: {settings.live.cache} does not serve ({error}); start Redis 6.2 or later there, look at"
            f" {CACHE_PASSWORD}, or leave live.cache out; nothing was sent"
        ) from None


def told_of_cache(settings: NodeSettings, cache: Any) -> str | None:
    """Say what the engine has found there, before the venue is asked; None where there is none to look at."""
    if settings.live.cache is None:
        return None
    if not settings.real:
        return "not used: a paper account lies in the state folder"
    held = ", ".join(f"{one.signed_qty:g} {one.instrument_id}" for one in cache.positions_open()) or "no position"
    return f"{settings.live.cache}: {held}, {len(cache.orders_open())} open orders of {len(cache.orders())}"


def cache_answers(settings: NodeSettings) -> bool:
    """Say whether the database answers within a second; true where there is none to answer."""
    config = cache_config(settings)
    if config is None or config.database is None:
        return True
    database = config.database
    try:
        connection = socket.create_connection((database.host, database.port), timeout=1.0)
        if database.ssl:
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=database.host)
        with connection:
            connection.sendall(b"PING\r\n")
            return bool(connection.recv(1))
    except OSError:
        return False


async def watch_cache(settings: NodeSettings, observers: Observers) -> None:
    """Tell when the database is gone, and when it is there again; the engine drops what it cannot write, silently."""
    config = cache_config(settings)
    if config is None or config.database is None:
        return
    gone = False
    while True:
        await asyncio.sleep(_LOOK_S)
        lost = not await _answers(config.database)
        if lost != gone:
            gone, what = lost, f"live.cache: {settings.live.cache}"
            observers.trouble(
                f"{what} does not answer: what happens now will be missing there; trading goes on"
                if gone
                else f"{what} answers again; what it has missed the next start hears from the venue"
            )


async def _answers(database: DatabaseConfig) -> bool:
    """Say whether anything is said to a ping, be it that a password is wanted."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(database.host, database.port, ssl=database.ssl or None)
            try:
                writer.write(b"PING\r\n")
                return bool(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
