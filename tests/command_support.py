"""The command line, run in this process as `lstm-strategy` runs it."""

from __future__ import annotations

import sys

import pytest

from lstm_strategy import cli


def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return the exit code, and what was written to standard output and to standard error."""
    monkeypatch.setattr(sys, "argv", ["lstm-strategy", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err
