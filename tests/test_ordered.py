"""What a node leaves for whoever asks later: halts that somebody ordered, and why it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.ordered import HaltOrdered, orderer
from lstm_strategy.run_events import read_ending, read_ordered

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
    held = HaltOrdered(5 * NS + 2, reason, {"A.X": "1.5", "B.X": "-2"}, {})
    assert held.words == f"{begins}, closes 1.5 A.X, -2 B.X"
    assert HaltOrdered(5 * NS, reason, {}, {}).words == f"{begins}; no position is open"
    entering = HaltOrdered(5 * NS, reason, {}, {"A.X": "16.033"})
    assert entering.words == f"{begins}; a buy of 16.033 A.X under way: what still fills of it is closed"
    both = HaltOrdered(5 * NS, reason, {"A.X": "1.5"}, {"B.X": "-2"})
    assert both.words == f"{begins}, closes 1.5 A.X; a sell of 2 B.X under way: what still fills of it is closed"


def test_an_event_log_is_read_oldest_first_and_half_a_line_does_no_harm(tmp_path: Path) -> None:
    assert read_ordered(tmp_path) == []
    (tmp_path / "events.jsonl.1").write_text('{"kind":"ordered","instrument":null,"text":"first"}\n{"kind":"halt"}\n')
    (tmp_path / "events.jsonl").write_text(
        '{"kind":"step","text":"a"}\n{"kind":"ordered","instrument":"A.X","text":"second"}\n{"kind":"orde'
    )
    assert read_ordered(tmp_path) == ["first", "A.X: second"]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (
            '{"kind":"stop","text":"ended: the venue is gone"}',
            "the node ended before its first decision: the venue is gone",
        ),
        ('{"kind":"stop","text":"ended"}', "the node ended before its first decision: it was stopped"),
        ('{"kind":"step","text":"model: verified"}', "holds no decision log"),  # killed, or under way
    ],
)
def test_a_start_that_failed_says_why_when_it_is_to_be_explained(tmp_path: Path, last: str, told: str) -> None:
    (tmp_path / "events.jsonl").write_text(f'{{"kind":"start","text":"BTC"}}\n{last}\n')
    with pytest.raises(LSTMStrategyError, match=told):
        read_log(tmp_path)
    assert (read_ending(tmp_path) is None) == ("step" in last)
