"""Draw a run: its forecasts, equity, exposure, trades and reasons, as figures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.formatting import percent
from lstm_strategy.reasons import HALTS
from lstm_strategy.report.calibration import Coverage, Landed, intervals_of
from lstm_strategy.report.figures import (
    Figure,
    make_axis,
    make_band,
    make_bars,
    make_figure,
    make_line,
    make_marks,
    make_time_axis,
    to_dates,
    to_numbers,
)
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, ReasonShares
from lstm_strategy.report.thin import thin

__all__ = ["FAN_BARS", "TRADES", "draw_drawdown", "draw_equity", "draw_exposure", "draw_exposures", "draw_fan"]
__all__ += ["draw_miscoverage", "draw_reasons", "draw_reliability", "draw_risk", "draw_trades", "drawdown"]

Rows = npt.NDArray[np.int64]

FAN_BARS = 96
TRADES = 1_500
_USUAL = {"rebalance": 1, "within_no_trade_band": 2, "at_target": 3}  # by colour
_COLORS = 7
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


def draw_risk(
    ts_close: Stamps, returns: Float, at_risk: dict[float, Float], lasts_ns: int | Stamps, horizon: int = 1
) -> Figure:
    """Returns bar by bar, or block by block of ``horizon`` bars, and the value at risk forecast for each, as a loss.

    Each is a step from its close to its end, ``lasts_ns`` later; where bars are left out, such as those without a
    position, is a gap.
    """
    rows = thin(returns, *at_risk.values())
    ts_end = ts_close + lasts_ns
    gaps = np.concatenate([[0], np.cumsum(ts_close[1:] > ts_end[:-1])])[rows]
    ends = np.flatnonzero(np.diff(gaps, append=gaps[-1] + 1))  # the last bar before each gap, and the last of all
    x = to_dates(np.insert(ts_close[rows], np.repeat(ends + 1, 2), np.repeat(ts_end[rows][ends], 2)))

    def step(value: Float, name: str, color: str, width: float) -> Figure:
        last = np.column_stack([value[rows][ends], np.full(len(ends), np.nan)]).ravel()
        line = make_line(x, to_numbers(np.insert(value[rows], np.repeat(ends + 1, 2), last)), name, color, width=width)
        line["line"]["shape"] = "hv"
        return line

    ahead = "to the next close" if horizon == 1 else f"over the next {horizon} bars"
    traces = [step(returns, f"return {ahead}", "var(--muted)", 0.8)]
    for (level, value), color in zip(at_risk.items(), ("var(--horizon-1)", "var(--horizon-2)"), strict=False):
        traces.append(step(-value, f"VaR {percent(level, 0)}", color, 1.2))
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
    """The price, with a mark at each decision that led to an order."""
    rows = thin(curve.price)
    price = make_line(to_dates(curve.ts_close[rows]), to_numbers(curve.price[rows]), "price", "var(--ink)", width=1)
    change = (decisions.target - decisions.exposure)[trades]
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


def draw_reasons(shares: ReasonShares) -> Figure:
    """Share of each period's decisions by reason, stacked: the usual ones, what else was frequent, the rest, halts."""
    by_reason = dict(sorted(shares.by_reason.items(), key=lambda item: -float(item[1].sum())))
    halted = [by_reason.pop(reason) for reason in list(by_reason) if reason in HALTS]
    usual = [reason for reason in _USUAL if reason in by_reason]
    others = [reason for reason in by_reason if reason not in _USUAL]
    room = _COLORS - len(_USUAL)
    layers = [(reason, by_reason[reason], f"var(--share-{_USUAL[reason]})") for reason in usual]
    layers += [
        (reason, by_reason[reason], f"var(--share-{len(_USUAL) + 1 + row})") for row, reason in enumerate(others[:room])
    ]
    if others[room:]:
        layers.append(
            ("other reasons", np.sum([by_reason[reason] for reason in others[room:]], axis=0), "var(--muted)")
        )
    if halted:
        layers.append(("halted", np.sum(halted, axis=0), "var(--sell)"))
    traces = [
        make_bars(shares.starts, shares.ends, share, name.replace("_", " "), color) | {"hovertemplate": "%{y:.1%}"}
        for name, share, color in layers
    ]
    form = {"day": "%-d %b %Y", "week": "week of %-d %b %Y", "month": "%B %Y"}[shares.unit]
    axis = make_time_axis(np.array([shares.starts[0], shares.ends[-1]])) | {"hoverformat": form}
    figure = make_figure(traces, axis, make_axis(tickformat=".0%", range=[0, 1]))
    figure["layout"] |= {"barmode": "stack", "bargap": 0}
    return figure


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
