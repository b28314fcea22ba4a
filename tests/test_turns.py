"""Many instruments that ask for bars at the same time: bounded at once, none forgotten, none asked for without need."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
from engine_support import HOUR
from nautilus_trader.backtest.engine import BacktestEngine
from panel_support import COINS, play, strategy, tell_each, walks
from replay_support import simulated

from lstm_strategy.nautilus import turns as room
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
from lstm_strategy.nautilus.turns import Turns
from lstm_strategy.replay.server import ReplayConfig, serve


def test_no_more_than_so_many_have_a_turn_and_each_gets_one() -> None:
    now, went = [0], []
    turns = Turns(lambda: now[0], 100, 2)
    for name in "abcde":
        turns.take(name, lambda name=name: went.append(name))  # type: ignore[misc]
    assert went == ["a", "b"]
    assert turns.crowd == 2
    turns.leave("b", answered=True)
    turns.leave("d")  # it waits no longer
    assert went == ["a", "b", "c"]
    now[0] = 99
    turns.move_on()
    assert went == ["a", "b", "c"]
    now[0] = 100  # of those two nobody has heard again
    turns.move_on()
    assert went == ["a", "b", "c", "e"]
    assert turns.answers == 1


def test_who_asks_again_waits_behind_the_others() -> None:
    went: list[str] = []
    turns = Turns(lambda: 0, 100, 1)
    turns.take("a", lambda: went.append("a"))
    turns.take("b", lambda: went.append("b"))
    turns.take("a", lambda: went.append("a again"))
    assert went == ["a", "b"]
    assert turns.waits("a")
    turns.leave("b")
    assert went == ["a", "b", "a again"]


def test_who_can_wait_does_and_leaves_half_of_the_turns_to_others() -> None:
    went: list[str] = []
    turns = Turns(lambda: 0, 100, 4)

    def take(name: str, *, can_wait: bool) -> None:
        turns.take(name, lambda: went.append(name), can_wait=can_wait)

    for name in ("audit 1", "audit 2", "audit 3"):
        take(name, can_wait=True)
    for name in "abc":
        take(name, can_wait=False)
    assert went == ["audit 1", "audit 2", "a", "b"]
    turns.leave("audit 1")
    assert went[4:] == ["c"]  # before the third
    turns.leave("a")
    turns.leave("b")
    assert went[5:] == []  # two have half of them
    turns.leave("c")
    assert went[5:] == ["audit 3"]


class Asks(LSTMPortfolioStrategy):
    """Notes what it asks for; a question is answered when told."""

    asked: list[tuple[str, Any]]
    answers_at: dict[int, int]  # by hour: so many of the questions that are open
    most = 0

    def request_bars(self, bar_type: Any, *, start: datetime, callback: Any) -> None:
        self.asked = [*getattr(self, "asked", []), (bar_type.instrument_id.value, callback)]
        self.open = [*getattr(self, "open", []), callback]
        self.most = max(self.most, len(self.open))

    def on_bar(self, bar: Any) -> None:
        super().on_bar(bar)
        for _ in range(self.answers_at.pop(bar.ts_event // HOUR.ns, 0)):
            self.open.pop(0)(None)


def test_histories_are_asked_for_one_after_the_other_and_all_arrive(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001, warmup_bars=20)
    monkeypatch.setattr(room, "MOST", 1)
    made = strategy(Asks, history_timeout_s=6 * 3600.0)
    made.answers_at = {2: 1, 4: 1, 6: 1}
    play(engines, made, walks(12), {})
    assert [name for name, _ in made.asked] == sorted(COINS)
    assert made.most == 1
    assert not made.collecting
    assert made.failure is None
    for seat in made.seats.values():
        assert seat.session.model.forecaster.seen == [hour * HOUR.ns for hour in range(1, 13)]


def test_a_venue_that_answers_nobody_is_given_up_by_those_too_who_wait_for_their_turn(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    monkeypatch.setattr(room, "MOST", 1)
    made = strategy(Asks, history_timeout_s=1.5 * 3600.0, history_attempts=3)
    made.answers_at = {}
    play(engines, made, walks(24), {})
    assert not made.collecting
    assert made.failure is None
    for seat in made.seats.values():
        assert len(seat.session.model.forecaster.seen) == 24


def test_the_local_exchange_takes_the_connections_of_hundreds_while_it_is_busy() -> None:
    async def connect() -> None:
        async with serve(ReplayConfig(markets=(simulated(bars=20),), start="10")) as server:
            with ExitStack() as stack:  # its loop stands still meanwhile
                for _ in range(300):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=1.0))

    asyncio.run(connect())
