"""What the commands show to people: pairs, a forecast, a backtest."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy.bars import format_ns
from lstm_strategy.console import console
from lstm_strategy.forecast import Forecast
from lstm_strategy.formatting import BETTER, fixed, percent
from lstm_strategy.report.run_types import Summary
from lstm_strategy.report.words import first_line

__all__ = ["print_backtest", "print_forecast", "print_training"]


def print_training(result: dict[str, Any]) -> None:
    """Show what `train` reports."""
    table = Table(title=f"Trained {escape(result['model'])}", title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("version", result["version"])
    table.add_row("pinball loss, calibration span (held out)", fixed(result["pinball"], 5))
    table.add_row("of constant quantiles there", fixed(result["pinball_baseline"], 5))
    table.add_row("directional skill there", result["directional_skill"])
    if "net_sharpe_calibrate" in result:
        net, gross = (fixed(result[f"{name}_sharpe_calibrate"], signed=True) for name in ("net", "gross"))
        told = f"{net} after costs, {gross} before"
        table.add_row("Sharpe ratio of its positions there", told)
        size = percent(result["mean_position_calibrate"])
        table.add_row("their mean size", size if result["position_believed"] else f"{size}, but none is believed")
    table.add_row("warm-up, measured", f"{result['warmup_bars']:,} bars")
    table.add_row("epochs", f"{result['epochs']:,}")
    table.add_row("seconds in the training loop", f"{result['seconds']:,.1f}")
    table.add_row("targets a second", f"{result['targets_per_second']:,}")
    console.print(table)


def print_forecast(instrument_id: str, close: float, tick: float, forecast: Forecast) -> None:
    decimals = min(12, max(0, -math.floor(math.log10(tick) + 1e-9)))
    told = f"at {format_ns(forecast.ts_close)}, close {close:,.{decimals}f}, σ {percent(forecast.scale, 3)} a bar"
    title = f"{escape(instrument_id)} {told}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("level", justify="right")
    for horizon in forecast.horizons:
        table.add_column(f"{horizon} bar{'s' * (horizon > 1)}", justify="right")
        table.add_column("price", justify="right")
    for column, level in enumerate(forecast.levels):
        cells = []
        for row in range(len(forecast.horizons)):
            r = float(forecast.quantiles_HQ[row, column])
            cells += [percent(r, 3, signed=True), f"{close * math.exp(r):,.{decimals}f}"]
        table.add_row(percent(level, 0), *cells)
    table.add_section()
    gains = [(percent(forecast.probability_of_gain(horizon)), "") for horizon in forecast.horizons]
    table.add_row("P(gain)", *(cell for pair in gains for cell in pair))
    if math.isfinite(forecast.position):
        table.add_row("position", percent(forecast.position, signed=True))
    console.print(table)


def print_backtest(summary: dict[str, Any]) -> None:
    """Show what `backtest` reports; before all else what the result does not support."""
    if told := first_line(msgspec.convert(summary, Summary)):
        console.print(f"[bold]{escape(told)}[/bold]", highlight=False)
    table = Table(title="Backtest", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "strategy", "buy and hold"):
        table.add_column(heading, justify="right" if heading else "left")
    held = summary["buy_and_hold"]
    table.add_row("net return", percent(summary["net_return"], signed=True), percent(held["net_return"], signed=True))
    table.add_row("Sharpe, annualised", fixed(summary["sharpe"]), fixed(held["sharpe"]))
    table.add_row("maximum drawdown", percent(summary["max_drawdown"]), percent(held["max_drawdown"]))
    table.add_row("orders", f"{summary['orders']:,}", "")
    table.add_row("fees", f"{summary['fees']:,.2f}", "")
    table.add_row("days halted", str(summary["days_halted"]), "")
    console.print(table)
    if margin := summary.get("margin"):
        console.print(f"margin: {escape(margin)}", highlight=False, soft_wrap=True)
    for rows, title in (
        (_beside(summary), "Beside simple rules"),
        (_sensitivity(summary), "Sharpe by costs and delay"),
    ):
        if rows:
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
            for heading in rows[0]:
                table.add_column(heading, justify="right" if heading else "left")
            for row in rows[1:]:
                table.add_row(*row)
            console.print(table)
    if parts := summary.get("instruments"):
        table = Table(title="By instrument, on one account", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "result", "orders", "fees", "mean exposure", "largest", "absent"):
            table.add_column(heading, justify="right" if heading else "left")
        for part in parts:
            money = (f"{part['result']:+,.0f}", f"{part['orders']:,}", f"{part['fees']:,.0f}")
            exposures = (percent(part["mean_exposure"]), percent(part["largest_exposure"]))
            table.add_row(escape(part["instrument"]), *money, *exposures, f"{part['absent']:,}")
        console.print(table)
    table = Table(title="Forecasts on the same bars", title_justify="left", box=box.SIMPLE_HEAD)
    headings = ("horizon", "pinball", "of constant quantiles", BETTER, "inside 80 %", "inside 98 %")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in summary["by_horizon"]:
        bars = f"{row['horizon']} bar{'s' * (row['horizon'] > 1)}"
        better = (
            percent(1.0 - row["pinball"] / row["pinball_baseline"], 2, signed=True) if row["pinball_baseline"] else "–"
        )
        losses = (fixed(row["pinball"], 5), fixed(row["pinball_baseline"], 5))
        table.add_row(bars, *losses, better, percent(row["coverage_80"]), percent(row["coverage_98"]))
    console.print(table)
    for note in summary["notes"]:
        console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
    console.print(f"report: {escape(summary['report'])}", soft_wrap=True, highlight=False)


def _beside(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["", "net return", "Sharpe", "maximum drawdown", "orders"]]
    for rule in summary.get("beside", []):
        if rule["error"]:
            console.print(f"[yellow]note[/yellow] {escape(rule['name'])} could not be run: {escape(rule['error'])}")
            continue
        figures = [percent(rule["net_return"], signed=True), fixed(rule["sharpe"]), percent(rule["max_drawdown"])]
        rows.append([escape(rule["name"]), *figures, f"{rule['orders']:,.0f}"])
    return rows if len(rows) > 1 else []


def _sensitivity(summary: dict[str, Any]) -> list[list[str]]:
    found = summary.get("sensitivity")
    if not found:
        return []
    rows = [["", *(f"{delay} bar{'s' * (delay > 1)} later" if delay else "next open" for delay in found["delays"])]]
    pairs = zip(found["multiples"], found["sharpe"], strict=True)
    return rows + [[f"{multiple:g} × costs", *(fixed(value) for value in row)] for multiple, row in pairs]
