"""Draw a run: Plotly figures as plain data, their colours left to the page's light or dark theme."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.report.calibration import Coverage, Landed, intervals_of
from lstm_strategy.report.run_types import DecisionLog, EquityCurve
from lstm_strategy.report.thin import thin

__all__ = ["FAN_BARS", "TRADES", "Figure", "draw_drawdown", "draw_equity", "draw_exposure", "draw_fan"]
__all__ += ["draw_miscoverage", "draw_reliability", "draw_risk", "draw_trades", "drawdown"]
__all__ += [
    "make_axis",
    "make_band",
    "make_figure",
    "make_line",
    "make_marks",
    "make_time_axis",
    "to_dates",
    "to_numbers",
]

Figure = dict[str, Any]
Rows = npt.NDArray[np.int64]

FAN_BARS = 96
TRADES = 1_500
_BANDS = ("var(--band-outer)", "var(--band-middle)", "var(--band-inner)")


def draw_fan(landed: Landed, outcome: str = "realised price", yaxis: Figure | None = None) -> Figure:
    """Bands of the last forecasts where they land, under what was realised there."""
    recent = slice(-FAN_BARS, None)
    lands_at, prices_NQ, realised = landed.lands_at[recent], landed.prices_NQ[recent], landed.realised[recent]
    intervals = intervals_of(landed.levels)
    shown = _spread(intervals)
    traces = [
        make_band(lands_at, prices_NQ[:, low], prices_NQ[:, high], f"{share} %", color)
        for (share, low, high), color in zip(shown, _BANDS, strict=False)
    ]
    x = to_dates(lands_at)
    median = make_line(
        x, to_numbers(prices_NQ[:, _nearest(landed.levels, 0.5)]), "median", "var(--model)", width=1, dash="dot"
    )
    traces.append(median)
    traces.append(make_line(x, to_numbers(realised), outcome, "var(--ink)", width=1.4))
    if intervals:
        share, low, high = intervals[0]
        median["customdata"] = [
            list(ends) for ends in zip(to_numbers(prices_NQ[:, low]), to_numbers(prices_NQ[:, high]), strict=True)
        ]
        median["hovertemplate"] = f"%{{y:,.6~g}}, {share} %: %{{customdata[0]:,.6~g}} to %{{customdata[1]:,.6~g}}"
        missed = np.flatnonzero((realised < prices_NQ[:, low]) | (realised > prices_NQ[:, high]))
        marker = {"size": 8, "color": "var(--sell)", "symbol": "circle-open", "line": {"width": 1.5}}
        traces.append(
            make_marks(lands_at[missed], realised[missed], f"outside {share} %", marker) | {"hoverinfo": "skip"}
        )
    return make_figure(traces, make_time_axis(lands_at), yaxis or make_axis(tickformat=",.6~g"))


def draw_reliability(coverages: list[Coverage]) -> Figure:
    """Observed against nominal share of outcomes below each quantile."""
    diagonal = make_line([0, 1], [0, 1], "perfect", "var(--muted)", width=1, dash="dash", hover=False)
    traces = [diagonal]
    for coverage, color in zip(coverages, _horizon_colors(len(coverages)), strict=True):
        trace = make_line(
            list(coverage.levels), to_numbers(coverage.below), _bars_ahead(coverage.horizon), color, width=1.5
        )
        trace |= {"mode": "lines+markers", "hovertemplate": "%{y:.2%}"}
        trace["marker"] = {"size": 6, "color": color}
        traces.append(trace)
    x = make_axis(title="nominal level", tickformat=".0%", range=[0, 1], dtick=0.25)
    return make_figure(traces, x, make_axis(title="observed share below", tickformat=".0%", range=[0, 1], dtick=0.25))


def draw_miscoverage(coverages: list[Coverage]) -> Figure:
    """Observed minus nominal in points, with the range that chance alone would give the first horizon."""
    first = coverages[0]
    levels = np.linspace(0.0, 1.0, 101)
    chance = 100 * 1.96 * np.sqrt(levels * (1.0 - levels) / first.n)
    band = {
        "type": "scatter",
        "mode": "lines",
        "name": "chance, 95 %",
        "x": [*to_numbers(levels), *to_numbers(levels[::-1])],
        "y": [*to_numbers(-chance), *to_numbers(chance[::-1])],
        "fill": "toself",
        "fillcolor": "var(--band-middle)",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    traces = [band]
    for coverage, color in zip(coverages, _horizon_colors(len(coverages)), strict=True):
        error = 100 * (coverage.below - np.array(coverage.levels))
        trace = make_line(list(coverage.levels), to_numbers(error), _bars_ahead(coverage.horizon), color, width=1.5)
        trace |= {"mode": "lines+markers", "hovertemplate": "%{y:+.2f} points"}
        trace["marker"] = {"size": 6, "color": color}
        traces.append(trace)
    x = make_axis(title="nominal level", tickformat=".0%", range=[0, 1], dtick=0.25)
    return make_figure(traces, x, make_axis(title="observed − nominal, points", tickformat="+.2~f", zeroline=True))


def draw_equity(curve: EquityCurve, beside: dict[str, Float] | None = None) -> Figure:
    """Mark-to-market equity beside buy and hold, and what else was run beside it."""
    others = beside or {}
    rows = thin(curve.equity, curve.buy_and_hold, *others.values())
    x = to_dates(curve.ts_close[rows])
    colors = ("var(--horizon-2)", "var(--horizon-3)", "var(--horizon-4)")
    rules = [
        make_line(x, to_numbers(line[rows]), name, colors[number % 3], width=1.0, dash="dot" if number > 2 else "solid")
        for number, (name, line) in enumerate(others.items())
    ]
    held = make_line(x, to_numbers(curve.buy_and_hold[rows]), "buy and hold", "var(--muted)", width=1.2)
    own = make_line(x, to_numbers(curve.equity[rows]), "strategy", "var(--model)", width=1.6)
    return make_figure([held, *rules, own], make_time_axis(curve.ts_close), make_axis(tickformat=",.6~g"))


def drawdown(value_T: Float) -> Float:
    """Fall from the highest value so far, as a fraction at or below zero."""
    return np.asarray(value_T / np.maximum.accumulate(value_T) - 1.0)


def draw_drawdown(curve: EquityCurve) -> Figure:
    """Falls from the peak, strategy beside buy and hold."""
    own, held = drawdown(curve.equity), drawdown(curve.buy_and_hold)
    rows = thin(own, held)
    x = to_dates(curve.ts_close[rows])
    traces = [
        make_line(x, to_numbers(held[rows]), "buy and hold", "var(--muted)", width=1.0),
        make_line(x, to_numbers(own[rows]), "strategy", "var(--model)", width=1.4, fill="var(--band-middle)"),
    ]
    return make_figure(
        traces, make_time_axis(curve.ts_close), make_axis(tickformat=".0%", hoverformat=".1%", rangemode="tozero")
    )


def draw_risk(ts_close: Stamps, returns: Float, at_risk: dict[float, Float]) -> Figure:
    """Returns of equity bar by bar, and the value at risk that was forecast for each, drawn as a loss."""
    rows = thin(returns, *at_risk.values())
    x = to_dates(ts_close[rows])
    traces = [make_line(x, to_numbers(returns[rows]), "return to the next close", "var(--muted)", width=0.8)]
    for (level, value), color in zip(at_risk.items(), ("var(--horizon-1)", "var(--horizon-2)"), strict=False):
        traces.append(make_line(x, to_numbers(-value[rows]), f"VaR {level:.0%}", color, width=1.2))
    return make_figure(traces, make_time_axis(ts_close), make_axis(tickformat=".1%", hoverformat=".2%"))


def draw_exposure(curve: EquityCurve) -> Figure:
    """Signed position value as a fraction of equity."""
    rows = thin(curve.exposure)
    x = to_dates(curve.ts_close[rows])
    line = make_line(
        x, to_numbers(curve.exposure[rows]), "exposure", "var(--model)", width=1.2, fill="var(--band-middle)"
    )
    line["line"]["shape"] = "hv"
    figure = make_figure(
        [line], make_time_axis(curve.ts_close), make_axis(tickformat=".0%", hoverformat=".1%", rangemode="tozero")
    )
    figure["layout"]["showlegend"] = False
    return figure


def draw_exposures(markets: dict[str, EquityCurve]) -> Figure:
    """Signed position value of each instrument as a fraction of the account's equity."""
    lines = []
    for row, (name, curve) in enumerate(markets.items()):
        rows = thin(curve.exposure)
        x, color = to_dates(curve.ts_close[rows]), f"var(--horizon-{row % 4 + 1})"
        dash = ("solid", "dot", "dash")[row // 4 % 3]
        line = make_line(x, to_numbers(curve.exposure[rows]), name, color, width=1.2, dash=dash)
        line["line"]["shape"] = "hv"
        lines.append(line)
    stamps = max((curve.ts_close for curve in markets.values()), key=len)
    return make_figure(
        lines, make_time_axis(stamps), make_axis(tickformat=".0%", hoverformat=".1%", rangemode="tozero")
    )


def draw_trades(curve: EquityCurve, decisions: DecisionLog, trades: Rows) -> Figure:
    """The price, with a mark at each decision that sent an order."""
    rows = thin(curve.price)
    price = make_line(to_dates(curve.ts_close[rows]), to_numbers(curve.price[rows]), "price", "var(--ink)", width=1)
    change = decisions.quantity[trades]
    marks = []
    for name, chosen, symbol in (("buy", change > 0, "triangle-up"), ("sell", change < 0, "triangle-down")):
        picked = trades[chosen]
        marker = {"size": 8 if len(trades) < 200 else 6, "symbol": symbol, "color": f"var(--{name})"}
        trace = make_marks(decisions.ts_close[picked], decisions.price[picked], name, marker)
        moves = zip(to_numbers(decisions.exposure[picked]), to_numbers(decisions.target[picked]), strict=True)
        trace["customdata"] = [list(move) for move in moves]
        trace["hovertemplate"] = "exposure %{customdata[0]:.1%} to %{customdata[1]:.1%}"
        marks.append(trace)
    return make_figure([price, *marks], make_time_axis(curve.ts_close), make_axis(tickformat=",.6~g"))


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


def _spread(intervals: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """At most three intervals to draw: the widest, the one nearest 80 %, the one nearest 50 %."""
    if len(intervals) <= len(_BANDS):
        return intervals
    rest = intervals[1:]
    chosen = {intervals[0], *(min(rest, key=lambda item: abs(item[0] - share)) for share in (80, 50))}
    return sorted(chosen, reverse=True)


def _nearest(levels: tuple[float, ...], level: float) -> int:
    return int(np.abs(np.array(levels) - level).argmin())


def _horizon_colors(count: int) -> list[str]:
    return [f"var(--horizon-{1 + index % 4})" for index in range(count)]


def _bars_ahead(horizon: int) -> str:
    return "1 bar ahead" if horizon == 1 else f"{horizon} bars ahead"


def to_dates(stamps: Stamps) -> list[str]:
    """UTC text: Plotly would show numbers in the reader's own time zone."""
    text: list[str] = np.datetime_as_string(stamps.astype("datetime64[ns]"), unit="s").tolist()
    return text


def to_numbers(values: npt.NDArray[np.floating]) -> list[float | None]:
    """Seven significant digits; a gap where a value is not finite, since JSON has no NaN."""
    return [float(f"{value:.7g}") if abs(value) < np.inf else None for value in values.tolist()]
