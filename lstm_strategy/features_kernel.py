"""The compiled step behind `Features`: one bar in, one row out, all state in two flat arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstm_strategy.compiled import compiled

__all__ = ["loop", "step"]

# Kinds, in the order of `features.Kind`.
RETURN, EMA_DISTANCE, MACD, RSI, ATR, PARKINSON, VOLATILITY_RATIO, RANGE_POSITION, VOLUME_ZSCORE = range(9)
RANGE, CLOSE_POSITION, HOUR_SIN, HOUR_COS, WEEKDAY_SIN, WEEKDAY_COS, GAP, SEASON_RANGE, SEASON_VOLUME = range(9, 18)

# Settings (float64).
ALPHA, TICK, SCALE_FLOOR, TIMEFRAME, MAX_GAP, HAMPEL_WINDOW, HAMPEL_THRESHOLD, WARM_UP, CLOSED = range(9)
N_SETTINGS = 9
# Integer state. FILTERED and LAST_TS outlive a reset.
LAST_TS, COUNT, FILTERED = range(3)
N_INTS = 3
# Float state: the last close as it came, the last close as filtered, the EW sums of squared returns; then the Hampel
# window and every feature's own slots.
RAW_CLOSE, CLOSE, SQUARES, WEIGHT = range(4)
N_FLOATS = 4

_DAY = 86_400_000_000_000
_MONDAY = 4 * _DAY  # 1970-01-01 was a Thursday; four days later a week began
_LEAST = 1e-12


@compiled()
def _season(state: Any, n: int, period: int, here: Any, before: Any, value: float) -> float:
    """Put the value of the bar that is the ``here``-th of all time into the ring; return the next bar's season."""
    length = n * period
    ring = state[2:]
    if here == before:  # the first bar
        ring[:] = math.nan
    for missing in range(before + 1, min(here, before + length + 1)):  # the longest forget the bar before them too
        _replace(state, missing % length, math.nan)
    _replace(state, here % length, value)
    if here // length != before // length:  # once a round, the sum is made anew, so that roundings never gather
        state[0] = 0.0
        for slot in range(length):
            if not math.isnan(ring[slot]):
                state[0] += ring[slot]
    total, found = 0.0, 0
    for season in range(n):
        past = ring[(here + 1 + season * period) % length]
        if not math.isnan(past):
            total += past
            found += 1
    return total / found - state[0] / state[1] if found > 0 else 0.0


@compiled()
def _replace(state: Any, slot: int, value: float) -> None:
    """Put a value into the ring, and keep the sum and the number of those known."""
    was = state[2 + slot]
    if not math.isnan(was):
        state[0] -= was
        state[1] -= 1.0
    if not math.isnan(value):
        state[0] += value
        state[1] += 1.0
    state[2 + slot] = value


@compiled()
def step(
    kinds: Any,
    spans: Any,
    offsets: Any,
    settings: Any,
    floats: Any,
    ints: Any,
    ts: int,
    o: float,
    h: float,
    l: float,  # noqa: E741
    c: float,
    v: float,
    out: Any,
) -> float:
    """Advance the state by one bar and write out_F; return σ, NaN while warming up (out is then not to be used)."""
    missing = 0.0
    if ints[COUNT] > 0 and ts - ints[LAST_TS] > np.int64(settings[CLOSED]):
        missing = np.float64((ts - ints[LAST_TS]) // np.int64(settings[TIMEFRAME]) - 1)
        if missing > settings[MAX_GAP]:
            floats[:] = 0.0
            ints[COUNT] = 0
            missing = 0.0
    count = ints[COUNT]  # bars before this one

    raw_close, raw_last, last = c, floats[RAW_CLOSE], floats[CLOSE]
    window = np.int64(settings[HAMPEL_WINDOW])
    r = 0.0
    if count > 0 and window == 0:
        r = math.log(c / last)
    elif count > 0:
        raw_r = math.log(c / raw_last)
        low, high = -math.inf, math.inf
        ring = floats[N_FLOATS : N_FLOATS + window]
        if count > window and missing == 0.0:
            median = np.median(ring)
            bound = settings[HAMPEL_THRESHOLD] * 1.4826 * np.median(np.abs(ring - median))
            if bound > 0.0:
                low, high = median - bound, median + bound
        ring[(count - 1) % window] = raw_r
        r = min(max(raw_r, low), high)
        wick_low, wick_high = math.log(l / raw_last), math.log(h / raw_last)
        if wick_low < low or wick_high > high:
            ints[FILTERED] += 1
        o = last * math.exp(min(max(math.log(o / raw_last), low), high))
        h = last * math.exp(min(max(wick_high, low), high))
        l = last * math.exp(min(max(wick_low, low), high))  # noqa: E741
        c = last * math.exp(r)

    # The return over a gap is not one bar's: it leaves the scale alone.
    whole = count > 0 and missing == 0.0
    if whole:
        floats[SQUARES] += settings[ALPHA] * (r * r - floats[SQUARES])
        floats[WEIGHT] += settings[ALPHA] * (1.0 - floats[WEIGHT])
    scale = math.sqrt(floats[SQUARES] / floats[WEIGHT]) if floats[WEIGHT] > 0.0 else 0.0
    scale = max(scale, settings[TICK] / raw_close, settings[SCALE_FLOOR])

    for i in range(len(kinds)):
        kind, n = kinds[i], spans[i, 0]
        at = offsets[i]
        x = 0.0
        if kind == RETURN:
            slot = at + count % n
            if count >= n:
                x = math.log(c / floats[slot]) / (scale * math.sqrt(n))
            floats[slot] = c
        elif kind == EMA_DISTANCE:
            floats[at] = c if count == 0 else floats[at] + 2.0 / (n + 1.0) * (c - floats[at])
            x = math.log(c / floats[at]) / (scale * math.sqrt(n))
        elif kind == MACD:
            if count == 0:
                floats[at] = c
                floats[at + 1] = c
            floats[at] += 2.0 / (n + 1.0) * (c - floats[at])
            floats[at + 1] += 2.0 / (spans[i, 1] + 1.0) * (c - floats[at + 1])
            macd = floats[at] - floats[at + 1]
            floats[at + 2] += 2.0 / (spans[i, 2] + 1.0) * (macd - floats[at + 2])
            x = (macd - floats[at + 2]) / (c * scale)
        elif kind == RSI:
            if count > 0:
                weight = 1.0 / min(count, n)
                floats[at] += weight * (max(c - last, 0.0) - floats[at])
                floats[at + 1] += weight * (max(last - c, 0.0) - floats[at + 1])
            total = floats[at] + floats[at + 1]
            x = (floats[at] - floats[at + 1]) / total if total > 0.0 else 0.0
        elif kind == ATR:
            if count > 0:
                true_range = max(h, last) - min(l, last)
                floats[at] += (true_range - floats[at]) / min(count, n)
            x = math.log(max(floats[at] / (c * scale), _LEAST))
        elif kind == PARKINSON:
            alpha, squared = 2.0 / (n + 1.0), math.log(h / l) ** 2 / (4.0 * math.log(2.0))
            floats[at] += alpha * (squared - floats[at])
            floats[at + 1] += alpha * (1.0 - floats[at + 1])
            x = math.log(max(math.sqrt(floats[at] / floats[at + 1]) / scale, _LEAST))
        elif kind == VOLATILITY_RATIO:
            if whole:
                alpha = 2.0 / (n + 1.0)
                floats[at] += alpha * (r * r - floats[at])
                floats[at + 1] += alpha * (1.0 - floats[at + 1])
            deviation = math.sqrt(floats[at] / floats[at + 1]) if floats[at + 1] > 0.0 else 0.0
            x = math.log(max(deviation / scale, _LEAST))
        elif kind == RANGE_POSITION:
            floats[at + count % n] = h
            floats[at + n + count % n] = l
            filled = min(count + 1, n)
            top, bottom = floats[at : at + filled].max(), floats[at + n : at + n + filled].min()
            x = 2.0 * (c - bottom) / (top - bottom) - 1.0 if top > bottom else 0.0
        elif kind == VOLUME_ZSCORE:
            x = -5.0
            if v > 0.0:
                volume, weight = math.log(v), floats[at + 2]
                mean = floats[at] / weight if weight > 0.0 else volume
                variance = floats[at + 1] / weight if weight > 0.0 else 0.0
                x = (volume - mean) / math.sqrt(variance) if variance > _LEAST else 0.0
                x = min(max(x, -5.0), 5.0)
                alpha = 2.0 / (n + 1.0)
                floats[at] += alpha * (volume - floats[at])
                floats[at + 1] += alpha * ((volume - mean) ** 2 - floats[at + 1])
                floats[at + 2] += alpha * (1.0 - weight)
        elif kind == RANGE:
            x = math.log(h / l) / scale
        elif kind == CLOSE_POSITION:
            x = ((c - l) - (h - c)) / (h - l) if h > l else 0.0
        elif kind == HOUR_SIN:
            x = math.sin(2.0 * math.pi * n * np.float64(ts % _DAY) / _DAY)
        elif kind == HOUR_COS:
            x = math.cos(2.0 * math.pi * n * np.float64(ts % _DAY) / _DAY)
        elif kind == WEEKDAY_SIN:
            x = math.sin(2.0 * math.pi * n * np.float64((ts - _MONDAY) % (7 * _DAY)) / (7 * _DAY))
        elif kind == WEEKDAY_COS:
            x = math.cos(2.0 * math.pi * n * np.float64((ts - _MONDAY) % (7 * _DAY)) / (7 * _DAY))
        elif kind == GAP:
            x = missing / settings[MAX_GAP] if missing > 0.0 else 0.0
        elif kind in (SEASON_RANGE, SEASON_VOLUME):
            known = math.log(h / l) if kind == SEASON_RANGE else v
            known = math.log(known) if known > 0.0 else math.nan
            here, before = np.int64(ts // settings[TIMEFRAME]), np.int64(ints[LAST_TS] // settings[TIMEFRAME])
            x = _season(floats[at : at + 2 + n * spans[i, 1]], n, spans[i, 1], here, before if count else here, known)
        out[i] = np.float32(x)

    floats[RAW_CLOSE] = raw_close
    floats[CLOSE] = c
    ints[LAST_TS] = ts
    ints[COUNT] = count + 1
    return scale if count + 1 >= settings[WARM_UP] else math.nan


@compiled()
def loop(
    kinds: Any,
    spans: Any,
    offsets: Any,
    settings: Any,
    floats: Any,
    ints: Any,
    ts: Any,
    o: Any,
    h: Any,
    l: Any,  # noqa: E741
    c: Any,
    v: Any,
    x_TF: Any,
    scale_T: Any,
    count_T: Any,
) -> None:
    """Run `step` over arrays; rows before the warm-up stay as they are."""
    row = np.zeros(x_TF.shape[1], np.float32)
    for t in range(len(ts)):
        scale = step(kinds, spans, offsets, settings, floats, ints, ts[t], o[t], h[t], l[t], c[t], v[t], row)
        scale_T[t] = scale
        count_T[t] = ints[COUNT]
        if not math.isnan(scale):
            x_TF[t] = row
