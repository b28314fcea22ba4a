"""The demo: wall time and peak memory of the whole way in one process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Figure, progress, report

__all__ = ["run"]


def run() -> list[Figure]:
    """Run ``lstm-strategy demo`` once, as a user would, in an empty folder; no rival."""
    progress("demo")
    command = [str(Path(sys.executable).with_name("lstm-strategy")), "demo"]
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=free, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"the demo failed: {said[-2000:]}")
    gigabytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    return [
        Figure(name="lstm-strategy demo", value=seconds, unit="s", target="≤ 240 s", met=seconds <= 240),
        Figure(name="lstm-strategy demo, peak memory", value=gigabytes, unit="GB", target="≤ 3 GB", met=gigabytes <= 3),
    ]


if __name__ == "__main__":
    report(run)
