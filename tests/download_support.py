"""What the tests of the downloader share: a local exchange in a thread, a run of the command, a digest of bars."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.replay.faults import Fault, FaultPlan
from lstm_strategy.replay.market import Market
from lstm_strategy.replay.recordings import simulated_market
from lstm_strategy.replay.server import ReplayConfig, ReplayServer, serve
from lstm_strategy.sources.ccxt_config import ClientConfig
from lstm_strategy.sources.download import download
from lstm_strategy.sources.download_plan import DownloadConfig, Downloaded
from lstm_strategy.sources.simulate import SimulationConfig
from lstm_strategy.sources.store import RawStore, columns_of

HOUR = Timeframe.parse("1h")
START = "2020-01-01"
BOUND = 180.0  # seconds; nothing here may run longer


def market(bars: int, symbol: str = "BTCUSDT.BINANCE", seed: int = 1) -> Market:
    return simulated_market(SimulationConfig(instrument_id=symbol, bars=bars, seed=seed, start=START))


def digest(bars: Bars) -> str:
    """Equal for equal bars, whatever the files."""
    return hashlib.sha256(b"".join(column.tobytes() for column in columns_of(bars).values())).hexdigest()


def same(a: Bars, b: Bars) -> bool:
    return digest(a) == digest(b)


def bounded[T](work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, or fail after a bound."""
    return asyncio.run(asyncio.wait_for(work, BOUND))


@contextmanager
def exchange(*markets: Market, faults: tuple[Fault, ...] = (), **settings: Any) -> Iterator[ReplayServer]:
    """A local exchange that listens while the block runs, in a thread of its own."""
    ready, over, made = threading.Event(), threading.Event(), []

    async def hold() -> None:
        async with serve(ReplayConfig(markets=markets, faults=FaultPlan(faults=faults), **settings)) as server:
            made.append(server)
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.01)

    def run() -> None:
        try:
            asyncio.run(hold())
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        yield made[0]
    finally:
        over.set()
        thread.join()


def config_of(url: str | None, *symbols: str, exchange: str = "binance", **changed: Any) -> DownloadConfig:
    """The configuration of a quick and patient download from a local exchange."""
    client = {"exchange": exchange, "base_url": url, "retries": 8, "backoff_s": 0.005, "timeout_s": 5.0, "seed": 1}
    client |= {name: changed.pop(name) for name in tuple(changed) if name in ClientConfig.__struct_fields__}
    plan: dict[str, Any] = {"since": START} | changed
    return DownloadConfig(client=msgspec.convert(client, ClientConfig), symbols=symbols or ("BTC/USDT",), **plan)


def bring(config: DownloadConfig, root: Path) -> list[Downloaded]:
    """Download into a raw store, and raise what stopped it."""
    results, failure = bounded(download(config, RawStore(root)))
    if failure is not None:
        raise failure
    return results


def command(*arguments: object) -> list[str]:
    """Words that start the command line in a process of its own."""
    script = "import sys; from lstm_strategy.cli import main; sys.argv[0] = 'lstm-strategy'; main()"
    return [sys.executable, "-c", script, *map(str, arguments)]


def cli(*arguments: object, code: int = 0, **environment: str) -> tuple[dict[str, Any], str]:
    """Run the command line in a process of its own; return what it printed as JSON, and all of standard error."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    assert done.returncode == code, done.stderr
    return (json.loads(done.stdout) if done.stdout else {}), done.stderr
