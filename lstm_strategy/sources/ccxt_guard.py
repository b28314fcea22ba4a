"""What stands between CCXT and a bad server: replies of bounded length, only JSON, statuses taken for what they are."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import Any

import aiohttp
import ccxt.async_support as ccxt

from lstm_strategy.sources.ccxt_page import BadPageError

__all__ = ["PAGE_BYTES", "Hope", "Limit", "bounded_response", "guarded", "hope", "reason_of", "stay_home"]

PAGE_BYTES = 8 << 20


class Limit:
    """How long a reply may be at present, in bytes."""

    def __init__(self) -> None:
        self.bytes = PAGE_BYTES


class _TooLongError(Exception):
    """A reply beyond all bounds."""


class _ThrottledError(ccxt.RateLimitExceeded):  # type: ignore[misc]
    """Asked to be quiet, for ``retry_after_s`` where the exchange said so."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class _RefusedError(ccxt.ExchangeError):  # type: ignore[misc]
    """A status of 4xx that asking again will not change."""


class _ElsewhereError(ccxt.ExchangeError):  # type: ignore[misc]
    """A redirect to somebody else."""


def stay_home() -> aiohttp.TraceConfig:
    """Return a trace that refuses a redirect to another scheme, host or port."""

    async def redirected(_: Any, __: Any, told: aiohttp.TraceRequestRedirectParams) -> None:
        target = told.response.headers.get("Location") or told.response.headers.get("URI") or ""
        if told.url.join(type(told.url)(target)).origin() != told.url.origin():
            raise _ElsewhereError("it redirects to another scheme, host or port")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(redirected)
    return trace


def bounded_response(limit: Limit) -> type[aiohttp.ClientResponse]:
    """Return a class of responses that stop reading at the limit, unpacked bytes counted."""

    class Bounded(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                try:
                    parts, length = [], 0
                    while chunk := await self.content.readany():
                        length += len(chunk)
                        if length > limit.bytes:
                            raise _TooLongError(f"the reply is longer than {limit.bytes >> 20} MiB")
                        parts.append(chunk)
                    self._body = b"".join(parts)
                except BaseException:
                    self.close()
                    raise
            return await super().read()

    return Bounded


def guarded(kind: type) -> type:
    """Return CCXT's class of an exchange with its doors shut."""

    class Guarded(kind):  # type: ignore[misc]
        def on_rest_response(self, code: int, reason: str, url: str, method: str, headers: Any, *rest: Any) -> Any:
            if code in (418, 429):
                raise _ThrottledError(f"HTTP {code} {reason}", _retry_after(headers))
            if code >= 500:
                raise ccxt.ExchangeNotAvailable(f"HTTP {code} {reason}")
            return super().on_rest_response(code, reason, url, method, headers, *rest)

        def handle_http_status_code(self, code: int, reason: str, url: str, method: str, body: str) -> None:
            if code in (401, 407, 511):
                raise ccxt.AuthenticationError(f"HTTP {code} {reason}")
            if 400 <= code < 500 and code not in (408, 425):  # CCXT takes a 404 for a passing outage
                raise _RefusedError(f"HTTP {code} {reason} {body[:200]}")
            super().handle_http_status_code(code, reason, url, method, body)

        async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            reply = await super().fetch(url, method, headers, body)
            if not isinstance(reply, dict | list):  # CCXT takes the characters of a text for rows
                raise ccxt.BadResponse("the reply is not JSON")
            return reply

        def parse_ohlcvs(self, ohlcvs: Any, market: Any = None, *_: Any, **__: Any) -> list[Any]:
            # CCXT drops rows from before `since` and beyond `limit`, and with them every sign of a wrong unit of time
            # or of a venue that does not heed `since`.
            if not isinstance(ohlcvs, list):
                raise ccxt.BadResponse("the reply has no list of bars")
            return [self.parse_ohlcv(row, market) for row in ohlcvs]

    Guarded.__name__ = Guarded.__qualname__ = kind.__name__
    return Guarded


class Hope(IntEnum):
    """What asking again may help."""

    NONE = 0
    SOME = 1  # the server seems wrong rather than busy
    MUCH = 2


def hope(error: BaseException) -> Hope:
    """Say whether asking again may help."""
    cause = error.__cause__
    if isinstance(error, BadPageError | _TooLongError) or isinstance(cause, aiohttp.TooManyRedirects):
        return Hope.SOME
    if isinstance(
        error, ccxt.AuthenticationError | ccxt.BadSymbol | ccxt.NotSupported | _RefusedError | _ElsewhereError
    ):
        return Hope.NONE
    if isinstance(cause, aiohttp.InvalidURL):
        return Hope.NONE
    passing = ccxt.OperationFailed | ccxt.BadResponse | ccxt.NullResponse
    if isinstance(cause, aiohttp.ClientError) or isinstance(error, passing | aiohttp.ClientError | OSError):
        return Hope.MUCH
    # A reply that CCXT could not take apart may come right; what the exchange itself refuses will not.
    torn = isinstance(error, LookupError | TypeError | ValueError | AttributeError | ArithmeticError)
    return Hope.SOME if torn else Hope.NONE


def reason_of(error: BaseException) -> str:
    """Return what went wrong in a few words; addresses are left out."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.TooManyRedirects):
        return "it redirects without end"
    if isinstance(error, ccxt.RequestTimeout):
        return "no reply in time"
    if isinstance(cause, aiohttp.ClientError | OSError):
        return f"{type(cause).__name__} {cause}"
    if isinstance(error, BadPageError | _TooLongError):
        return str(error)
    if isinstance(error, ccxt.BaseError):
        return f"{type(error).__name__.strip('_')} {error}"
    return f"the reply cannot be understood ({type(error).__name__})"


def _retry_after(headers: Any) -> float | None:
    """Return the seconds of silence asked for; a date counts too."""
    told = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
