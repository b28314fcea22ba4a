"""What the faults do to candles: pure functions from right rows to wrong ones."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from lstm_strategy.bars import NS_PER_DAY
from lstm_strategy.replay.faults import Fault
from lstm_strategy.replay.market import Candles, Market

__all__ = ["alter", "spoil_rows"]

_TEN_YEARS = 3_652 * NS_PER_DAY


def alter(candles: Candles, row: int, fault: Fault, market: Market) -> Candles:
    """Return the candles with one as it was before the venue got it right: ``unfinished``, or with its close moved."""
    one = candles.take(np.array([row]))
    if fault.kind == "unfinished":
        wrong = market.partial(one, 0.5)
    else:
        close = one.close * (1.0 + fault.amount)
        wrong = replace(one, close=close, high=np.maximum(one.high, close), low=np.minimum(one.low, close))
    return Candles.join([candles.take(slice(0, row)), wrong, candles.take(slice(row + 1, None))])


def spoil_rows(candles: Candles, fault: Fault, source: random.Random) -> Candles:
    """Return the rows with one fault in them: doubled, swapped, left out, or with values that no venue should send.

    Rows are chosen by ``source``; ``skip`` and ``reorder`` leave the first and the last row, by which a client pages,
    in place where there are enough rows.
    """
    count = len(candles)
    if not count:
        return candles
    inner = range(1, count - 1) if count > 2 else range(count)
    some = sorted(source.sample(inner, min(fault.rows, len(inner))))
    if fault.kind == "duplicate":
        return candles.take(np.sort(np.concatenate([np.arange(count), np.array(some)])))
    if fault.kind == "skip":
        return candles.take(np.delete(np.arange(count), some))
    if fault.kind == "short_page":
        return candles.take(slice(0, max(1, count - fault.rows)))
    if fault.kind == "reorder":
        order = np.arange(count)
        for row in some:
            other = row + 1 if row + 1 < count else row - 1
            if other >= 0:
                order[[row, other]] = order[[other, row]]
        return candles.take(order)
    wrong = np.array(some)
    if fault.kind == "future":
        opened, closed = candles.opened.copy(), candles.closed.copy()
        opened[wrong] += _TEN_YEARS
        closed[wrong] += _TEN_YEARS
        return replace(candles, opened=opened, closed=closed)
    column = {"nan": "close", "huge_price": "high", "negative_volume": "volume"}[fault.kind]
    values = getattr(candles, column).copy()
    values[wrong] = {"nan": np.nan, "huge_price": 1e308, "negative_volume": -1.0}[fault.kind]
    return replace(candles, **{column: values})
