"""The local exchange: one asyncio server that speaks several venues' protocols over recorded or simulated bars."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.binance import register_binance
from lstm_strategy.replay.binance_orders import register_orders
from lstm_strategy.replay.binance_rules import load_exchange_info
from lstm_strategy.replay.binance_user import close_sessions, register_user_stream
from lstm_strategy.replay.coinbase import register_coinbase
from lstm_strategy.replay.exchange import EXCHANGE, Exchange
from lstm_strategy.replay.faults import NO_FAULTS, FaultBook, FaultPlan
from lstm_strategy.replay.gate import fault_gate
from lstm_strategy.replay.guard import site_guard
from lstm_strategy.replay.market import Market
from lstm_strategy.replay.stream import HUB, register_streams
from lstm_strategy.replay.timeline import Clock, plan
from lstm_strategy.replay.trading import TRADING, Trading, TradingConfig

__all__ = ["PROTOCOLS", "ReplayConfig", "ReplayServer", "serve"]

# What the exchange speaks. Each adds its routes to the application and finds the rest under `exchange.EXCHANGE` and,
# where there is an account, `trading.TRADING`.
PROTOCOLS: tuple[Callable[[web.Application], None], ...] = (
    register_binance,
    register_orders,
    register_streams,
    register_user_stream,
    register_coinbase,
)

_LARGEST_REQUEST = 64 << 10  # bytes
_MOST_STEPS = 1_000_000
_BACKLOG = 1_024  # connections that wait to be taken while the loop is busy: beyond it the system refuses them


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """What to serve and how.

    Parameters
    ----------
    markets : tuple of Market
        See `recordings`. Spot and perpetual markets of one symbol may stand side by side.
    host, port
        The address; port 0 takes any free one.
    speed : float
        Of the clock: 1 is real time, 3,600 an hour a second.
    step : bool
        The clock stands still until `ReplayServer.step` or POST /replay/step, sent as application/json.
    start : str, optional
        Where history ends and the stream begins: a date or a number of bars; None: all bars are past.
    shift : bool
        Move stamps by whole days so that history ends now; see `timeline.plan`.
    seed : int
        Of the forming candles and the faults.
    faults : FaultPlan
        What goes wrong.
    exchange_info : Path, optional
        A saved ``exchangeInfo`` reply of Binance, from which spot markets take their rules.
    unfinished : bool
        Whether replies with history end with the forming candle, as venues do. A client that tells it by its own clock
        (the NautilusTrader adapter does) takes it for a closed one where the venue's clock is behind, as it is unless
        ``shift``: serve such a client without.
    updates : int
        Events of the forming candle in each recorded bar (at low speed one each 2 s); 0: closed candles alone.
    trading : TradingConfig, optional
        The account of spot orders; without one every signed request is refused.
    """

    markets: tuple[Market, ...]
    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 1.0
    step: bool = False
    start: str | None = None
    shift: bool = False
    seed: int = 1
    faults: FaultPlan = NO_FAULTS
    exchange_info: Path | None = None
    unfinished: bool = True
    updates: int = 2
    trading: TradingConfig | None = None

    def __post_init__(self) -> None:
        for name, allowed, what in (
            ("speed", 0.0 < self.speed <= 1e9, "above 0 and up to 1e9"),
            ("updates", 0 <= self.updates <= 1_000, "0 to 1,000"),
            ("port", 0 <= self.port <= 65_535, "0 to 65,535"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not allowed:
                raise LSTMStrategyError(f"replay: {name} is {getattr(self, name)}; it must be {what}")


@dataclass(frozen=True, slots=True)
class ReplayServer:
    """A replay that listens.

    Attributes
    ----------
    http_url, ws_url : str
        Without a path: ``http://127.0.0.1:8080`` and ``ws://127.0.0.1:8080``, as clients take for base URLs.
    exchange : Exchange
        Its state; ``exchange.faults.injected`` counts the faults.
    trading : Trading, optional
        Its account and books.
    driver : asyncio.Task, optional
        What advances the streams; it ends when no bar is left, or with the error that stopped it.
    """

    http_url: str
    ws_url: str
    port: int
    exchange: Exchange
    trading: Trading | None
    driver: asyncio.Task[None] | None

    async def step(self, bars: int = 1) -> int:
        """Close the next bars; return how many there were. All events have been written when this returns."""
        return await self.exchange.step(bars)

    def state(self) -> dict[str, Any]:
        """Return what GET /replay/state does."""
        return self.exchange.state()


@asynccontextmanager
async def serve(config: ReplayConfig) -> AsyncIterator[ReplayServer]:
    """Serve while the block runs; all sockets are closed when it ends.

    Raises
    ------
    LSTMStrategyError
        Where the markets do not go together or the address is not free.
    """
    saved = load_exchange_info(config.exchange_info) if config.exchange_info else {}
    book = FaultBook(config.faults, config.seed)
    laid = plan(config.markets, start=config.start, shift=config.shift, by_hand=config.step, seed=config.seed)
    app = web.Application(client_max_size=_LARGEST_REQUEST, middlewares=[site_guard(config.host), fault_gate])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    clock = Clock(laid.origin, config.speed, by_hand=config.step)
    exchange = app[EXCHANGE] = Exchange(laid, clock, book, config.updates, saved, config.unfinished)
    if config.trading is not None:  # before the streams: fills are known when the bar that made them is told
        app[TRADING] = Trading(exchange, config.trading)
        exchange.listeners.append(app[TRADING].advance)
    for register in PROTOCOLS:
        register(app)
    app.router.add_get("/replay/state", _state)
    app.router.add_post("/replay/step", _step)
    app.router.add_get(r"/replay/redirect/{count:[0-9]{1,7}}", _redirect)
    driver: asyncio.Task[None] | None = None
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, config.host, config.port, backlog=_BACKLOG).start()
        except OSError as error:
            raise LSTMStrategyError(
                f"replay: cannot listen on {config.host} port {config.port}: {error.strerror or error}; --port 0 takes"
                " any free one"
            ) from error
        port = int(runner.addresses[0][1])
        if not config.step:
            driver = asyncio.create_task(exchange.run())
        name = f"[{config.host}]" if ":" in config.host else config.host
        trading = app.get(TRADING)
        yield ReplayServer(f"http://{name}:{port}", f"ws://{name}:{port}", port, exchange, trading, driver)
        if driver is not None and driver.done():
            driver.result()  # an error of the streams is the caller's to know
    finally:
        if driver is not None:
            driver.cancel()
            await asyncio.gather(driver, return_exceptions=True)
        if TRADING in app:
            await app[TRADING].close()
        await close_sessions(app)
        await app[HUB].close()
        await runner.cleanup()


async def _state(request: web.Request) -> web.Response:
    state = request.app[EXCHANGE].state() | {"sockets": len(request.app[HUB].connections)}
    if TRADING in request.app:
        state["trading"] = request.app[TRADING].state()
    return web.Response(body=msgspec.json.encode(state), content_type="application/json")


async def _step(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    try:
        bars = msgspec.json.decode(await request.read() or b"{}", type=dict[str, int]).get("bars", 1)
    except msgspec.MsgspecError:
        bars = 0
    if not exchange.clock.by_hand or not 1 <= bars <= _MOST_STEPS:
        problem = (
            "the clock runs by itself; start with --step" if not exchange.clock.by_hand else "bars must be a number"
        )
        return web.Response(status=400, body=msgspec.json.encode({"error": problem}), content_type="application/json")
    done = await exchange.step(bars)
    return web.Response(
        body=msgspec.json.encode({"closed": done, "now": exchange.now() // 1_000_000}), content_type="application/json"
    )


async def _redirect(request: web.Request) -> web.Response:
    count = request.match_info["count"]
    return web.Response(status=302, headers={"Location": f"/replay/redirect/{(int(count) + 1) % 1_000_000}"})
