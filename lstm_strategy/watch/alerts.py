"""Alerts: events told to people by webhook, at a bounded rate; trading never waits for them, no log gets a secret."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from lstm_strategy.alerts_config import AlertsConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.status import Event
from lstm_strategy.watch.station import Consumer

__all__ = ["Alerts", "Bucket", "Target", "targets_of"]

_QUEUE, _ATTEMPTS, _BETWEEN_S, _LAST_S = 100, 3, 1.0, 3.0
_COUNT = "held_back"
_RESERVE = frozenset({"fill", "swap", "trouble", "refusal", _COUNT})  # may not use the half kept for what matters more
_ALWAYS, _MOST_ALWAYS = frozenset({"halt", "stop"}), 1_000  # never held back, and sent first; the bound is for memory
_SIGNS = {"start": "▶", "stop": "■", "halt": "⛔", "resumed": "✅", "trouble": "⚠", "refusal": "⚠", "swap": "↻"}
_MOST_TEXT = 1_500  # Discord takes 2,000 characters


class Target(NamedTuple):
    """One of those told; ``url`` and ``extra`` are secrets."""

    service: str
    url: str
    extra: dict[str, str]

    def __repr__(self) -> str:
        return f"Target({self.service})"

    def body(self, text: str, event: Event | None, of_run: Mapping[str, str]) -> dict[str, Any]:
        """Return the JSON that the service wants for a text."""
        match self.service:
            case "telegram":
                return self.extra | {"text": text, "disable_web_page_preview": True}
            case "slack":
                return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
            case "discord":
                return {"content": text, "allowed_mentions": {"parse": []}}
        told = {"kind": _COUNT if event is None else event.kind, "text": text, **of_run}
        if event is not None:
            told |= {"instrument": event.instrument, "event_ts": _iso(event.ts / 1e9)}
        return told | {"ts": _iso(time.time())}


class Bucket:
    """A token bucket: ``per_minute`` on average, and as many at once; half are kept for what is not in `_RESERVE`."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = float(per_minute), per_minute / 60.0, clock
        self._tokens, self._last = self._most, clock()

    def take(self, kind: str = "") -> bool:
        """Take a token where there is one."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < 1.0 + (self._most // 2 if kind in _RESERVE else 0.0):
            return False
        self._tokens -= 1.0
        return True


def targets_of(config: AlertsConfig, environment: Mapping[str, str] = os.environ) -> list[Target]:
    """Return whom to tell, with the secrets that the environment has.

    Raises
    ------
    LSTMStrategyError
        Where a variable is not set, or holds no URL; its value is not told.
    """
    found = []
    for service, variable in (("slack", config.slack), ("discord", config.discord), ("webhook", config.webhook)):
        if variable is not None:
            url = _value(f"live.alerts.{service}", variable, environment)
            if not _is_url(url):
                raise LSTMStrategyError(
                    f"live.alerts.{service}: the value of {variable} is not an https:// URL; correct it"
                )
            found.append(Target(service, url, {}))
    if config.telegram_token is not None and config.telegram_chat is not None:
        token = _value("live.alerts.telegram_token", config.telegram_token, environment)
        chat = _value("live.alerts.telegram_chat", config.telegram_chat, environment)
        found.append(Target("telegram", f"{config.telegram_api}/bot{token}/sendMessage", {"chat_id": chat}))
    return found


class Alerts(Consumer):
    """Tells each target by itself: a slow or failing one keeps no other waiting, and none keeps the node.

    A halt and a stop are never held back, and go before what waits. A request is tried three times. What fails is said
    once, until one gets through again; what is held back by the rate or a full queue is counted, and the count told
    with the next alert, or by itself when there is none.

    Parameters
    ----------
    of_run : dict
        Trader and mode, which every alert names.
    say : callable
        Told, on the station's thread, that a service fails, and that it works again.
    """

    def __init__(
        self,
        config: AlertsConfig,
        targets: list[Target],
        of_run: dict[str, str],
        say: Callable[[str], None],
        *,
        between_s: float = _BETWEEN_S,
    ) -> None:
        self._config, self._of_run = config, of_run
        self._lines = [_Line(config, target, of_run, say, between_s) for target in targets]
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many were sent, held back and lost, by service."""
        return {
            line.target.service: {"sent": line.sent, "held_back": line.held_back, "lost": line.lost}
            for line in self._lines
        }

    def on_event(self, event: Event) -> None:
        """Put it in line, or count it; never waits."""
        if event.kind in self._config.events:
            for line in self._lines:
                line.put(event)

    async def start(self) -> None:
        """Begin to send."""
        timeout = aiohttp.ClientTimeout(total=self._config.timeout)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True)
        self._tasks = [asyncio.ensure_future(line.work(self._session)) for line in self._lines]

    async def stop(self) -> None:
        """Send what waits, for a few seconds at most."""
        for line in self._lines:
            line.end()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_LAST_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


class _Line:
    """One target's queue, rate and state."""

    def __init__(
        self, config: AlertsConfig, target: Target, of_run: dict[str, str], say: Callable[[str], None], between_s: float
    ) -> None:
        self.target, self.sent, self.held_back, self.lost = target, 0, 0, 0
        self._of_run, self._say, self._between_s = of_run, say, between_s
        self._bucket, self._untold = Bucket(config.per_minute), 0
        self._pause_s = 60.0 / config.per_minute
        self._queue: deque[Event] = deque()
        self._first: deque[Event] = deque(maxlen=_MOST_ALWAYS)
        self._wake = asyncio.Event()
        self._ending, self._failing = False, False

    def put(self, event: Event) -> None:
        if event.kind in _ALWAYS:
            self._bucket.take(event.kind)  # where there is a token left
            self._first.append(event)
        elif len(self._queue) >= _QUEUE or not self._bucket.take(event.kind):
            self.held_back += 1
            self._untold += 1
        else:
            self._queue.append(event)
        self._wake.set()

    def end(self) -> None:
        self._ending = True
        self._wake.set()

    async def work(self, session: aiohttp.ClientSession) -> None:
        """Send one after the other; end when asked to, and nothing waits."""
        while not (self._ending and not self._first and not self._queue and not self._untold):
            event = None
            if waiting := self._first or self._queue:
                event = waiting.popleft()
            elif not (self._untold and (self._ending or self._bucket.take(_COUNT))):
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._pause_s if self._untold else None)
                continue
            untold, self._untold = self._untold, 0
            text = self._text(event, untold)
            trouble = await self._send(session, self.target.body(text, event, self._of_run))
            if trouble is None:
                self.sent += 1
                if self._failing:
                    self._say(f"alerts reach {self.target.service} again; {self.lost} were lost so far")
                self._failing = False
                continue
            self.lost += event is not None
            self._untold += untold
            if self._ending:
                self._untold = 0
            if not self._failing:
                self._say(f"alerts do not reach {self.target.service} ({trouble}); trading goes on without them")
            self._failing = True

    def _text(self, event: Event | None, untold: int) -> str:
        more = f"{untold} {'alert was' if untold == 1 else 'alerts were'} held back to keep to the rate"
        trader, mode = self._of_run.get("trader", ""), self._of_run.get("mode", "")
        if event is None:
            return f"{trader} ({mode}): {more}"
        name = f" {event.instrument}" if event.instrument else ""
        text = f"{_SIGNS.get(event.kind, '•')} {trader} ({mode}) {event.kind}{name}: {event.text}"[:_MOST_TEXT]
        return f"{text} [{more}]" if untold else text

    async def _send(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> str | None:
        """Send; return what went wrong, in words without an address."""
        trouble = ""
        for attempt in range(1 if self._ending else _ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._between_s * 2 ** (attempt - 1))
            try:
                async with session.post(self.target.url, json=body, allow_redirects=False) as reply:
                    if reply.status < 300:
                        return None
                    trouble = f"it answers {reply.status}"
                    if 400 <= reply.status < 500 and reply.status != 429:
                        return trouble  # the same again would be answered the same
            except TimeoutError:
                trouble = "no answer in time"
            except (aiohttp.ClientError, OSError, ValueError) as error:  # their texts name the address
                trouble = type(error).__name__
        return trouble


def _value(key: str, variable: str, environment: Mapping[str, str]) -> str:
    value = environment.get(variable, "").strip()
    if not value:
        raise LSTMStrategyError(f"{key} names the environment variable {variable}, which is not set; set it")
    return value


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
        return bool(parts.hostname) and (parts.scheme == "https" or local)
    except ValueError:
        return False


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
