"""Many seeded faults in feed and history: healed they leave no trace, else no risk is taken; nothing is left over."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from proof_desk import BTC, DAY, HISTORY, Desk, Ran, Verdict, make_desk, offline, run

from lstm_strategy.bars import format_ns
from lstm_strategy.decision_log_reader import Log
from lstm_strategy.reasons import HALTS
from lstm_strategy.replay.faults import Fault, FaultPlan

__all__ = ["prove"]

_EXPOSURE, _ORDERS, _WARM_UP, _TOLERANCE = 0.5, 4, 496, 0.001
_MEMORY_MB, _PATIENCE_S, _QUIET = 20.0, 0.15, 60
_AFTER_COLD, _AUDIT = 5.0, 24
_DRIFT, _HOUR = 1.02, 3_600_000_000_000
_BAND = 0.02  # retarget_tolerance of the strategy
# A bar that is spoilt, late or gone, and can be had again; what the venue says of it never changes.
_HEALED = (
    *("skip", "skip", "duplicate", "duplicate", "reorder", "delay", "truncated", "malformed", "nan", "huge_price"),
    *("negative_volume", "wrong_unit", "clock_skew", "future"),
)
_SLOW = ("drop", "maintenance")  # the adapter needs a second and more to come back
_REQUESTS = ("delay", "drop", "status", "truncated", "malformed", "duplicate", "reorder", "overlap")
# A bar told wrong first and used, or told never: the bars decided on are then not those that the venue has.
_TOLD_WRONG = ("revise", "unfinished")


def prove(folder: Path, *, long: bool) -> Verdict:
    """Two weeks of minutes with 560 faults; nine hundred bars with 40 where not ``long``."""
    bars, count = (14 * DAY, 560) if long else (900, 40)
    verdict = Verdict("faults")
    desk = make_desk(folder, bars, exposure=_EXPOSURE, orders=_ORDERS)
    stamps = desk.bars[BTC].ts_close[HISTORY:]
    plan, wrong = _script(stamps, count, random.Random(17))
    run(desk.settings(bars=20))  # what the engine keeps for the life of a process is there now
    ran = run(desk.settings(plan, patience=_PATIENCE_S), early=bars // 4)
    log = ran.log()
    verdict.figure("bars, decided of told", f"{len(log):,} of {bars:,}")
    verdict.figure("faults injected", sum(ran.injected.values()))
    verdict.figure("kinds of fault", len(ran.injected))
    verdict.require(sum(ran.injected.values()) >= (500 if long else 30), f"only {ran.injected}")
    _forecasts(verdict, desk, ran, log, wrong)
    _limits(verdict, log)
    _halts(verdict, ran, log)
    verdict.figure("memory growth, last three quarters", f"{ran.memory_late - ran.memory_early:.1f} MB")
    verdict.require(ran.memory_late - ran.memory_early <= _MEMORY_MB, "memory grows")
    _left(verdict, ran)
    return verdict


def _script(stamps: Any, count: int, source: random.Random) -> tuple[FaultPlan, list[int]]:
    """Return the faults, each at a bar of its own, and the stamps from which on bars may have been used wrong.

    Only faults that are healed come in the first half; the last bars have none.
    """
    rows = sorted(source.sample(range(5, len(stamps) - _QUIET), count))
    half = len(rows) // 2
    faults, wrong = [], []
    for number, row in enumerate(rows):
        at = format_ns(int(stamps[row]))
        chance = source.random()
        if number >= half and chance < 0.25:
            faults.append(Fault(kind=source.choice(_TOLD_WRONG), on="stream", at=at, amount=0.002))
            wrong.append(int(stamps[row]))
        elif chance < 0.35:
            kind = source.choice(_REQUESTS)
            faults.append(Fault(kind=kind, on="rest", at=at, path="klines", seconds=0.05, times=1))
        elif chance < 0.42:
            faults.append(Fault(kind=source.choice(_SLOW), on="stream", at=at, rows=2))
        else:
            faults.append(Fault(kind=source.choice(_HEALED), on="stream", at=at, seconds=source.uniform(0.005, 0.1)))
    return FaultPlan(faults=tuple(faults)), wrong


def _forecasts(verdict: Verdict, desk: Desk, ran: Ran, log: Log, wrong: list[int]) -> None:
    """Hold every raw quantile against one pass over the venue's bars."""
    stamps = desk.bars[BTC].ts_close[HISTORY:]
    wanted = offline(desk, ran.first)[np.searchsorted(stamps, log.ts_close)]
    found, spoke = log.matrix("raw"), np.isfinite(log.matrix("raw")).all(axis=1)
    away = np.abs(found - wanted).max(axis=1)
    before = log.ts_close < (wrong[0] if wrong else 2**62)
    exact = (found == wanted).all(axis=1)
    proved = log.floats("conditions.parity") > 0
    verdict.figure("forecasts in the half where all is healed", int((before & spoke).sum()))
    verdict.figure("of these not equal to the last bit", int((before & spoke & ~exact).sum()))
    verdict.require((exact | ~spoke)[before].all(), f"first at {_at(log, before & spoke & ~exact)}")
    told, unheard = _used_wrong(desk, log)
    beyond = spoke & (away > _TOLERANCE)
    late = np.ones(len(log), bool)
    for ts in wrong:
        late &= (log.ts_close < ts) | (log.ts_close > ts + _WARM_UP * 60_000_000_000)
    verdict.figure("bars used as they were told wrong", int(told.sum()))
    verdict.figure("forecasts beyond 0.001 σ√h afterwards, no risk taken", int((beyond & ~proved).sum()))
    verdict.figure("the same until the venue was heard again, at most 24 bars", int((beyond & proved & unheard).sum()))
    verdict.figure("forecasts not exact but within 0.001 σ√h", int((spoke & ~exact & ~beyond).sum()))
    verdict.require(not (beyond & late).any(), f"beyond tolerance a warm-up later: {_at(log, beyond & late)}")
    trusted = spoke & proved & ~unheard
    verdict.figure("largest difference where risk could be taken, σ√h", f"{away[trusted].max():.1e}")
    # A cold start is within the tolerance after a warm-up; who went on from one may be a little off before that.
    where = _at(log, trusted & (away > _AFTER_COLD * _TOLERANCE))
    verdict.require((away[trusted] <= _AFTER_COLD * _TOLERANCE).all(), f"trusted though wrong: {where}")
    verdict.require(spoke.mean() > 0.8, f"a forecast at {spoke.mean():.0%} of the bars alone")


def _used_wrong(desk: Desk, log: Log) -> tuple[Any, Any]:
    """Rows decided on a bar that is not the venue's, and those at which nobody could know: until the next audit."""
    bars = desk.bars[BTC]
    rows = np.searchsorted(bars.ts_close, log.ts_close)
    columns = (("open", bars.open), ("high", bars.high), ("low", bars.low), ("price", bars.close))
    wrong = np.any([log.floats(name) != values[rows] for name, values in columns], axis=0)
    wrong |= log.floats("volume") != bars.volume[rows]
    unheard = np.zeros(len(log), bool)
    for ts in log.ts_close[wrong].tolist():
        unheard |= (log.ts_close >= ts) & (log.ts_close <= ts + _AUDIT * 60_000_000_000)
    return wrong, unheard


def _limits(verdict: Verdict, log: Log) -> None:
    """No limit is exceeded at any decision; at the end the position is the target's."""
    target, exposure, quantity = (log.floats(name) for name in ("target", "exposure", "quantity"))
    most = np.maximum(_EXPOSURE, np.minimum(exposure, _EXPOSURE * _DRIFT))  # what prices alone have moved may stay
    verdict.require((target <= most + 1e-9).all() and (target >= 0.0).all(), "a target beyond max_exposure")
    sent: Counter[int] = Counter()
    for hour, ordered in zip(((log.ts_close - 1) // _HOUR).tolist(), quantity.tolist(), strict=True):
        verdict.require(ordered <= 0.0 or sent[hour] < _ORDERS, "an order that adds beyond orders_per_hour")
        sent[hour] += ordered != 0.0
    halted = np.array([reason in {halt.value for halt in HALTS} for reason in log.texts("reason")])
    verdict.require((target[halted] == 0.0).all(), "a halt that does not flatten")
    unproved = (log.floats("conditions.parity") < 1) | (log.floats("conditions.ready") < 1)
    verdict.require((target[unproved] <= exposure[unproved] + 1e-9).all(), "risk added while parity was unproved")
    verdict.figure("orders", int((quantity != 0.0).sum()))
    verdict.figure("bars without proof of parity", int(unproved.sum()))
    away = abs(exposure[-1] - target[-2])
    verdict.figure("position from target at the end, of equity", f"{away:.4f}")
    verdict.require(away <= _BAND, f"position {exposure[-1]:.4f}, target {target[-2]:.4f}")


def _halts(verdict: Verdict, ran: Ran, log: Log) -> None:
    """Every halt has its reason in the log."""
    reasons, bound = log.texts("reason"), log.texts("bound")
    latched = log.floats("risk.daily_halt") + log.floats("risk.drawdown_halt") + log.floats("risk.ordered_halt") > 0
    names = {halt.value for halt in HALTS}
    verdict.require(all(reasons[row] in names for row in np.flatnonzero(latched)), "a halt without a reason")
    held = log.floats("target") <= log.floats("exposure") + 1e-12
    unproved = np.flatnonzero(log.floats("conditions.parity") < 1)
    told = [row for row in unproved if "parity_unproved" in (reasons[row], *str(bound[row]).split(",")) or held[row]]
    verdict.require(len(told) == len(unproved), "a bar without parity and without a reason")
    verdict.require(all(reasons), "a decision without a reason")
    said = sum("Parity is not proved" in str(line.get("message")) for line in ran.told())
    verdict.figure("losses of parity told in the node's log", said)
    verdict.figure("bars halted by loss of the day", int((log.floats("risk.daily_halt") > 0).sum()))
    verdict.require(not len(unproved) or said, "parity was lost and nobody was told")
    verdict.require(ran.summary["ended"] == "replay", f"ended by {ran.summary['ended']}")


def _left(verdict: Verdict, ran: Ran) -> None:
    """Sockets and tasks that outlive the node; one task is the engine's own executor, which ends with the loop."""
    verdict.figure("sockets left", ran.sockets[1] - ran.sockets[0])
    verdict.figure("tasks left, less the engine's executor", ran.tasks[1] - ran.tasks[0] - 1)
    verdict.require(ran.sockets[1] <= ran.sockets[0], f"sockets {ran.sockets}")
    verdict.require(ran.tasks[1] <= ran.tasks[0] + 1, f"tasks {ran.tasks}")


def _at(log: Log, rows: Any) -> str:
    first = np.flatnonzero(rows)
    return f"{format_ns(int(log.ts_close[first[0]]))} ({len(first)} bars)" if len(first) else "none"
