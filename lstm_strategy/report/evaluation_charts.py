"""Draw an evaluation: how far the forecasts keep their word, and where they are better than simpler methods."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_strategy.report.calibration import Coverage
from lstm_strategy.report.charts import Figure, draw_miscoverage, draw_reliability
from lstm_strategy.report.charts import make_axis as axis
from lstm_strategy.report.charts import make_figure as figure
from lstm_strategy.report.charts import make_line as line
from lstm_strategy.report.charts import to_numbers as numbers

__all__ = ["draw_all"]

_COLORS = ("var(--horizon-1)", "var(--horizon-2)", "var(--horizon-3)", "var(--horizon-4)", "var(--muted)", "var(--ink)")
_DASHES = ("solid", "dash", "dot")


def draw_all(summary: dict[str, Any]) -> dict[str, Figure]:
    """Return the figures that the summary of an evaluation has numbers for, by name."""
    coverages = [
        Coverage(
            int(horizon),
            tuple(map(float, group["reliability"])),
            np.array([*group["reliability"].values()], float),
            max(int(group["rows"]), 1),
        )
        for horizon, group in summary["by_horizon"].items()
        if group["reliability"]
    ]
    figures: dict[str, Figure] = {}
    if coverages:
        figures |= {"reliability": draw_reliability(coverages), "miscoverage": draw_miscoverage(coverages)}
    if summary["pit"]:
        figures["pit"] = _pit(summary["pit"], summary["levels"])
    if summary["baselines"]:
        figures["skill"] = _skill(summary["by_fold"], list(summary["baselines"]))
    for key in ("month", "hour", "volatility"):
        if rows := summary["errors"].get(key):
            figures[f"error-{key}"] = _errors(rows, "date" if key == "month" else "category")
    if summary["by_month"]:
        figures["coverage"] = _coverage(summary["by_month"])
    return figures


def _pit(shares: list[float], levels: list[float]) -> Figure:
    """Share of outcomes in each gap between levels over the share promised there: flat at 1 where all is right."""
    edges = np.array([0.0, *levels, 1.0])
    promised = np.diff(edges)
    bars = {
        "type": "bar",
        "name": "outcomes over promised",
        "x": numbers((edges[:-1] + edges[1:]) / 2),
        "width": numbers(promised),
        "y": numbers(np.array(shares, float) / promised),
        "marker": {"color": "var(--bar)", "line": {"color": "var(--paper)", "width": 1}},
        "hovertemplate": "%{y:.2f} times as many as promised",
    }
    even = line([0, 1], [1, 1], "as promised", "var(--muted)", width=1, dash="dash", hover=False)
    y = axis(title="observed / promised", rangemode="tozero")
    return figure([bars, even], axis(title="probability", tickformat=".0%", range=[0, 1], dtick=0.25), y)


def _skill(rows: list[dict[str, Any]], names: list[str]) -> Figure:
    x = [f"fold {row['fold']}<br>{(row['spans']['test'][0] or '')[:10]}" for row in rows]
    traces = []
    for number, name in enumerate(names):
        y = numbers(np.array([_float(row["skill"].get(name)) for row in rows]))
        color, dash = _COLORS[number % len(_COLORS)], _DASHES[number // len(_COLORS) % len(_DASHES)]
        trace = line(x, y, name, color, width=1.5, dash=dash)
        traces.append(_dotted(trace, color) | {"hovertemplate": "%{y:+.2%}"})
    y_axis = axis(title="pinball below the baseline's", tickformat="+.1%", zeroline=True, rangemode="tozero")
    return figure(traces, axis(type="category"), y_axis)


def _errors(rows: list[dict[str, Any]], kind: str) -> Figure:
    """Pinball of each part with twice its standard error."""
    trace = line([row["key"] for row in rows], _column(rows, "pinball"), "network", "var(--model)", width=1.5)
    trace = _dotted(trace, "var(--model)")
    spread = numbers(2 * np.array([_float(row["pinball_se"]) for row in rows]))
    trace["error_y"] = {"type": "data", "array": spread, "color": "var(--muted)", "thickness": 1, "width": 2}
    trace["customdata"] = _column(rows, "skill_over_best")
    trace["hovertemplate"] = "%{y:.4f}; better than the best baseline by %{customdata:+.2%}"
    made = figure([trace], axis(type=kind), axis(title="mean pinball", tickformat=".3f"))
    made["layout"]["showlegend"] = False
    return made


def _coverage(rows: list[dict[str, Any]]) -> Figure:
    x, traces = [row["month"] for row in rows], []
    for share, color in (("0.8", "var(--horizon-1)"), ("0.98", "var(--horizon-2)")):
        for key, dash, told in (("coverage", "solid", ""), ("coverage_uncalibrated", "dot", ", before calibration")):
            y = numbers(np.array([_float(row[key].get(share)) for row in rows]))
            if any(value is not None for value in y):
                trace = line(x, y, f"{float(share):.0%}{told}", color, width=1.5, dash=dash)
                traces.append(_dotted(trace, color) | {"hovertemplate": "%{y:.1%}"})
        ends = [x[0], x[-1]]
        traces.append(line(ends, [float(share)] * 2, "nominal", "var(--muted)", width=1, dash="dash", hover=False))
        traces[-1]["showlegend"] = share == "0.98"
    return figure(traces, axis(type="date"), axis(title="outcomes inside", tickformat=".0%"))


def _dotted(trace: Figure, color: str) -> Figure:
    return trace | {"mode": "lines+markers", "marker": {"size": 6, "color": color}}


def _column(rows: list[dict[str, Any]], name: str) -> list[float | None]:
    return numbers(np.array([_float(row[name]) for row in rows]))


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
