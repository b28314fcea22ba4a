"""Many seeded faults in feed and history: healed they leave no trace, else no risk is taken; nothing is left over.

What is asked of a forecast follows from the faults as the exchange has injected them, never from how it came out:

- Healed: a bar that is late, gone, spoilt or told twice, and an answer that fails. The venue's word on a bar never
  changes, so every forecast is that of a clean run to the last bit, as long as there was no fault of another kind.
- Corrected: a bar told wrong, then right (``revise``, ``unfinished``). Who decides at its close cannot know: its own
  forecast may be off. At the first one after it no risk is taken; all later ones are within tolerance.
- Misprinted: a bar told wrong, and right by history alone. It may be unknown until the venue is next asked, every 24
  bars, and so many more for each fault that may spoil a question meanwhile; then as above.

The exchange tells the next bar when the node's questions are answered, or a second after one that is not.

Memory is resident memory after a collection, at a quarter of the bars, when the engine's caches of bars and quotes are
nearly full (10,000 each), and at the end. In between grow, as they must, the rows of the run's tables and the orders
that the engine keeps.
"""

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

_EXPOSURE, _ORDERS, _TOLERANCE = 0.5, 4, 0.001
_MEMORY_MB, _PATIENCE_S, _QUIET = 20.0, 0.15, 60
_AUDIT, _ANSWER = 24, 2  # bars between two questions to the venue, and until an answer is worked in
_DRIFT, _HOUR = 1.02, 3_600_000_000_000
_BAND = 0.02  # retarget_tolerance of the strategy
_HEALED = (
    *("skip", "skip", "duplicate", "duplicate", "reorder", "delay", "truncated", "malformed", "nan", "huge_price"),
    *("negative_volume", "wrong_unit", "clock_skew", "future"),
)
_SLOW = ("drop", "maintenance")  # the adapter needs a second and more to come back
_REQUESTS = ("delay", "drop", "status", "truncated", "malformed", "duplicate", "reorder", "overlap")
_CORRECTED, _MISPRINTED = ("revise", "unfinished"), ("misprint",)
_TOLD_WRONG = _CORRECTED + _MISPRINTED


def prove(folder: Path, *, long: bool, seed: int = 17) -> Verdict:
    """Two weeks of minutes with 560 faults; nine hundred bars with 40 where not ``long``."""
    bars, count = (14 * DAY, 560) if long else (900, 40)
    verdict = Verdict("faults")
    desk = make_desk(folder, bars, exposure=_EXPOSURE, orders=_ORDERS, seed=seed)
    plan = _script(desk.bars[BTC].ts_close[HISTORY:], count, random.Random(seed))
    run(desk.settings(bars=20))  # what the engine keeps for the life of a process is there now
    ran = run(desk.settings(plan, patience=_PATIENCE_S), early=bars // 4, patient=True)
    log = ran.log()
    verdict.figure("seed of market and faults", seed)
    verdict.figure("bars, decided of told", f"{len(log):,} of {bars:,}")
    verdict.figure("faults injected", sum(ran.injected.values()))
    verdict.figure("kinds of fault", len(ran.injected))
    verdict.require(sum(ran.injected.values()) >= (500 if long else 30), f"only {ran.injected}")
    verdict.require(all(ran.injected.get(kind) for kind in _TOLD_WRONG), f"only {ran.injected}")
    _forecasts(verdict, desk, ran, log)
    _limits(verdict, log)
    _halts(verdict, ran, log)
    growth, own = ran.memory_late - ran.memory_early, ran.own_late - ran.own_early
    verdict.figure("memory at a quarter of the bars, at the end", f"{ran.memory_early:.0f}, {ran.memory_late:.0f} MB")
    verdict.figure("memory growth, last three quarters", f"{growth:.1f} MB, without pages of files {own:.1f} MB")
    verdict.require(growth <= _MEMORY_MB, "memory grows")
    _left(verdict, ran)
    return verdict


def _script(stamps: Any, count: int, source: random.Random) -> FaultPlan:
    """Return the faults, each at a bar of its own; only such as are healed in the first half, none at the last bars."""
    rows = sorted(source.sample(range(5, len(stamps) - _QUIET), count))
    half = len(rows) // 2
    faults, wrong = [], 0
    for number, row in enumerate(rows):
        at = format_ns(int(stamps[row]))
        chance = source.random()
        if number >= half and chance < 0.25:
            kind = _TOLD_WRONG[wrong % len(_TOLD_WRONG)]
            faults.append(Fault(kind=kind, on="stream", at=at, amount=0.002))
            wrong += 1
        elif chance < 0.35:
            kind = source.choice(_REQUESTS)
            faults.append(Fault(kind=kind, on="rest", at=at, path="klines", seconds=0.05, times=1))
        elif chance < 0.42:
            faults.append(Fault(kind=source.choice(_SLOW), on="stream", at=at, rows=2))
        else:
            faults.append(Fault(kind=source.choice(_HEALED), on="stream", at=at, seconds=source.uniform(0.005, 0.1)))
    return FaultPlan(faults=tuple(faults))


def _forecasts(verdict: Verdict, desk: Desk, ran: Ran, log: Log) -> None:
    """Hold every raw quantile against one pass over the venue's bars."""
    stamps = desk.bars[BTC].ts_close[HISTORY:]
    wanted = offline(desk, ran.first)[np.searchsorted(stamps, log.ts_close)]
    found, spoke = log.matrix("raw"), np.isfinite(log.matrix("raw")).all(axis=1)
    proved = log.floats("conditions.parity") > 0
    exact, off = (found == wanted).all(axis=1), spoke & ~(np.abs(found - wanted).max(axis=1) <= _TOLERANCE)
    healed, unknown, first = _asked(ran, log, spoke)
    verdict.figure("forecasts in the half where all is healed", int((healed & spoke).sum()))
    verdict.figure("of these not equal to the last bit", int((healed & spoke & ~exact).sum()))
    verdict.require((healed & spoke).sum() > spoke.sum() / 3, "hardly a bar before the first that is told wrong")
    verdict.require((exact | ~spoke)[healed].all(), f"first at {_at(log, healed & spoke & ~exact)}")
    told = Counter(hit.kind for hit in ran.hits if hit.on == "stream")
    verdict.figure("bars told wrong, then right", sum(told[kind] for kind in _CORRECTED))
    verdict.figure("bars told wrong, right by history alone", sum(told[kind] for kind in _MISPRINTED))
    used = _used_wrong(desk, log)
    mistold = np.isin(log.ts_close, [hit.ts_close for hit in ran.hits if _tells_wrong(hit)])
    verdict.figure("bars used as they were told wrong", int(used.sum()))
    verdict.require(not (used & ~mistold).any(), f"used, and never told: {_at(log, used & ~mistold)}")
    verdict.figure("forecasts beyond 0.001 σ√h when nobody could know", int((off & unknown & proved).sum()))
    verdict.figure("forecasts beyond 0.001 σ√h, and no risk taken", int((off & ~proved).sum()))
    verdict.figure("forecasts beyond 0.001 σ√h else", int((off & ~unknown & (proved | ~first)).sum()))
    verdict.require(not (off & proved & ~unknown).any(), f"trusted: {_at(log, off & proved & ~unknown)}")
    verdict.require(not (off & ~unknown & ~first).any(), f"not mended: {_at(log, off & ~unknown & ~first)}")
    within = np.abs(found - wanted).max(axis=1)[spoke & ~off]
    verdict.figure("largest difference of all others, σ√h", f"{within.max():.1e}")
    verdict.require(spoke.mean() > 0.8, f"a forecast at {spoke.mean():.0%} of the bars alone")


def _tells_wrong(hit: Any) -> bool:
    return hit.on == "stream" and hit.kind in _TOLD_WRONG


def _asked(ran: Ran, log: Log, spoke: Any) -> tuple[Any, Any, Any]:
    """Return rows before anything was told wrong, those at which nobody can know, and the first forecast after them."""
    rows, stamps = np.flatnonzero(spoke), log.ts_close
    unknown, first = np.zeros(len(log), bool), np.zeros(len(log), bool)
    # What may spoil a question to the venue or its answer: each kind of fault on requests, and a socket that is cut.
    spoilt = np.array([hit.ts_close for hit in ran.hits if hit.on == "rest" or hit.kind in _SLOW], np.int64)
    wrong = [hit for hit in ran.hits if _tells_wrong(hit)]
    for hit in wrong:
        begin = int(np.searchsorted(stamps[rows], hit.ts_close))  # among the forecasts
        if begin == len(rows):
            continue
        end = begin + int(stamps[rows[begin]] == hit.ts_close)
        if hit.kind in _MISPRINTED:
            questions, last = 0, hit.ts_close
            while questions < (needed := 1 + int(((spoilt >= hit.ts_close) & (spoilt <= last)).sum())):
                questions = needed
                end = min(begin + 1 + questions * _AUDIT + _ANSWER, len(rows))
                last = int(stamps[rows[end - 1]])
        unknown[rows[begin:end]] = True
        first[rows[end : end + 1]] = True
    return stamps < min(hit.ts_close for hit in wrong), unknown, first & ~unknown


def _used_wrong(desk: Desk, log: Log) -> Any:
    """Rows decided on a bar that is not the venue's."""
    bars = desk.bars[BTC]
    rows = np.searchsorted(bars.ts_close, log.ts_close)
    columns = (("open", bars.open), ("high", bars.high), ("low", bars.low), ("price", bars.close))
    wrong = np.any([log.floats(name) != values[rows] for name, values in columns], axis=0)
    return wrong | (log.floats("volume") != bars.volume[rows])


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
