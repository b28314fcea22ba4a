"""The node: an experiment's strategy on NautilusTrader's `TradingNode`, on paper, on a replay, or with real money.

Beside it: `adapters` (the venues), `paper_venue` (the simulated venue), `rehearsal` (the local exchange), `live_config`
(the settings), `live_results` (the run folder), `status` (what it tells whoever watches: give `run_node` an observer).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from nautilus_trader.cache.config import CacheConfig
from nautilus_trader.config import (
    LiveDataEngineConfig,
    LiveExecEngineConfig,
    LiveRiskEngineConfig,
    LoggingConfig,
    TradingNodeConfig,
)
from nautilus_trader.live.node import TradingNode
from nautilus_trader.trading.config import StrategyFactory

from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import LiveConfig
from lstm_strategy.nautilus.adapters import Adapter, Wiring
from lstm_strategy.nautilus.backtest import strategy_of
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.bar_path import path_module
from lstm_strategy.nautilus.engine import InstrumentId, Venue
from lstm_strategy.nautilus.fence import fence
from lstm_strategy.nautilus.market import venue_modules
from lstm_strategy.nautilus.paper_venue import PaperVenue, PaperVenueConfig, Terms, paper_factory
from lstm_strategy.nautilus.reach import last_error, wait_until_reached
from lstm_strategy.nautilus.rehearsal import Rehearsal, Stage, rehearse
from lstm_strategy.nautilus.source import on_disk
from lstm_strategy.nautilus.status import Observers

__all__ = ["NodeRun", "NodeSettings", "run_node"]

_CONNECTING_S, _DISCONNECTING_S = 30.0, 3.0
_POLL_S = 0.02

type Ended = Literal["signal", "replay", "engine", "failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node runs.

    Parameters
    ----------
    trading : BacktestSettings
        As a backtest of the same experiment would have it.
    real : bool
        Whether orders go to the venue; else to the simulated one.
    run_folder : Path
        Exists, and gets the node's log, decisions and results.
    state_folder : Path
        What a restart must know, and the kill file.
    currency : str
        In which the account is kept.
    """

    trading: BacktestSettings
    live: LiveConfig
    adapter: Adapter
    real: bool
    trader_id: str
    run_folder: Path
    state_folder: Path
    currency: str
    rehearsal: Rehearsal | None = None


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A node that has ended, for its results: to be read before it is disposed of."""

    node: TradingNode
    strategy: Any
    ended: Ended
    seconds: float


async def run_node(
    settings: NodeSettings, observers: Observers, on_end: Callable[[NodeRun], Awaitable[None] | None]
) -> None:
    """Start, trade until a signal (SIGINT, SIGTERM) or the end of the replay, stop; then give ``on_end`` the node.

    SIGUSR1 halts: it cancels, closes, and leaves the node running.

    Raises
    ------
    LSTMStrategyError
        For whatever keeps it from starting, before any order.
    Exception
        Whatever stopped the strategy, unchanged, after ``on_end``.
    """
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        stage = None if settings.rehearsal is None else await stack.enter_async_context(rehearse(settings.rehearsal))
        model = stack.enter_context(on_disk(settings.trading.model))
        if stage is None:
            await wait_until_reached(settings.adapter, settings.live, observers)
        node, strategy, venue = _build(settings, model, stage)
        stack.callback(_dispose, node, venue)
        strategy.record.listener = observers.decided
        stop = _listen_to_signals(strategy)
        await _start(settings, node, observers)
        ended = await _trade(settings, node, strategy, venue, stage, stop, observers)
        await _stop(settings, node, strategy)
        result = on_end(NodeRun(node, strategy, ended, time.perf_counter() - began))
        if result is not None:
            await result
        if strategy.failure is not None:
            raise strategy.failure


def _build(settings: NodeSettings, model: Path, stage: Stage | None) -> tuple[TradingNode, Any, PaperVenue | None]:
    trading, adapter = settings.trading, settings.adapter
    venue_name = trading.instrument_id.rpartition(".")[2]
    wiring = Wiring((trading.instrument_id,), settings.live.testnet, venue=venue_name)
    if stage is not None:
        wiring = wiring._replace(testnet=False, http=stage.server.http_url, ws=stage.server.ws_url)
    clients = adapter.clients(wiring)
    second = fence(trading.limits, [trading.instrument_id])
    rate = second.max_order_submit_rate if stage is None else "1000/00:00:01"  # by the wall: a replay races past it
    node = TradingNode(
        TradingNodeConfig(
            trader_id=settings.trader_id,
            logging=LoggingConfig(
                log_level="OFF",
                log_level_file="INFO",
                log_directory=str(settings.run_folder),
                log_file_name="node",
                log_file_format="json",
                log_colors=False,
            ),
            cache=CacheConfig(),
            data_engine=LiveDataEngineConfig(graceful_shutdown_on_exception=True),
            risk_engine=LiveRiskEngineConfig(
                max_order_submit_rate=rate,
                max_notional_per_order=second.max_notional_per_order,
                graceful_shutdown_on_exception=True,
            ),
            exec_engine=LiveExecEngineConfig(
                graceful_shutdown_on_exception=True,
                # The simulated venue answers at once, and knows no reports.
                inflight_check_interval_ms=2_000 if settings.real else 0,
                **(clients.engine if settings.real else {}),
            ),
            data_clients={venue_name: clients.data},
            exec_clients={venue_name: clients.execution if settings.real else _paper(settings, venue_name)},
            timeout_connection=_CONNECTING_S,
            timeout_disconnection=_DISCONNECTING_S,
            timeout_post_stop=0.1,
        ),
        loop=asyncio.get_running_loop(),
    )
    made: list[PaperVenue] = []
    node.add_data_client_factory(venue_name, clients.data_factory)
    node.add_exec_client_factory(venue_name, clients.execution_factory if settings.real else paper_factory(made))
    log = str(settings.run_folder / "decisions")
    importable = strategy_of(trading, model, Timeframe.parse(trading.timeframe), None)
    own = {
        "refill_holes": True,
        "flatten_on_stop": settings.live.flatten_on_stop,
        "history_timeout_s": settings.live.history,
        "decision_log": log,
        "state_dir": str(settings.state_folder),
    }
    if settings.real:  # what the venue tells at the start of this instrument is the strategy's
        own["external_order_claims"] = [trading.instrument_id]
    importable = msgspec.structs.replace(importable, config=importable.config | own)
    strategy = StrategyFactory.create(importable)
    if stage is not None:
        strategy.pace = stage.pace
    node.trader.add_strategy(strategy)
    node.build()
    for venue in made:
        venue.stand_before(node.kernel)
    return node, strategy, made[0] if made else None


def _paper(settings: NodeSettings, venue_name: str) -> PaperVenueConfig:
    trading = settings.trading
    timeframe, charged = Timeframe.parse(trading.timeframe), trading.charged or trading.costs
    modules = venue_modules(trading, [trading.instrument_id])
    if trading.inside_bars:
        modules += (path_module(timeframe.ns, {trading.instrument_id: charged.spread / 2.0 + charged.slippage}),)
    share, thin = trading.participation or trading.volume_share, trading.participation is not None
    terms = Terms(charged.fee, charged.spread, charged.slippage, share, 0 if thin else 1)
    return PaperVenueConfig(
        venue=venue_name,
        starting_balances=[f"{trading.cash:.8f} {settings.currency}"],
        account_type=trading.account.upper(),
        terms={trading.instrument_id: terms},
        timeframe=trading.timeframe,
        delay_ns=trading.delay * timeframe.ns,
        liquidation_fee=trading.liquidation_fee,
        modules=modules,
        inside_bars=trading.inside_bars,
    )


def _listen_to_signals(strategy: Any) -> asyncio.Event:
    """Take the signals from the engine, which would stop without regard for what is to be flattened."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: strategy.order_halt("signal SIGUSR1"))
    return stop


async def _start(settings: NodeSettings, node: TradingNode, observers: Observers) -> None:
    """Connect, reconcile, start the strategy; its refusals come out of here."""
    instrument_id = settings.trading.instrument_id
    await node.kernel.start_async()
    if not node.trader.is_running:
        if not node.kernel.data_engine.check_connected():
            what = "its market data did not come up"
        elif not node.kernel.exec_engine.check_connected():
            what = "it did not let the account in"
        else:
            what = "positions and orders could not be reconciled"
        said = last_error(settings.run_folder)
        await node.kernel.stop_async()
        raise LSTMStrategyError(f"{settings.adapter.name}: {what}{said}; see {settings.run_folder / 'node.json'}")
    instrument = node.cache.instrument(InstrumentId.from_str(instrument_id))
    observers.step(
        "instruments", f"{instrument_id}: tick {instrument.price_increment}, lot {instrument.size_increment}"
    )
    account = node.portfolio.account(Venue(instrument_id.rpartition(".")[2]))
    held = node.cache.positions_open()
    told = ", ".join(f"{position.signed_qty:g} {position.instrument_id}" for position in held) or "no position"
    balances = ", ".join(str(balance) for balance in account.balances_total().values())
    observers.step("account", f"{balances}; {told}, {len(node.cache.orders_open())} open orders")


async def _trade(
    settings: NodeSettings,
    node: TradingNode,
    strategy: Any,
    venue: PaperVenue | None,
    stage: Stage | None,
    stop: asyncio.Event,
    observers: Observers,
) -> Ended:
    """Wait for the history, then for an end."""
    stopped = asyncio.ensure_future(stop.wait())
    watch = asyncio.ensure_future(_watch(settings, strategy, stop, observers))
    playing: asyncio.Future[Any] | None = None
    try:
        while strategy.is_running and strategy.collecting and not stop.is_set():
            await asyncio.sleep(_POLL_S)
        if strategy.is_running and not stop.is_set():
            observers.step("history", _told_of_history(strategy))
            if stage is not None and venue is not None:
                name = settings.trading.instrument_id
                playing = asyncio.ensure_future(
                    stage.play(lambda close: venue.told.get(name, 0) >= close and not strategy.collecting)
                )
        while strategy.is_running and node.kernel.is_running():
            waiting = {stopped} if playing is None else {stopped, playing}
            done, _ = await asyncio.wait(waiting, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            if stopped in done:
                return "signal"
            if playing is not None and playing in done:
                playing.result()
                return "replay"
        return "engine" if strategy.failure is None else "failure"
    finally:
        for task in (stopped, watch, playing):
            if task is not None:
                task.cancel()


async def _watch(settings: NodeSettings, strategy: Any, stop: asyncio.Event, observers: Observers) -> None:
    """Tell of silence: no bar where several should have come. Reconnecting is the adapter's."""
    bar_s = Timeframe.parse(settings.trading.timeframe).ns / 1e9
    longest = strategy.pace.wall_s(bar_s * settings.live.silence)
    seen, since, told = 0, time.monotonic(), False
    while not stop.is_set():
        await asyncio.sleep(min(longest / 4.0, 5.0))
        rows = len(strategy.record)
        if rows != seen:
            seen, since, told = rows, time.monotonic(), False
        elif not told and time.monotonic() - since > longest + (strategy.pace.wall_s(bar_s) if not seen else 0.0):
            told = True
            observers.trouble(
                f"no bar for {settings.live.silence:g} times {settings.trading.timeframe}: is the venue up?"
            )


def _told_of_history(strategy: Any) -> str:
    last, needed, missing = strategy.progress
    text = "none" if last is None else f"up to {format_ns(last)}"
    return f"{text}; the model is ready" if not missing else f"{text}; too short: ready in {missing} of {needed} bars"


async def _stop(settings: NodeSettings, node: TradingNode, strategy: Any) -> None:
    """Stop the strategy, give its last orders their time, then end the connections."""
    if strategy.is_running:
        strategy.stop()
    late = time.monotonic() + settings.live.grace
    while settings.real and time.monotonic() < late and (node.cache.orders_inflight() or _flattening(settings, node)):
        await asyncio.sleep(_POLL_S)
    if node.kernel.is_running():
        await node.kernel.stop_async()


def _flattening(settings: NodeSettings, node: TradingNode) -> bool:
    return settings.live.flatten_on_stop and bool(node.cache.positions_open())


def _dispose(node: TradingNode, venue: PaperVenue | None) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        asyncio.get_running_loop().remove_signal_handler(name)
    node.kernel.dispose()
