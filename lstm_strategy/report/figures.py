"""Plotly figures as plain data: axes, lines, marks, bands and bars, their colours left to the page's theme."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps

__all__ = ["Figure", "make_axis", "make_band", "make_bars", "make_figure", "make_line", "make_marks", "make_time_axis"]
__all__ += ["to_dates", "to_numbers"]

Figure = dict[str, Any]


def make_figure(traces: list[Figure], xaxis: Figure, yaxis: Figure) -> Figure:
    """Traces on two axes, in the page's colours, with the legend above."""
    return {
        "data": traces,
        "layout": {
            "xaxis": xaxis,
            "yaxis": yaxis,
            "hovermode": "x unified",
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": "var(--ink)"},
            "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        },
    }


def make_axis(title: str = "", **options: Any) -> Figure:
    """An axis in the page's colours; ``options`` are Plotly's."""
    axis = {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--rule)",
        "zerolinecolor": "var(--rule)",
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": "var(--muted-ink)"},
    }
    if title:
        axis["title"] = {"text": title, "standoff": 8, "font": {"color": "var(--muted-ink)"}}
    return axis | options


def make_time_axis(stamps: Stamps) -> Figure:
    """An axis from the first stamp to the last."""
    ends = to_dates(stamps[[0, -1]])
    return make_axis(type="date", range=ends, showgrid=False, ticks="outside", tickcolor="var(--rule)", showline=True)


def make_line(
    x: list[Any],
    y: list[Any],
    name: str,
    color: str,
    *,
    width: float,
    dash: str = "solid",
    fill: str | None = None,
    hover: bool = True,
) -> Figure:
    """A line, filled to zero in the colour ``fill`` where given."""
    trace: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": {"color": color, "width": width, "dash": dash},
    }
    if fill is not None:
        trace |= {"fill": "tozeroy", "fillcolor": fill}
    if not hover:
        trace["hoverinfo"] = "skip"
    return trace


def make_marks(stamps: Stamps, y: Float, name: str, marker: Figure) -> Figure:
    """Points; ``marker`` is Plotly's."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": to_dates(stamps),
        "y": to_numbers(y),
        "marker": marker,
    }


def make_band(stamps: Stamps, low: Float, high: Float, name: str, color: str) -> Figure:
    """The area between two lines."""
    x = to_dates(stamps)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [*x, *x[::-1]],
        "y": [*to_numbers(high), *to_numbers(low[::-1])],
        "fill": "toself",
        "fillcolor": color,
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def make_bars(starts: Stamps, ends: Stamps, y: Float, name: str, color: str) -> Figure:
    """Bars from one stamp to another each."""
    return {
        "type": "bar",
        "name": name,
        "x": to_dates(starts),
        "y": to_numbers(y),
        "width": ((ends - starts) // 10**6).tolist(),  # milliseconds, as Plotly measures time
        "offset": 0,
        "marker": {"color": color, "line": {"width": 0}},
    }


def to_dates(stamps: Stamps) -> list[str]:
    """UTC text: Plotly would show numbers in the reader's own time zone."""
    text: list[str] = np.datetime_as_string(stamps.astype("datetime64[ns]"), unit="s").tolist()
    return text


def to_numbers(values: npt.NDArray[np.floating]) -> list[float | None]:
    """Seven significant digits; a gap where a value is not finite, since JSON has no NaN."""
    return [float(f"{value:.7g}") if abs(value) < np.inf else None for value in values.tolist()]
