"""Bars: what is accepted, what is refused, and that refusal names the row."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_strategy.bars import Bar, Bars, BarsError, Timeframe, format_ns, parse_ns, utc_day
from lstm_strategy.errors import LSTMStrategyError

HOUR = Timeframe.parse("1h")
START = parse_ns("2024-01-01")


def columns(n: int) -> dict[str, Any]:
    close = 100.0 + np.arange(n)
    return {
        "ts_close": START + HOUR.ns * np.arange(1, n + 1),
        "open": close - 0.5,
        "high": close + 1.0,
        "low": close - 1.0,
        "close": close,
        "volume": np.full(n, 2.0),
    }


def bars(**changed: Any) -> Bars:
    return Bars("BTCUSDT.BINANCE", HOUR, **(columns(5) | changed))


prices = st.floats(1e-6, 1e6)


@st.composite
def any_bars(draw: st.DrawFn) -> Bars:
    slots = sorted(draw(st.sets(st.integers(-(10**5), 10**6), max_size=30)))
    rows = [sorted(draw(st.tuples(prices, prices, prices, prices))) for _ in slots]
    flip = [draw(st.booleans()) for _ in slots]
    return Bars(
        "X.SIM",
        HOUR,
        np.array(slots, dtype=np.int64) * HOUR.ns,
        np.array([row[1 + swap] for row, swap in zip(rows, flip, strict=True)]),
        np.array([row[3] for row in rows]),
        np.array([row[0] for row in rows]),
        np.array([row[2 - swap] for row, swap in zip(rows, flip, strict=True)]),
        np.array([draw(st.floats(0, 1e12)) for _ in slots]),
    )


@given(any_bars())
def test_valid_rows_are_kept_as_they_are(some: Bars) -> None:
    assert len(some) == len(list(some))
    for bar, after in pairwise(some):
        assert bar.ts_close < after.ts_close
    for bar in some:
        assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high


@given(any_bars(), st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_between_is_a_filter(some: Bars, start: int, end: int) -> None:
    kept = some.between(start * HOUR.ns, end * HOUR.ns)
    assert list(kept) == [bar for bar in some if start * HOUR.ns < bar.ts_close <= end * HOUR.ns]
    assert list(some.between(None, None)) == list(some)


@given(
    any_bars().filter(len),
    st.data(),
    st.sampled_from(["open", "high", "low", "close", "volume"]),
    st.sampled_from([np.nan, np.inf, -np.inf, -1.0]),
)
def test_one_bad_number_is_refused_by_its_stamp(some: Bars, data: st.DataObject, name: str, bad: float) -> None:
    row = data.draw(st.integers(0, len(some) - 1))
    broken = {n: getattr(some, n).copy() for n in columns(1)}
    broken[name][row] = bad
    with pytest.raises(BarsError, match=name) as error:
        Bars("X.SIM", HOUR, **broken)
    assert format_ns(some.ts_close[row]) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "row", "value", "told"),
    [
        ("high", 2, 101.0, "high is below open or close at 2024-01-01T03:00:00Z"),
        ("low", 1, 101.5, "low is above open or close at 2024-01-01T02:00:00Z"),
        ("close", 0, 0.0, "close is not positive"),
        ("volume", 4, -0.1, "volume is negative"),
        ("ts_close", 3, START + 3 * HOUR.ns, "stamp is a duplicate"),
        ("ts_close", 3, START + 2 * HOUR.ns, "stamp is earlier than the one before"),
        ("ts_close", 4, START + 5 * HOUR.ns + 1, "not on the 1h grid at 2024-01-01T05:00:00.000000001Z"),
    ],
)
def test_a_broken_rule_is_told(name: str, row: int, value: float, told: str) -> None:
    column = columns(5)[name].copy()
    column[row] = value
    with pytest.raises(BarsError, match=told):
        bars(**{name: column})


@given(
    row=st.builds(
        Bar,
        st.sampled_from([START + HOUR.ns, START + 1]),
        *[st.sampled_from([1.0, 2.0, 3.0, 0.0, -1.0, float("nan"), float("inf")])] * 5,
    )
)
def test_one_bar_alone_is_held_to_the_rules_of_many(row: Bar) -> None:
    try:
        wanted = Bars("BTCUSDT.BINANCE", HOUR, *(np.array([value]) for value in row))
    except BarsError as error:
        with pytest.raises(BarsError, match=re.escape(str(error))):
            Bars.of_one("BTCUSDT.BINANCE", HOUR, row)
        return
    found = Bars.of_one("BTCUSDT.BINANCE", HOUR, row)
    assert list(found) == list(wanted) == [row]
    assert (found.instrument_id, found.timeframe, len(found)) == ("BTCUSDT.BINANCE", HOUR, 1)
    for name in ("ts_close", "open", "high", "low", "close", "volume"):
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
        assert not getattr(found, name).flags.writeable


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(BarsError, match="volume has shape"):
        bars(volume=np.ones(4))


def test_bars_cannot_be_changed() -> None:
    given_close = columns(5)["close"].copy()
    some = bars(close=given_close)
    given_close[0] = 1.0
    assert some.close[0] == 100.0
    with pytest.raises(ValueError, match="read-only"):
        some.close[0] = 1.0
    with pytest.raises(FrozenInstanceError):
        some.close = given_close  # type: ignore[misc]


def test_no_bars_are_bars() -> None:
    assert len(bars()[:0]) == 0


@pytest.mark.parametrize("text", ["", "h", "0h", "1w", "1H", "-1h", "1.5h", "1 h", "99999h"])
def test_unknown_timeframes_are_refused(text: str) -> None:
    with pytest.raises(LSTMStrategyError, match="such as 1h"):
        Timeframe.parse(text)


def test_timeframes_know_their_length() -> None:
    assert Timeframe.parse("15m").ns == 900_000_000_000
    assert Timeframe.parse("1h").bars_per_year == 8760


@given(
    st.integers(0, parse_ns("2200-01-01") // 1000).map(lambda us: us * 1000)
    | st.integers(parse_ns("1900-01-01") // 10**9, 0).map(lambda seconds: seconds * 10**9)
)
def test_stamps_survive_being_written(ts: int) -> None:
    text = format_ns(ts)
    assert parse_ns(text.replace("000Z", "Z") if "." in text else text) == ts


def test_the_bar_that_closes_at_midnight_ends_the_day_before() -> None:
    day = 24 * HOUR.ns
    assert [utc_day(ts) for ts in (1, day, day + 1)] == [0, 0, 1]
    assert utc_day(np.array([1, day, day + 1])).tolist() == [0, 0, 1]
