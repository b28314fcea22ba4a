"""Turn a backtest's run folder into one self-contained HTML page that a person can judge it by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lstm_strategy.bars import format_ns
from lstm_strategy.formatting import fixed, percent, whole
from lstm_strategy.report import charts
from lstm_strategy.report.calibration import Coverage, coverage_of, intervals_of, land
from lstm_strategy.report.figures import Figure
from lstm_strategy.report.html import extra_missing, script_safe, write_html
from lstm_strategy.report.joint_risk import joint_tails
from lstm_strategy.report.risk import tails_of
from lstm_strategy.report.run_folder import read_run
from lstm_strategy.report.run_types import DecisionLog, Run
from lstm_strategy.report.sections import contents_of
from lstm_strategy.report.thin import BUCKETS
from lstm_strategy.report.words import ACTIONS, REASONS, days_halted, first_line, forecast_verdict, strategy_verdict

__all__ = ["write_report"]

Table = list[tuple[str, ...]]


def write_report(run: Path) -> Path:
    """Read the run folder ``run`` and write ``run/report.html``.

    Parameters
    ----------
    run : Path
        Holds summary.json and equity, decisions and forecasts as Parquet, as ``lstm-strategy backtest`` writes them.

    Returns
    -------
    Path
        The page: plotly.js inlined, nothing fetched.

    Raises
    ------
    LSTMStrategyError
        Where plotly or jinja2 is not installed, or the folder is not a finished run. An old page stays as it was.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise extra_missing(error) from error

    contents = _contents(read_run(run))
    return write_html(run / "report.html", "page.html.j2", contents | {"plotly_js": get_plotlyjs()})


def _contents(run: Run) -> dict[str, Any]:
    """Everything the template shows; text is escaped there."""
    summary, curve = run.summary, run.equity
    figures: dict[str, Figure] = {}
    landed = [
        land(forecasts, run.market, run.bar_ns, round(run.summary.closed_hours * 3_600e9))
        for forecasts in run.forecasts
    ]
    coverages = [coverage for forecasts in landed if (coverage := coverage_of(forecasts)) is not None]
    if landed and len(landed[0].lands_at):
        figures["fan"] = charts.draw_fan(landed[0])
    if coverages:
        figures["reliability"] = charts.draw_reliability(coverages)
        figures["miscoverage"] = charts.draw_miscoverage(coverages)
    figures["equity"] = charts.draw_equity(curve, run.beside)
    figures["drawdown"] = charts.draw_drawdown(curve)
    figures["exposure"] = charts.draw_exposure(curve)
    if run.markets:
        figures["exposures"] = charts.draw_exposures(run.markets)
    tails = joint_tails(run) if run.markets else tails_of(run)
    if tails is not None:
        lasts_ns = tails.ts_end - tails.ts_close
        figures["risk"] = charts.draw_risk(tails.ts_close, tails.returns, tails.at_risk, lasts_ns, tails.horizon)
    trades = _trades(run.decisions)
    drawn = _largest(run.decisions, trades)
    figures["trades"] = charts.draw_trades(run.market, run.decisions, drawn)
    if run.reasons is not None:
        figures["reasons"] = charts.draw_reasons(run.reasons)
    return {
        "title": summary.name or (summary.model or run.folder.resolve().name).partition("/")[0],
        "run_name": run.folder.resolve().name,
        "subtitle": [
            text
            for text in (
                f"{len(run.markets)} instruments" if run.markets else run.instrument,
                (summary.method or "").replace("_", " "),
                f"{summary.timeframe} bars" if summary.timeframe else "",
                f"{format_ns(int(curve.ts_close[0]))[:10]} to {format_ns(int(curve.ts_close[-1]))[:10]}",
                " ".join(str(part) for part in (summary.model, summary.model_version) if part not in (None, "")),
            )
            if text
        ],
        "instruments": run.instruments,
        "instrument": run.instrument,
        **contents_of(run, tails),
        "first_line": first_line(summary),
        "forecast_verdict": forecast_verdict(summary),
        "strategy_verdict": strategy_verdict(summary, curve.years),
        "strategy_table": _strategy_table(run),
        "forecast_table": _forecast_table(run),
        "facts": _facts(run),
        "interval_table": _interval_table(coverages),
        "reasons": _share_rows(run.everyone.reasons, len(run.everyone), REASONS),
        "actions": _share_rows(run.everyone.actions, len(run.everyone), ACTIONS),
        "bounds": _share_rows(run.everyone.bounds, len(run.everyone), {}),
        "fan_bars": min(charts.FAN_BARS, len(landed[0].lands_at)) if landed else 0,
        "fan_horizon": landed[0].horizon if landed else 0,
        "coverage_n": whole(coverages[0].n) if coverages else "0",
        "horizons": len(coverages),
        "trades": whole(len(trades)),
        "reasons_unit": "" if run.reasons is None else run.reasons.unit,
        "days_halted": days_halted(summary) or "Risk limits never halted trading.",
        "trades_drawn": whole(len(drawn)) if len(drawn) < len(trades) else "",
        "thinned": whole(len(curve.ts_close)) if len(curve.ts_close) > 4 * BUCKETS else "",
        "tearsheet": run.tearsheet,
        "figures": list(figures),
        "figures_json": script_safe(figures),
    }


def _trades(decisions: DecisionLog) -> charts.Rows:
    """Rows at which an order was decided on."""
    return np.flatnonzero(decisions.ordered & np.isfinite(decisions.price))


def _largest(decisions: DecisionLog, trades: charts.Rows) -> charts.Rows:
    """The trades to draw, in time order: the largest changes of exposure where there are too many."""
    if len(trades) <= charts.TRADES:
        return trades
    change = np.abs(decisions.target[trades] - decisions.exposure[trades])
    return np.sort(trades[np.argsort(-change, kind="stable")[: charts.TRADES]])


def _strategy_table(run: Run) -> Table:
    own, held = run.summary, run.summary.buy_and_hold
    return [
        ("Net return", percent(own.net_return, signed=True), percent(held.net_return, signed=True)),
        ("Sharpe ratio, annual", fixed(own.sharpe), fixed(held.sharpe)),
        ("Maximum drawdown", percent(own.max_drawdown), percent(held.max_drawdown)),
        ("Mean absolute exposure", percent(float(np.nanmean(np.abs(run.equity.exposure)))), percent(1.0)),
    ]


def _forecast_table(run: Run) -> Table:
    own = run.summary
    return [
        ("Pinball loss, against constant quantiles", fixed(own.pinball, 5), fixed(own.pinball_baseline, 5)),
        ("Inside the 80\N{NO-BREAK SPACE}% interval", percent(own.coverage_80, 2), percent(0.80, 0)),
        ("Inside the 98\N{NO-BREAK SPACE}% interval", percent(own.coverage_98, 2), percent(0.98, 0)),
    ]


def _facts(run: Run) -> Table:
    own = run.summary
    speed = f"{own.seconds:,.1f} s" + (f" ({own.bars / own.seconds:,.0f} bars/s)" if own.seconds > 0 else "")
    return [
        ("Bars", whole(own.bars)),
        ("Decisions", whole(own.decisions)),
        ("Orders", whole(own.orders)),
        ("Fees", fixed(own.fees, 2) + (f" {own.currency}" if own.currency else "")),
        *([("Margin", own.margin)] if own.margin else []),
        ("Days halted", whole(own.days_halted)),
        ("Run time", speed),
    ]


def _interval_table(coverages: list[Coverage]) -> Table:
    """Header, one row an interval, and the number of outcomes; one column a horizon."""
    if not coverages:
        return []
    head = ("Interval", *(f"{coverage.horizon} bar{'s' * (coverage.horizon > 1)}" for coverage in coverages))
    body = [
        (f"{share} %", *(percent(float(coverage.below[high] - coverage.below[low])) for coverage in coverages))
        for share, low, high in intervals_of(coverages[0].levels)
    ]
    return [head, *body, ("outcomes", *(whole(coverage.n) for coverage in coverages))]


def _share_rows(counts: dict[str, int], total: int, meaning: dict[str, str]) -> list[dict[str, str]]:
    return [
        {
            "code": code.replace("_", " "),
            "meaning": meaning.get(code, ""),
            "count": whole(count),
            "share": percent(count / total),
            "width": f"{100 * count / total:.2f}%",
        }
        for code, count in counts.items()
    ]
