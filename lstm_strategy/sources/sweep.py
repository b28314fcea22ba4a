"""One market's missing time, asked for page by page until each stretch is held or was denied more than once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lstm_strategy.bars import Stamps, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.ccxt_page import Page
from lstm_strategy.sources.spans import Spans

__all__ = ["Asker", "Sweep"]

_CONFIRMATIONS = 2  # further sweeps over what the first did not bring
_ASK_AGAIN = 2  # where a page starts beyond the next one
_AGREEMENTS = 5  # tries to hear the newest bar twice alike
_PROBES = ("1d", "12h", "6h", "4h", "1h")


class Asker(Protocol):
    """What gives pages; see `ccxt_client.Client`."""

    async def candles(self, symbol: str, timeframe: Timeframe, since: int, limit: int, *, probe: bool = False) -> Page:
        """Return the closed bars of one reply."""


@dataclass
class Sweep:
    """Fills the missing time of one market.

    Parameters
    ----------
    limit : int
        The most bars of one reply.
    timeframes : collection of str
        What the venue offers; of those one much longer than ``timeframe`` shows where there are bars at all.
    held : Spans
        Opening times of bars that are there; grows as pages are kept.
    keep : callable
        Makes bars durable. The next page is asked for when it has returned.
    passed : callable, optional
        Told how far the sweep is.
    """

    client: Asker
    symbol: str
    timeframe: Timeframe
    limit: int
    timeframes: tuple[str, ...]
    held: Spans
    keep: Callable[[Page], Awaitable[None]]
    passed: Callable[[int], None] = lambda _: None
    withheld: Spans = field(default_factory=Spans)
    _denied_at: int | None = None
    _coarse: _Coarse | None = None

    async def fill(self, wanted: Spans, newest: int) -> Spans:
        """Ask for what is wanted; return what was denied every time.

        Parameters
        ----------
        newest : int
            The opening time of the newest closed bar. It is taken when it has been heard twice alike: venues correct
            it just after its close.
        """
        step = self.timeframe.ns
        older = wanted.less(Spans([(newest, newest + step)]))
        missing = older
        for _ in range(1 + _CONFIRMATIONS):
            self.withheld = Spans()
            if len(missing):
                await self._sweep(missing, newest)
            missing = missing.less(self.held)
        if older != wanted:
            await self._settle(newest)
        return wanted.less(self.held)

    async def _sweep(self, missing: Spans, newest: int) -> None:
        """Go over the missing time once."""
        step, start, end = self.timeframe.ns, missing.start, missing.end
        window = self.limit * step
        cursor = start
        while (span := missing.from_(cursor)) is not None:
            cursor = span[0]
            self.passed(cursor)
            page = await self._ask(cursor, min(end, cursor + window))
            if not len(page):
                cursor = await self._beyond_nothing(cursor, end)
                continue
            for _ in range(_ASK_AGAIN):
                if page.opens[0] - cursor <= window:
                    break
                other = await self._ask(cursor, min(end, cursor + window))
                page = other if len(other) and other.opens[0] < page.opens[0] else page
            if page.opens[0] - cursor > window:
                await self._judge(cursor, int(page.opens[0]), end)
            last = int(page.opens[-1])
            await self._take(page.rows((page.opens < end) & (page.opens < newest)))
            cursor = last + step
        self.passed(end)

    async def _ask(self, cursor: int, until: int) -> Page:
        bars = min(self.limit, (until - cursor) // self.timeframe.ns + 1)
        page = await self.client.candles(self.symbol, self.timeframe, cursor, bars)
        return page.rows(page.opens >= cursor)

    async def _take(self, page: Page) -> None:
        """Keep what is not held."""
        if not len(page):
            return
        step = self.timeframe.ns
        new = np.zeros(len(page), dtype=bool)
        for start, end in self.held.missing(int(page.opens[0]), int(page.opens[-1]) + step):
            new[np.searchsorted(page.opens, start) : np.searchsorted(page.opens, end)] = True
        fresh = page.rows(new)
        if len(fresh):
            await self.keep(fresh)
            for span in Spans.of(fresh.opens, step):
                self.held.add(*span)

    async def _settle(self, newest: int) -> None:
        """Take the newest bar as soon as it is told twice alike."""
        before: Page | None = None
        for _ in range(_AGREEMENTS):
            page = await self._ask(newest, newest + self.timeframe.ns)
            page = page.rows(page.opens == newest)
            if len(page) and before is not None and np.array_equal(page.values, before.values):
                await self._take(page)
                return
            before = page if len(page) else before

    async def _beyond_nothing(self, cursor: int, end: int) -> int:
        """Return from where to go on after an empty reply: from here, the first time; else from the next bars."""
        window = self.limit * self.timeframe.ns
        if self._denied_at != cursor:
            self._denied_at = cursor
            return cursor
        if end - cursor <= window:
            return end
        coarse = self._probe()
        if coarse is not None:
            try:
                found = await coarse.first(cursor, end)
            except LSTMStrategyError:
                self._coarse = _NO_PROBE
            else:
                if found is None:
                    return end if not len(await self._ask(end - window, end)) else await self._search(cursor, end)
                return found if found > cursor else cursor + window
        return await self._search(cursor, end)

    async def _search(self, cursor: int, end: int) -> int:
        """Return where bars begin, by ever longer leaps and then by halves; the end where there are none."""
        window = self.limit * self.timeframe.ns
        empty, leap = cursor, window
        while True:
            place = min(empty + leap, end - window)
            if place <= empty:
                return end
            page = await self._ask(place, place + window)
            if len(page):
                break
            empty, leap = place, 2 * leap
        full = place
        while full - empty > window:
            middle = empty + (full - empty) // 2 // self.timeframe.ns * self.timeframe.ns
            if len(await self._ask(middle, middle + window)):
                full = middle
            else:
                empty = middle
        return empty + window

    async def _judge(self, cursor: int, first: int, end: int) -> None:
        """Note the time before ``first`` as withheld where longer bars show that there was trade in it."""
        coarse = self._probe()
        if coarse is None:
            return
        try:
            found = await coarse.first(cursor, end)
        except LSTMStrategyError:
            self._coarse = _NO_PROBE
            return
        if found is not None and found + coarse.timeframe.ns <= first:
            self.withheld.add(cursor, first)

    def _probe(self) -> _Coarse | None:
        if self._coarse is None:
            longer = [Timeframe.parse(text) for text in _PROBES if text in self.timeframes]
            chosen = next((length for length in longer if length.ns >= 8 * self.timeframe.ns), None)
            self._coarse = _Coarse(self.client, self.symbol, chosen, self.limit) if chosen else _NO_PROBE
        return None if self._coarse is _NO_PROBE else self._coarse


class _Coarse:
    """Longer bars of the same market, which tell with few requests where there are bars."""

    def __init__(self, client: Asker, symbol: str, timeframe: Timeframe, limit: int) -> None:
        self.timeframe = timeframe
        self._client, self._symbol, self._limit = client, symbol, limit
        self._opens: Stamps = np.empty(0, np.int64)
        self._known = (0, 0)

    async def first(self, start: int, end: int) -> int | None:
        """Return the opening time of the first bar that ends after ``start`` and opens before ``end``."""
        step = self.timeframe.ns
        while start < end:
            if not self._known[0] <= start < self._known[1]:
                await self._look_from(start - start % step - step, start)
            later = self._opens[self._opens + step > start]
            if len(later):
                return int(later[0]) if later[0] < end else None
            start = self._known[1]
        return None

    async def _look_from(self, since: int, start: int) -> None:
        """Ask for bars until it is known what there is at ``start``."""
        step, reach = self.timeframe.ns, since
        while reach <= start:
            page = await self._client.candles(self._symbol, self.timeframe, reach, self._limit, probe=True)
            opens = page.opens[page.opens >= reach]
            since, reach = reach, int(opens[-1]) + step if len(opens) else reach + self._limit * step
            self._opens, self._known = opens, (since, reach)


_NO_PROBE = _Coarse.__new__(_Coarse)
