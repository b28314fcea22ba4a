"""Parity: what a forecaster made of its bars one by one, held against the same made offline from the raw bars."""

from __future__ import annotations

import bisect

import numpy as np

from lstm_strategy.bars import Bar, Bars, format_ns
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.parity_comparison import Comparison, Step

__all__ = ["Parity"]

_SLICE = 256  # bars made offline at once: about a millisecond
_SLICES_MENDING = 8  # at once: who mends takes no risk meanwhile
_COLD_EVERY = 20  # checks; a cold start costs two warm-ups


class Parity:
    """Proves one forecaster's features and raw quantiles, again and again, from the raw bars.

    Two recomputations go on beside the forecaster, both in one pass through the same graph. One began where the
    forecaster did, and takes each ``every`` bars at once: it gives the same to the last bit (an "lstm"; hybrids within
    1e-5). The other is a cold start over the bars held, once in twenty such checks, a slice at each bar: it gives the
    same within ``tolerance``, and does not trust what the forecaster remembers.

    What differs, is missing, or was told otherwise later, is a problem until parity holds again: for ``every`` bars
    no difference beyond ``tolerance``. Bars that come later than they should have, or are revised, take their place
    among those held; the forecaster then goes on from a cold start over these, and the next bar's check lifts the
    problem.

    Parameters
    ----------
    live : Forecaster
        The one to prove, as yet without bars, or restored.
    every : int
        Bars between two checks.
    tolerance : float
        In standard deviations of a feature in training, and units of σ√h of a raw quantile.
    phase : int
        By how many bars the second check comes sooner, below ``every``: of many forecasters not all are due at once.

    Attributes
    ----------
    problems : dict
        What is wrong by kind, "differs", "revised", "missing" or "cold", in words; empty where parity is proved.
    mended : int
        How often the forecaster went on from a cold start over bars told otherwise.
    keep : int
        Bars held, at least, once there are as many.
    too_few : bool
        Whether somebody else waits for more of them.
    """

    def __init__(self, live: Forecaster, *, every: int, tolerance: float, phase: int = 0) -> None:
        self.problems: dict[str, str] = {}
        self.mended, self.too_few = 0, False
        self.keep = 2 * live.warmup_bars + every
        self._live, self._every, self._phase = live, every, phase
        manifest = live.artefact.manifest
        self._comparison = Comparison(manifest, tolerance)
        self._offline = Forecaster(live.artefact, live.instrument_id, live.calibration)
        self._blank = self._offline.state()
        self._hole_ns = max(live.timeframe.ns, manifest.features.closed_ns)
        self._exact, self._proved, self._good, self._checks = True, False, 0, 0
        self._stamps: list[int] = []
        self._held: dict[int, Bar] = {}
        self._used_from = 0  # the close of the first bar whose use a later word can prove wrong
        self._from_origin, self._position = True, float("nan")
        self._new: list[Bar] = []
        self._steps: list[Step] = []
        self._cold: bytes | None = None
        self._cold_ts, self._cold_due, self._mending, self._unasked = 0, False, False, False
        self._retold: Bar | None = None

    @property
    def proved(self) -> bool:
        """Whether the last check passed, and nothing is wrong since."""
        return self._proved and not self.problems

    @property
    def wants_past(self) -> bool:
        """Whether all bars that should be held are to be asked for."""
        return "missing" in self.problems or (self._mending and not self._can_mend) or self._unasked or self.too_few

    def restored(self, before: Parity | None = None) -> None:
        """Go on from where the forecaster goes on: a snapshot, or the bars that the parity ``before`` holds."""
        self._offline.restore(self._live.state())
        self._from_origin, self._cold_due, self._unasked = False, True, before is None
        if before is not None:
            self._stamps, self._held = before._stamps[:], dict(before._held)
            self._used_from = self._stamps[0]
            self._retold = before._retold

    def past(self, bars: Bars) -> None:
        """Take a history that the forecaster takes at once."""
        self._check()
        self._offline.trace(bars, exact=True)
        for bar in bars:
            self._hold(bar)

    def took(self, bar: Bar, position: float) -> None:
        """Note a bar that the forecaster has just taken, and the position that it said; check what is due."""
        retold, self._retold = self._retold, None
        if retold is not None:
            self.told(retold)
        self._hold(bar)
        self._new.append(bar)
        self._position = position
        self._steps.append((*self._live.last_step, position))
        if not self.proved:
            self._check()
        elif len(self._new) >= self._every - self._phase:
            self._phase = 0
            self._check()
        for _ in range(_SLICES_MENDING if self._mending else 1):
            self._work()

    def mend(self) -> None:
        """Go on from what the venue tells now, where it has told anything else, before the next bar comes."""
        for _ in range(_SLICES_MENDING if self._mending else 0):
            self._work()

    def _work(self) -> None:
        if self._cold is None and ((self._mending and self._can_mend) or (self._cold_due and self._can_start_cold)):
            self._cold_due, first = False, 0 if self._mending else self._since_hole()
            self._cold, self._cold_ts = self._blank, self._stamps[first] - 1
        if self._cold is not None:
            self._go_on_cold(self._cold)

    def told(self, bar: Bar) -> None:
        """Hear of a bar again, or late: what differs from what was used is a problem, and mended."""
        last, stamps, ts = self._live.last_ts, self._stamps, bar.ts_close
        if last is None or not stamps or ts >= last:  # the newest may still change
            return
        used = self._held.get(ts)
        if used == bar:
            return
        if ts < self._used_from:  # it was used elsewhere, or is forgotten; a cold start may begin with it
            if not self._from_origin and len(stamps) < self.keep:
                if used is None:
                    bisect.insort(stamps, ts)
                self._held[ts] = bar
            return
        if used is None:
            bisect.insort(stamps, ts)
            self.problems.setdefault("missing", f"the bar closed at {format_ns(ts)} came after later ones")
        else:
            name = next(name for name in Bar._fields if getattr(used, name) != getattr(bar, name))
            said = f"{name} {getattr(bar, name)}, used {getattr(used, name)}"
            self.problems.setdefault("revised", f"the bar closed at {format_ns(ts)} was revised after use: {said}")
        self._held[ts] = bar
        self._mending, self._cold = True, None

    def retold(self, bar: Bar) -> None:
        """Hear of the newest bar again, closed: the last word on it counts as soon as the next bar comes."""
        if bar.ts_close == self._live.last_ts:
            self._retold = bar

    def missed(self, before: int) -> None:
        """Note that bars before the one closed at ``before`` are missing, and nobody has said that there are none."""
        self.problems.setdefault("missing", f"bars before the one closed at {format_ns(before)} are missing")

    def nothing_more(self) -> None:
        """Note that the venue was asked for all that should be held, and has told what it has."""
        self._unasked = False
        if not self._mending:
            self.problems.pop("missing", None)

    def bars_after(self, ts_close: int, most: int) -> Bars | None:
        """Return the first ``most`` of the bars held that closed after ``ts_close``; None where there are none."""
        first = bisect.bisect_right(self._stamps, ts_close)
        found = [self._held[ts] for ts in self._stamps[first : first + most]]
        return self._bars(found) if found else None

    @property
    def bars_held(self) -> int:
        """How many bars are held that a cold start may begin with."""
        return len(self._stamps) - self._since_hole()

    @property
    def _can_start_cold(self) -> bool:
        return self.bars_held >= self._live.warmup_bars * 3 // 2

    @property
    def _can_mend(self) -> bool:
        return self._from_origin or len(self._stamps) >= self._live.warmup_bars * 3 // 2

    def _since_hole(self) -> int:
        """Return how many of the bars held are of no use, since more may have been used where a hole follows."""
        before = np.array(self._stamps[: bisect.bisect_right(self._stamps, self._used_from)])
        holes = np.flatnonzero(np.diff(before) > self._hole_ns)
        return int(holes[-1]) + 1 if len(holes) else 0

    def _hold(self, bar: Bar) -> None:
        self._used_from = self._used_from or bar.ts_close
        self._held[bar.ts_close] = bar
        self._stamps.append(bar.ts_close)
        if len(self._stamps) > self.keep + _SLICE:
            self._from_origin = False
            for ts in self._stamps[: -self.keep]:
                del self._held[ts]
            del self._stamps[: -self.keep]
            self._used_from = max(self._used_from, self._stamps[0])

    def _check(self) -> None:
        """Hold the new bars' steps against one pass over them."""
        if not self._new:
            return
        bars, steps, self._new, self._steps = self._bars(self._new), self._steps, [], []
        matrix, raw_THQ, position_T = self._offline.trace(bars)
        text, exact = self._comparison.of(bars, steps, matrix.x_TF, raw_THQ, position_T, to_the_bit=self._exact)
        self._checks += 1
        self._cold_due = self._cold_due or self._checks % _COLD_EVERY == 0
        if text:
            self.problems.setdefault("differs", text)
            self._exact, self._good = False, 0
            return
        self._exact = self._exact or exact
        self._good += len(bars)
        self._proved = True
        if self._good >= self._every:
            self.problems.pop("differs", None)

    def _go_on_cold(self, state: bytes) -> None:
        """Take the cold start a slice further; at the newest bar, mend or compare."""
        offline, bars = self._offline, self.bars_after(self._cold_ts, _SLICE)
        if bars is None:
            return
        kept = offline.state()
        offline.restore(state)
        matrix, raw_THQ, position_T = offline.trace(bars, exact=self._mending)
        if bars.ts_close[-1] < self._stamps[-1]:
            self._cold, self._cold_ts = offline.state(), int(bars.ts_close[-1])
            offline.restore(kept)
            return
        self._cold = None
        if self._mending:
            self._mend()
            return
        ready = offline.ready
        offline.restore(kept)
        if not ready:
            return
        step = (*self._live.last_step, self._position)
        text, _ = self._comparison.of(bars[-1:], [step], matrix.x_TF[-1:], raw_THQ[-1:], position_T[-1:])
        if text:
            self.problems["cold"] = f"after a cold start, {text}"
            self._cold_due = True
        else:
            self.problems.pop("cold", None)

    def _mend(self) -> None:
        """Go on from the bars as they are told now; the next bar's check lifts what this mends."""
        self._live.take_over(self._offline)
        self._mending, self._exact, self._good = False, True, self._every
        self._new, self._steps = [], []
        self.mended += 1
        for kind in ("revised", "missing", "cold"):
            text = self.problems.pop(kind, None)
            if text is not None:
                self.problems.setdefault("differs", text)

    def _bars(self, bars: list[Bar]) -> Bars:
        columns = (np.array(column) for column in zip(*bars, strict=True))
        return Bars(self._live.instrument_id, self._live.timeframe, *columns)
