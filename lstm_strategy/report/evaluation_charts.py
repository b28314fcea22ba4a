"""Draw an evaluation: how far the forecasts keep their word, and where they are better than simpler methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_strategy.formatting import percent
from lstm_strategy.report.calibration import Coverage
from lstm_strategy.report.charts import draw_miscoverage, draw_reliability
from lstm_strategy.report.figures import Figure
from lstm_strategy.report.figures import make_axis as axis
from lstm_strategy.report.figures import make_figure as figure
from lstm_strategy.report.figures import make_line as line
from lstm_strategy.report.figures import to_numbers as numbers

__all__ = ["draw_all"]

_COLORS = ("var(--horizon-1)", "var(--horizon-2)", "var(--horizon-3)", "var(--horizon-4)", "var(--muted)", "var(--ink)")
_SYMBOLS = ("circle", "diamond", "square")
_WEIGHTIEST = 20


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
        _mark_chance(figures["miscoverage"], summary["by_horizon"])
        for name, less in (("reliability", False), ("miscoverage", True)):
            figures[name]["data"] += _before(summary["by_horizon"], less)
    if summary["pit"]:
        figures["pit"] = _pit(summary["pit"], summary["pit_ci"], summary["levels"])
    if summary["baselines"]:
        figures["skill"] = _skill(summary["by_fold"], list(summary["baselines"]), summary["skill_over_best"])
    for key in ("volatility", "hour", "weekday", "month"):
        if rows := summary["errors"].get(key):
            figures[f"error-{key}"] = _errors(rows, "date" if key == "month" else "category")
    if summary["by_month"]:
        figures["coverage"] = _coverage(summary["by_month"])
    if summary["importance"]:
        figures["importance"] = _importance(summary["importance"])
    return figures


def _mark_chance(figure: Figure, groups: dict[str, Any]) -> None:
    """Put each horizon's own 95 % interval on its line, for the band counts outcomes as independent."""
    lines = (trace for trace in figure["data"] if trace["mode"] == "lines+markers")
    for trace, group in zip(lines, (group for group in groups.values() if group["reliability"]), strict=True):
        ends, found = np.array([*group["reliability_ci"].values()], float), [*group["reliability"].values()]
        trace["error_y"] = _bars(100 * (ends[:, 1] - found), 100 * (found - ends[:, 0]))


def _before(groups: dict[str, Any], less: bool) -> list[Figure]:
    """What the quantiles held before calibration, dotted in the horizon's colour; ``less`` the nominal, in points."""
    traces = []
    for number, (horizon, group) in enumerate(groups.items()):
        if found := group.get("reliability_uncalibrated"):
            levels = np.array([*map(float, found)])
            share = np.array([*found.values()], float)
            told = f"{horizon}, uncalibrated"
            y = numbers(100 * (share - levels) if less else share)
            trace = line(numbers(levels), y, told, f"var(--horizon-{1 + number % 4})", width=1.5, dash="dot")
            traces.append(trace | {"hovertemplate": "%{y:+.2f} points" if less else "%{y:.2%}"})
    return traces


def _pit(shares: list[float], intervals: list[list[float]], levels: list[float]) -> Figure:
    """Share of outcomes in each gap between levels over the share promised there: flat at 1 where all is right."""
    edges = np.array([0.0, *levels, 1.0])
    promised, found, ends = np.diff(edges), np.array(shares, float), np.array(intervals, float)
    bars = {
        "type": "bar",
        "name": "observed",
        "x": numbers((edges[:-1] + edges[1:]) / 2),
        "width": numbers(promised),
        "y": numbers(found / promised),
        "error_y": _bars((ends[:, 1] - found) / promised, (found - ends[:, 0]) / promised),
        "marker": {"color": "var(--bar)", "line": {"color": "var(--paper)", "width": 1}},
        "hovertemplate": "%{y:.2f} times as many as promised",
    }
    even = line([0, 1], [1, 1], "as promised", "var(--muted)", width=1, dash="dash", hover=False)
    y = axis(title="observed / promised", rangemode="tozero")
    return figure([bars, even], axis(title="probability", tickformat=".0%", range=[0, 1], dtick=0.25), y)


def _skill(rows: list[dict[str, Any]], names: list[str], over_best: float | None) -> Figure:
    """Skill against each baseline with its interval, fold by fold; those far behind wait in the legend."""
    x = [f"fold {row['fold']}<br>{(row['spans']['test'][0] or '')[:10]}" for row in rows]
    traces = []
    near = 4.0 * max(abs(_float(over_best)), 0.005)
    for number, name in enumerate(names):
        found = np.array([_float(row["skill"].get(name)) for row in rows])
        ends = np.array([row["skill_ci"].get(name) or (np.nan, np.nan) for row in rows], float)
        color = _COLORS[number % len(_COLORS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": x,
                "y": numbers(found),
                "marker": {"size": 8, "color": color, "symbol": _SYMBOLS[number // len(_COLORS) % len(_SYMBOLS)]},
                "error_y": _bars(ends[:, 1] - found, found - ends[:, 0]) | {"color": color},
                "offsetgroup": name,
                "hovertemplate": "%{y:+.2%}",
            }
        )
        if np.nanmedian(np.abs(found)) > near and len(names) > 1:
            traces[-1] |= {"visible": "legendonly", "name": f"{name} (far)"}
    if all("visible" in trace for trace in traces):
        for trace, name in zip(traces, names, strict=True):
            trace["name"] = name
            del trace["visible"]
    y_axis = axis(title="pinball below the baseline's", tickformat="+.1%", zeroline=True)
    made = figure(traces, axis(type="category"), y_axis)
    made["layout"]["scattermode"] = "group"
    return made


def _errors(rows: list[dict[str, Any]], kind: str) -> Figure:
    """Pinball of each part with twice its standard error, beside the best baseline's."""
    x = [row["key"][:3] if row["key"].endswith("day") else row["key"] for row in rows]  # seven days on a narrow screen
    own = np.array([_float(row["pinball"]) for row in rows])
    skill = np.array([_float(row["skill_over_best"]) for row in rows])
    traces = []
    if np.isfinite(skill).any():
        best = line(x, numbers(own / (1.0 - skill)), "best baseline", "var(--muted)", width=1.2, dash="dash")
        traces.append(best | {"hovertemplate": "%{y:.4f}"})
    trace = _dotted(line(x, numbers(own), "network", "var(--model)", width=1.5), "var(--model)")
    spread = 2 * np.array([_float(row["pinball_se"]) for row in rows])
    trace["error_y"] = _bars(spread, spread)
    error = [_float(row["skill_se"]) for row in rows]
    trace["customdata"] = [list(pair) for pair in zip(numbers(skill), numbers(2 * np.array(error)), strict=True)]
    beside = "%{customdata[0]:+.2%} ± %{customdata[1]:.2%} beside the best baseline (+ better, − worse)"
    trace["hovertemplate"] = "%{y:.4f}; " + beside
    x_axis = _months(len(rows)) if kind == "date" else axis(type=kind)
    return figure([*traces, trace], x_axis, axis(title="mean pinball", tickformat=".3f"))


def _importance(rows: list[dict[str, Any]]) -> Figure:
    """Rise of the loss when a feature is shuffled, the weightiest on top, with twice its spread."""
    rows = rows[:_WEIGHTIEST][::-1]
    share = np.array([_float(row["share"]) for row in rows])
    unit = share / np.array([_float(row["increase"]) or np.nan for row in rows])
    spread = 2 * np.nan_to_num(np.array([_float(row["spread"]) for row in rows]) * unit)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": numbers(share),
        "y": [row["feature"] for row in rows],
        "marker": {"color": "var(--bar)"},
        "error_x": _bars(spread, spread),
        "hovertemplate": "%{x:+.2%}<extra></extra>",
    }
    made = figure([bars], axis(title="rise of the loss", tickformat="+.1~%", zeroline=True), axis(type="category"))
    made["layout"] |= {"showlegend": False, "hovermode": "closest"}
    return made


def _coverage(rows: list[dict[str, Any]]) -> Figure:
    x, traces = [row["month"] for row in rows], []
    for share, color in (("0.8", "var(--horizon-1)"), ("0.98", "var(--horizon-2)")):
        for key, dash, told in (("coverage", "solid", ""), ("coverage_uncalibrated", "dot", ", uncalibrated")):
            y = numbers(np.array([_float(row[key].get(share)) for row in rows]))
            if any(value is not None for value in y):
                trace = line(x, y, f"{percent(float(share), 0)}{told}", color, width=1.5, dash=dash)
                traces.append(_dotted(trace, color) | {"hovertemplate": "%{y:.1%}"})
        ends = [x[0], x[-1]]
        traces.append(line(ends, [float(share)] * 2, "nominal", "var(--muted)", width=1, dash="dash", hover=False))
        traces[-1]["showlegend"] = share == "0.98"
    return figure(traces, _months(len(rows)), axis(title="outcomes inside", tickformat=".0%"))


def _months(count: int) -> Figure:
    """A time axis that marks whole months, where there are few to be marked."""
    few = {"dtick": "M1", "tickformat": "%b<br>%Y"} if count <= 6 else {}
    return axis(type="date", **few)


def _dotted(trace: Figure, color: str) -> Figure:
    return trace | {"mode": "lines+markers", "marker": {"size": 6, "color": color}}


def _bars(above: npt.NDArray[np.floating], below: npt.NDArray[np.floating]) -> Figure:
    """Error bars."""
    ends = {"array": numbers(above), "arrayminus": numbers(below), "symmetric": False}
    return {"type": "data", "color": "var(--muted)", "thickness": 1, "width": 2} | ends


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
