"""Figures on real data: five coins out of sample, ``python -m benchmarks.real [--experiment FILE] [--what TEXT]``.

Skips with a line where the market data are absent. The catalog, models and forecasts are kept in ``build/bench-real``:
a second run with the same settings only scores and prints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.common import progress
from benchmarks.peers.task import data_folder
from benchmarks.real_runs import Run, configuration_of, count, note
from lstm_strategy.bars import Timeframe
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.formatting import p_value
from lstm_strategy.research.judgement import SideBySide, put_side_by_side
from lstm_strategy.research.scores import score
from lstm_strategy.sources.store import RawStore

__all__ = ["fold_summary", "main", "tables"]

ROOT = Path(__file__).absolute().parents[1]
FOLDER = ROOT / "build" / "bench-real"
RUNS = ROOT / "benchmarks" / "real_runs.toml"
TEST_SPAN = "2024-01-01"  # a configuration whose forecasts reach beyond it is counted


def main() -> int:
    """Import what is missing, evaluate, print the tables, and note the configuration where the test span was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=__doc__)
    parser.add_argument("--experiment", type=Path, default=ROOT / "backtests" / "panel_1h.toml", metavar="FILE")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--what", default="", metavar="TEXT", help="what is new in this configuration, for the record")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        progress(
            "real: skipped, no market data; put them in ../shared/data or name a folder in LSTM_STRATEGY_TEST_DATA"
        )
        return 0
    experiment = load_experiment(arguments.experiment)
    if not _import(experiment, folder):
        return 1
    started = time.perf_counter()
    summary = _evaluate(arguments.experiment, arguments.workers)
    if summary is None:
        return 1
    seconds = time.perf_counter() - started
    fold = fold_summary(summary)
    configuration = configuration_of(experiment)
    if str(fold["until"]) > TEST_SPAN:
        note(RUNS, _run(configuration, summary, fold, arguments.what))
    console = Console() if Console().is_terminal else Console(width=150)
    for table in tables(summary, fold):
        console.print(table)
    console.print(summary["verdict"], highlight=False)
    told = f"configuration {configuration}; configurations run on {TEST_SPAN[:4]} so far: {count(RUNS)}"
    console.print(f"{told} (benchmarks/{RUNS.name}); wall time {seconds:.0f} s", highlight=False)
    if arguments.json:
        document = summary | {"last_fold": fold, "configuration": configuration, "wall_seconds": round(seconds, 1)}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return 0


def fold_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the last fold's scores, pooled and by instrument, from the forecasts that the evaluation wrote."""
    number = max(row["fold"] for row in summary["by_fold"])
    since, until = next(row["spans"]["test"] for row in summary["by_fold"] if row["fold"] == number)
    baselines = pq.read_table(ROOT / summary["baselines_path"]) if summary["baselines_path"] else None
    rows = put_side_by_side(pq.read_table(ROOT / summary["forecasts_path"]), baselines, tuple(summary["seeds"]))
    chosen = _of_fold(rows, number)
    found: dict[str, Any] = msgspec.to_builtins(score(*chosen))
    return found | {"fold": number, "since": since, "until": until}


def tables(summary: dict[str, Any], fold: dict[str, Any]) -> list[Table]:
    """The network against every baseline, on all folds and on the last, pooled and by instrument."""
    spans = [("all folds", summary), (f"{fold['since'][:10]} to {fold['until'][:10]}", fold)]
    found = []
    for title, scores in spans:
        groups = {"pooled": scores} | scores["by_instrument"]
        losses = Table(title=f"Mean pinball loss, {title}", title_justify="left", box=box.SIMPLE_HEAD)
        losses.add_column("")
        for name in groups:
            losses.add_column(name.removesuffix(".BINANCE"), justify="right")
        losses.add_column("network better by", justify="right")
        losses.add_column("p (Holm)", justify="right")
        losses.add_row("network", *(f"{group['pinball']:.5f}" for group in groups.values()), "", "")
        for name in sorted(scores["baselines"], key=scores["baselines"].__getitem__):
            cells = [f"{group['baselines'][name]:.5f}" for group in groups.values()]
            p = scores["dm"][name]["p_holm"] if name in scores["dm"] else None
            losses.add_row(name, *cells, f"{scores['skill'][name]:+.2%}", p_value(p))
        found.append(losses)
        shares = Table(title=f"Against the best baseline of each, {title}", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "best baseline", "network better by", "p", "inside 80 %", "inside 98 %", "worse than"):
            shares.add_column(heading, justify="right" if heading else "left")
        for name, group in groups.items():
            covered = (f"{group['coverage'][share]:.1%}" for share in ("0.8", "0.98"))
            worse = ", ".join(each for each, skill in group["skill"].items() if skill < 0) or "none"
            skill = "–" if group["skill_over_best"] is None else f"{group['skill_over_best']:+.2%}"
            told = (group["best_baseline"] or "–", skill, p_value(group["dm_p"]))
            shares.add_row(name.removesuffix(".BINANCE"), *told, *covered, worse)
        found.append(shares)
    return found


def _of_fold(rows: SideBySide, number: int) -> tuple[Any, dict[str, Any]]:
    chosen = rows.fold == number
    return rows.table[chosen], {name: q_NQ[chosen] for name, q_NQ in rows.baselines.items()}


def _import(experiment: Experiment, folder: Path) -> bool:
    """Bring the experiment's instruments into the catalog where they are not there yet."""
    timeframe = experiment.data.timeframe
    held = set(RawStore(FOLDER / "catalog").entries())
    for instrument in experiment.data.instruments:
        if (instrument, Timeframe.parse(timeframe)) in held:
            continue
        path = folder / "crypto" / f"{instrument.split('.')[0]}-{timeframe}.parquet"
        if not path.is_file():
            progress(f"real: {path.name} is not in {path.parent}; the experiment needs it")
            return False
        progress(f"real: importing {path.name}")
        arguments = ["--instrument", instrument, "--timeframe", timeframe, "--stamp", "open"]
        done = _command("data", "import", str(path), *arguments, "--catalog", str(FOLDER / "catalog"))
        if done.returncode:
            return False
    return True


def _evaluate(experiment: Path, workers: int) -> dict[str, Any] | None:
    progress(f"real: evaluating {experiment.name} with {workers} workers")
    places = [f"--{name}={FOLDER / name}" for name in ("catalog", "models", "runs")]
    # What each feature is worth takes longer than all else, and no figure here needs it.
    done = _command("evaluate", str(experiment), "--workers", str(workers), "--importance", "0", "--json", *places)
    if done.returncode:
        return None
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the package's own command line; what it tells people goes through."""
    code = "from lstm_strategy.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _run(configuration: str, summary: dict[str, Any], fold: dict[str, Any], what: str) -> Run:
    return Run(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        configuration=configuration,
        what=what or "not said",
        folds=int(summary["folds"]),
        pinball=round(summary["pinball"], 5),
        best_baseline=summary["best_baseline"] or "none",
        skill_over_best=round(summary["skill_over_best"] or 0.0, 5),
        pinball_last_fold=round(fold["pinball"], 5),
        skill_over_best_last_fold=round(fold["skill_over_best"] or 0.0, 5),
    )


if __name__ == "__main__":
    sys.exit(main())
