"""Draw why a run did, and did not, trade: price under its forecast, position, reasons bar by bar, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.decision_log_reader import Log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.formatting import percent, whole
from lstm_strategy.reasons import HALTS
from lstm_strategy.report.explain_words import count_words
from lstm_strategy.report.figures import (
    Figure,
    make_axis,
    make_band,
    make_figure,
    make_line,
    make_marks,
    make_time_axis,
    to_dates,
    to_numbers,
)
from lstm_strategy.report.html import extra_missing, script_safe, write_html
from lstm_strategy.report.words import ACTIONS, REASONS

__all__ = ["SHOWN", "write_explanation"]

SHOWN = 500


def write_explanation(
    log: Log,
    row: int,
    page: Path,
    said: dict[str, Any],
    *,
    summary: dict[str, Any] | None = None,
    shown: int = SHOWN,
) -> Path:
    """Write the page of the log's bar ``row``: what `explain_row` said of it, and ``shown`` bars around as pictures.

    Parameters
    ----------
    summary : dict, optional
        What `sum_up_log` returned; shown below.

    Raises
    ------
    LSTMStrategyError
        Where plotly or jinja2 is not installed, or the disk refuses. An old page stays as it was.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise extra_missing(error) from error

    if shown < 2:
        raise LSTMStrategyError(f"{shown} bars cannot be drawn; show at least 2")
    first = max(min(row - shown // 2, len(log) - shown), 0)
    rows = slice(first, first + shown)
    ts, header = log.ts_close[rows], log.header
    price, reasons = log.floats("price")[rows], log.texts("reason")[rows]
    figures = {
        "price": _draw_price(log, rows, ts, price),
        "exposure": _draw_exposure(log, rows, ts),
        "reasons": _draw_reasons(log, ts, reasons, log.texts("action")[rows], log.texts("bound")[rows]),
    }
    for figure in figures.values():
        _mark(figure, int(log.ts_close[row]))
    contents = {
        "instrument": header.instrument,
        "run_name": log.path.resolve().name,
        "at": said["bar"]["ts_close"],
        "subtitle": [f"{header.timeframe} bars", f"{said['bar']['ts_close']}", header.model],
        "words": said["words"],
        "bars": whole(len(ts)),
        "all_bars": whole(len(log)),
        "interval": percent(header.sizing.interval, 0),
        "horizon": header.sizing.horizon,
        "has_forecast": bool(header.horizons),
        "features": [(name, f"{value:.6g}") for name, value in said["features"].items()],
        "summary": summary,
        "kinds": {} if summary is None else _tables(summary),
        "figures": list(figures),
        "figures_json": script_safe(figures),
        "plotly_js": get_plotlyjs(),
    }
    return write_html(page, "explain.html.j2", contents)


def _tables(summary: dict[str, Any]) -> dict[str, list[tuple[str, ...]]]:
    meanings = {"Reason": ("reasons", REASONS), "Limit that bound": ("bound", {}), "Action": ("actions", ACTIONS)}
    return {
        heading: [(*count_words(kind), meaning.get(kind["name"], "")) for kind in summary[key]]
        for heading, (key, meaning) in meanings.items()
        if summary[key]
    }


def _draw_price(log: Log, rows: slice, ts: Stamps, price: Float) -> Figure:
    """The forecast of each bar stands where it lands; an order at the close that it was decided at."""
    traces: list[Figure] = []
    header = log.header
    if header.horizons:
        low, high, lands = _interval(log, rows, ts, price)
        known = ~np.isnan(low)
        if known.any():
            traces.append(make_band(lands[known], low[known], high[known], "forecast interval", "var(--band-middle)"))
    traces.append(make_line(to_dates(ts), to_numbers(price), "close", "var(--ink)", width=1.2))
    quantity = log.floats("quantity")[rows]
    for name, chosen, symbol in (("buy", quantity > 0, "triangle-up"), ("sell", quantity < 0, "triangle-down")):
        marker = {"size": 9, "symbol": symbol, "color": f"var(--{name})"}
        marks = make_marks(ts[chosen], price[chosen], name, marker)
        marks["customdata"] = to_numbers(quantity[chosen])
        marks["hovertemplate"] = "%{customdata:+.6~g}"
        traces.append(marks)
    return make_figure(traces, make_time_axis(_ends(log, ts)), make_axis(tickformat=",.6~g"))


def _interval(log: Log, rows: slice, ts: Stamps, price: Float) -> tuple[Float, Float, Stamps]:
    """Sizing's interval at sizing's horizon as prices [T], and where each lands."""
    header = log.header
    horizon, levels = header.sizing.horizon, np.array(header.levels)
    quantiles_TQ = log.matrix("quantiles")[rows]
    column = header.horizons.index(horizon) if horizon in header.horizons else 0
    quantiles_TQ = quantiles_TQ[:, column * len(levels) : (column + 1) * len(levels)]
    tail = (1.0 - header.sizing.interval) / 2
    low, high = (
        price * np.exp([np.nan if np.isnan(row).any() else np.interp(level, levels, row) for row in quantiles_TQ])
        for level in (tail, 1.0 - tail)
    )
    return low, high, ts + header.horizons[column] * log.timeframe.ns


def _draw_exposure(log: Log, rows: slice, ts: Stamps) -> Figure:
    x = to_dates(ts)
    exposure, target = log.floats("exposure")[rows], log.floats("target")[rows]
    held = make_line(x, to_numbers(exposure), "held", "var(--model)", width=1.4, fill="var(--band-middle)")
    wanted = make_line(x, to_numbers(target), "target", "var(--horizon-2)", width=1.1, dash="dot")
    wanted["line"]["shape"] = held["line"]["shape"] = "hv"
    axis = make_axis(tickformat=".0%", hoverformat=".1%", rangemode="tozero")
    return make_figure([held, wanted], make_time_axis(_ends(log, ts)), axis)


def _draw_reasons(log: Log, ts: Stamps, reasons: list[str], actions: list[str], bounds: list[str]) -> Figure:
    """A mark a bar on its reason's line; halts in the colour of selling."""
    traces = []
    chosen = np.array(reasons)
    for reason in dict.fromkeys(reasons):
        picked = np.flatnonzero(chosen == reason)
        color = "var(--sell)" if reason in HALTS else "var(--model)"
        marks = make_marks(ts[picked], np.zeros(len(picked)), reason, {"size": 6, "symbol": "square", "color": color})
        marks["y"] = [reason.replace("_", " ")] * len(picked)
        marks["customdata"] = [
            f"{actions[row]}{f', bound by {bounds[row]}' if bounds[row] else ''}" for row in picked.tolist()
        ]
        marks["hovertemplate"] = "%{customdata}"
        traces.append(marks)
    figure = make_figure(traces, make_time_axis(_ends(log, ts)), make_axis(type="category"))
    figure["layout"] |= {"showlegend": False, "hovermode": "closest"}
    return figure


def _ends(log: Log, ts: Stamps) -> Stamps:
    """From the first bar shown to where the last one's forecast lands."""
    ahead = log.header.sizing.horizon if log.header.horizons else 0
    return np.array([ts[0], ts[-1] + ahead * log.timeframe.ns])


def _mark(figure: Figure, ts: int) -> None:
    """Draw a line at the bar that is explained."""
    x = to_dates(np.array([ts]))[0]
    line = {"color": "var(--sell)", "width": 1, "dash": "dot"}
    figure["layout"]["shapes"] = [{"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1}]
    figure["layout"]["shapes"][0]["line"] = line
