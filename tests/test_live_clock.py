"""The live engine's clock: on which thread its timers run, and which bars it is too early for."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

from nautilus_trader.common.component import LiveClock, TestClock

from lstm_strategy.bars import Timeframe
from lstm_strategy.nautilus.engine import on_loop
from lstm_strategy.nautilus.history import of_the_future


def test_timers_run_on_the_loop_and_not_in_the_clocks_own_thread() -> None:
    """The live clock of 1.x calls from a thread of its own: whatever it called would race with the bars."""

    async def work() -> tuple[set[int], set[int]]:
        raw: set[int] = set()
        ours: set[int] = set()
        clock, heard = LiveClock(), asyncio.Event()

        def here(_event: Any) -> None:
            ours.add(threading.get_ident())
            heard.set()

        clock.set_timer("raw", timedelta(milliseconds=5), callback=lambda _: raw.add(threading.get_ident()))
        clock.set_timer("ours", timedelta(milliseconds=5), callback=on_loop(clock, here))
        async with asyncio.timeout(10):
            await heard.wait()
            while not raw:
                await asyncio.sleep(0.005)
        clock.cancel_timers()
        return raw, ours

    raw, ours = asyncio.run(work())
    assert ours == {threading.get_ident()}
    assert raw.isdisjoint(ours), "the engine has mended it: on_loop can go"
    assert on_loop(TestClock(), print) is print


def test_a_bar_of_the_future_is_told_by_clock_and_the_bar_before() -> None:
    minute, day = Timeframe.parse("1m"), Timeframe.parse("1d")
    now = 1_000 * day.ns
    assert not of_the_future(now + minute.ns, now, None, minute)
    assert of_the_future(now + 3 * minute.ns, now, None, minute)
    assert not of_the_future(
        now + 3 * minute.ns, now, now + 2 * minute.ns, minute
    )  # the clock is behind, the bars go on
    assert of_the_future(now + 2 * day.ns, now, now, day)
