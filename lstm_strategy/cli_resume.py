"""The ``resume`` command: lifts latched halts of a strategy, running or stopped, and writes down why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lstm_strategy.cli_options import RUNS, JsonOption, RunsOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.halt_files import one_line
from lstm_strategy.resume import latched, lift, risks_of
from lstm_strategy.state_file import Kept
from lstm_strategy.state_folder import FolderHeldError, StateFolder

__all__ = ["resume_command"]

_POLL_S = 0.1


def resume_command(
    what: Annotated[Path, typer.Argument(help="The experiment's TOML file, or a state folder.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Why it may trade again; one line, kept in resumed.jsonl.")],
    runs: RunsOption = RUNS,
    wait: Annotated[float, typer.Option(min=0.0, max=600.0, help="Seconds to wait for a running strategy.")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Lift the halts that somebody must lift: drawdown (the peak starts anew), and those that were ordered.

    Removes the kill file as well. A loss of the day stays until the next UTC day. Several instruments go together.

    [bold]Examples[/bold]: lstm-strategy resume backtests/btcusdt_1h.toml --reason "checked the fills, all as meant";
    lstm-strategy resume backtests/runs/btcusdt_1h/live/state --reason "drill is over"
    """
    if len(reason.strip().splitlines()) > 1 or one_line(reason) != " ".join(reason.split()) or not reason.strip():
        raise LSTMStrategyError(f"--reason is {reason[:80]!r}; say in one line of 1 to 200 characters why")
    folder, reason = StateFolder(_locate(what, runs)), one_line(reason)
    try:
        folder.acquire("lstm-strategy resume")
    except FolderHeldError:
        done = _ask(folder, reason, wait)
    else:
        try:
            done = _edit(folder, reason)
        finally:
            folder.release()
    if as_json:
        emit_json(done)


def _edit(folder: StateFolder, reason: str) -> dict[str, object]:
    """Lift in the state of a strategy that is stopped; first the reason is written down, so that none is lost."""
    killed_ns = folder.halts.killed_ns()
    kept, lifted, kill = _halts(folder)
    folder.halts.drop_request()
    folder.halts.record(time.time_ns(), reason, lifted, kill)
    folder.halts.remove_kill(killed_ns + 1)  # the one that was told of, and no later one
    if kept is not None:
        folder.write(lift(kept, reason))
        folder.flush()
    _tell("[green]lifted[/green]", lifted, kill, "The strategy is stopped; it trades again when it is started.")
    return {"folder": str(folder.path), "state": "lifted", "running": False, "lifted": lifted, "kill_file": kill}


def _ask(folder: StateFolder, reason: str, wait: float) -> dict[str, object]:
    """Leave a request to a strategy that runs, and wait for it to be taken up."""
    _, lifted, kill = _halts(folder)
    folder.halts.ask_to_resume(reason)
    until = time.monotonic() + wait
    while folder.halts.request() is not None and time.monotonic() < until:
        time.sleep(_POLL_S)
    taken = folder.halts.request() is None
    if taken:
        _tell("[green]lifted[/green]", lifted, kill, "The running strategy has taken it up.")
    else:
        _tell("[yellow]asked[/yellow]", lifted, kill, "The strategy takes it up at its next look, bar or start.")
    state = "lifted" if taken else "asked"
    return {"folder": str(folder.path), "state": state, "running": True, "lifted": lifted, "kill_file": kill}


def _halts(folder: StateFolder) -> tuple[Kept | None, dict[str, list[str]], str | None]:
    """Return the state, what is latched in it by instrument, and the kill file's text; refuse where nothing is."""
    kept, problem = folder.read()
    if problem:
        console.print(f"[yellow]warning[/yellow] {escape(problem)}", soft_wrap=True, highlight=False)
    risks = {} if kept is None else risks_of(kept)
    lifted = {} if kept is None else latched({name: risks.get(name) for name in kept.models}, kept.ordered)
    kill = folder.halts.kill_reason()
    daily = sorted(name for name, risk in risks.items() if risk.daily_halt)
    told = f"; {', '.join(daily)}: the loss of the day halts until the next UTC day" if daily else ""
    if not lifted and kill is None:
        raise LSTMStrategyError(f"nothing is latched in {folder.path}{told}")
    if daily:
        console.print(f"[yellow]stays[/yellow]{escape(told.removeprefix(';'))}", soft_wrap=True, highlight=False)
    return kept, lifted, kill


def _tell(done: str, lifted: dict[str, list[str]], kill: str | None, then: str) -> None:
    halts = [f"{name}: {', '.join(which)}" for name, which in lifted.items()]
    if kill is not None:
        halts.append(f"the kill file ({kill})")
    console.print(f"{done} {escape('; '.join(halts))}. {then}", soft_wrap=True, highlight=False)


def _locate(what: Path, runs: Path) -> Path:
    """Return the state folder meant; an experiment's where there is one and no more."""
    if what.is_dir():
        if StateFolder(what).known:
            return what
        raise LSTMStrategyError(f"{what} is no state folder: neither a state nor a kill file is in it")
    from lstm_strategy.experiment import load_experiment

    name = load_experiment(what).name
    live, paper = runs / name / "live", runs / name / "paper"
    found = [place for place in (live / "state", paper / "state") if StateFolder(place).known]
    meant = found if len(found) < 2 else [place for place in found if _is_halted(StateFolder(place))]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise LSTMStrategyError(f"{name} is halted in {' and '.join(map(str, meant))}: name the folder meant")
    if found:
        raise LSTMStrategyError(f"nothing is latched in {' or '.join(map(str, found))}")
    raise LSTMStrategyError(
        f"{name} has kept no state in {live} or {paper}: a replay keeps none, and a node none before its first bar;"
        " name the state_dir of a node of your own"
    )


def _is_halted(folder: StateFolder) -> bool:
    """Say whether something is to be lifted there, or may be."""
    try:
        kept, _ = folder.read()
        risks = {} if kept is None else risks_of(kept)
    except LSTMStrategyError:
        return True
    ordered = "" if kept is None else kept.ordered
    return bool(latched(risks, ordered)) or bool(ordered) or folder.halts.kill_reason() is not None
