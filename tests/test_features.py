"""Features: one step live and over history, causal, and equal to independent formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_strategy.bars import Bar, Bars, Timeframe, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import AsOf, FeatureConfig, FeatureMatrix, Features, FeaturesConfig
from lstm_strategy.sources.simulate import SimulationConfig, simulate

HOUR = Timeframe.parse("1h")
DEFAULT = FeaturesConfig()
SEASONS = (FeatureConfig("season_range", 5, period=24), FeatureConfig("season_volume", 2, period=168))
EACH = pytest.mark.parametrize("feature", [*DEFAULT.features, *SEASONS], ids=lambda feature: feature.name)
# One of every kind at short spans, so that a few hundred bars hold many warm-ups.
SHORT = FeaturesConfig(
    scale_span=5,
    max_gap_bars=3,
    features=(
        FeatureConfig("return", 1),
        FeatureConfig("return", 7),
        FeatureConfig("ema_distance", 4),
        FeatureConfig("macd", 3, 6, 2),
        FeatureConfig("rsi", 3),
        FeatureConfig("atr", 3),
        FeatureConfig("parkinson", 3),
        FeatureConfig("volatility_ratio", 4),
        FeatureConfig("range_position", 5),
        FeatureConfig("volume_zscore", 5),
        FeatureConfig("range"),
        FeatureConfig("close_position"),
        FeatureConfig("hour_sin"),
        FeatureConfig("hour_cos"),
        FeatureConfig("weekday_sin"),
        FeatureConfig("weekday_cos"),
        FeatureConfig("gap"),
        FeatureConfig("season_range", 3, period=4),
        FeatureConfig("season_volume", 2, period=7),
    ),
)
FILTERED = FeaturesConfig(scale_span=5, max_gap_bars=3, hampel_window=8, hampel_threshold=4.0, features=SHORT.features)


def some_bars(n: int, seed: int = 1) -> Bars:
    return simulate(SimulationConfig(bars=n, seed=seed))


def keep(bars: Bars, rows: np.ndarray | list[int]) -> Bars:
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(bars.instrument_id, bars.timeframe, *(column[rows] for column in columns))


def without(bars: Bars, first: int, count: int) -> Bars:
    """The same bars with a gap of ``count`` bars from row ``first`` on."""
    return keep(bars, np.delete(np.arange(len(bars)), slice(first, first + count)))


def gappy(n: int = 400) -> Bars:
    """Short gaps of 1 and 3 bars, a long one of 4, and quiet, empty bars in between."""
    bars = some_bars(n)
    volume = np.where(np.arange(n) % 37 == 0, 0.0, bars.volume)
    bars = Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, bars.high, bars.low, bars.close, volume)
    return without(without(without(bars, 300, 1), 210, 4), 90, 3)


def make(config: FeaturesConfig, tick: float = 0.01, scale_floor: float = 0.0) -> Features:
    return Features(config, HOUR, tick, scale_floor)


def alone(feature: FeatureConfig, scale_span: int = 48) -> FeaturesConfig:
    return FeaturesConfig(scale_span=scale_span, features=(feature,))


def column(feature: FeatureConfig, bars: Bars, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """One feature as float64 and σ, rows before the warm-up NaN."""
    matrix = make(alone(feature, options.pop("scale_span", 48)), **options).run(bars)
    return matrix.x_TF[:, 0].astype(np.float64), matrix.scale_T


def streamed(features: Features, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    x_TF = np.full((len(bars), len(features.config.features)), np.nan, np.float32)
    scale_T = np.full(len(bars), np.nan)
    for t, bar in enumerate(bars):
        row = features.update(bar)
        if row is not None:
            x_TF[t], scale_T[t] = row
    return x_TF, scale_T


def same(a: FeatureMatrix, b: FeatureMatrix) -> bool:
    return all(
        np.array_equal(one, other, equal_nan=True)
        for one, other in ((a.x_TF, b.x_TF), (a.scale_T, b.scale_T), (a.count_T, b.count_T))
    )


def joined(*parts: FeatureMatrix) -> FeatureMatrix:
    whole = [np.concatenate([getattr(part, name) for part in parts]) for name in ("x_TF", "scale_T", "count_T")]
    return FeatureMatrix(*whole, sum(part.filtered for part in parts))


# Parity


@EACH
def test_streamed_is_offline_to_the_bit(feature: FeatureConfig) -> None:
    bars = gappy(700)
    config = alone(feature, scale_span=8)
    matrix = make(config).run(bars)
    x_TF, scale_T = streamed(make(config), bars)
    assert matrix.valid_T.any()
    np.testing.assert_array_equal(x_TF, matrix.x_TF)
    np.testing.assert_array_equal(scale_T, matrix.scale_T)


@pytest.mark.parametrize("config", [DEFAULT, SHORT, FILTERED], ids=["default", "short", "filtered"])
def test_all_together_streamed_is_offline_to_the_bit(config: FeaturesConfig) -> None:
    bars = gappy(900)
    matrix = make(config).run(bars)
    x_TF, scale_T = streamed(make(config), bars)
    assert matrix.valid_T.sum() > 200
    np.testing.assert_array_equal(x_TF, matrix.x_TF)
    np.testing.assert_array_equal(scale_T, matrix.scale_T)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 392), st.sampled_from(["run", "update", "restore"])), max_size=8), st.booleans()
)
def test_any_split_of_history_is_the_same(cuts: list[tuple[int, str]], filtered: bool) -> None:
    bars, config = gappy(), FILTERED if filtered else SHORT
    whole, features, at = make(config).run(bars), make(config), 0
    for end, how in [*sorted(cuts), (len(bars), "run")]:
        if how == "restore":
            state, features = features.state(), make(config)
            features.restore(state)
        part = bars[at:end]
        x_TF, scale_T = streamed(features, part) if how == "update" else _run(features, part)
        np.testing.assert_array_equal(x_TF, whole.x_TF[at:end])
        np.testing.assert_array_equal(scale_T, whole.scale_T[at:end])
        at = end
    assert features.last_ts == bars.ts_close[-1]
    assert features.count == whole.count_T[-1]


def _run(features: Features, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    matrix = features.run(bars)
    return matrix.x_TF, matrix.scale_T


def test_state_is_a_copy() -> None:
    bars, features = gappy(), make(SHORT)
    features.run(bars[:50])
    state = features.state()
    expected = features.run(bars[50:])
    features.restore(state)
    assert same(features.run(bars[50:]), expected)


def test_state_of_other_features_is_refused() -> None:
    features = make(SHORT)
    with pytest.raises(LSTMStrategyError, match="belongs to other features"):
        features.restore(make(DEFAULT).state())
    assert features.count == 0


# Warm-up

# Of an EW mean's old values a weight of at most e^-10 = 4.5e-5 is left, relative to the feature's own unit. The factor
# before it is how much more the old values may weigh than the new ones: a variance 20 times the present one, a price
# 2 of the σ√n below away.
E10 = math.exp(-10.0)
TOLERANCE = {
    "ema_distance": 2 * E10,
    "macd": 0.5 * E10,
    "rsi": 2 * E10,
    "atr": 20 * E10,
    "parkinson": 20 * E10,
    "volatility_ratio": 20 * E10,
    "volume_zscore": 20 * E10,
    "season_range": 1e-6,  # one rounding of float32: a long run's sum carries other roundings
    "season_volume": 1e-6,
}
ENDS = range(2000, 3000, 41)


@EACH
def test_cold_start_after_the_warm_up_is_the_long_run(feature: FeatureConfig) -> None:
    bars = some_bars(3000, seed=3)
    config = alone(feature, scale_span=2)
    # A floor above every σ: what is left is the feature's own memory.
    long_run = make(config, scale_floor=0.1).run(bars).x_TF[:, 0]
    for end in ENDS:
        cold = make(config, scale_floor=0.1).run(bars[end - config.warmup : end])
        assert cold.valid_T.sum() == 1
        difference = abs(float(cold.x_TF[-1, 0]) - float(long_run[end - 1]))
        assert difference <= TOLERANCE.get(feature.kind, 0.0), end


@EACH
def test_the_warm_up_holds_with_the_scale_too(feature: FeatureConfig) -> None:
    bars = some_bars(3000, seed=3)
    config = alone(feature)
    long_run = make(config).run(bars)
    for end in ENDS:
        cold = make(config).run(bars[end - config.warmup : end])
        assert cold.scale_T[-1] == pytest.approx(long_run.scale_T[end - 1], rel=10 * E10)
        # σ divides or is compared with: its relative error times the feature's size comes on top.
        wanted = float(long_run.x_TF[end - 1, 0])
        tolerance = TOLERANCE.get(feature.kind, 0.0) + 10 * E10 * max(1.0, abs(wanted))
        assert float(cold.x_TF[-1, 0]) == pytest.approx(wanted, abs=tolerance)


def test_warm_ups_are_the_declared_ones() -> None:
    declared = dict(zip(DEFAULT.names, (feature.warmup for feature in DEFAULT.features), strict=True))
    assert declared == {
        "return_1": 2,
        "return_4": 5,
        "return_24": 25,
        "return_96": 97,
        "ema_distance_12": 60,
        "ema_distance_48": 240,
        "macd_12_26_9": 130,
        "rsi_14": 149,
        "atr_14": 149,
        "parkinson_6": 30,
        "parkinson_24": 120,
        "volatility_ratio_12": 60,
        "volatility_ratio_96": 480,
        "range_position_24": 24,
        "volume_zscore_48": 240,
        "range": 1,
        "close_position": 1,
        "hour_sin_1": 1,
        "hour_cos_1": 1,
        "hour_sin_2": 1,
        "hour_cos_2": 1,
        "weekday_sin_1": 1,
        "weekday_cos_1": 1,
        "gap": 1,
    }
    assert DEFAULT.warmup == 480
    assert alone(FeatureConfig("range")).warmup == 240  # five spans of the scale


def test_rows_are_valid_from_the_warm_up_on() -> None:
    matrix = make(DEFAULT).run(some_bars(600))
    assert not matrix.valid_T[:479].any()
    assert matrix.valid_T[479:].all()
    assert np.isnan(matrix.x_TF[:479]).all()
    assert np.isfinite(matrix.x_TF[479:]).all()
    assert matrix.count_T.tolist() == list(range(1, 601))


# Causality


@pytest.mark.parametrize("config", [SHORT, FILTERED], ids=["plain", "filtered"])
def test_cutting_off_the_future_changes_no_past_row(config: FeaturesConfig) -> None:
    bars = gappy()
    whole = make(config).run(bars)
    for end in range(1, len(bars) + 1):
        part = make(config).run(bars[:end])
        np.testing.assert_array_equal(part.x_TF, whole.x_TF[:end])
        np.testing.assert_array_equal(part.scale_T, whole.scale_T[:end])


@pytest.mark.parametrize("config", [SHORT, FILTERED], ids=["plain", "filtered"])
def test_altering_the_future_changes_no_past_row(config: FeaturesConfig) -> None:
    bars = gappy()
    whole = make(config).run(bars)
    shaken = np.exp(np.random.default_rng(5).normal(0, 0.2, len(bars)))
    for end in range(1, len(bars)):
        factor = np.where(np.arange(len(bars)) < end, 1.0, shaken)
        columns = (column * factor for column in (bars.open, bars.high, bars.low, bars.close, bars.volume))
        altered = make(config).run(Bars(bars.instrument_id, HOUR, bars.ts_close, *columns))
        np.testing.assert_array_equal(altered.x_TF[:end], whole.x_TF[:end])
        np.testing.assert_array_equal(altered.scale_T[:end], whole.scale_T[:end])
        if whole.valid_T[end] and altered.valid_T[end]:
            assert not np.array_equal(altered.x_TF[end], whole.x_TF[end])


# Formulas. A floor of 1 puts σ = 1 into a formula, so that only the feature itself is compared.

UNIT = {"scale_floor": 1.0}
LONG = some_bars(2500, seed=9)
CLOSE, HIGH, LOW = LONG.close, LONG.high, LONG.low
RETURN = np.diff(np.log(CLOSE), prepend=np.nan)
CLOSES = pd.Series(CLOSE)


def equal(found: np.ndarray, wanted: Any, at_least: int, rel: float = 2e-6, abs_: float = 2e-7) -> None:
    """Compare where both are known; float32 has 6e-8 of relative rounding."""
    wanted = np.asarray(wanted, np.float64)
    known = np.isfinite(found) & np.isfinite(wanted)
    assert known.sum() >= at_least
    np.testing.assert_allclose(found[known], wanted[known], rtol=rel, atol=abs_)


def test_scale_is_the_ew_mean_of_squared_returns() -> None:
    wanted = pd.Series(RETURN**2).ewm(span=48, adjust=True).mean() ** 0.5
    _, scale = column(FeatureConfig("range"), LONG)
    equal(scale, wanted, at_least=2261, rel=1e-12, abs_=0.0)


def test_one_squared_return_is_the_whole_scale_of_two_bars() -> None:
    bars = hand_made([100.0] * 9 + [110.0])
    matrix = make(alone(FeatureConfig("range"), scale_span=2)).run(bars)
    # alpha = 2/3, nine returns, the last of them ln 1.1 with weight (2/3) / (1 - 3**-9).
    assert matrix.scale_T[-1] == pytest.approx(math.log(1.1) * math.sqrt((2 / 3) / (1 - 3.0**-9)), rel=1e-13)


def test_scale_never_falls_below_a_tick_or_the_floor() -> None:
    bars = hand_made([250.0] * 60)
    config = alone(FeatureConfig("range"), scale_span=5)
    assert make(config, tick=0.5).run(bars).scale_T[-1] == 0.002
    assert make(config, tick=0.5, scale_floor=0.001).run(bars).scale_T[-1] == 0.002
    assert make(config, tick=0.5, scale_floor=0.003).run(bars).scale_T[-1] == 0.003


@pytest.mark.parametrize("n", [1, 4, 24, 96])
def test_return_is_scaled_by_the_root_of_its_span(n: int) -> None:
    x, scale = column(FeatureConfig("return", n), LONG)
    equal(x, np.log(CLOSES / CLOSES.shift(n)) / (scale * math.sqrt(n)), at_least=2200)


def test_return_is_talibs_rate_of_change() -> None:
    x, _ = column(FeatureConfig("return", 24), LONG, **UNIT)
    equal(x * math.sqrt(24), np.log(talib.ROCR(CLOSE, 24)), at_least=2200)


@pytest.mark.parametrize("n", [12, 48])
def test_ema_distance_is_pandas_ewm(n: int) -> None:
    x, scale = column(FeatureConfig("ema_distance", n), LONG)
    equal(x, np.log(CLOSES / CLOSES.ewm(span=n, adjust=False).mean()) / (scale * math.sqrt(n)), at_least=2200)


def test_ema_distance_converges_to_talibs() -> None:
    x, _ = column(FeatureConfig("ema_distance", 12), LONG, **UNIT)
    wanted = np.log(CLOSE / talib.EMA(CLOSE, 12)) / math.sqrt(12)  # seeded with a mean of 12 closes
    equal(x[300:], wanted[300:], at_least=2200)


def test_macd_is_pandas_ewm() -> None:
    x, scale = column(FeatureConfig("macd", 12, 26, 9), LONG)
    macd = CLOSES.ewm(span=12, adjust=False).mean() - CLOSES.ewm(span=26, adjust=False).mean()
    equal(x, (macd - macd.ewm(span=9, adjust=False).mean()) / (CLOSES * scale), at_least=2200, abs_=1e-6)


def test_macd_converges_to_talibs() -> None:
    x, _ = column(FeatureConfig("macd", 12, 26, 9), LONG, **UNIT)
    wanted = talib.MACD(CLOSE, 12, 26, 9)[2] / CLOSE
    equal(x[600:], wanted[600:], at_least=1900, rel=1e-5, abs_=1e-9)


def test_rsi_is_talibs() -> None:
    x, _ = column(FeatureConfig("rsi", 14), LONG)
    equal(x, talib.RSI(CLOSE, 14) / 50.0 - 1.0, at_least=2200)


def test_rsi_is_talibs_from_its_first_value_on() -> None:
    x, _ = column(FeatureConfig("rsi", 2), LONG[:100], scale_span=2)  # warm-up 17 bars
    equal(x, talib.RSI(CLOSE[:100], 2) / 50.0 - 1.0, at_least=84)


def test_rsi_is_the_engines() -> None:
    from nautilus_trader.indicators import MovingAverageType, RelativeStrengthIndex

    x, _ = column(FeatureConfig("rsi", 14), LONG)
    theirs = RelativeStrengthIndex(14, MovingAverageType.WILDER)
    values = []
    for close in CLOSE:
        theirs.update_raw(close)
        values.append(2.0 * theirs.value - 1.0)
    equal(x[400:], values[400:], at_least=2000)  # seeded otherwise; converges


def test_atr_is_talibs() -> None:
    x, scale = column(FeatureConfig("atr", 14), LONG)
    equal(x, np.log(talib.ATR(HIGH, LOW, CLOSE, 14) / (CLOSE * scale)), at_least=2200)


def test_range_position_is_talibs_fast_stochastic() -> None:
    x, _ = column(FeatureConfig("range_position", 24), LONG)
    fast_k, _ = talib.STOCHF(HIGH, LOW, CLOSE, fastk_period=24, fastd_period=1)
    equal(x, fast_k / 50.0 - 1.0, at_least=2200)


@pytest.mark.parametrize("n", [6, 24])
def test_parkinson_is_pandas_ewm(n: int) -> None:
    x, scale = column(FeatureConfig("parkinson", n), LONG)
    variance = pd.Series(np.log(HIGH / LOW) ** 2 / (4 * math.log(2))).ewm(span=n, adjust=True).mean()
    equal(x, np.log(np.sqrt(variance) / scale), at_least=2200)


@pytest.mark.parametrize("n", [12, 96])
def test_volatility_ratio_is_pandas_ewm(n: int) -> None:
    x, scale = column(FeatureConfig("volatility_ratio", n), LONG)
    equal(x, np.log(np.sqrt(pd.Series(RETURN**2).ewm(span=n, adjust=True).mean()) / scale), at_least=2000)


@pytest.mark.parametrize("feature", SEASONS, ids=lambda feature: feature.name)
def test_seasons_are_the_slow_reference(feature: FeatureConfig) -> None:
    """By stamp, with holes and empty bars: what stood where the next bar will stand, less all there was."""
    bars = without(without(LONG, 700, 3), 1300, 6)
    volume = np.where(np.arange(len(bars)) % 37 == 0, 0.0, bars.volume)
    bars = Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, bars.high, bars.low, bars.close, volume)
    x, _ = column(feature, bars)
    with np.errstate(divide="ignore"):
        value = np.log(np.log(bars.high / bars.low)) if feature.kind == "season_range" else np.log(volume)
    known = {int(ts): v for ts, v in zip(bars.ts_close, value, strict=True) if np.isfinite(v)}
    wanted = []
    for ts in bars.ts_close.tolist():
        window = [ts - back * HOUR.ns for back in range(feature.span * feature.period)]
        held = [known[stamp] for stamp in window if stamp in known]
        season = [ts + (1 - k * feature.period) * HOUR.ns for k in range(1, feature.span + 1)]
        own = [known[stamp] for stamp in season if stamp in known]
        wanted.append(np.mean(own) - np.mean(held) if own else 0.0)
    equal(x, wanted, at_least=2000)


@pytest.mark.parametrize("missing", [1, 2, 3, 6])
def test_a_hole_longer_than_its_periods_leaves_a_season_nothing(missing: int) -> None:
    """Three bars' ring: what is further back than that is not the last period's, wherever the hole begins."""
    feature = FeatureConfig("season_range", 1, period=3)
    for at in range(600, 606):
        bars = without(LONG, at, missing)
        x, _ = column(feature, bars)
        value = np.log(np.log(bars.high / bars.low))
        known = {int(ts): v for ts, v in zip(bars.ts_close, value, strict=True) if np.isfinite(v)}
        for row in range(at - 1, at + 4):
            held = {back: known.get(int(bars.ts_close[row]) - back * HOUR.ns) for back in range(3)}
            there = [v for v in held.values() if v is not None]
            wanted = 0.0 if held[2] is None else held[2] - np.mean(there)
            assert x[row] == pytest.approx(wanted, abs=1e-5), (at, row)


def test_a_season_tells_the_next_bars_hour_not_this_ones() -> None:
    """A range that is wide at one hour of the day only shows at the bar before it."""
    close = np.full(24 * 12, 100.0)
    wide = np.arange(len(close)) % 24 == 7
    high, low = np.where(wide, 105.0, 101.0), np.where(wide, 95.0, 99.0)
    stamps = parse_ns("2024-01-01") + HOUR.ns * np.arange(1, len(close) + 1)
    bars = Bars("X.Y", HOUR, stamps, close, high, low, close, np.ones(len(close)))
    x, _ = column(FeatureConfig("season_range", 5, period=24), bars)
    late = np.arange(len(close)) >= 240
    assert (x[late & np.roll(wide, -1)] > 1.0).all()
    assert (x[late & ~np.roll(wide, -1)] < 0.0).all()


@pytest.mark.parametrize(
    ("kind", "span", "period", "said"),
    [
        ("season_range", 5, 0, "needs a period"),
        ("season_volume", 500, 168, "at most"),
        ("range", 1, 24, "period belongs"),
    ],
)
def test_seasons_that_cannot_be_are_refused(kind: Any, span: int, period: int, said: str) -> None:
    with pytest.raises(LSTMStrategyError, match=said):
        FeatureConfig(kind, span, period=period)


def test_volume_zscore_is_the_slow_reference() -> None:
    n, bars = 48, LONG[:600]
    volume = np.where(np.arange(600) % 50 == 0, 0.0, bars.volume)
    volume[400] = 1e9
    bars = Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, bars.high, bars.low, bars.close, volume)
    decay, wanted = 1 - 2 / (n + 1), []
    seen: list[float] = []  # log volumes of bars that traded
    surprises: list[float] = []  # squared distances from the mean before them
    for v in volume.tolist():
        if v == 0.0:
            wanted.append(-5.0)
            continue
        weights = [decay**age for age in range(len(seen))][::-1]
        mean = sum(w * s for w, s in zip(weights, seen, strict=True)) / sum(weights) if seen else math.log(v)
        variance = sum(w * s for w, s in zip(weights, surprises, strict=True)) / sum(weights) if seen else 0.0
        z = (math.log(v) - mean) / math.sqrt(variance) if variance > 1e-12 else 0.0
        wanted.append(min(max(z, -5.0), 5.0))
        seen.append(math.log(v))
        surprises.append((math.log(v) - mean) ** 2)
    x, _ = column(FeatureConfig("volume_zscore", n), bars)
    equal(x, wanted, at_least=361)
    assert x[400] == 5.0
    assert x[450] == -5.0


def test_range_and_close_position_are_read_off_the_bar() -> None:
    x, scale = column(FeatureConfig("range"), LONG)
    equal(x, np.log(HIGH / LOW) / scale, at_least=2200)
    x, _ = column(FeatureConfig("close_position"), LONG)
    with np.errstate(invalid="ignore"):
        equal(x, 2 * (CLOSE - LOW) / (HIGH - LOW) - 1, at_least=2200, abs_=1e-6)


# Calendar: 2024-01-01T00:00Z is a Monday.

CALENDAR = FeaturesConfig(
    scale_span=2,
    features=tuple(
        FeatureConfig(kind, n) for kind in ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos") for n in (1, 2)
    ),
)
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("stamp", "wanted"),
    [
        ("2024-01-01T00:00", (0, 0, 1, 1, 0, 0, 1, 1)),
        ("2024-01-01T06:00", (1, 0, 0, -1, 0.2225209, 0.4338837, 0.9749279, 0.9009689)),
        ("2024-01-01T03:00", (HALF, 1, HALF, 0, 0.1119645, 0.2225209, 0.9937122, 0.9749279)),
        ("2024-01-04T12:00", (0, 0, -1, 1, 0, 0, -1, 1)),
        ("2024-01-02T18:00", (-1, 0, 0, -1, 1, 0, 0, -1)),
        ("1969-12-29T00:00", (0, 0, 1, 1, 0, 0, 1, 1)),
    ],
)
def test_calendar_knows_the_hour_and_the_weekday(stamp: str, wanted: tuple[float, ...]) -> None:
    features, ts = make(CALENDAR), parse_ns(stamp)
    for back in range(9, -1, -1):
        row = features.update(Bar(ts - back * HOUR.ns, 1.0, 1.0, 1.0, 1.0, 1.0))
    assert row is not None
    assert row[0].tolist() == pytest.approx(wanted, abs=1e-6)


# Gaps


def test_a_short_gap_is_marked_and_leaves_the_scale_alone() -> None:
    bars = some_bars(100)
    jump = bars.close * np.where(np.arange(100) < 60, 1.0, 3.0)
    bars = Bars(bars.instrument_id, HOUR, bars.ts_close, jump, jump, jump, jump, bars.volume)
    marked = (FeatureConfig("gap"), FeatureConfig("return", 1), FeatureConfig("volatility_ratio", 5))
    config = FeaturesConfig(scale_span=5, max_gap_bars=4, features=marked)
    matrix = make(config).run(without(bars, 58, 2))  # row 58 closes two bars late, after the price trebled
    assert matrix.x_TF[:, 0][24:].tolist() == [0.0] * 34 + [0.5] + [0.0] * 39
    assert matrix.scale_T[58] == matrix.scale_T[57]
    np.testing.assert_allclose(matrix.x_TF[24:, 2], 0.0, atol=1e-6)  # of the scale's own span: ln 1
    assert matrix.x_TF[58, 1] == pytest.approx(math.log(jump[60] / jump[57]) / matrix.scale_T[57], rel=1e-6)
    assert matrix.count_T.tolist() == list(range(1, 99))
    # The very same returns without the gap's: σ goes on as if the gap's return had never been.
    returns = np.delete(np.diff(np.log(jump)), slice(57, 60))
    wanted = pd.Series(returns**2).ewm(span=5, adjust=True).mean() ** 0.5
    np.testing.assert_allclose(matrix.scale_T[59:], wanted[57:], rtol=1e-12)


def test_no_tolerance_is_no_tolerance() -> None:
    config = FeaturesConfig(scale_span=5, max_gap_bars=0, features=(FeatureConfig("gap"),))
    assert make(config).run(without(some_bars(100), 50, 1)).count_T.tolist() == [*range(1, 51), *range(1, 50)]


@pytest.mark.parametrize("config", [SHORT, FILTERED], ids=["plain", "filtered"])
def test_after_a_long_gap_all_starts_afresh(config: FeaturesConfig) -> None:
    bars = without(some_bars(400), 200, 4)
    whole, fresh = make(config).run(bars), make(config).run(bars[200:])
    assert same(joined(make(config).run(bars[:200]), fresh), whole)
    assert np.isnan(whole.x_TF[200 : 199 + config.warmup]).all()
    assert whole.valid_T[199 + config.warmup :].all()


def test_the_longest_tolerated_gap_is_the_configs() -> None:
    assert make(SHORT).run(without(some_bars(100), 50, 3)).count_T[-1] == 97
    assert make(SHORT).run(without(some_bars(100), 50, 4)).count_T[-1] == 46


# Hampel filter


def test_the_filter_is_off_by_default() -> None:
    assert DEFAULT.hampel_window == 0
    matrix = make(SHORT).run(gappy())
    off = FeaturesConfig(scale_span=5, max_gap_bars=3, hampel_threshold=0.1, features=SHORT.features)
    assert same(make(off).run(gappy()), matrix)
    assert matrix.filtered == 0


def test_a_filter_that_touches_nothing_changes_hardly_anything() -> None:
    bars = gappy()
    wide = FeaturesConfig(scale_span=5, max_gap_bars=3, hampel_window=8, hampel_threshold=1e6, features=SHORT.features)
    found, plain = make(wide).run(bars), make(SHORT).run(bars)
    assert found.filtered == 0
    np.testing.assert_allclose(found.x_TF, plain.x_TF, rtol=1e-4, atol=1e-5)


def test_a_spike_is_held_within_the_bound_and_counted() -> None:
    moves = np.array([0.001, -0.002, 0.003, -0.001, 0.002, -0.003] * 10)
    moves[40], moves[41] = 0.7, -0.7
    config = FeaturesConfig(scale_span=5, hampel_window=6, hampel_threshold=3.0, features=(FeatureConfig("return", 1),))
    matrix = make(config).run(hand_made(100.0 * np.exp(np.cumsum(moves))))
    # Of ±.001, ±.002, ±.003 the median is 0 and the median absolute deviation .002.
    held = matrix.x_TF[:, 0] * matrix.scale_T
    assert held[40] == pytest.approx(3.0 * 1.4826 * 0.002, rel=1e-5)
    assert held[39] == pytest.approx(-0.001, rel=1e-5)
    assert held[42] == pytest.approx(0.001, rel=1e-5)
    assert -0.02 < held[41] < 0.0
    assert matrix.filtered == 2
    assert matrix.scale_T[40:].max() < 0.01


def test_a_wick_alone_is_held_and_counted() -> None:
    bars = some_bars(300)
    high = bars.high.copy()
    high[250] *= 2.0
    spiked = Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, high, bars.low, bars.close, bars.volume)
    config = FeaturesConfig(scale_span=5, hampel_window=24, hampel_threshold=15.0, features=(FeatureConfig("range"),))
    clean, found = make(config).run(bars), make(config).run(spiked)
    assert found.filtered == clean.filtered + 1
    np.testing.assert_array_equal(found.scale_T, clean.scale_T)
    assert float(found.x_TF[250, 0] * found.scale_T[250]) < 0.3 < math.log(2.0)


def test_ordinary_bars_are_hardly_touched() -> None:
    config = FeaturesConfig(hampel_window=48)
    assert make(config).run(some_bars(20_000)).filtered < 100


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.floats(-1.5, 1.5)] * 4, st.booleans()), min_size=45, max_size=60),
    st.integers(1, 12),
    st.floats(0.01, 5.0),
)
def test_the_filter_never_breaks_the_order_of_prices(
    rows: list[tuple[float, float, float, float, bool]], window: int, threshold: float
) -> None:
    config = FeaturesConfig(
        scale_span=2,
        hampel_window=window,
        hampel_threshold=threshold,
        features=(FeatureConfig("close_position"), FeatureConfig("range"), FeatureConfig("range_position", 3)),
    )
    features = make(config)
    for t, (*logs, up) in enumerate(rows):
        low, one, other, high = np.exp(sorted(logs)).tolist()
        first, last = (one, other) if up else (other, one)
        row = features.update(Bar((t + 1) * HOUR.ns, first, high, low, last, 1.0))
        if row is not None:
            close_position, range_, range_position = row[0].tolist()
            assert -1.0 <= close_position <= 1.0
            assert -1.0 <= range_position <= 1.0
            assert 0.0 <= range_ < math.inf


# Extremes


def hand_made(close: Any, volume: float = 1.0) -> Bars:
    """Hourly bars without wicks, opening at the close before."""
    close = np.asarray(close, np.float64)
    opened = np.concatenate([close[:1], close[:-1]])
    stamps = parse_ns("2024-01-01") + HOUR.ns * np.arange(1, len(close) + 1)
    columns = (opened, np.maximum(opened, close), np.minimum(opened, close), close, np.full(len(close), volume))
    return Bars("X.SIM", HOUR, stamps, *columns)


WALK = np.exp(np.cumsum(np.random.default_rng(2).normal(0, 0.01, 700)))


@pytest.mark.parametrize("window", [0, 24])
@pytest.mark.parametrize(
    ("bars", "tick"),
    [
        (hand_made(100.0 * WALK, volume=0.0), 0.01),
        (hand_made(np.full(700, 100.0)), 0.01),
        (hand_made(np.full(700, 100.0), volume=0.0), 0.01),
        (hand_made([100.0] * 600 + [100.01, 50.0, 100.0, *[200.0] * 97]), 0.01),
        (hand_made(1e-8 * np.ceil(100.0 * WALK)), 1e-8),
        (hand_made(np.full(700, 1e-8)), 1e-8),
        (hand_made(1e12 * WALK, volume=1e15), 0.01),
        (hand_made(np.full(700, 1e12), volume=1e-12), 0.01),
        (hand_made(10.0 ** np.where(np.arange(700) % 2, 9, -8)), 1e-8),
    ],
    ids=[
        "no volume",
        "constant price",
        "constant price, no volume",
        "jumps after constancy",
        "tiny prices",
        "one tiny price",
        "huge prices",
        "one huge price",
        "wild prices",
    ],
)
def test_extreme_bars_give_finite_features(bars: Bars, tick: float, window: int) -> None:
    matrix = make(FeaturesConfig(hampel_window=window), tick=tick).run(bars)
    assert matrix.valid_T[479:].all()
    assert np.isfinite(matrix.x_TF[479:]).all()
    assert (matrix.scale_T[479:] > 0.0).all()


def test_constant_prices_say_nothing() -> None:
    matrix = make(DEFAULT).run(hand_made(np.full(500, 100.0)))
    row = dict(zip(DEFAULT.names, matrix.x_TF[-1].tolist(), strict=True))
    still = ("return_1", "return_96", "ema_distance_48", "macd_12_26_9", "rsi_14", "range_position_24", "range")
    assert [row[name] for name in (*still, "close_position", "volume_zscore_48", "gap")] == [0.0] * 10
    assert matrix.scale_T[-1] == 0.0001


# Doors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("return", 0), "feature return: span is 0; it must be 1 to 10000"),
        (("rsi", 10_001), "feature rsi: span is 10001; it must be 1 to 10000"),
        (("macd", 12, 12, 9), "feature macd: span 12, slow 12, signal 9; it needs span < slow and a signal"),
        (("macd", 12, 26), "feature macd: span 12, slow 26, signal 0; it needs span < slow and a signal"),
        (("macd",), "feature macd: span 1, slow 0, signal 0"),
        (("atr", 14, 26), "feature atr: slow and signal belong to macd only"),
        (("atr", 14, 0, 9), "feature atr: slow and signal belong to macd only"),
    ],
)
def test_a_wrong_feature_is_refused_by_name(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(LSTMStrategyError, match=told):
        FeatureConfig(*arguments)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale_span": 1}, "features.scale_span is 1; it must be 2 to 10000"),
        ({"max_gap_bars": -1}, "features.max_gap_bars is -1"),
        ({"hampel_window": 1001}, "features.hampel_window is 1001"),
        ({"hampel_threshold": 0.0}, "features.hampel_threshold is 0.0; it must be above 0"),
        ({"hampel_threshold": math.nan}, "features.hampel_threshold is nan; it must be above 0"),
        ({"features": ()}, "features.features is empty"),
        ({"features": (FeatureConfig("rsi", 5), FeatureConfig("rsi", 5))}, "features.features names rsi_5 twice"),
        ({"features": (FeatureConfig("gap", 1), FeatureConfig("gap", 2))}, "features.features names gap twice"),
    ],
)
def test_wrong_settings_are_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LSTMStrategyError, match=told):
        FeaturesConfig(**options)


def test_a_context_that_nothing_reads_is_refused_and_changes_nothing() -> None:
    features, bars = make(SHORT), some_bars(10)
    features.run(bars[:9])
    before, last = features.state(), next(iter(bars[9:]))
    with pytest.raises(LSTMStrategyError, match="context holds funding; no feature of this model reads it"):
        features.update(last, {"funding": AsOf(0.0001, last.ts_close)})
    assert features.state() == before
    features.update(last, {})
    assert features.count == 10
