"""Several instruments on one account: what each was decided at one close, and which one's run parts from another's."""

from __future__ import annotations

from typing import Any

from lstm_strategy.bars import parse_ns
from lstm_strategy.decision_log_reader import Log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.report.explain_diff import STAGES, Difference, compare
from lstm_strategy.report.explain_words import explain_row, sum_up_log

__all__ = ["compare_panels", "explain_panel", "row_at"]

_ORDER = ("missing", *STAGES)


def row_at(log: Log, ts: int | None) -> int:
    """Return the row of the last bar that had closed at ``ts``; the last of all where None."""
    return len(log) - 1 if ts is None else log.at(ts)


def explain_panel(logs: dict[str, Log], ts: int | None) -> dict[str, Any]:
    """Return by instrument what `explain_row` says of one close; of the last one, `sum_up_log` of the run as well."""
    found = {}
    for name, log in logs.items():
        found[name] = {"explained": explain_row(log, row_at(log, ts))}
        if ts is None:
            found[name]["summary"] = sum_up_log(log)
    return found


def compare_panels(a: dict[str, Log], b: dict[str, Log], **options: Any) -> tuple[str, Difference]:
    """Compare two runs name by name; return the name that parts first, and where.

    At one close the first stage in the order of causation counts, then the name of which most differs: what one name
    did changes the account of all. Without any difference it is the first name. ``options`` are those of `compare`.

    Raises
    ------
    LSTMStrategyError
        Where the runs are of different instruments; and as `compare` does.
    """
    if a.keys() != b.keys() and max(len(a), len(b)) > 1:
        of_a, of_b = (", ".join(logs) for logs in (a, b))
        raise LSTMStrategyError(f"A is of {of_a}, B of {of_b}: name one that both have with --instrument")
    pairs = zip(a.items(), b.values(), strict=True)  # both in the order of their names
    found = [(name, compare(log, other, **options)) for (name, log), other in pairs]
    parted = [(name, one) for name, one in found if one.stage is not None]
    return min(parted, key=_when) if parted else found[0]


def _when(found: tuple[str, Difference]) -> tuple[int, int, int, str]:
    name, one = found
    return parse_ns(str(one.ts_close)), _ORDER.index(str(one.stage)), -len(one.cells), name
