"""The guard before the page: answers are for this machine by its own name, and every answer has its headers."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HOST", "Guard"]

HOST = "127.0.0.1"

_NAMES = frozenset({HOST, "localhost"})
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Answers those only who asked for this machine by name, and gives every answer its headers.

    A page of another site whose name was made to mean this machine (DNS rebinding) asks by that name, and is refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        host = hosts[0].rpartition(":")[0] if len(hosts) == 1 and ":" in hosts[0] else "".join(hosts)
        app = self._app if host in _NAMES else PlainTextResponse("asked for under another name\n", 421)
        await app(scope, receive, send_with_headers)
