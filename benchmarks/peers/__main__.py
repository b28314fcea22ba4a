"""Run the peers beside the package and print the tables: ``python -m benchmarks.peers [--only NAME] [--json FILE]``."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.common import Figure, print_table, progress
from benchmarks.peers.compare import history_figure, training_figure, walk_figure
from benchmarks.peers.environments import PEERS, ROOT, PeerError, environment, run_script
from benchmarks.peers.peer import pinball
from benchmarks.peers.task import Task, make_task

_WORK = ROOT / "build" / "peers" / "work"
_RUNS = {
    "neuralforecast": [
        ("neuralforecast_peer", ("default", "robust")),
        ("neuralforecast_peer", ("64", "robust")),
        ("neuralforecast_peer", ("64", "identity")),
    ],
    "darts": [("darts_peer", ("block",)), ("darts_peer", ("rnn",))],
    "freqai": [("freqai_peer", ())],
}


def main() -> int:
    """Return 1 where the package itself fails; a peer that cannot be had here is named and left out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", choices=tuple(PEERS), action="append", help="a peer; all where none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and curves there too")
    parser.add_argument("--longest", type=float, help="CPU seconds of one training at most")
    arguments = parser.parse_args()
    chosen: dict[str, object] = {} if arguments.longest is None else {"longest": arguments.longest}
    task = make_task(_WORK, **chosen)
    try:
        ours = run_script(Path(sys.executable), "ours", str(_WORK))
    except PeerError as error:
        progress(f"peers: {error}")
        return 1
    found: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.only or PEERS:
        try:
            python = environment(name)
            for module, settings in _RUNS[name]:
                found.setdefault(name, []).append(run_script(python, module, str(_WORK), *settings))
        except PeerError as error:
            progress(f"peers: {error}")
    constant = _constant_loss(task)
    figures = _figures(ours, found, constant)
    _print_losses(task, ours, found, constant)
    print_table(figures)
    if arguments.json:
        document = {
            "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "task": task,
            "constant_quantiles": constant,
            "figures": figures,
            "exact": [training_figure(_curves(ours), peer, constant, 1.0) for peer in _trained(found)],
            "ours": ours,
            "peers": found,
        }
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return 0


def _figures(ours: dict[str, Any], found: dict[str, list[dict[str, Any]]], constant: float) -> list[Figure]:
    figures = [training_figure(_curves(ours), peer, constant) for peer in _trained(found)]
    figures += [history_figure(ours["history"], peer) for peer in _trained(found)]
    freqai = (found.get("freqai") or [None])[0]
    for name, key in (("stopped early", "walk_own"), ("10 passes", "walk_same")):
        figures.append(walk_figure(name, ours[key], freqai))
    return figures


def _trained(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [peer for peers in found.values() for peer in peers if "curves" in peer]


def _curves(ours: dict[str, Any]) -> list[list[tuple[float, float]]]:
    return [[(seconds, loss) for seconds, loss in curve] for curve in ours["curves"]]


def _constant_loss(task: Task) -> float:
    table = pq.read_table(_WORK / "table.parquet", columns=["past", "known"])
    past, known = table["past"].to_numpy(), table["known"].to_numpy()
    fit, stop = past[: task.fit_rows][known[: task.fit_rows]], past[task.fit_rows :]
    q_Q = np.quantile(fit, task.levels)
    return pinball(np.broadcast_to(q_Q, (len(stop), len(q_Q))), stop, list(task.levels))


def _print_losses(task: Task, ours: dict[str, Any], found: dict[str, list[dict[str, Any]]], constant: float) -> None:
    title = f"{task.source}; one LSTM layer of {task.hidden}, one thread; validation pinball of {task.stop_rows:,} bars"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "best", "at CPU s", "CPU s in all"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("constant quantiles", f"{constant:.5f}", "", "")
    rows = [("this package, median of seeds", _curves(ours))]
    rows += [(f"{peer['name']}, {peer['setting']}", _curves(peer)) for peer in _trained(found)]
    for name, curves in rows:
        bests = [min(curve, key=lambda point: point[1]) for curve in curves]
        loss, seconds = median(best[1] for best in bests), median(best[0] for best in bests)
        table.add_row(name, f"{loss:.5f}", f"{seconds:.1f}", f"{median(curve[-1][0] for curve in curves):.1f}")
    Console(width=None if Console().is_terminal else 170).print(table)


if __name__ == "__main__":
    sys.exit(main())
