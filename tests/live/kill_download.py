"""Kill a download at random moments, resume it, and compare what it leaves: ``python tests/live/kill_download.py``.

Not part of the test suite for its length; `tests/test_download.py` runs a short form. Prints one line per kill and a
verdict; exit code 1 where a bar was lost, doubled or changed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from download_support import HOUR, START, cli, command, digest, exchange, market
from test_download import MIXED

from lstm_strategy.nautilus.catalog import read_catalog
from lstm_strategy.replay.faults import Fault
from lstm_strategy.sources.store import RawStore

BTC = "BTCUSDT.BINANCE"


def main() -> int:
    """Return 0 where every resumed download equals the uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--bars", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    source = random.Random(options.seed)
    recorded = market(options.bars)
    wanted = digest(recorded.bars)
    slow = Fault(kind="delay", probability=0.5, seconds=0.03, path="klines")
    failures = landed = rounds = 0
    with tempfile.TemporaryDirectory() as place, exchange(recorded, faults=(slow, *MIXED), seed=options.seed) as server:
        root = Path(place) / "catalog"
        words = ("--since", START, "--base-url", server.http_url, "--backoff", "0.01", "--retries", "20")
        arguments = ("data", "download", "binance", "BTC/USDT", *words, "--catalog", root)
        while landed < options.kills:
            died = True
            while died and landed < options.kills:
                process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL)
                time.sleep(source.uniform(0.5, 2.5))
                process.send_signal(signal.SIGKILL)
                died = process.wait() == -signal.SIGKILL
                landed += died
                store = RawStore(root)
                held = len(store.read(BTC, HOUR)) if store.has(BTC, HOUR) else 0
                sys.stdout.write(f"{f'kill {landed}' if died else 'came to its end'}: {held:,} bars held\n")
            cli(*arguments)
            raw = digest(RawStore(root).read(BTC, HOUR)) == wanted
            catalog = digest(read_catalog(root, BTC, HOUR)) == wanted
            failures += not (raw and catalog)
            rounds += 1
            sys.stdout.write(
                f"resumed: raw {'equal' if raw else 'DIFFERS'}, catalog {'equal' if catalog else 'DIFFERS'}\n"
            )
            shutil.rmtree(root)
    sys.stdout.write(f"{landed} kills in {rounds} downloads of {options.bars:,} bars, {failures} not equal\n")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
