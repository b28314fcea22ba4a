"""Download: from the local exchange into durable raw Parquet, beside a plain loop over ``fetch_ohlcv`` with pandas."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from benchmarks.common import Figure  # what it imports would count as the downloader's memory

__all__ = ["run"]

_FEW, _BARS, _MANY = 10_000, 1_000_000, 2_000_000
_LOOP_BARS = 400_000  # the loop writes its whole file with every page: the longer, the slower
_SINCE, _SINCE_MS = "2020-01-01", 1_577_836_800_000


class _Outcome(msgspec.Struct):
    """What a child reports."""

    bars: int
    seconds: float
    cpu_seconds: float
    peak_mib: float


def run() -> list[Figure]:
    """Each download runs in a process of its own, the exchange in another, without limits of requests."""
    from benchmarks.common import Figure, progress

    progress("download")
    with _exchange(_MANY) as url, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few = _child("ours", url, root / "few", _FEW)
        ours = _child("ours", url, root / "ours", _BARS)
        loop = _child("loop", url, root / "loop", _LOOP_BARS)
        ours_like_loop = _child("ours", url, root / "short", _LOOP_BARS)
        many = _child("ours", url, root / "many", _MANY)
        again = _command_seconds(url, root / "ours")
    rate, rate_like_loop, loop_rate = (one.bars / one.seconds for one in (ours, ours_like_loop, loop))
    return [
        Figure(
            name=f"download of {_BARS:,} bars into durable Parquet",
            value=rate,
            unit="bars/s",
            target="≥ 50,000 bars/s",
            met=rate >= 50_000,
        ),
        Figure(
            name=f"download of {_LOOP_BARS:,} bars",
            value=rate_like_loop,
            unit="bars/s",
            rival="fetch_ohlcv loop, pandas append a page",
            rival_value=loop_rate,
            ratio=rate_like_loop / loop_rate,
            target="≥ 3 ×",
            met=rate_like_loop >= 3.0 * loop_rate,
        ),
        Figure(
            name=f"peak memory, {_MANY:,} bars",
            value=many.peak_mib,
            unit="MiB",
            rival=f"the same, {_FEW:,} bars",
            rival_value=few.peak_mib,
            target="≤ 300 MiB",
            met=many.peak_mib <= 300.0,
        ),
        Figure(
            name=f"`data download` again, {_BARS:,} bars held",
            value=again,
            unit="s",
            target="≤ 2 s",
            met=again <= 2.0,
        ),
    ]


@contextmanager
def _exchange(bars: int) -> Iterator[str]:
    """The package's own local exchange as a process."""
    words = ("replay", "--simulate", str(bars), "--timeframe", "1m", "--instrument", "BTCUSDT.BINANCE", "--json")
    server = subprocess.Popen(_command(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        yield msgspec.json.decode(server.stdout.readline())["http"]
    finally:
        server.terminate()
        server.communicate()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from lstm_strategy.cli import main; main()", *words]


def _until(bars: int) -> str:
    from lstm_strategy.bars import format_ns

    return format_ns((_SINCE_MS + bars * 60_000) * 1_000_000)


def _child(what: str, url: str, root: Path, bars: int) -> _Outcome:
    words = [sys.executable, "-m", "benchmarks.download", what, url, str(root), str(bars)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=_Outcome)


def _command_seconds(url: str, root: Path) -> float:
    """Wall time of the whole command, start of Python included, where nothing is new."""
    words = (
        "data",
        "download",
        "binance",
        "BTC/USDT",
        "--timeframe",
        "1m",
        "--since",
        _SINCE,
        "--until",
        _until(_BARS),
    )
    arguments = _command(*words, "--base-url", url, "--catalog", str(root))
    subprocess.run(arguments, capture_output=True, check=True)  # writes the catalog, which the child did not
    started = time.perf_counter()
    subprocess.run(arguments, capture_output=True, check=True)
    return time.perf_counter() - started


def _ours(url: str, root: Path, bars: int) -> int:
    import asyncio

    from lstm_strategy.sources.ccxt_config import ClientConfig
    from lstm_strategy.sources.download import download
    from lstm_strategy.sources.download_plan import DownloadConfig
    from lstm_strategy.sources.store import RawStore

    client = ClientConfig(exchange="binance", base_url=url)
    config = DownloadConfig(client=client, symbols=("BTC/USDT",), timeframe="1m", since=_SINCE, until=_until(bars))
    results, failure = asyncio.run(download(config, RawStore(root)))
    if failure is not None:
        raise failure
    return results[0].held


def _loop(url: str, root: Path, bars: int) -> int:
    """What most scripts do: a page, then the whole file again; nothing is synced to the disk."""
    from urllib.parse import urlsplit

    import ccxt
    import pandas as pd

    exchange = ccxt.binance({"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}})
    exchange.urls["api"] = {name: url + urlsplit(value).path for name, value in exchange.urls["api"].items()}
    root.mkdir()
    file, since, held = root / "bars.parquet", _SINCE_MS, pd.DataFrame()
    while len(held) < bars:
        rows = exchange.fetch_ohlcv("BTC/USDT", "1m", since, 1000)
        page = pd.DataFrame(rows, columns=["ts", "open", "high", "low", "close", "volume"])
        held = pd.concat([held, page], ignore_index=True)
        held.to_parquet(file)
        since = rows[-1][0] + 60_000
    return len(held)


def _measure(what: str, url: str, root: Path, bars: int) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    held = {"ours": _ours, "loop": _loop}[what](url, root, bars)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    sys.stdout.write(msgspec.json.encode(_Outcome(held, seconds, cpu_seconds, _peak_mib())).decode() + "\n")


def _peak_mib() -> float:
    """Peak memory of this process; `ru_maxrss` alone may be the parent's, whose peak a child takes over."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        _measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        from benchmarks.common import report

        report(run)
