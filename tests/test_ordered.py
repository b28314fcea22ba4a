"""Halts that somebody ordered, as console and `explain` tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_strategy.ordered import HaltOrdered, orderer, read_ordered

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("reason", "who"),
    [
        ("signal SIGUSR1", "signal (SIGUSR1)"),
        ("KILL: enough", "the kill file (enough)"),
        ("dashboard: a test says so", "the dashboard's button (a test says so)"),
        ("margin call", "order_halt (margin call)"),
    ],
)
def test_it_is_said_who_ordered_and_what_is_closed(reason: str, who: str) -> None:
    assert orderer(reason) == who
    begins = f"1970-01-01T00:00:05Z a halt was ordered by {who}: cancels orders"
    assert HaltOrdered(5 * NS + 2, reason, {"A.X": "1.5", "B.X": "-2"}).words == f"{begins}, closes 1.5 A.X, -2 B.X"
    assert HaltOrdered(5 * NS, reason, {}).words == f"{begins}; no position is open"


def test_an_event_log_is_read_oldest_first_and_half_a_line_does_no_harm(tmp_path: Path) -> None:
    assert read_ordered(tmp_path) == []
    (tmp_path / "events.jsonl.1").write_text('{"kind":"ordered","instrument":null,"text":"first"}\n{"kind":"halt"}\n')
    (tmp_path / "events.jsonl").write_text(
        '{"kind":"step","text":"a"}\n{"kind":"ordered","instrument":"A.X","text":"second"}\n{"kind":"orde'
    )
    assert read_ordered(tmp_path) == ["first", "A.X: second"]
