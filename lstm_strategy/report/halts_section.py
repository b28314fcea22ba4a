"""The section on halts: what each limit allowed, what bar and way to the fill took beyond it; and those ordered."""

from __future__ import annotations

from typing import Any

from lstm_strategy.formatting import fixed, percent, whole
from lstm_strategy.report.summary_types import HaltTold

__all__ = ["halts_section"]

_KINDS = {"daily_loss": "daily loss", "drawdown": "drawdown"}
_SHOWN = 60


def halts_section(halts: tuple[HaltTold, ...], ordered: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what the template knows as ``halts``: a sentence, one row a halt (the worst where there are many).

    Of ``ordered`` ones, which have no limit to break, what was told as they happened.
    """
    if not halts and not ordered:
        return {}
    held = sum(halt.held for halt in halts)
    shown = sorted(sorted(halts, key=lambda halt: (halt.held, -halt.loss))[:_SHOWN], key=lambda halt: halt.ts_close)
    verdict = f"{whole(held)} of {whole(len(halts))} halts lost no more than their bound."
    return {
        "ordered": list(ordered),
        "verdict": verdict if held == len(halts) else f"BROKEN: only {verdict}",
        "left_out": len(halts) - len(shown),
        "rows": [_row(halt) for halt in shown],
        "broken": [f"{halt.ts_close}: {halt.words}" for halt in shown if not halt.held],
    }


def _row(halt: HaltTold) -> tuple[str, ...]:
    when = halt.ts_close[:16].replace("T", "\N{NO-BREAK SPACE}")
    return (
        when,
        _KINDS.get(halt.kind, halt.kind),
        "held" if halt.held else "BROKEN" if halt.ts_flat else "not closed",
        fixed(halt.reference, 0),
        fixed(halt.allowed, 0),
        fixed(halt.gap, 0),
        fixed(halt.exposure, 0),
        fixed(halt.under_way, 0),
        percent(halt.move, 2),
        fixed(halt.moved, 0),
        fixed(halt.costs, 0),
        fixed(halt.bound, 0),
        fixed(halt.loss, 0),
        whole(halt.bars) if halt.ts_flat else "never",
    )
