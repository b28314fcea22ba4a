"""The README's own commands and snippets, run as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from lstm_strategy import cli
from lstm_strategy.sources.simulate import SimulationConfig, simulate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_commands_and_snippets_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "backtests", "backtests", ignore=shutil.ignore_patterns("runs"))
    bars = simulate(SimulationConfig(instrument_id="BTCUSDT.BINANCE", bars=28_000, start="2021-10-01", seed=2))
    stamps = pd.to_datetime(bars.ts_close - bars.timeframe.ns, utc=True)
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    pd.DataFrame({"timestamp": stamps, **columns}).to_csv("BTCUSDT-1h.csv", index=False)

    commands = [line for line in blocks("sh")[1].splitlines() if line]
    assert len(commands) == 6
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, capsys.readouterr().err

    names: dict[str, object] = {}
    for snippet in blocks("python"):
        exec(snippet, names)  # noqa: S102 (our own README)
    assert names["forecast"] is not None
    assert names["strategy"].strategy_path == "lstm_strategy:LSTMStrategy"


def test_the_two_commands_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", blocks("sh")[0], flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)
