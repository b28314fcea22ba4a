"""Say what likely lies behind the first difference of two runs: other bars, model, settings or fills, or a fault."""

from __future__ import annotations

import msgspec
import numpy as np

from lstm_strategy.bars import Float, format_ns
from lstm_strategy.decision_again import decide_again
from lstm_strategy.decision_log import Header
from lstm_strategy.report.explain_pair import Pair

__all__ = ["group_hints", "lag_hint", "likely_causes", "other_settings"]

_SECTIONS = ("sizing", "limits", "costs")
_NODES_OWN = ("refill_holes", "parity_every")  # how it asks for bars and proves them: another in a backtest


def lag_hint(a: Float, b: Float, row: int) -> str:
    """Say so where one run shows at this bar what both showed at the bar before: it skipped the bar, or lags."""
    if not row or a[row - 1] != b[row - 1]:
        return ""
    which, own, other = ("B", b, a) if b[row] == b[row - 1] else ("A", a, b)
    if own[row] != own[row - 1] or np.isnan(own[row]):
        return ""
    if row + 1 < len(a) and own[row + 1] == other[row]:
        return f"of run {which} lags by one bar: it shows what the other run showed at the bar before"
    return f"of run {which} did not move from the bar before, as if this bar had been skipped"


def group_hints(hints: list[str]) -> list[str]:
    """Name the features of one and the same hint together."""
    by_text: dict[str, list[str]] = {}
    for hint in hints:
        name, _, text = hint.partition(" ")
        by_text.setdefault(text, []).append(name)
    return [f"{', '.join(names)} {text}" for text, names in sorted(by_text.items(), key=lambda item: -len(item[1]))]


def other_settings(a: Header, b: Header) -> list[str]:
    """Name what differs between two headers, with both values."""
    found = [f"model: {a.model} against {b.model}"] if a.model != b.model else []
    for section in _SECTIONS:
        of_a, of_b = getattr(a, section), getattr(b, section)
        found += [
            f"{section}.{name}: {getattr(of_a, name)} against {getattr(of_b, name)}"
            for name in of_a.__struct_fields__
            if getattr(of_a, name) != getattr(of_b, name)
        ]
    for name in dict.fromkeys((*a.others, *b.others)):
        one, other = a.others.get(name), b.others.get(name)
        if one != other:
            whose = " (a node's own)" if name in _NODES_OWN else ""
            found.append(f"{name}: {one} against {other}{whose}")
    if a.features and b.features and a.features != b.features:
        found.append("features: the models read different ones")
    if [voice.shrinkage for voice in a.voices] != [voice.shrinkage for voice in b.voices]:
        found.append("shrinkage: the models believe their means differently")
    return found


def likely_causes(
    pair: Pair, row: int, stage: str, names: list[str], headers: tuple[Header, Header], settings: list[str]
) -> list[str]:
    """What likely lies behind a difference that begins in ``stage``."""
    model = [f"another model speaks ({text})" for text in settings if text.startswith("model:")]
    ts = pair.ts
    starts = pair.a.ts_close[0] != pair.b.ts_close[0]
    if stage == "bar":
        return ["the runs were given other bars: another source, or a bar that was not final yet"]
    if stage == "features":
        if row == 0 or starts:
            model.append("the runs began with other histories: the start may not have died away (see --tolerance)")
        gap = row and ts[row] - ts[row - 1] > max(pair.a.timeframe.ns, pair.a.header.closed_ns)
        if gap:
            model.append("bars are missing before this one; one run may have been given them, without deciding on them")
        return [*model, "the bars are equal, their features are not: a fault in stepping, or another history before"]
    if stage == "forecast":
        if not any(name.startswith("raw") for name in names):
            return [*model, "network and features agree: calibration or scale differ"]
        return [*model, "features agree: another network, or a hidden state with another history"]
    if stage == "state":
        return _why_state(pair, row, names, settings)
    said = []
    row_a = pair.a.row(int(pair.rows_a[row]))
    row_b = pair.b.row(int(pair.rows_b[row]))
    theirs = (row_b["target"], row_b["reason"], row_b["bound"])
    for section in _SECTIONS:
        if getattr(headers[0], section) == getattr(headers[1], section):
            continue
        swapped = msgspec.structs.replace(headers[0], **{section: getattr(headers[1], section)})
        decision = decide_again(row_a, swapped)
        if (decision.target, decision.reason.value, list(decision.bound)) == theirs:
            changed = "; ".join(text for text in settings if text.startswith(section))
            said.append(f"other settings: with B's {section} alone, run A would have decided as B did ({changed})")
    if not said and settings:
        said = [f"other settings: {text}" for text in settings]
    if "action" in names and "target" not in names:
        said.append("both wanted the same; the order desk could not do the same (open orders, cash, minimums)")
    if not said and headers[0].joint:
        said = [
            "another name of the account differs, and with it what the portfolio or the common limits gave this one"
        ]
    return said or ["forecast, state and settings agree, the decision does not: another version of the package?"]


def _why_state(pair: Pair, row: int, names: list[str], settings: list[str]) -> list[str]:
    if row == 0:
        return ["the accounts began differently: other cash, another position, or a state from before"]
    said = []
    sent = np.flatnonzero(pair.a.floats("quantity")[pair.rows_a[:row]])
    if "equity" in names or "position" in names:
        order = f", the last one decided at {format_ns(int(pair.ts[sent[-1]]))}," if len(sent) else ""
        what = "filled in another quantity" if "position" in names else "filled at another price or charged otherwise"
        said.append(f"orders were equal so far, and what they led to is not: the order{order} was {what}")
        said += [f"other settings: {text}" for text in settings if not text.startswith(("sizing", "model", "shrink"))]
    if not said:
        said.append("the limits remember something else: a restart, a halt that was lifted, or other limits")
    return said
