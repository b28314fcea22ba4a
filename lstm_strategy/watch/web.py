"""The web page on this machine: status as it changes, metrics, and one guarded button that flattens and halts."""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lstm_strategy.board import Board
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.status import Event, Health, Snapshot
from lstm_strategy.watch.guard import HOST, Guard
from lstm_strategy.watch.metrics import Metrics
from lstm_strategy.watch.station import Consumer

__all__ = ["TOKEN_HEADER", "Web", "listen"]

TOKEN_HEADER = "x-lstm-strategy-token"  # noqa: S105 - its name

_HERE = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
}
_LEAST_S, _PING_S = 0.2, 10.0  # between two messages to a page; after which a page hears that all is still
_MOST_PAGES, _MOST_BODY, _MOST_REASON = 16, 1_024, 200


def listen(port: int) -> socket.socket:
    """Take a port of this machine alone; 0 takes any free one.

    Raises
    ------
    LSTMStrategyError
        Where it is taken.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen(64)
    except OSError as error:
        found.close()
        raise LSTMStrategyError(
            f"port {port} of {HOST} cannot be had ({error.strerror}); give --dashboard-port another, or 0 for any"
        ) from error
    return found


class Web(Consumer):
    """Serves one node's board.

    Parameters
    ----------
    of_run : dict
        What the page says of the run; never a secret.
    words : dict
        Reasons and actions in words.
    order_halt : callable
        Halts the node for a stated reason, from this thread; False where it does not run.

    Attributes
    ----------
    token : str
        Whoever has it may halt.
    """

    def __init__(
        self,
        board: Board,
        metrics: Metrics,
        of_run: Mapping[str, Any],
        words: Mapping[str, str],
        order_halt: Callable[[str], bool],
        sock: socket.socket,
        tell: Callable[[Event], None],
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self._board, self._metrics, self._of_run, self._words = board, metrics, dict(of_run), words
        self._order_halt, self._socket, self._tell = order_halt, sock, tell
        self._news: set[asyncio.Event] = set()
        self._ending = False
        files = [Route(path, self._file, methods=["GET"]) for path in _FILES]
        routes = [
            *files,
            Route("/metrics", self._get_metrics, methods=["GET"]),
            Route("/status", self._get_status, methods=["GET"]),
            Route("/events", self._get_events, methods=["GET"]),
            Route("/halt", self._post_halt, methods=["POST"]),
        ]
        self.app = Guard(Starlette(routes=routes))
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="none",
            http="h11",
            ws="none",
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self._socket.getsockname()[1]}/"

    @property
    def link(self) -> str:
        """Where the page is, with the token in the part that no browser sends."""
        return f"{self.url}#token={self.token}"

    async def start(self) -> None:
        """Begin to serve."""
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise LSTMStrategyError("the dashboard's server ended as it started")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End the pages' streams, then the server."""
        self._ending = True
        self._wake()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Tell the pages."""
        self._wake()

    def on_event(self, event: Event) -> None:
        """Tell the pages."""
        self._wake()

    def on_health(self, health: Health) -> None:
        """Leave it to the next message: most of the time nothing has changed."""

    def status(self, since: int = 0) -> dict[str, Any]:
        """Return the board as plain values; of points and events those numbered above ``since``."""
        board = self._board
        return {
            "number": board.number,
            "now": time.time_ns(),
            "run": self._of_run,
            "words": self._words if not since else {},
            "instruments": {
                name: {
                    "latest": _plain(snapshot),
                    "points": [point for point in board.points[name] if point.number > since],
                    "counts": {reason: count for (whose, reason), count in board.counts.items() if whose == name},
                }
                for name, snapshot in board.latest.items()
            },
            "events": [(number, event) for number, event in board.events if number > since],
            "health": board.health,
            "halt": {"reason": board.halt, "text": board.halt_text},
        }

    def _wake(self) -> None:
        for news in self._news:
            news.set()

    async def _file(self, request: Request) -> Response:
        name, kind = _FILES[request.url.path]
        return Response((_HERE / name).read_bytes(), headers={"content-type": kind})

    async def _get_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"content-type": self._metrics.content_type})

    async def _get_status(self, request: Request) -> Response:
        return Response(msgspec.json.encode(self.status()), media_type="application/json")

    async def _get_events(self, request: Request) -> Response:
        if len(self._news) >= _MOST_PAGES:
            return PlainTextResponse(f"{_MOST_PAGES} pages are open already; close one\n", 503)
        news = asyncio.Event()
        self._news.add(news)
        return _Stream(self._stream(news), lambda: self._news.discard(news))

    async def _stream(self, news: asyncio.Event) -> AsyncIterator[bytes]:
        """Send what is new, at most five times a second: nothing is queued for a page that is slow."""
        since = 0
        while not self._ending:
            message = self.status(since)
            since = self._board.number
            yield b"data: " + msgspec.json.encode(message) + b"\n\n"
            await asyncio.sleep(_LEAST_S)
            try:
                await asyncio.wait_for(news.wait(), _PING_S)
            except TimeoutError:
                continue
            news.clear()
        yield b"event: end\ndata: {}\n\n"

    async def _post_halt(self, request: Request) -> Response:
        """Halt, where the request comes from the page itself and has the token."""
        headers = request.headers
        if headers.get("origin") != f"http://{headers.get('host')}":
            return _refused("the request does not come from the dashboard's own page")
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _refused("the request comes from another site")
        given = headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            if given:
                self._tell(Event(kind="refusal", text="somebody gave a wrong token to halt", ts=time.time_ns()))
            return _refused("the token is missing or wrong; the node's terminal shows it")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY:
                return JSONResponse({"error": "the reason is too long"}, 413)
        reason = " ".join(body.decode("utf-8", "replace").split())[:_MOST_REASON]
        reason = "".join(letter for letter in reason if letter.isprintable())
        if not self._order_halt(f"dashboard: {reason or 'flatten and halt'}"):
            return JSONResponse({"error": "the node does not trade (yet, or any more)"}, 409)
        return JSONResponse({"halt": "ordered"}, 202)


class _Stream(StreamingResponse):
    """Server-sent events; calls ``on_end`` however they end, even before they have begun."""

    def __init__(self, content: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _refused(why: str) -> Response:
    return JSONResponse({"error": why}, 403)


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as plain values; each limit with its room."""
    found = msgspec.structs.asdict(snapshot)
    found["headroom"] = [
        one._asdict() | {"room": None if math.isnan(one.room) else one.room} for one in snapshot.headroom
    ]
    found["coverage"] = [one._asdict() for one in snapshot.coverage]
    return found
