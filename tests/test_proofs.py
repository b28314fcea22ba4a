"""The live node's proofs in their short form; `make soak` runs the long ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent / "live" / "soak.py"


@pytest.mark.parametrize("name", ["clean", "faults", "kill", "swap", "many"])
def test_a_proof_holds(name: str) -> None:
    """In a process of its own: memory, sockets and tasks are counted."""
    done = subprocess.run(
        [sys.executable, str(SOAK), "--short", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=1_500,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 proofs, 0 failed" in done.stdout
