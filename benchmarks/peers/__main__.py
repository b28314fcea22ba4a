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
Pair = tuple[str, dict[str, Any], dict[str, Any] | None]
_RUNS: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {  # module, our part, its arguments
    "neuralforecast": [
        ("neuralforecast_peer", "train", ("default", "robust")),
        ("neuralforecast_peer", "train", ("64", "robust")),
        ("neuralforecast_peer", "train", ("64", "identity")),
    ],
    "darts": [("darts_peer", "train", ("block",)), ("darts_peer", "train", ("rnn",))],
    "freqai": [("freqai_peer", "walk", ())],
}


def main() -> int:
    """Run the package anew just before each peer, since the machine is shared; name and leave out a peer not to be had.

    Returns 1 where the package itself fails.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", choices=tuple(PEERS), action="append", help="a peer; all where none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and curves there too")
    parser.add_argument("--longest", type=float, help="CPU seconds of one training at most")
    arguments = parser.parse_args()
    chosen: dict[str, object] = {} if arguments.longest is None else {"longest": arguments.longest}
    task = make_task(_WORK, **chosen)
    pairs: list[Pair] = []
    for name in arguments.only or PEERS:
        for module, part, settings in _RUNS[name]:
            try:
                ours = run_script(Path(sys.executable), "ours", str(_WORK), part)
            except PeerError as error:
                progress(f"peers: {error}")
                return 1
            try:
                pairs.append((part, ours, run_script(environment(name), module, str(_WORK), *settings)))
            except PeerError as error:
                progress(f"peers: {error}; left out")
                pairs.append((part, ours, None))
                break
    constant = _constant_loss(task)
    figures = _figures(pairs, constant, task)
    if _trained(pairs):
        _print_losses(task, pairs, constant)
    print_table(figures)
    if arguments.json:
        document = {
            "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "task": task,
            "constant_quantiles": constant,
            "figures": figures,
            "exact": [training_figure(_curves(ours), peer, constant, 1.0) for ours, peer in _trained(pairs)],
            "runs": [{"part": part, "ours": ours, "peer": peer} for part, ours, peer in pairs],
        }
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return 0


def _figures(pairs: list[Pair], constant: float, task: Task) -> list[Figure]:
    figures = [training_figure(_curves(ours), peer, constant) for ours, peer in _trained(pairs)]
    figures += [history_figure(ours["history"], peer) for ours, peer in _trained(pairs)]
    for part, ours, peer in pairs:
        if part == "walk":
            tuned = f"the later ones {task.warm_epochs} passes on from the fold before"
            for key, told in (("own", "stopped early"), ("same", f"{task.epochs} passes"), ("tuned", tuned)):
                figures.append(walk_figure(f"{told} (pinball {ours[key]['pinball']:.5f})", ours[key], peer))
    return figures


def _trained(pairs: list[Pair]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(ours, peer) for part, ours, peer in pairs if part == "train" and peer]


def _curves(side: dict[str, Any]) -> list[list[tuple[float, float]]]:
    return [[(seconds, loss) for seconds, loss in curve] for curve in side["curves"]]


def _constant_loss(task: Task) -> float:
    table = pq.read_table(_WORK / "table.parquet", columns=["past", "known"])
    past, known = table["past"].to_numpy(), table["known"].to_numpy()
    fit, stop = past[: task.fit_rows][known[: task.fit_rows]], past[task.fit_rows :]
    q_Q = np.quantile(fit, task.levels)
    return pinball(np.broadcast_to(q_Q, (len(stop), len(q_Q))), stop, list(task.levels))


def _print_losses(task: Task, pairs: list[Pair], constant: float) -> None:
    title = f"{task.source}; one LSTM layer of {task.hidden}, one thread; validation pinball of {task.stop_rows:,} bars"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "best", "at CPU s", "CPU s in all"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("constant quantiles", f"{constant:.5f}", "", "")
    own = [curve for ours, _ in _trained(pairs) for curve in _curves(ours)]
    rows = [("this package, median", own)] if own else []
    rows += [(f"{peer['name']}, {peer['setting']}", _curves(peer)) for _, peer in _trained(pairs)]
    for name, curves in rows:
        bests = [min(curve, key=lambda point: point[1]) for curve in curves]
        loss, seconds = median(best[1] for best in bests), median(best[0] for best in bests)
        table.add_row(name, f"{loss:.5f}", f"{seconds:.1f}", f"{median(curve[-1][0] for curve in curves):.1f}")
    Console(width=None if Console().is_terminal else 170).print(table)


if __name__ == "__main__":
    sys.exit(main())
