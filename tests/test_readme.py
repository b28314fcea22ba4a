"""The README's own commands and snippets, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from command_support import run_cli

from lstm_strategy.sources.simulate import SimulationConfig, simulate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def lines_with(start: str) -> list[str]:
    """The commands of the block that holds one beginning so."""
    (block,) = [block for block in blocks("sh") if f"\n{start}" in f"\n{block}"]
    return [line for line in block.splitlines() if line]


def write_history() -> int:
    """Write the README's BTCUSDT-1h.csv, stamped at the open, to April 2024; return its bars."""
    bars = simulate(SimulationConfig(instrument_id="BTCUSDT.BINANCE", bars=22_000, start="2021-10-01", seed=2))
    stamps = pd.to_datetime(bars.ts_close - bars.timeframe.ns, utc=True)
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    pd.DataFrame({"timestamp": stamps, **columns}).to_csv("BTCUSDT-1h.csv", index=False)
    return len(bars)


def run(monkeypatch, capsys, command: str) -> str:
    program, *words = shlex.split(command)
    assert program == "lstm-strategy"
    code, out, err = run_cli(monkeypatch, capsys, *words)
    assert not code, err
    return out


def test_commands_and_snippets_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "backtests", "backtests", ignore=shutil.ignore_patterns("runs"))
    write_history()
    commands = lines_with("lstm-strategy data import")
    assert len(commands) == 6
    for command in commands:
        run(monkeypatch, capsys, command)

    names: dict[str, object] = {}
    for snippet in blocks("python"):
        exec(snippet, names)  # noqa: S102 (our own README)
    assert names["forecast"] is not None
    assert names["strategy"].strategy_path == "lstm_strategy:LSTMStrategy"


def test_downloads_of_the_readme_run_against_its_local_exchange(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bars = write_history()
    serve, download = lines_with("lstm-strategy replay")
    program = [str(Path(sys.executable).with_name("lstm-strategy")), *shlex.split(serve)[1:], "--json"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as exchange:
        try:
            port = str(json.loads(exchange.stdout.readline())["port"])
            (market,) = json.loads(run(monkeypatch, capsys, download.replace("PORT", port) + " --json"))["markets"]
            assert market["held"] == bars
        finally:
            exchange.terminate()
    for command in lines_with("lstm-strategy data download binance BTC/USDT ETH/USDT"):
        run(monkeypatch, capsys, command + (" --dry-run" if " download " in command else " --catalog replayed"))


def test_the_two_commands_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", blocks("sh")[0], flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)
