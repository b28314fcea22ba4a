"""Labels and spans: what a forecast is judged by, and which bars may teach, stop, calibrate or test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_strategy.artefact import InstrumentFit
from lstm_strategy.bars import Bars, Float, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureMatrix, Features, FeaturesConfig
from lstm_strategy.hyperparameters import Spans
from lstm_strategy.instrument import Instrument
from lstm_strategy.measures import labels

__all__ = ["Sample", "build_sample", "label", "next_log_range", "span_mask"]

_FLOOR_SHARE = 0.05  # σ never falls below this share of its median over the training span


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One instrument ready for training: bars, features, labels y_TH (NaN where there is none) and what was fitted.

    Labels of other tasks are ``next_T``, the log return of the next bar in units of σ, and ``range_T``, its log range
    as in `next_log_range`. ``mirrored_F`` tells the features that change their sign with the returns.
    """

    bars: Bars
    matrix: FeatureMatrix
    y_TH: npt.NDArray[np.float32]
    next_T: npt.NDArray[np.float32]
    range_T: npt.NDArray[np.float32]
    mirrored_F: npt.NDArray[np.bool_]
    fit: InstrumentFit


def label(bars: Bars, scale_T: Float, horizons: tuple[int, ...], closed_ns: int = 0) -> npt.NDArray[np.float32]:
    """Return y_TH, float32: the outcome of every bar at every horizon, as in `lstm_strategy.measures.labels`."""
    columns = [labels(bars.close, bars.ts_close, scale_T, h, bars.timeframe.ns, closed_ns) for h in horizons]
    return np.stack(columns, axis=1).astype(np.float32)


def next_log_range(bars: Bars, scale_T: Float, closed_ns: int = 0) -> npt.NDArray[np.float32]:
    """Return ln(ln(H / L) / σ), float32 [T], of the bar after each; NaN where that is missing or had no range."""
    found = np.full(len(bars), np.nan, np.float32)
    near = np.diff(bars.ts_close) <= max(bars.timeframe.ns, closed_ns)
    with np.errstate(divide="ignore"):
        log_range_T = np.log(np.log(bars.high / bars.low))
    found[:-1] = np.where(near & np.isfinite(log_range_T[1:]), log_range_T[1:] - np.log(scale_T[:-1]), np.nan)
    return found


def span_mask(bars: Bars, span: tuple[int | None, int | None], purge: int) -> npt.NDArray[np.bool_]:
    """Rows t with start < ts_t and ts_t + purge bars <= end: no label made in the span looks beyond it."""
    start, end = span
    inside = np.ones(len(bars), np.bool_)
    if start is not None:
        inside &= bars.ts_close > start
    if end is not None:
        reach = bars.ts_close + purge * bars.timeframe.ns
        if 0 < purge < len(bars):  # over holes and nights, the bar that many bars later closes later
            reach[:-purge] = np.maximum(reach[:-purge], bars.ts_close[purge:])
        inside &= reach <= end
    return inside


def build_sample(
    bars: Bars, instrument: Instrument, config: FeaturesConfig, horizons: tuple[int, ...], spans: Spans
) -> Sample:
    """Compute features and labels; the scale's floor comes from the fit span alone.

    Raises
    ------
    LSTMStrategyError
        Too few bars to warm up, a market that closes without being said to, or a feature without values.
    """
    tick = float(instrument.tick)
    if instrument.kind == "equity" and not config.closed_hours:
        raise LSTMStrategyError(
            f"{bars.instrument_id} is an equity, and its market closes; say for how long at most, such as"
            " features.closed_hours = 120"
        )
    taught = bars.between(*spans["fit"])
    unfloored = Features(config, bars.timeframe, tick).run(taught).scale_T
    known = unfloored[~np.isnan(unfloored)]
    if len(known) == 0:
        start, end = (("the beginning" if ts is None else format_ns(ts)) for ts in spans["fit"])
        raise LSTMStrategyError(
            f"{bars.instrument_id}: {len(taught)} bars from {start} to {end} are fewer than the {config.warmup} that"
            " the features need to warm up; import more history or move split.fit_end"
        )
    fit = InstrumentFit(
        tick=tick, scale_floor=_FLOOR_SHARE * float(np.median(known)), bars_per_year=_bars_per_year(taught, config)
    )
    matrix = Features(config, bars.timeframe, fit.tick, fit.scale_floor).run(bars)
    _require_finite(bars, matrix, config)
    y_TH = label(bars, matrix.scale_T, horizons, config.closed_ns)
    next_T = label(bars, matrix.scale_T, (1,), config.closed_ns)[:, 0]
    range_T = next_log_range(bars, matrix.scale_T, config.closed_ns)
    mirrored_F = np.array([feature.mirrored for feature in config.features])
    return Sample(bars, matrix, y_TH, next_T, range_T, mirrored_F, fit)


def _require_finite(bars: Bars, matrix: FeatureMatrix, config: FeaturesConfig) -> None:
    """Refuse a feature without a value past the warm-up: one NaN and a streaming state is NaN for ever after."""
    wrong_TF = ~np.isfinite(matrix.x_TF) & matrix.valid_T[:, None]
    if wrong_TF.any():
        column = int(wrong_TF.any(axis=0).argmax())
        rows = np.flatnonzero(wrong_TF[:, column])
        held = int(matrix.valid_T.sum())
        raise LSTMStrategyError(
            f"{bars.instrument_id}: feature {config.names[column]} has no value at {len(rows):,} of {held:,} bars past"
            f" the warm-up, first at {format_ns(bars.ts_close[rows[0]])}; leave the feature out, or mend what it is"
            " made from"
        )


def _bars_per_year(taught: Bars, config: FeaturesConfig) -> float:
    """Counted where the market closes; elsewhere the clock's, whatever is missing."""
    years = (taught.ts_close[-1] - taught.ts_close[0]) / (365.25 * 86_400e9)
    return float(len(taught) / years) if config.closed_hours else taught.timeframe.bars_per_year
