"""Board: the last snapshot of each instrument, a bounded history of what led to it, and what is worth telling; pure."""

from __future__ import annotations

import math
from collections import Counter, deque

from lstm_strategy.bars import format_ns
from lstm_strategy.coverage import CoverageTracker
from lstm_strategy.decision import HALTS
from lstm_strategy.headroom import headroom_of
from lstm_strategy.status import Event, Health, Kind, Latched, Observed, Point, Snapshot

__all__ = ["Board"]

_HISTORY, _EVENTS, _WINDOW = 400, 100, 500


class Board:
    """The last snapshot of each instrument, what led to it, and what happened meanwhile; not thread-safe.

    Parameters
    ----------
    window : int
        Outcomes over which coverage is counted.
    """

    def __init__(self, *, history: int = _HISTORY, events: int = _EVENTS, window: int = _WINDOW) -> None:
        self.latest: dict[str, Snapshot] = {}
        self.points: dict[str, deque[Point]] = {}
        self.events: deque[tuple[int, Event]] = deque(maxlen=events)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.health: Health | None = None
        self.number = 0
        self._history, self._window = history, window
        self._coverage: dict[str, CoverageTracker] = {}
        self._before: dict[str, Observed] = {}
        self.halt, self.halt_text = "", ""  # the reason of `HALTS` that holds, and what is said of it
        self._halted_ts, self._latched = 0, ""

    def take(self, seen: Observed) -> tuple[Snapshot, list[Event]]:
        """Take a decision; return its snapshot, and what in it is worth being told to a person."""
        self.number += 1
        name, decision, risk = seen.instrument, seen.decision, seen.risk
        before = self._before.get(name)
        tracker = self._coverage.setdefault(name, CoverageTracker(self._window))
        tracker.take(decision.ts_close, seen.price, seen.forecast, seen.yardstick.hole_ns)
        forecast = seen.forecast
        snapshot = Snapshot(
            number=self.number,
            instrument=name,
            ts_close=decision.ts_close,
            price=seen.price,
            equity=seen.equity,
            position=seen.position,
            exposure=decision.exposure,
            target=decision.target,
            reason=decision.reason.value,
            bound=decision.bound,
            action=seen.action,
            quantity=seen.quantity,
            day_pnl=math.nan if risk is None else seen.equity - risk.day_start_equity,
            drawdown=math.nan if risk is None or not risk.peak_equity else 1.0 - seen.equity / risk.peak_equity,
            gross=seen.shared.gross,
            net=seen.shared.net,
            halt="" if risk is None else risk.halt_text,
            horizons=() if forecast is None else forecast.horizons,
            levels=() if forecast is None else forecast.levels,
            quantiles=() if forecast is None else tuple(map(tuple, forecast.quantiles_HQ.tolist())),
            scale=math.nan if forecast is None else forecast.scale,
            headroom=headroom_of(
                decision,
                risk,
                seen.shared,
                seen.yardstick,
                price=seen.price,
                equity=seen.equity,
                quantity=seen.quantity,
                forecast=forecast,
                outside=seen.outside,
                before=None if before is None else (before.decision.ts_close, before.price, before.forecast),
            ),
            coverage=tracker.shares(),
            model=seen.model,
            lag_s=seen.lag_s,
            inference_s=seen.inference_s,
            parity=seen.parity,
            problem=seen.problem,
        )
        told = self._changes(before, seen)
        self.latest[name], self._before[name] = snapshot, seen
        self.counts[name, snapshot.reason] += 1
        self.points.setdefault(name, deque(maxlen=self._history)).append(_point(snapshot, seen))
        return snapshot, told

    def latch(self, now: Latched) -> list[Event]:
        """Take what is latched; return a halt or its lifting that no bar has told of yet."""
        before, self._latched = self._latched, now.reason
        if now.reason and now.reason not in (before, self.halt):
            self.halt, self.halt_text = now.reason, now.text
            text = f"{now.reason}: {now.text}" if now.text else now.reason
            return [Event(kind="halt", text=text, ts=now.ts, reason=now.reason)]
        if before and not now.reason and self.halt == before:
            self.halt = self.halt_text = ""
            why = f": {now.text}" if now.text else ""
            return [Event(kind="resumed", text=f"{before} is lifted{why}", ts=now.ts)]
        return []

    def tell(self, event: Event) -> None:
        """Keep an event; a fill belongs to the last decision before it, which it changes."""
        self.number += 1
        if event.quantity and (points := self.points.get(event.instrument)):
            points[-1] = points[-1]._replace(number=self.number, filled=points[-1].filled + event.quantity)
            self.number += 1
        self.events.append((self.number, event))

    def check(self, health: Health) -> list[Event]:
        """Take the state of the connections; return what has changed of it."""
        before, self.health = self.health, health
        told = []
        for name, word in (("market_data", "market data"), ("execution", "the account")):
            now = getattr(health, name)
            if before is not None and getattr(before, name) != now:
                text = f"the connection for {word} is {'back' if now else 'lost'}"
                told.append(Event(kind="trouble", text=text, ts=health.since))
        if before is None or (before.market_data, before.execution) != (health.market_data, health.execution):
            self.number += 1
        return told

    def _changes(self, before: Observed | None, seen: Observed) -> list[Event]:
        """Return halts that begin or end, parity lost or proved again, and another model."""
        found: list[tuple[Kind, str]] = []
        decision, name = seen.decision, seen.instrument
        reason = decision.reason.value if decision.reason in HALTS else ""
        # Names on one account halt together: it is told once.
        if decision.ts_close > self._halted_ts or (reason and not self.halt):
            if reason and reason != self.halt:
                why = "" if seen.risk is None else seen.risk.halt_text
                where = f"{reason} at {format_ns(decision.ts_close)} and an equity of {seen.equity:,.2f}"
                found.append(("halt", f"{where}: {why}" if why else where))
            elif self.halt and not reason:
                found.append(("resumed", f"{self.halt} is over at {format_ns(decision.ts_close)}"))
            self.halt, self._halted_ts = reason, decision.ts_close
            self.halt_text = seen.risk.halt_text if reason and seen.risk is not None else ""
        if before is not None and before.model != seen.model:
            found.append(("swap", f"{seen.model} takes the place of {before.model}"))
        was = None if before is None else (before.parity == "unproved" and bool(before.problem), before.problem)
        now = seen.parity == "unproved" and bool(seen.problem)
        if now and (was is None or was != (True, seen.problem)):
            found.append(("trouble", f"parity is not proved, and no new risk is taken: {seen.problem}"))
        elif was is not None and was[0] and seen.parity == "proved":
            found.append(("trouble", "parity is proved again"))
        whose = {"halt": "", "resumed": ""}
        return [
            Event(
                kind=kind,
                text=text,
                ts=seen.seen,
                instrument=whose.get(kind, name),
                reason=reason if kind == "halt" else "",
            )
            for kind, text in found
        ]


def _point(snapshot: Snapshot, seen: Observed) -> Point:
    low = high = math.nan
    forecast, tail = seen.forecast, (1.0 - seen.yardstick.interval) / 2
    if forecast is not None:
        low, high = (
            snapshot.price * math.exp(forecast.quantile(level, forecast.horizons[0])) for level in (tail, 1.0 - tail)
        )
    return Point(
        snapshot.number,
        snapshot.ts_close,
        snapshot.price,
        snapshot.exposure,
        snapshot.equity,
        low,
        high,
        snapshot.target,
        snapshot.quantity,
        snapshot.reason,
        snapshot.action,
    )
