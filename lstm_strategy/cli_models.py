"""The ``models`` commands: which artefacts there are, whether they are what was saved, and which one is in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy import artefact, registry
from lstm_strategy.cli_options import MODELS, JsonOption, ModelsOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["models_app"]

models_app = typer.Typer(
    name="models", help="List, verify and promote trained models.", no_args_is_help=True, rich_markup_mode="rich"
)


@models_app.command("list")
def list_command(models: ModelsOption = MODELS, as_json: JsonOption = False) -> None:
    """List every model version with its pinball loss, held out; an asterisk marks the one in use.

    [bold]Example[/bold]: lstm-strategy models list --json
    """
    rows: list[dict[str, Any]] = []
    for name, version in registry.versions(models):
        try:
            manifest = artefact.load(models / name / version).manifest
            instruments, timeframe = list(manifest.instruments), manifest.timeframe
            pinball, problem = manifest.scores.get("pinball_calibrate"), ""
        except LSTMStrategyError as error:
            instruments, timeframe, pinball, problem = [], "", None, str(error)
        try:
            in_use = registry.is_current(models, name, version)
        except LSTMStrategyError as error:  # the way out of a damaged pointer needs the versions there are
            in_use, problem = False, problem or str(error)
        rows.append(
            {
                "model": name,
                "version": version,
                "current": in_use,
                "instruments": instruments,
                "timeframe": timeframe,
                "pinball": pinball,
                "problem": problem,
            }
        )
    table = Table(box=box.SIMPLE_HEAD)
    problems = any(row["problem"] for row in rows)
    for heading in ("model", "version", "in use", "instruments", "bars", "pinball", *(["problem"] * problems)):
        whole = heading in ("model", "version", "in use", "bars")  # what other commands ask for is copied from here
        table.add_column(heading, overflow="fold", no_wrap=whole)
    for row in rows:
        score = "" if row["pinball"] is None else f"{row['pinball']:.5f}"
        mark, names = "*" if row["current"] else "", ", ".join(row["instruments"])
        cells = [row["model"], row["version"], mark, names, row["timeframe"], score]
        table.add_row(*cells, *([escape(row["problem"])] * problems))
    console.print(table if rows else f"no models in {models}; train one with: lstm-strategy train EXPERIMENT.toml")
    if as_json:
        emit_json({"models": rows})


@models_app.command("verify")
def verify_command(
    model: Annotated[str, typer.Argument(help="A model's name, name/version, or an artefact's folder.")],
    models: ModelsOption = MODELS,
    as_json: JsonOption = False,
) -> None:
    """Check that an artefact is whole, of this schema, and byte for byte what was saved.

    [bold]Examples[/bold]: lstm-strategy models verify btcusdt_1h; lstm-strategy models verify models/btcusdt_1h/VERSION
    """
    ok, reason = True, ""
    try:
        loaded = artefact.load(registry.locate(models, model))
        console.print(f"[green]ok[/green] {loaded.label}")
    except LSTMStrategyError as error:
        ok, reason = False, str(error)
        console.print(f"[red]error:[/red] {escape(reason)}", highlight=False, soft_wrap=True)
    if as_json:
        emit_json({"ok": ok, "reason": reason})
    if not ok:
        raise typer.Exit(1)


@models_app.command("promote")
def promote_command(
    name: Annotated[str, typer.Argument(help="The model's name, or name/version.")],
    version: Annotated[str, typer.Argument(help="The version to use from now on.")] = "",
    models: ModelsOption = MODELS,
    as_json: JsonOption = False,
) -> None:
    """Make a version the current one; it is verified first. Strategies that follow the model take it up as they run.

    [bold]Examples[/bold]: lstm-strategy models promote btcusdt_1h VERSION, or btcusdt_1h/VERSION
    """
    if not version:
        name, _, version = name.partition("/")
    if not version:
        there = registry.versions_of(models, name)
        raise LSTMStrategyError(f"which version of {name}? It has {', '.join(there)}: models promote {name} VERSION")
    registry.promote(models, name, version)
    _told_current(models, name, version, as_json=as_json)


@models_app.command("rollback")
def rollback_command(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    models: ModelsOption = MODELS,
    as_json: JsonOption = False,
) -> None:
    """Make the version current again that was so before; it is verified first. Once more goes one further back.

    What is rolled back is left behind: to have it again, promote it.

    [bold]Example[/bold]: lstm-strategy models rollback btcusdt_1h
    """
    _told_current(models, name, registry.rollback(models, name), as_json=as_json)


def _told_current(models: Path, name: str, version: str, *, as_json: bool) -> None:
    earlier = registry.before(models, name)
    told = f"a rollback leads to {earlier[0]}" if earlier else "there is none before it"
    console.print(f"[green]ok[/green] {name} is {version} now; {told}", soft_wrap=True)
    if as_json:
        emit_json({"model": name, "current": version, "before": earlier})
