"""All proofs of the live node, long (``make soak``) or short: ``python tests/live/soak.py [--short] [NAME ...]``.

``--seed`` gives the faults another script and market.

Prints one table of figures; the exit code is 1 where a proof fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

NAMES = ("clean", "faults", "kill", "swap", "many")


def main() -> int:
    """Return 1 where a proof fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all where none is named")
    parser.add_argument("--short", action="store_true", help="as in `make test`")
    parser.add_argument("--here", action="store_true", help="one proof, in this process, told as JSON")
    parser.add_argument("--seed", type=int, help="of the proof `faults`")
    options = parser.parse_args()
    names = options.names or list(NAMES)
    if options.seed is not None and names != ["faults"]:
        parser.error("--seed belongs to faults alone")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no proof {unknown[0]!r}; there are {', '.join(NAMES)}")
    if options.here:
        return _prove(names[0], long=not options.short, **({} if options.seed is None else {"seed": options.seed}))
    failed = 0
    for name in names:  # each in a process of its own: memory, sockets and tasks are counted
        command = [sys.executable, __file__, "--here", name, *(["--short"] if options.short else [])]
        command += [] if options.seed is None else ["--seed", str(options.seed)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        told = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {"figures": [], "failures": []}
        if done.returncode and not told["failures"]:
            told["failures"] = [f"ended with {done.returncode}"]
        for what, value in told["figures"]:
            sys.stdout.write(f"{name:8} {what:60} {value}\n")
        for text in told["failures"]:
            sys.stdout.write(f"{name:8} FAILED: {text}\n")
        failed += bool(told["failures"])
        sys.stdout.flush()
    sys.stdout.write(f"{len(names)} proofs, {failed} failed\n")
    return int(failed > 0)


def _prove(name: str, **how: int) -> int:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        verdict = importlib.import_module(f"proof_{name}").prove(Path(folder), **how)
    verdict.figure("seconds", round(time.perf_counter() - began))
    sys.stdout.write(json.dumps({"figures": verdict.figures, "failures": verdict.failures}) + "\n")
    return int(bool(verdict.failures))


if __name__ == "__main__":
    sys.exit(main())
