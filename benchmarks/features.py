"""Features: a million bars by the live step, beside NautilusTrader's indicators and TA-Lib on what all three define."""

from __future__ import annotations

from statistics import median

import numpy as np
import talib
from nautilus_trader.indicators import (
    AverageTrueRange,
    DonchianChannel,
    ExponentialMovingAverage,
    MovingAverageConvergenceDivergence,
    MovingAverageType,
    RateOfChange,
    RelativeStrengthIndex,
)

from benchmarks.common import Figure, market, progress, report, seconds_of, side_by_side
from lstm_strategy.bars import Bars
from lstm_strategy.features import FeatureConfig, Features, FeaturesConfig

__all__ = ["run"]

_BARS, _SOME, _REPETITIONS = 1_000_000, 100_000, 3
_SHARED = FeaturesConfig(
    features=(
        FeatureConfig("return", 4),
        FeatureConfig("return", 24),
        FeatureConfig("return", 96),
        FeatureConfig("ema_distance", 12),
        FeatureConfig("ema_distance", 48),
        FeatureConfig("macd", 12, 26, 9),
        FeatureConfig("rsi", 14),
        FeatureConfig("atr", 14),
        FeatureConfig("range_position", 24),
    )
)


def run() -> list[Figure]:
    """The rivals compute nine bare indicators; ours, those nine in units of the causal scale, which it computes too.

    TA-Lib takes whole arrays and cannot go on from bar to bar; NautilusTrader's indicators take single bars only, so a
    history is a loop over them.
    """
    progress("features")
    bars, _ = market(_BARS, "1m")
    some = bars[:_SOME]
    config = FeaturesConfig()
    Features(config, bars.timeframe, 0.01).run(some)
    whole = median(seconds_of(lambda: Features(config, bars.timeframe, 0.01).run(bars)) for _ in range(_REPETITIONS))
    figures = [
        Figure(
            name=f"{len(config.features)} features over 1,000,000 bars",
            value=whole,
            unit="s",
            target="≤ 1 s",
            met=whole <= 1.0,
        )
    ]

    def ours() -> None:
        Features(_SHARED, bars.timeframe, 0.01).run(some)

    def ours_live() -> None:
        features = Features(_SHARED, bars.timeframe, 0.01)
        for bar in some:
            features.update(bar)

    for name, mine, rival, rival_name in (
        ("9 shared features over a history", ours, lambda: _nautilus(some), "NautilusTrader's indicators"),
        ("9 shared features over a history", ours, lambda: _talib(some), "TA-Lib, which has no live step"),
        ("9 shared features, one live step", ours_live, lambda: _nautilus(some), "NautilusTrader's indicators"),
    ):
        seconds, rival_seconds = side_by_side(mine, rival, _REPETITIONS)
        figures.append(
            Figure(
                name=name,
                value=1e6 * seconds / len(some),
                unit="µs/bar",
                rival=rival_name,
                rival_value=1e6 * rival_seconds / len(some),
                ratio=rival_seconds / seconds,
            )
        )
    return figures


def _talib(bars: Bars) -> None:
    for span in (4, 24, 96):
        talib.ROC(bars.close, span)
    for span in (12, 48):
        talib.EMA(bars.close, span)
    talib.MACD(bars.close, 12, 26, 9)
    talib.RSI(bars.close, 14)
    talib.ATR(bars.high, bars.low, bars.close, 14)
    talib.MAX(bars.high, 24)
    talib.MIN(bars.low, 24)


def _nautilus(bars: Bars) -> None:
    by_close = [RateOfChange(span, use_log=True) for span in (4, 24, 96)]
    by_close += [ExponentialMovingAverage(span) for span in (12, 48)]
    by_close += [MovingAverageConvergenceDivergence(12, 26), RelativeStrengthIndex(14, MovingAverageType.WILDER)]
    atr = AverageTrueRange(14, MovingAverageType.WILDER)
    donchian = DonchianChannel(24)
    row = np.zeros(9, np.float32)
    for bar in bars:
        for column, indicator in enumerate(by_close):
            indicator.update_raw(bar.close)
            row[column] = indicator.value
        atr.update_raw(bar.high, bar.low, bar.close)
        row[7] = atr.value
        donchian.update_raw(bar.high, bar.low)
        row[8] = donchian.middle


if __name__ == "__main__":
    report(run)
