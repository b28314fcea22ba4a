"""The node: an experiment's strategy on NautilusTrader's `TradingNode`, on paper, on a replay, or with real money.

Beside it: `node_settings` (what it runs), `node_build` (how it is put together), `adapters` (the venues), `paper_venue`
(the simulated venue), `rehearsal` (the local exchange), `lookout` (what is told while it runs), `live_results` (the run
folder), `status` (what it tells whoever watches: give `run_node` an observer).
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Literal

from nautilus_trader.live.node import TradingNode

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.cache_database import cache_answers, require_cache, told_of_cache, watch_cache
from lstm_strategy.nautilus.engine import InstrumentId, Venue
from lstm_strategy.nautilus.lease import Lease, hold_lease
from lstm_strategy.nautilus.lookout import tell_of_silence, tell_of_trouble, told_of_history
from lstm_strategy.nautilus.node_build import Built, build_node
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.obeyed import Obeyed
from lstm_strategy.nautilus.reach import last_error, wait_until_reached
from lstm_strategy.nautilus.rehearsal import Stage, rehearse
from lstm_strategy.nautilus.status import Observers
from lstm_strategy.nautilus.stop_signals import StopSignals, until_stopped
from lstm_strategy.nautilus.watching import short, short_money

__all__ = ["NodeRun", "run_node"]

_POLL_S, _LOOK_S, _CALM_S = 0.02, 1.0, 2.5
_MOST_ROWS, _FEWEST_ROWS = 500_000, 20_000  # kept in memory of all instruments (0.1 GB), and of each

type Ended = Literal["signal", "replay", "engine", "failure"]


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A node that has ended, for its results: to be read before it is disposed of.

    ``ordered``: what was told of halts that somebody ordered.
    """

    built: Built
    ended: Ended
    seconds: float
    ordered: tuple[str, ...]


async def run_node(settings: NodeSettings, observers: Observers, on_end: Callable[[NodeRun], None]) -> None:
    """Start, trade until a signal (SIGINT, SIGTERM) or the end of the replay, stop; then give ``on_end`` the node.

    SIGUSR1 halts: it cancels, closes, and leaves the node running; while the node starts it waits for that.

    Raises
    ------
    LSTMStrategyError
        For whatever keeps it from starting, before any order.
    Exception
        Whatever stopped the strategy, unchanged, after ``on_end``.
    """
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        files = stack.enter_context(ExitStack())
        stop = StopSignals(stack)
        stage = None if settings.rehearsal is None else await stack.enter_async_context(rehearse(settings.rehearsal))
        if await until_stopped(wait_until_reached(settings, observers), stop):
            raise LSTMStrategyError("stopped before the venue could be reached; nothing was sent")
        require_cache(settings)
        lease = await stack.enter_async_context(hold_lease(settings, observers))
        built = build_node(settings, stage, files)
        stack.callback(_dispose, settings, built)
        obeyed = Obeyed(built.strategy, observers)
        built.strategy.hears = obeyed.hear
        if (known := told_of_cache(settings, built.node.cache)) is not None:
            observers.step("cache", known)
        stop.listen()  # the engine has taken the signals for itself, without regard for what is to be flattened
        if await until_stopped(_start(settings, built, observers), stop):
            raise LSTMStrategyError("stopped while it was starting; nothing was sent")
        for record in built.records.values():
            record.listener = observers.decided
            if stage is None:  # a replay ends with its bars
                record.most = max(_MOST_ROWS // len(settings.names), _FEWEST_ROWS)
        observers.started(built)
        stop.on_halt(lambda: built.strategy.order_halt("signal SIGUSR1"))
        if lease is not None:
            built.strategy.adrift = lease.adrift
            lease.on_lost(lambda text: built.strategy.leave(LSTMStrategyError(text)))
        ended = await _trade(settings, built, stage, stop, observers, lease)
        await _stop(settings, built)
        on_end(NodeRun(built, ended, time.perf_counter() - began, tuple(obeyed.told)))
        if built.strategy.failure is not None:
            raise built.strategy.failure
        if ended == "engine":
            raise LSTMStrategyError(
                f"the engine shut down{last_error(settings.run_folder)}; positions are as they were"
            )


async def _start(settings: NodeSettings, built: Built, observers: Observers) -> None:
    """Connect, reconcile, start the strategy; its refusals come out of here."""
    node = built.node
    try:
        await _connect(settings, node)
    except BaseException:
        await node.kernel.stop_async()
        _require_listed(settings, node)
        raise
    if not node.trader.is_running:
        if not node.kernel.data_engine.check_connected():
            what = "its market data did not come up"
        elif not node.kernel.exec_engine.check_connected():
            what = "it did not let the account in"
        else:
            what = "positions and orders could not be reconciled"
        said = last_error(settings.run_folder)
        await node.kernel.stop_async()
        if (refusal := _refusal(node)) is not None:
            raise LSTMStrategyError(f"{settings.adapter.name}: {refusal}")
        if "-1121" in said or "Invalid symbol" in said:
            _require_listed(settings, node)
        raise LSTMStrategyError(f"{settings.adapter.name}: {what}{said}; see {settings.run_folder / 'node.jsonl'}")
    for name in settings.names:
        instrument = node.cache.instrument(InstrumentId.from_str(name))
        observers.step(
            "instrument", f"{name}: tick {short(instrument.price_increment)}, lot {short(instrument.size_increment)}"
        )
    if built.venue is not None and built.venue.story:
        observers.step("paper", built.venue.story)
    account = node.portfolio.account(Venue(settings.venue))
    held = node.cache.positions_open()
    told = ", ".join(f"{position.signed_qty:g} {position.instrument_id}" for position in held) or "no position"
    balances = ", ".join(short_money(balance) for balance in account.balances_total().values())
    keep = settings.live.keep if settings.real else {}
    kept = "".join(f"; {amount} {coin} is kept" for coin, amount in keep.items())
    observers.step("account", f"{balances}; {told}, {len(node.cache.orders_open())} open orders{kept}")


def _refusal(node: TradingNode) -> LSTMStrategyError | None:
    """Return why one of our own clients would not start."""
    found = (getattr(client, "refusal", None) for client in node.kernel.exec_engine._clients.values())
    return next((refusal for refusal in found if refusal is not None), None)


def _require_listed(settings: NodeSettings, node: TradingNode) -> None:
    """Refuse what the venue has told nothing of."""
    for name in settings.names:
        if node.cache.instrument(InstrumentId.from_str(name)) is None:
            raise LSTMStrategyError(f"{settings.adapter.name} does not list {name}; nothing was sent")


async def _connect(settings: NodeSettings, node: TradingNode) -> None:
    """Start the engines; a client that has failed does not try again, and the engine would wait for it to the end."""
    starting = asyncio.ensure_future(node.kernel.start_async())
    try:
        while not starting.done():
            await asyncio.wait({starting}, timeout=_LOOK_S)
            connected = node.kernel.data_engine.check_connected() and node.kernel.exec_engine.check_connected()
            if not connected and last_error(settings.run_folder):
                await asyncio.wait({starting}, timeout=_LOOK_S)
                return
        starting.result()
    finally:
        starting.cancel()


async def _trade(
    settings: NodeSettings,
    built: Built,
    stage: Stage | None,
    stop: StopSignals,
    observers: Observers,
    lease: Lease | None,
) -> Ended:
    """Wait for the history, then for an end."""
    strategy, kernel = built.strategy, built.node.kernel
    silence = asyncio.ensure_future(tell_of_silence(settings, built, observers))
    cache = asyncio.ensure_future(watch_cache(settings, observers))
    trouble = asyncio.ensure_future(tell_of_trouble(built, observers, lease))
    playing: asyncio.Future[int] | None = None
    waiting = True
    try:
        while strategy.is_running and kernel.is_running():
            if stop.is_set():
                return "signal"
            if playing is not None and playing.done():
                playing.result()
                return "replay"
            if waiting and not strategy.collecting:
                waiting = False
                gc.collect()
                gc.freeze()  # what a start has made stays, and is not to be looked through between two bars
                for text in told_of_history(strategy):
                    observers.step("history", text)
                if stage is not None:
                    playing = asyncio.ensure_future(stage.play(built.settled))
            await asyncio.sleep(_POLL_S)
        return "engine" if strategy.failure is None else "failure"
    finally:
        for task in (silence, cache, trouble, playing):
            if task is not None:
                task.cancel()


async def _stop(settings: NodeSettings, built: Built) -> None:
    """Stop the strategy, give its last orders their time, then end the connections."""
    node, strategy = built.node, built.strategy
    flatten = not strategy.left and (settings.live.flatten_on_stop or strategy.keeper.halted)
    if strategy.is_running:
        strategy.stop()
    late = time.monotonic() + settings.live.grace
    seen, since = None, 0.0
    while settings.real and time.monotonic() < late:
        working = len(node.cache.orders_inflight()), len(node.cache.orders_open())
        held = [position.quantity for position in node.cache.positions_open()] if flatten else []
        if (working, held) != seen:
            seen, since = (working, held), time.monotonic()
        if not working[0] and (not held or time.monotonic() - since > _CALM_S):  # what cannot be closed stays
            break
        await asyncio.sleep(_POLL_S)
    if node.kernel.is_running():
        await node.kernel.stop_async()


def _dispose(settings: NodeSettings, built: Built) -> None:
    """Leave nothing behind; what refused to start cannot be taken apart, and ends with the process.

    Nor can what has still to write to a database that does not answer: the engine would wait for each write.
    """
    gc.unfreeze()
    if built.venue is not None:
        built.venue.give_back()
    starting = any(str(state) == "STARTING" for state in built.node.trader.strategy_states().values())
    if not starting and cache_answers(settings):
        built.node.kernel.dispose()
