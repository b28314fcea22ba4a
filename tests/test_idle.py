"""What no order waits for: put off until after the handler, one piece at a time, and left out where nothing is new."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nautilus_trader.common.component import LiveClock, TestClock
from test_decision_log import HEADER, entry

from lstm_strategy.decision_log import DecisionLog, parts_of
from lstm_strategy.nautilus.idle import Idle
from lstm_strategy.nautilus.record import Journal


def test_pieces_are_done_after_the_handler_once_each_and_in_turn_a_backtests_at_once() -> None:
    done: list[str] = []

    async def handle() -> None:
        idle = Idle(LiveClock())
        for name in "abca":
            idle.give(name, lambda name=name: done.append(name))  # type: ignore[misc]
        done.append("handler")
        while len(done) < 4:
            await asyncio.sleep(0.005)
        idle.give("a", lambda: done.append("a again"))
        async with asyncio.timeout(30.0):
            while len(done) < 5:
                await asyncio.sleep(0.005)

    asyncio.run(handle())
    assert done == ["handler", "a", "b", "c", "a again"]
    now = Idle(TestClock())
    assert not now.waits
    now.give("x", lambda: done.append("x"))
    assert done[-1] == "x"


def test_a_log_that_is_due_asks_for_its_turn_and_is_written_then_and_only_where_there_is_anything(
    tmp_path: Path,
) -> None:
    asked: list[int] = []
    rows = [entry(hour) for hour in range(1, 9)]
    log = DecisionLog(tmp_path, HEADER, part_rows=5, flush_s=1e9, when_due=lambda: asked.append(1))
    for row in rows[:7]:
        log.add(row)
    assert len(asked) == 2  # with the sixth and the seventh
    assert not parts_of(tmp_path)
    log.flush()
    first, second = parts_of(tmp_path)
    for path in (first, second):
        os.utime(path, (5e8, 5e8))  # a file system's clock may stand still between two writes
    log.flush()
    assert [path.stat().st_mtime for path in (first, second)] == [5e8, 5e8]
    log.add(rows[7])
    log.flush()
    assert [path.stat().st_mtime == 5e8 for path in (first, second)] == [True, False]
    at_once = DecisionLog(tmp_path / "other", HEADER, flush_s=0.0, when_due=lambda: asked.append(2))
    at_once.add(rows[0])
    assert asked[-1] == 2
    assert not parts_of(tmp_path / "other")


def test_the_names_of_a_node_share_what_their_logs_hold_in_memory(tmp_path: Path) -> None:
    session: Any = SimpleNamespace(model=SimpleNamespace(label="m/1"))

    def rows(clock: Any, names: int) -> int:
        journal = Journal(session, session, tmp_path, HEADER, Idle(clock), names)
        return journal._decision_log._part_rows

    async def on_a_loop() -> list[int]:
        return [rows(LiveClock(), names) for names in (1, 4, 100)]

    assert asyncio.run(on_a_loop()) == [2048, 512, 256]
    assert rows(TestClock(), 100) == 2048  # a backtest is over soon
