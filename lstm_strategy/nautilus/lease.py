"""A lease in Redis: of all nodes on all machines that share one cache database, one runs under a trader id."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import CACHE_PASSWORD
from lstm_strategy.nautilus.cache_database import cache_config
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.status import Observers

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Lease", "hold_lease"]

_TTL_S, _RENEW_S, _ANSWER_S = 30.0, 5.0, 5.0  # two renewals may fail
_LOOK_S, _LAST_S, _MOST_NAME = 0.5, 1.0, 200


class Lease:
    """One node's claim to a trader id, which a timer renews, and which lapses some seconds after the last renewal."""

    def __init__(
        self, client: Redis, trader_id: str, where: str, *, ttl_s: float = _TTL_S, renew_s: float = _RENEW_S
    ) -> None:
        self._client, self._trader_id, self._where = client, trader_id, where
        self._ttl_s, self._renew_s = ttl_s, renew_s
        self._key = f"lstm-strategy:trader:{trader_id}"
        self._mine = f"process {os.getpid()} on {socket.gethostname()}, {_machine()}-{uuid.uuid4().hex[:8]}"
        self._lock = client.lock(self._key, timeout=ttl_s, blocking=False, thread_local=False)
        self._lost, self._on_lost = "", list[Callable[[str], None]]()
        self._renewed = -math.inf
        self._counter = f"{self._key}:epoch"  # how often it was taken; nothing where Redis has forgotten everything
        self._epoch, self._alone = 0, False

    def on_lost(self, tell: Callable[[str], None]) -> None:
        """Tell, in one line, once another node has the trader id: this one was not heard of for too long."""
        self._on_lost.append(tell)
        if self._lost:
            tell(self._lost)

    @property
    def unrenewed_s(self) -> float:
        """Seconds since the last renewal that Redis confirmed was sent."""
        return _now() - self._renewed

    def adrift(self) -> bool:
        """Say whether it is so long since it was renewed that, before the next try, another node may take it."""
        return self.unrenewed_s > self._ttl_s - self._renew_s

    def told(self, *, adrift: bool) -> str:
        """Return what is to be said when `adrift` begins, or ends."""
        if not adrift:
            return f"live.cache: the lease of trader {self._trader_id} is renewed again: the strategy goes on"
        return (
            f"live.cache: the lease of trader {self._trader_id} was last renewed {self.unrenewed_s:.0f} s ago by"
            f" {self._where}: another node may take it, so nothing is added to a position; stops and closing go on"
        )

    async def take(self, waiting: Callable[[str], None]) -> None:
        """Take it, at once from a process of this machine that has ended, else once it has lapsed; tell ``waiting``.

        Raises
        ------
        LSTMStrategyError
            Where another node goes on renewing it.
        """
        from redis.exceptions import LockError

        late, before, told = time.monotonic() + self._ttl_s + 2.0 * _LOOK_S, -1, False
        sent = _now()
        while not await self._lock.acquire(token=self._mine):
            left, holder = int(await self._client.pttl(self._key)), await self._holder()
            if _has_ended(holder):
                with suppress(LockError):  # another was faster
                    await self._lock.do_release(holder.encode())
                continue
            if holder and (left > before >= 0 or time.monotonic() > late):
                raise LSTMStrategyError(
                    f"trader {self._trader_id} runs already ({holder}), by {self._where}; stop that node, or give this"
                    " one its own live.trader_id; nothing was sent"
                )
            if not told:
                told = True
                waiting(f"{holder or 'another node'} had trader {self._trader_id}: waiting until it has lapsed")
            before = left
            await asyncio.sleep(_LOOK_S)
            sent = _now()
        await self._count()
        self._renewed = sent

    async def renew(self) -> bool:
        """Renew it, or take it again where it has lapsed; say whether it is still this node's."""
        from redis.exceptions import LockError

        sent, ours = _now(), False
        with suppress(LockError):
            await self._lock.reacquire()
            ours = True
        if not ours:
            sent, self._alone = _now(), False
            ours = bool(await self._lock.acquire(token=self._mine))
        if ours and not self._alone:  # it had lapsed, and may have been held and given back meanwhile
            epoch = int(await self._client.get(self._counter) or 0)
            if epoch > self._epoch:
                await self.give_back()
                return False
            await self._count()
        if ours:
            self._renewed = sent
        return ours

    async def _count(self) -> None:
        self._epoch = int(await self._client.incr(self._counter))
        self._alone = True

    async def keep(self) -> None:
        """Renew it until another has it; while Redis does not answer here, another may still reach it (`adrift`)."""
        from redis.exceptions import RedisError

        while True:
            await asyncio.sleep(self._renew_s)
            try:
                if await self.renew():
                    continue
                holder = await self._holder() or "which has ended since"
            except (RedisError, OSError, TimeoutError):  # `watch_cache` tells
                continue
            self._lose(f"another node runs under trader {self._trader_id} now ({holder}), by {self._where}")
            return

    def ended(self, keeping: asyncio.Future[None]) -> None:
        """Take it for lost where what renews it has ended by an error."""
        error = None if keeping.cancelled() else keeping.exception()
        if error is not None:
            said = f"{type(error).__name__}: {error}"
            self._lose(f"the lease of trader {self._trader_id} is not renewed any more ({said}); start again")

    def _lose(self, text: str) -> None:
        self._lost = text
        for tell in self._on_lost:
            tell(text)

    async def give_back(self) -> None:
        """Leave it to whoever comes next; where Redis does not answer, it lapses."""
        from redis.exceptions import RedisError

        with suppress(RedisError, OSError, TimeoutError):  # among them that it is another's
            async with asyncio.timeout(_LAST_S):
                await self._lock.release()

    async def _holder(self) -> str:
        found = await self._client.get(self._key)
        text = found.decode("utf-8", "replace") if isinstance(found, bytes) else found or ""
        return "".join(c for c in text if c.isprintable())[:_MOST_NAME]


def _now() -> float:
    """Return seconds of a clock that is never set, and goes on while the machine sleeps where it has such a one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _machine() -> str:
    """Return what tells apart where process numbers mean something else; "-" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"
    return hashlib.sha256(f"{socket.gethostname()} {boot} {space}".encode()).hexdigest()[:8]


def _has_ended(holder: str) -> bool:
    """Say whether a holder is a process of this machine, and is no more."""
    found = re.fullmatch(r"process (\d+) on .*, ([0-9a-f]{8})-[0-9a-f]{8}", holder)
    if found is None or found[2] != _machine():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@asynccontextmanager
async def hold_lease(settings: NodeSettings, observers: Observers) -> AsyncIterator[Lease | None]:
    """Hold the trader id against the nodes of all machines while the block runs; nothing without ``live.cache``.

    Raises
    ------
    LSTMStrategyError
        Where another node holds it, Redis does not answer, or its client is not installed.
    """
    config = cache_config(settings)
    if config is None or config.database is None:
        yield None
        return
    client = _client(config.database)
    from redis.exceptions import RedisError

    lease = Lease(client, settings.trader_id, f"{settings.live.cache}")
    keeping: asyncio.Future[None] | None = None
    try:
        try:
            await lease.take(lambda text: observers.step("trader", text))
        except (RedisError, OSError, TimeoutError) as error:
            raise LSTMStrategyError(
                f"live.cache: {settings.live.cache} does not serve ({type(error).__name__}); look at it, and at"
                f" {CACHE_PASSWORD}, or leave live.cache out; nothing was sent"
            ) from None
        keeping = asyncio.ensure_future(lease.keep())
        keeping.add_done_callback(lease.ended)
        yield lease
    finally:
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await lease.give_back()
        with suppress(RedisError, OSError, TimeoutError):
            await client.aclose()


def _client(database: Any) -> Redis:
    """Return a client; it connects when it is used."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise LSTMStrategyError(
            "live.cache needs redis, which is not installed; install the extra: pip install 'lstm-strategy[live]'"
        ) from error
    return Redis(
        host=database.host,
        port=database.port,
        password=database.password,
        ssl=database.ssl,
        socket_timeout=_ANSWER_S,
        socket_connect_timeout=_ANSWER_S,
        retry=Retry(NoBackoff(), 0),  # the timer tries again
    )
