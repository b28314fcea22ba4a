"""One exchange through CCXT: bounded replies, bounded retries, the exchange's own clock; nothing of a key gets out."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import math
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ccxt.async_support as ccxt

from lstm_strategy.bars import Float, Stamps, Timeframe
from lstm_strategy.sources.ccxt_config import ClientConfig, DownloadError
from lstm_strategy.sources.ccxt_guard import (
    PAGE_BYTES,
    Hope,
    Limit,
    bounded_response,
    guarded,
    hope,
    reason_of,
    stay_home,
)
from lstm_strategy.sources.ccxt_markets import MarketKind
from lstm_strategy.sources.ccxt_page import Page, page_of, rates_of

__all__ = ["Client", "open_client"]

_MOST_BYTES = 64 << 20  # of a list of all markets
_LONGEST_PAUSE_S, _LONGEST_WAIT_S = 30.0, 600.0
_SHORTEST_SECRET = 6  # shorter text would hide innocent words
_DOUBTS = 2  # retries of what is rather a wrong server than a bad moment
_CLOCK_AGE_S, _CLOCK_SLACK_S, _DAY_S = 600.0, 2.0, 86_400.0
_CREDENTIALS = {"apiKey": "API_KEY", "secret": "API_SECRET", "password": "API_PASSPHRASE"}


class Client:
    """What the downloader asks of an exchange. Made by `open_client`.

    Attributes
    ----------
    exchange
        CCXT's.
    retries : int
        How often a request was repeated so far.
    requests : int
        How often anything was asked, repeats included.
    checks : dict
        By CCXT symbol, what raises `BadPageError` for a page that cannot be kept.
    """

    def __init__(self, config: ClientConfig, exchange: Any, limit: Limit, secrets: list[str]) -> None:
        self.config, self.exchange = config, exchange
        self.retries = self.requests = 0
        self.checks: dict[str, Callable[[Page], None]] = {}
        self._limit, self._secrets = limit, secrets
        self._random = random.Random(config.seed)
        self._quiet_until = 0.0
        self._clock: tuple[float, float] | None = None  # when looked at, and how far it was ahead of ours

    @property
    def name(self) -> str:
        """CCXT's name of the exchange."""
        return self.config.exchange

    async def load_markets(self) -> dict[str, Any]:
        """Return all markets by CCXT symbol."""
        self._limit.bytes = _MOST_BYTES
        try:
            markets = await self._ask("the list of markets", self.exchange.load_markets)
        finally:
            self._limit.bytes = PAGE_BYTES
        if not isinstance(markets, dict) or not markets:
            raise DownloadError(f"{self.name} lists no markets")
        return markets

    async def now_ns(self) -> int:
        """Return the time by the exchange's clock, asked now and then, or by ours where that is behind or alone.

        A clock that is ahead of the market would let a bar pass for closed that still forms.

        Raises
        ------
        DownloadError
            Where ours is a day or more behind: then the newest bars would be left out.
        """
        seen = time.monotonic()
        if self._clock is None or seen - self._clock[0] > _CLOCK_AGE_S:
            ahead = 0.0
            if self.exchange.has.get("fetchTime") is True:
                looks = [await self._look_at_clock(), await self._look_at_clock()]
                if abs(looks[0] - looks[1]) > _CLOCK_SLACK_S:  # one is wrong
                    looks = sorted([*looks, await self._look_at_clock()])
                ahead = looks[1]
            if ahead > _DAY_S:
                raise DownloadError(
                    f"this machine's clock is {ahead / _DAY_S:.1f} days behind that of {self.name}; set it"
                )
            self._clock = (seen, ahead)
        return int((time.time() + min(self._clock[1], 0.0)) * 1_000_000_000)

    async def _look_at_clock(self) -> float:
        """Return how far the exchange's clock is ahead of ours, in seconds."""
        asked = time.time()
        told = await self._ask("its time", self.exchange.fetch_time)
        if not isinstance(told, int | float) or not math.isfinite(told) or told <= 0:
            raise DownloadError(f"{self.name} tells the time as {told!r}")
        return told / 1000 - (asked + time.time()) / 2

    def page_limit(self, symbol: str) -> int:
        """Return the most bars of one reply, as far as CCXT knows."""
        try:
            told = self.exchange.feature_value(symbol, "fetchOHLCV", "limit")
        except (ccxt.BaseError, KeyError, TypeError):
            told = None
        return min(max(told, 10), 5000) if isinstance(told, int) else 1000

    async def candles(self, symbol: str, timeframe: Timeframe, since: int, limit: int, *, probe: bool = False) -> Page:
        """Return the closed bars of one reply from ``since`` (ns) on, sorted.

        ``probe``: bars that only tell where there are some: they may be off the grid, and still form.
        """
        now = await self.now_ns()

        async def ask() -> Page:
            rows = await self.exchange.fetch_ohlcv(symbol, timeframe.text, since // 1_000_000, limit)
            page = page_of(rows, timeframe.ns, now + timeframe.ns * probe, on_grid=not probe)
            if not probe and symbol in self.checks:
                self.checks[symbol](page)
            return page

        return await self._ask(f"{symbol} {timeframe}", ask)

    async def funding_rates(self, symbol: str, since: int, limit: int) -> tuple[Stamps, Float]:
        """Return stamps (ns) and rates of one reply, sorted."""
        now = await self.now_ns()

        async def ask() -> tuple[Stamps, Float]:
            return rates_of(await self.exchange.fetch_funding_rate_history(symbol, since // 1_000_000, limit), now)

        return await self._ask(f"{symbol} funding", ask)

    def require(self, timeframe: Timeframe, *, funding: bool) -> None:
        """Raise where the exchange has no such bars, or no history of funding, and say what it has."""
        exchange = self.exchange
        if not exchange.has.get("fetchOHLCV") or exchange.has.get("fetchOHLCV") == "emulated":
            raise DownloadError(f"{self.name} gives no history of bars; choose another exchange")
        known = list(exchange.timeframes or {})
        if known and timeframe.text not in known:
            raise DownloadError(f"{self.name} has no bars of {timeframe}; it has {', '.join(known)}")
        if funding and not exchange.has.get("fetchFundingRateHistory"):
            raise DownloadError(f"{self.name} gives no history of funding rates; leave --funding out")

    def clean(self, text: str) -> str:
        """Return text in one line, without anything secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:300]

    async def _ask[T](self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Return what ``call`` gives; repeat it on what may pass, and raise `DownloadError` on what will not."""
        doubts = 0
        for failures in itertools.count():
            quiet = self._quiet_until - time.monotonic()
            if quiet > 0:
                await asyncio.sleep(quiet)
            self.requests += 1
            try:
                return await call()
            except Exception as error:
                doubts += hope(error) is Hope.SOME
                pause = self._pause_after(what, error, failures, doubts)
            self.retries += 1
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _pause_after(self, what: str, error: Exception, failures: int, doubts: int) -> float:
        """Return the seconds to wait before the next try, or raise that there is none."""
        reason = self.clean(reason_of(error))
        if hope(error) is Hope.NONE:
            raise DownloadError(f"{self.name} refuses {what}: {reason}") from None
        if doubts > _DOUBTS:
            raise DownloadError(f"{self.name} gives no sound {what}: {reason}; what came before is kept") from None
        if failures >= self.config.retries:
            raise DownloadError(
                f"{self.name} does not give {what} after {failures} retries: {reason}; all that came is kept, and the"
                " same command goes on from there"
            ) from None
        longest = min(_LONGEST_PAUSE_S, self.config.backoff_s * 2.0**failures)
        pause: float = longest * self._random.uniform(0.5, 1.0)
        asked: float | None = getattr(error, "retry_after_s", None)
        if asked is not None:
            if asked > _LONGEST_WAIT_S:
                raise DownloadError(f"{self.name} asks for {asked:.0f} s of silence; run again then") from None
            pause = max(pause, asked)
            self._quiet_until = max(self._quiet_until, time.monotonic() + pause)
        return pause


@asynccontextmanager
async def open_client(config: ClientConfig) -> AsyncIterator[Client]:
    """Yield a client of one exchange; it is closed with the block.

    A key is not needed. Where the environment holds ``<EXCHANGE>_API_KEY``, ``<EXCHANGE>_API_SECRET`` and
    ``<EXCHANGE>_API_PASSPHRASE`` (``BINANCE_API_KEY``), it is used; never with a ``base_url``.

    Raises
    ------
    DownloadError
        For an exchange that CCXT does not know, with the nearest names.
    """
    if config.exchange not in ccxt.exchanges:
        near = ", ".join(difflib.get_close_matches(config.exchange, ccxt.exchanges, n=5, cutoff=0.5))
        raise DownloadError(f"CCXT knows no exchange {config.exchange!r}{f'; near it are {near}' if near else ''}")
    prefix = config.exchange.upper()
    given = {name: os.environ.get(f"{prefix}_{suffix}", "") for name, suffix in _CREDENTIALS.items()}
    keys = {name: value for name, value in given.items() if value and config.base_url is None}
    secrets = [value for value in given.values() if len(value) >= _SHORTEST_SECRET]
    if config.proxy and urlsplit(config.proxy).password:
        secrets.append(str(urlsplit(config.proxy).password))
    limit = Limit()
    timeout = aiohttp.ClientTimeout(total=config.timeout_s)
    async with aiohttp.ClientSession(
        response_class=bounded_response(limit), timeout=timeout, trace_configs=[stay_home()]
    ) as session:
        settings = {
            "session": session,
            "enableRateLimit": not config.local,
            "timeout": int(config.timeout_s * 1000),
            "aiohttp_proxy": config.proxy,
            **keys,
        }
        exchange = guarded(getattr(ccxt, config.exchange))(settings)
        exchange.timeout_on_exit = 0  # the session is ours to close
        _narrow(exchange, config.market)
        if config.base_url is not None:
            exchange.urls["api"] = _moved(exchange.urls["api"], config.base_url.rstrip("/"))
        try:
            yield Client(config, exchange, limit, secrets)
        finally:
            await exchange.close()


def _narrow(exchange: Any, kind: MarketKind) -> None:
    """Have only the asked kind of market listed: fewer and shorter replies."""
    wanted = {"spot"} if kind == "spot" else {"swap", "linear", "inverse"}
    settings = exchange.options.get("fetchMarkets")
    if isinstance(settings, dict) and isinstance(settings.get("types"), list):
        types = [name for name in settings["types"] if name in wanted]
        if types:
            exchange.options["fetchMarkets"] = {**settings, "types": types}
    exchange.options["defaultType"] = kind


def _moved(urls: Any, base: str) -> Any:
    """Return addresses with another scheme and host, and the same path."""
    if isinstance(urls, dict):
        return {name: _moved(url, base) for name, url in urls.items()}
    return base + urlsplit(urls.replace("{hostname}", "host")).path if isinstance(urls, str) else urls
