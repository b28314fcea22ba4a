"""Many instruments on one account: each close decided once for all, as the backtest does, bit for bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from proof_desk import DAY, Verdict, differences, make_desk, offline, run, same_bits

from lstm_strategy.decision_log_reader import read_logs

__all__ = ["prove"]

_MEMORY_MB = 20.0


def prove(folder: Path, *, long: bool) -> Verdict:
    """Twenty instruments over a day of minutes; five over an hour where not ``long``."""
    count, bars = (20, DAY) if long else (5, 60)
    names = tuple(f"COIN{number:02}USDT.BINANCE" for number in range(count))
    verdict = Verdict("many")
    desk = make_desk(folder, bars, names, more="max_gross = 1.0", exposure=0.2, orders=4 * count)
    backtest, there = desk.backtest()
    ran = run(desk.settings(), early=count * bars // 4)
    logs = read_logs(ran.folder)
    verdict.figure("instruments", len(logs))
    verdict.figure("decisions", ran.decided)
    verdict.figure("closes a second", round(ran.decided / count / ran.seconds, 1))
    verdict.figure("orders", ran.summary["orders"])
    verdict.figure("memory growth, last three quarters", f"{ran.memory_late - ran.memory_early:.1f} MB")
    compared, found = differences(there, ran.folder, names)
    verdict.require(compared == count * bars, f"compared {compared} decisions of {count * bars}")
    verdict.require(not found, f"explain --diff: {found[:3]}")
    verdict.require(ran.summary["orders"] == backtest["orders"] > count, f"orders {ran.summary['orders']}")
    for name, first in zip(logs, ran.firsts, strict=True):
        raw = logs[name].matrix("raw")
        verdict.require(same_bits(raw, offline(desk, first, name)), f"forecasts of {name} are not those of one pass")
    stamps = Counter(int(ts) for log in logs.values() for ts in log.ts_close)
    verdict.require(set(stamps.values()) == {count}, "a close without a decision for each")
    verdict.require(ran.memory_late - ran.memory_early <= _MEMORY_MB, "memory grows")
    return verdict
