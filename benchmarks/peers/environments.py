"""The peers' environments, made once with pip under ``build/peers``, each apart; scripts run in them on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from benchmarks.common import progress

__all__ = ["PEERS", "ROOT", "PeerError", "environment", "run_script"]

ROOT = Path(__file__).absolute().parents[2]
FOLDER = ROOT / "build" / "peers"
PEERS = {
    "neuralforecast": "neuralforecast==3.3.0",
    "darts": "darts[torch]==0.48.1",
    "freqai": "freqtrade[freqai]==2026.9",
}
_LONGEST = 1800  # seconds of one script


class PeerError(Exception):
    """A peer that cannot be installed or run here; one line."""


def environment(name: str) -> Path:
    """Return the Python of a peer's environment, made where it is not there or was made for another version.

    It sees this environment's packages behind its own, torch above all (3 GB), and holds whatever differs.
    """
    folder, wanted = FOLDER / name, f"{PEERS[name]}, Python {sys.version.split()[0]}\n"
    python, made = folder / "bin" / "python", folder / "made-for.txt"
    if python.is_file() and made.is_file() and made.read_text() == wanted:
        return python
    progress(f"peers: installing {PEERS[name]} in {folder.relative_to(ROOT)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _quietly(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
    shared = sysconfig.get_path("purelib")
    own = folder / Path(shared).relative_to(sys.prefix)
    (own / "shared_torch.pth").write_text(f"{shared}\n")
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    _quietly(name, [*pip, f"torch=={_torch()}", PEERS[name]])
    made.write_text(wanted)
    return python


def run_script(python: Path, module: str, *arguments: str) -> dict[str, Any]:
    """Run a peer's module on one core and return the JSON object in the last line that it prints."""
    allowed = getattr(os, "sched_getaffinity", lambda _: set())(0)
    pinned = ["taskset", "-c", str(max(allowed))] if allowed and os.path.exists("/usr/bin/taskset") else []
    command = [*pinned, str(python), "-W", "ignore", "-m", f"benchmarks.peers.{module}", *arguments]
    progress(f"peers: {module} {' '.join(arguments[1:])}")
    log = FOLDER / f"{module}{''.join(f'-{each}' for each in arguments[1:])}.log"
    with log.open("wb") as errors:
        try:
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, timeout=_LONGEST)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{module} took longer than {_LONGEST} s; see {log}") from None
    lines = done.stdout.decode().strip().splitlines()
    if done.returncode or not lines:
        raise PeerError(f"{module} failed; see {log}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _torch() -> str:
    from importlib.metadata import version

    return version("torch").split("+")[0]


def _quietly(name: str, command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        told = [line for line in done.stdout.decode().splitlines() if line.startswith("ERROR")]
        raise PeerError(f"{name} cannot be installed: {told[-1] if told else f'exit code {done.returncode}'}")
