"""Curves and times put beside each other: when the same loss was reached, and how many times sooner or faster."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.common import Figure

__all__ = ["equal_loss", "history_figure", "reached", "training_figure", "walk_figure"]

SHARE = 0.95  # of the smaller of both gains over constant quantiles, as in `make bench`
SOONER, FASTER, WALK = 4.0, 30.0, 20.0
RECORDED_FREQAI = 432.0  # bars/s, measured before on a machine of this kind

Curve = list[tuple[float, float]]


def reached(curve: Curve, wanted: float) -> float | None:
    """CPU seconds until the validation loss was first at ``wanted`` or below; None where it never was."""
    return next((seconds for seconds, loss in curve if loss <= wanted), None)


def equal_loss(ours: Curve, theirs: Curve, constant: float, share: float = SHARE) -> float:
    """The loss to reach: ``share`` of the worse of both best gains over constant quantiles.

    A side that never beats constant quantiles has no gain; then the other side's alone counts.
    """
    bests = [min(loss for _, loss in curve) for curve in (ours, theirs)]
    better = [best for best in bests if best < constant]
    return constant - share * (constant - (max(better) if better else constant))


def training_figure(ours: list[Curve], peer: dict[str, Any], constant: float, share: float = SHARE) -> Figure:
    """CPU seconds to the same validation loss, medians over our seeds; who never gets there is given its end."""
    own_times, times, never = [], [], False
    for curve in ours:
        theirs = [(float(seconds), float(loss)) for seconds, loss in peer["curves"][0]]
        wanted = equal_loss(curve, theirs, constant, share)
        own, other = reached(curve, wanted), reached(theirs, wanted)
        never |= other is None
        own_times.append(curve[-1][0] if own is None else own)
        times.append(theirs[-1][0] if other is None else other)
    own, other = median(own_times), median(times)
    told = f"{peer['name']}, {peer['setting']}" + ("; never, stopped" if never else "")
    return Figure(
        name="training to the same validation pinball",
        value=own,
        unit="CPU s",
        rival=told,
        rival_value=other,
        ratio=other / own,
        target=f"≥ {SOONER:.0f} ×",
        met=other >= SOONER * own,
    )


def history_figure(ours: dict[str, float], peer: dict[str, Any]) -> Figure:
    """Bars of a history forecast in a CPU second; ours computes its features too."""
    own, other = ours["rows"] / ours["cpu"], peer["history"]["rows"] / peer["history"]["cpu"]
    return Figure(
        name="forecasting a history",
        value=own,
        unit="bars/s",
        rival=f"{peer['name']}, {peer['setting']}",
        rival_value=other,
        ratio=own / other,
        target=f"≥ {FASTER:.0f} ×",
        met=own >= FASTER * other,
    )


def walk_figure(name: str, ours: dict[str, float], peer: dict[str, Any] | None) -> Figure:
    """Bars forecast in a CPU second by a walk-forward, training and all; ``peer`` None: the figure recorded before."""
    own = ours["rows"] / ours["cpu"]
    other = peer["walk"]["rows"] / peer["walk"]["cpu"] if peer else RECORDED_FREQAI
    told = f"{peer['name']}, {peer['setting']}" if peer else "FreqAI, recorded before, not run now"
    return Figure(
        name=f"walk-forward, {ours['folds']:.0f} trainings, {name}",
        value=own,
        unit="bars/s",
        rival=told,
        rival_value=other,
        ratio=own / other,
        target=f"≥ {WALK:.0f} ×",
        met=own >= WALK * other,
    )
