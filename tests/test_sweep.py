"""The sweep over venues that page in their own ways: all bars come, what lacks is known, few requests are lost."""

from __future__ import annotations

import asyncio
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_strategy.bars import Timeframe, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.ccxt_page import BadPageError, Page, page_of
from lstm_strategy.sources.spans import Spans
from lstm_strategy.sources.sweep import Sweep

HOUR, MINUTE = Timeframe.parse("1h"), Timeframe.parse("1m")
START = parse_ns("2018-01-01")


class Venue:
    """Bars that open at ``opens``, given by count from a stamp, by window of time, or only the newest."""

    def __init__(
        self, opens: np.ndarray, way: Literal["count", "window", "newest"], cap: int, refused: tuple[str, ...] = ()
    ) -> None:
        self.opens, self.way, self.cap, self.refused, self.asked = opens, way, cap, refused, 0

    async def candles(self, symbol: str, timeframe: Timeframe, since: int, limit: int, *, probe: bool = False) -> Page:
        self.asked += 1
        if timeframe.text in self.refused:
            raise LSTMStrategyError("no such bars")
        opens = np.unique(self.opens // timeframe.ns * timeframe.ns)
        most = min(limit, self.cap)
        if self.way == "newest":
            found = opens[-self.cap :]
        elif self.way == "window":
            found = opens[(opens >= since) & (opens < since + most * timeframe.ns)]
        else:
            found = opens[opens >= since][:most]
        return Page(found, np.ones((len(found), 5)))


def sweep(
    venue: Venue, timeframe: Timeframe, start: int, end: int, *, limit: int, offered: tuple[str, ...]
) -> tuple[np.ndarray, Spans, Sweep]:
    kept: list[np.ndarray] = []

    async def keep(page: Page) -> None:
        kept.append(page.opens)

    work = Sweep(venue, "A/B", timeframe, limit, offered, Spans(), keep)
    denied = asyncio.run(asyncio.wait_for(work.fill(Spans([(start, end)]), end - timeframe.ns), 60))
    return np.concatenate([np.empty(0, np.int64), *kept]), denied, work


def hours(*numbers: int | range) -> np.ndarray:
    rows = [row for part in numbers for row in (part if isinstance(part, range) else [part])]
    return START + np.array(rows, dtype=np.int64) * HOUR.ns


@given(
    st.sets(st.integers(0, 400), max_size=300),
    st.sampled_from(["count", "window"]),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([(), ("1h", "1d"), ("1h", "12h")]),
)
def test_all_bars_come_once_and_the_rest_is_denied(
    rows: set[int], way: Literal["count", "window"], limit: int, cap: int, offered: tuple[str, ...]
) -> None:
    venue = Venue(hours(*sorted(rows)), way, max(cap, limit) if way == "window" else cap)
    came, denied, _ = sweep(venue, HOUR, START, START + 401 * HOUR.ns, limit=limit, offered=offered)
    known = offered != () or way == "count"  # without longer bars an island in a long hole can be leapt over
    if known:
        assert sorted(came) == list(venue.opens)
        assert denied == Spans([(START, START + 401 * HOUR.ns)]).less(Spans.of(venue.opens, HOUR.ns))
    assert len(set(came.tolist())) == len(came)
    assert venue.asked < 3 * (401 // min(limit, cap) + 20) + 6 * 401


@pytest.mark.parametrize("way", ["count", "window"])
def test_a_late_listing_is_found_with_few_requests(way: Literal["count", "window"]) -> None:
    listed = parse_ns("2023-05-05T07:00")
    opens = listed + np.arange(3_000, dtype=np.int64) * MINUTE.ns
    venue = Venue(opens, way, 300)
    end = int(opens[-1]) + MINUTE.ns
    came, denied, _ = sweep(venue, MINUTE, START, end, limit=300, offered=("1m", "1h", "1d"))
    assert np.array_equal(came, opens)
    assert list(denied) == [(START, listed)]
    assert venue.asked < 60  # 2.8 million minutes before it are 9,300 pages


def test_a_late_listing_is_found_without_longer_bars() -> None:
    opens = parse_ns("2023-05-05T07:00") + np.arange(3_000, dtype=np.int64) * MINUTE.ns
    for venue in (Venue(opens, "window", 300), Venue(opens, "window", 300, refused=("1d",))):
        offered = ("1m", "1d") if venue.refused else ("1m",)
        came, _, _ = sweep(venue, MINUTE, START, int(opens[-1]) + MINUTE.ns, limit=300, offered=offered)
        assert np.array_equal(came, opens)
        assert venue.asked < 150


def test_a_venue_that_gives_only_its_newest_bars_is_known_for_it() -> None:
    venue = Venue(hours(range(40_000)), "newest", 720)
    end = START + 40_000 * HOUR.ns
    came, denied, work = sweep(venue, HOUR, START, end, limit=720, offered=("1h", "1d"))
    assert np.array_equal(came, venue.opens[-720:])
    assert list(denied) == [(START, end - 720 * HOUR.ns)]
    assert list(work.withheld) == [(START, end - 720 * HOUR.ns)]
    assert venue.asked < 30


def test_a_young_market_is_not_taken_for_a_withheld_one() -> None:
    venue = Venue(hours(range(39_500, 40_000)), "count", 720)
    end = START + 40_000 * HOUR.ns
    came, denied, work = sweep(venue, HOUR, START, end, limit=720, offered=("1h", "1d"))
    assert len(came) == 500
    assert list(denied) == [(START, START + 39_500 * HOUR.ns)]
    assert len(work.withheld) == 0


def test_an_island_between_two_long_holes_is_found() -> None:
    venue = Venue(hours(range(100), 9_000, range(20_000, 20_100)), "window", 300)
    came, _, _ = sweep(venue, HOUR, START, START + 20_100 * HOUR.ns, limit=300, offered=("1h", "1d"))
    assert np.array_equal(came, venue.opens)
    assert venue.asked < 60


def test_a_smaller_page_than_told_and_a_dead_market() -> None:
    venue = Venue(hours(range(5_000)), "count", 77)
    came, denied, _ = sweep(venue, HOUR, START, START + 50_000 * HOUR.ns, limit=1_000, offered=("1h", "1d"))
    assert np.array_equal(came, venue.opens)
    assert list(denied) == [(START + 5_000 * HOUR.ns, START + 50_000 * HOUR.ns)]
    assert venue.asked < 200


def test_the_newest_bar_is_taken_when_it_is_told_twice_alike() -> None:
    venue = Venue(hours(range(10)), "count", 100)
    told = iter([1.0, 2.0, 3.0, 3.0])
    plain = venue.candles

    async def changing(symbol: str, timeframe: Timeframe, since: int, limit: int, *, probe: bool = False) -> Page:
        page = await plain(symbol, timeframe, since, limit)
        return Page(page.opens, page.values * next(told)) if since == int(venue.opens[-1]) else page

    venue.candles = changing  # type: ignore[method-assign]
    kept: list[Page] = []

    async def keep(page: Page) -> None:
        kept.append(page)

    end = START + 10 * HOUR.ns
    asyncio.run(Sweep(venue, "A/B", HOUR, 100, (), Spans(), keep).fill(Spans([(START, end)]), end - HOUR.ns))
    assert [len(page) for page in kept] == [9, 1]
    assert kept[-1].values[0, 0] == 3.0


ROW = [1_600_000_200_000, 1.0, 3.0, 0.5, 2.0, 7.0]
NOW = 1_600_100_000_000_000_000


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({0: None}, "stamp is missing"),
        ({0: 1_600_000_200}, "stamp is not in milliseconds but, it seems, in seconds"),
        ({0: 1_600_000_200_000_000}, "stamp is no time in milliseconds"),
        ({0: -5}, "stamp is no time in milliseconds"),
        ({0: 1e300}, "stamp is no time in milliseconds"),
        ({0: 9_000_000_000_000}, "stamp lies in the future at 2255"),
        ({0: 1_600_000_201_000}, "stamp is not on the grid of UTC at 2020-09-13T12:30:01Z"),
        ({1: None}, "open is not a number at 2020-09-13T12:30:00Z"),
        ({2: 1e308}, "high is beyond belief"),
        ({2: float("inf")}, "high is not a number"),
        ({2: 1.5}, "high is below open or close"),
        ({3: 0.0}, "low is not positive"),
        ({3: 1.2}, "low is above open or close"),
        ({4: "x"}, "the reply holds rows that are not six numbers"),
        ({5: -1.0}, "volume is not positive"),
        ({5: float("nan")}, "volume is not a number"),
    ],
)
def test_what_no_market_can_have_said_is_named(changed: dict[int, object], problem: str) -> None:
    good = page_of([ROW], MINUTE.ns, NOW)
    assert good.opens.tolist() == [1_600_000_200_000_000_000]
    row = [changed.get(column, value) for column, value in enumerate(ROW)]
    with pytest.raises(BadPageError, match=problem):
        page_of([row], MINUTE.ns, NOW)


@pytest.mark.parametrize("rows", ["text", {"a": 1}, [1, 2], [[1, 2]], [None], [ROW, ROW[:3]]])
def test_what_are_no_rows_is_refused(rows: object) -> None:
    with pytest.raises(BadPageError):
        page_of(rows, MINUTE.ns, NOW)


def test_a_bar_that_forms_is_left_out_whatever_it_holds() -> None:
    forming = [1_600_099_980_000, None, None, None, None, None]
    page = page_of([forming, ROW, ROW], MINUTE.ns, 1_600_100_000_000_000_000)
    assert (len(page), page.unfinished) == (1, 1)
    assert len(page_of([[1_600_099_980_000, *ROW[1:]]], MINUTE.ns, 1_600_100_040_000_000_000)) == 1  # just closed
