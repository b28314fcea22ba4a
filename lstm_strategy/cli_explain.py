"""The ``explain`` command: why a run did, or did not, trade at a bar; and where two runs part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy.bars import parse_ns
from lstm_strategy.cli_options import JsonOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.decision_log import file_name
from lstm_strategy.decision_log_reader import read_log, read_logs
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.formatting import percent
from lstm_strategy.report.explain_diff import STAGES, Cell, Difference
from lstm_strategy.report.explain_page import SHOWN, write_explanation
from lstm_strategy.report.explain_panel import compare_panels, explain_panel, row_at
from lstm_strategy.report.explain_words import count_words, explain_row, sum_up_log
from lstm_strategy.report.html import has_extra
from lstm_strategy.run_events import read_ordered

__all__ = ["explain_command"]

_CELLS = 12


def explain_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folder; two with --diff.", show_default=False)],
    instrument: Annotated[str | None, typer.Option(help="One of a run of several; all in short else.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Explain the last bar closed by then (UTC).")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Find the first bar at which two runs differ.")] = False,
    tolerance: Annotated[float, typer.Option(help="With --diff: what counts as equal; 0 is to the last bit.")] = 0.0,
    stage: Annotated[
        list[str] | None, typer.Option(help=f"With --diff: look only at these of {', '.join(STAGES)}.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Where the picture goes; explain.html in the run folder.")] = None,
    bars: Annotated[int, typer.Option(min=2, max=5_000, help="Bars in the picture.")] = SHOWN,
    as_json: JsonOption = False,
) -> None:
    """Say in words and in a picture what was forecast, wanted, allowed and done at a bar, and why nothing was.

    Without --at: how often which reason, the halts, and the last bar. A run that was killed can be asked as well. Of
    several instruments on one account, what each was decided at the bar; --instrument tells all of one.

    With --diff: the first bar at which two runs differ in bars, features, forecast, state or decision, in that order of
    causation, by how much, and what likely lies behind it. Exit code 0 where they do not differ, 1 where they do.

    [bold]Examples[/bold]: lstm-strategy explain backtests/runs/NAME/RUN --at 2024-08-05T06:00

    lstm-strategy explain --diff backtests/runs/NAME/RUN_A paper/RUN_B --stage features --stage forecast
    """
    if diff:
        if len(runs) != 2:
            raise LSTMStrategyError(f"--diff compares two runs; {len(runs)} named: explain --diff RUN_A RUN_B")
        a, b = ({instrument: read_log(run, instrument)} if instrument else read_logs(run) for run in runs)
        name, found = compare_panels(a, b, tolerance=tolerance, stages=_chosen(stage))
        several = len(a) > 1
        _print_difference(runs, found, name if several else "")
        if as_json:
            whose = {"instrument": name if found.stage else None} if several else {}
            emit_json({"same": found.stage is None} | whose | msgspec.to_builtins(found))
        raise typer.Exit(0 if found.stage is None else 1)
    if len(runs) != 1:
        raise LSTMStrategyError(f"{len(runs)} runs are named; explain one, or compare two with --diff")
    logs = {instrument: read_log(runs[0], instrument)} if instrument else read_logs(runs[0])
    ordered = read_ordered(runs[0]) if at is None else []
    ts = None if at is None else parse_ns(at)
    if len(logs) > 1:
        if page is not None:
            raise LSTMStrategyError(f"{runs[0]} is of {', '.join(logs)}; a picture shows one: name it by --instrument")
        panel = explain_panel(logs, ts)
        _print_panel(panel)
        _print_ordered(ordered)
        if as_json:
            emit_json({"instruments": panel} | ({"ordered": ordered} if at is None else {}))
        return
    (log,) = logs.values()
    row = row_at(log, ts)
    said = explain_row(log, row)
    summary = sum_up_log(log) if at is None else None
    if summary is not None:
        _print_summary(summary)
        _print_ordered(ordered)
    _print_words(said)
    told: dict[str, Any] = {"explained": said} | ({} if summary is None else {"summary": summary, "ordered": ordered})
    if page is None and not has_extra():
        console.print("[yellow]note[/yellow] no picture: it needs pip install 'lstm-strategy\\[report]'")
    else:
        beside = runs[0] if runs[0].is_dir() else log.path
        named = f"explain-{file_name(instrument)}.html" if instrument else "explain.html"
        written = write_explanation(log, row, page or beside / named, said, summary=summary, shown=bars)
        console.print(f"picture: {escape(str(written))}", soft_wrap=True, highlight=False)
        told["page"] = str(written)
    if as_json:
        emit_json(told)


def _chosen(stage: list[str] | None) -> tuple[str, ...]:
    """In the order of causation; an unknown one is left to `compare`."""
    named = stage or list(STAGES)
    return (*(name for name in STAGES if name in named), *(name for name in named if name not in STAGES))


def _print_words(said: dict[str, Any]) -> None:
    for heading, text in said["words"].items():
        console.print(f"[bold]{heading}[/bold]: {escape(text)}", highlight=False, soft_wrap=True)


def _print_summary(summary: dict[str, Any]) -> None:
    span = f"{summary['bars']:,} bars from {summary['first']} to {summary['last']}, {summary['orders']:,} orders"
    told = f"{escape(summary['instrument'])} {summary['timeframe']}, {escape(summary['model'])}: {span}"
    console.print(told, soft_wrap=True)
    for key, heading in (("reasons", "reason"), ("bound", "limit that bound"), ("actions", "action")):
        if summary[key]:
            table = Table(box=box.SIMPLE_HEAD)
            for name in (heading, "bars", "share", "first (UTC)", "last (UTC)"):
                side: Literal["left", "right"] = "left" if name == heading else "right"
                table.add_column(name, justify=side, no_wrap=True, overflow="fold")
            for kind in summary[key]:
                # to the minute, as --at takes it
                table.add_row(*(escape(word.removesuffix("Z").removesuffix(":00")) for word in count_words(kind)))
            console.print(table)
    halts = summary["halts"]
    if halts:
        console.print(f"days halted: {len(summary['days_halted'])}, halts: {len(halts)}")
        for halt in halts:
            console.print(
                f"  {halt['reason']}: {halt['first']} to {halt['last']}, {halt['bars']:,} bars"
                + (f"; {escape(halt['told'])}" if halt["told"] else ""),
                highlight=False,
                soft_wrap=True,
            )
    if summary["gaps"]:
        last = summary["missing"][-1]
        console.print(f"bars are missing {summary['gaps']:,} times, last {last['bars']:,} after {last['after']}")


def _print_ordered(ordered: list[str]) -> None:
    """What the node told of halts that somebody ordered, as it happened."""
    for text in ordered:
        console.print(f"ordered: {escape(text)}", highlight=False, soft_wrap=True)


def _print_panel(panel: dict[str, Any]) -> None:
    """One row an instrument: the run in short, where it is told, and what was decided at the bar."""
    if summaries := {name: told["summary"] for name, told in panel.items() if "summary" in told}:
        table = Table(title="The whole run", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "bars", "orders", "days halted", "most frequent reasons"):
            _add_column(table, heading, right=heading in ("bars", "orders", "days halted"))
        for name, summary in summaries.items():
            kinds = summary["reasons"][:3]
            often = ", ".join(f"{kind['name'].replace('_', ' ')} {percent(kind['share'], 0)}" for kind in kinds)
            counts = (f"{summary[key]:,}" for key in ("bars", "orders"))
            table.add_row(escape(name), *counts, str(len(summary["days_halted"])), escape(often))
        console.print(table)
    stamps = {told["explained"]["bar"]["ts_close"] for told in panel.values()}
    table = Table(title=f"Decided at {', '.join(sorted(stamps))}", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "held", "wanted", "target", "reason", "bound", "action", "order"):
        _add_column(table, heading, right=heading in ("held", "wanted", "target", "order"))
    for name, told in panel.items():
        bar, wanted = told["explained"]["bar"], told["explained"]["wanted"]
        shares = (percent(value) for value in (bar["exposure"], wanted, bar["target"]))
        order = f"{bar['quantity']:+.10g}" if bar["quantity"] else ""
        words = (text.replace("_", " ") for text in (bar["reason"], ", ".join(bar["bound"]), bar["action"]))
        table.add_row(escape(name), *shares, *words, order)
    console.print(table)
    console.print(f"--instrument {escape(next(iter(panel)))} tells all of it, with a picture", highlight=False)


def _add_column(table: Table, heading: str, *, right: bool) -> None:
    """The names, without a heading, stay whole."""
    table.add_column(heading, justify="right" if right else "left", no_wrap=not heading, overflow="fold")


def _print_difference(runs: list[Path], found: Difference, name: str) -> None:
    def say(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    say(f"A {runs[0]}\nB {runs[1]}\n{found.compared:,} bars of both, {found.first} to {found.last}")
    for note in found.notes:
        say(f"note: {note}")
    if found.stage is None:
        say("No difference.")
        for text in found.settings:
            say(f"  though other settings: {text}")
        return
    what = "is missing in one run" if found.stage == "missing" else f"differs first in: {found.stage}"
    say(f"The bar{f' of {name}' if name else ''} closed at {found.ts_close} {what}.")
    for cell in found.cells[:_CELLS]:
        say(f"  {_cell_words(cell)}")
    if len(found.cells) > _CELLS:
        say(f"  and {len(found.cells) - _CELLS} more")
    for text in found.why:
        say(f"likely: {text}")
    others = [text for text in found.settings if not any(text in why for why in found.why)]
    for text in others:
        say(f"other settings: {text}")
    say("bars that differ: " + ", ".join(f"{stage} {count:,}" for stage, count in found.bars.items()))


def _cell_words(cell: Cell) -> str:
    a, b = (_value(value) for value in (cell.a, cell.b))
    by = "" if cell.by is None else f" (by {cell.by:+.6g})"
    return f"{cell.stage} {cell.name}: A {a}, B {b}{by}"


def _value(value: float | str | None) -> str:
    if value is None:
        return "none"
    return (value or "nothing") if isinstance(value, str) else f"{value:.10g}"
