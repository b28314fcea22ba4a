"""The lookout: what a node tells of while it runs, of silence and of trouble, and of its history at the start."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nautilus_trader.common.component import flush_logger

from lstm_strategy.bars import format_ns
from lstm_strategy.nautilus.lease import Lease
from lstm_strategy.nautilus.node_build import Built
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.status import Observers
from lstm_strategy.nautilus.watching import ignored_by, latched_by, said_of_models

__all__ = ["tell_of_silence", "tell_of_trouble", "told_of_history"]

_LOOK_S = 1.0
_SILENT_S = 10.0  # no replay is so fast that the machine is told to be silent any sooner


async def tell_of_silence(settings: NodeSettings, built: Built, observers: Observers) -> None:
    """Tell where no bar comes though several should have. Reconnecting is the adapter's."""
    bar_s, pace = settings.timeframe.ns / 1e9, built.strategy.pace
    longest = pace.wall_s(bar_s * settings.live.silence, _SILENT_S)
    replayed = settings.rehearsal is not None  # its first bar comes when all is ready
    seen, since, told = 0, time.monotonic(), False
    while True:
        await asyncio.sleep(min(longest / 4.0, 5.0))
        flush_logger()  # so that the log of a node that is killed lacks little
        rows = sum(record.total for record in built.records.values())
        if rows != seen or (replayed and not rows):
            if told:
                observers.trouble("bars come again")
            seen, since, told = rows, time.monotonic(), False
        elif not told and time.monotonic() - since > longest + (0.0 if seen else pace.wall_s(bar_s)):
            told = True
            observers.trouble(f"no bar for {settings.live.silence:g} times {settings.timeframe}: is the venue up?")


async def tell_of_trouble(built: Built, observers: Observers, lease: Lease | None) -> None:
    """Tell of what is latched or lifted between bars, models refused, and once of bars of the future and of coins."""
    strategy = built.strategy
    clients = [client for client in built.node.kernel.exec_engine._clients.values() if hasattr(client, "said")]
    known, told, models, adrift = "", set[str](), dict[str, int](), False

    def look() -> None:
        nonlocal known, adrift
        if lease is not None and adrift != lease.adrift():
            adrift = not adrift
            said = lease.told(adrift=adrift)
            observers.trouble(said)
            if adrift:
                strategy.recall(said)
        reason, text = latched_by(strategy)
        if reason != known:
            known = reason
            observers.latched(reason, text)
        for name, said in ignored_by(strategy).items():
            if name not in told:
                told.add(name)
                observers.trouble(f"{name}: {said}")
        for text in said_of_models(strategy, models):
            observers.trouble(text)
        for client in clients:
            while client.said:
                observers.trouble(client.said.pop(0))

    try:
        while True:
            look()
            await asyncio.sleep(_LOOK_S)
    finally:
        look()


def told_of_history(strategy: Any) -> list[str]:
    """Say of each instrument how far its history reaches, and how long it will take where that is too short."""
    found = []
    feeds = {"": strategy} if not hasattr(strategy, "seats") else {f"{n}: ": s.feed for n, s in strategy.seats.items()}
    for name, feed in feeds.items():
        last, needed, missing = feed.progress
        text = "none" if last is None else f"up to {format_ns(last)}"
        ready = "the model is ready" if not missing else f"too short: ready in {missing} of {needed} bars"
        found.append(f"{name}{text}; {ready}")
    return found
