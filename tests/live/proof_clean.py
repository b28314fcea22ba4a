"""No fault: forecasts, decisions, orders and fills of a node are the backtest's on the same bars, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from proof_desk import BTC, DAY, Verdict, differences, make_desk, offline, run, same_bits

from lstm_strategy.decision_log_reader import read_logs

__all__ = ["prove"]

_FILLS = ("ts_filled", "side", "quantity", "price", "fee", "decided_price", "shortfall")


def prove(folder: Path, *, long: bool) -> Verdict:
    """Two weeks of minutes; a day where not ``long``."""
    bars = 14 * DAY if long else DAY
    verdict, desk = Verdict("clean"), make_desk(folder, bars)
    backtest, there = desk.backtest()
    ran = run(desk.settings(), early=bars // 4)
    verdict.figure("bars", ran.decided)
    verdict.figure("bars a second, node", round(ran.decided / ran.seconds))
    verdict.figure("orders", ran.summary["orders"])
    verdict.figure("memory growth, last three quarters", f"{ran.memory_late - ran.memory_early:.1f} MB")
    compared, found = differences(there, ran.folder, desk.names)
    verdict.require(compared == bars, f"compared {compared} bars of {bars}")
    verdict.require(not found, f"explain --diff: {found}")
    here, far = ran.log(), read_logs(there)[BTC]
    for name in ("raw", "quantiles", "features"):
        verdict.require(same_bits(here.matrix(name), far.matrix(name)), f"{name} differ from the backtest's")
    verdict.require(same_bits(here.matrix("raw"), offline(desk, ran.first)), "raw differ from one pass")
    verdict.require(ran.summary["orders"] == backtest["orders"] > bars // 40, f"orders {ran.summary['orders']}")
    fills = [pq.read_table(place / "fills.parquet") for place in (there, ran.folder)]
    for column in _FILLS:
        verdict.require(fills[0][column].to_pylist() == fills[1][column].to_pylist(), f"fills differ in {column}")
    reasons = here.texts("reason")
    verdict.figure("reasons met", len(set(reasons)))
    verdict.require(len(set(reasons)) >= 3, "too few reasons for a proof")
    return verdict
