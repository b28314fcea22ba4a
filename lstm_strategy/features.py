"""Features: one incremental step from bars to network inputs, used live and looped over history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Bar, Bars, Float, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features_kernel import (
    ALPHA,
    CLOSED,
    COUNT,
    FILTERED,
    HAMPEL_THRESHOLD,
    HAMPEL_WINDOW,
    LAST_TS,
    MAX_GAP,
    N_FLOATS,
    N_INTS,
    N_SETTINGS,
    SCALE_FLOOR,
    TICK,
    TIMEFRAME,
    WARM_UP,
    loop,
    step,
)
from lstm_strategy.forecast import Float32

__all__ = ["EMPTY_CONTEXT", "AsOf", "Context", "FeatureConfig", "FeatureMatrix", "Features", "FeaturesConfig"]

Kind = Literal[
    "return",
    "ema_distance",
    "macd",
    "rsi",
    "atr",
    "parkinson",
    "volatility_ratio",
    "range_position",
    "volume_zscore",
    "range",
    "close_position",
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
    "gap",
]
_KIND_NUMBER = {kind: number for number, kind in enumerate(get_args(Kind))}


class AsOf(NamedTuple):
    """A value from outside the bar, with the stamp (ns UTC) from which on it was known."""

    value: float
    ts_available: int


Context = Mapping[str, AsOf]
EMPTY_CONTEXT: Context = {}


class FeatureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feature: σ is the causal volatility of one bar's log return, n is ``span``, EW = exponentially weighted.

    ================== =========================================================================================
    return             ln(C_t / C_{t-n}) / (σ√n)
    ema_distance       ln(C / EMA_n(C)) / (σ√n), EMA started at the first close
    macd               (MACD - signal) / (Cσ), with EMA spans ``span``, ``slow``, ``signal``
    rsi                RSI_n / 50 - 1, Wilder's smoothing started with the mean of n changes
    atr                ln(ATR_n / (Cσ)), Wilder's smoothing started with the mean of n true ranges
    parkinson          ln(P / σ), P² the EW mean over n of ln²(H/L) / (4 ln 2)
    volatility_ratio   ln(S / σ), S² the EW mean over n of squared log returns
    range_position     2 (C - min L) / (max H - min L) - 1 over n bars; 0 where there is no range
    volume_zscore      (ln V - m) / s, m and s the EW mean and deviation over n up to the bar before, within ±5;
                       -5 for an empty bar
    range              ln(H / L) / σ
    close_position     (2C - H - L) / (H - L); 0 where there is no range
    hour_*, weekday_*  sine and cosine of the close stamp's time of day (week), at the n-th harmonic
    gap                missing bars just before this one, as a share of the longest gap tolerated
    ================== =========================================================================================
    """

    kind: Kind
    span: int = 1
    slow: int = 0
    signal: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.span <= 10_000:
            raise LSTMStrategyError(f"feature {self.kind}: span is {self.span}; it must be 1 to 10000")
        if self.kind == "macd" and not (self.span < self.slow <= 10_000 and 1 <= self.signal <= 10_000):
            values = f"span {self.span}, slow {self.slow}, signal {self.signal}"
            raise LSTMStrategyError(f"feature macd: {values}; it needs span < slow and a signal, such as 12, 26, 9")
        if self.kind != "macd" and (self.slow or self.signal):
            raise LSTMStrategyError(f"feature {self.kind}: slow and signal belong to macd only; remove them")

    @property
    def name(self) -> str:
        """The column's name, such as ``return_24``."""
        spans = (self.span, self.slow, self.signal) if self.kind == "macd" else (self.span,)
        bare = self.kind in ("range", "close_position", "gap")
        return self.kind if bare else "_".join([self.kind, *map(str, spans)])

    @property
    def warmup(self) -> int:
        """Bars after which the start no longer matters: exact for windows, five spans (weight e⁻¹⁰) for EW means."""
        match self.kind:
            case "return":
                return self.span + 1
            case "range_position":
                return self.span
            case "rsi" | "atr":  # Wilder's n is an EW span of 2n - 1
                return 5 * (2 * self.span - 1) + self.span
            case "macd":
                return 5 * max(self.slow, self.signal)
            case "ema_distance" | "parkinson" | "volatility_ratio" | "volume_zscore":
                return 5 * self.span
            case _:
                return 1

    @property
    def state_size(self) -> int:
        """Float64 slots that the kernel keeps for it."""
        match self.kind:
            case "return":
                return self.span
            case "range_position":
                return 2 * self.span
            case "ema_distance":
                return 1
            case "macd" | "rsi" | "atr" | "parkinson" | "volatility_ratio" | "volume_zscore":
                return 3
            case _:
                return 0


def _default_features() -> tuple[FeatureConfig, ...]:
    return (
        FeatureConfig("return", 1),
        FeatureConfig("return", 4),
        FeatureConfig("return", 24),
        FeatureConfig("return", 96),
        FeatureConfig("ema_distance", 12),
        FeatureConfig("ema_distance", 48),
        FeatureConfig("macd", 12, 26, 9),
        FeatureConfig("rsi", 14),
        FeatureConfig("atr", 14),
        FeatureConfig("parkinson", 6),
        FeatureConfig("parkinson", 24),
        FeatureConfig("volatility_ratio", 12),
        FeatureConfig("volatility_ratio", 96),
        FeatureConfig("range_position", 24),
        FeatureConfig("volume_zscore", 48),
        FeatureConfig("range"),
        FeatureConfig("close_position"),
        FeatureConfig("hour_sin", 1),
        FeatureConfig("hour_cos", 1),
        FeatureConfig("hour_sin", 2),
        FeatureConfig("hour_cos", 2),
        FeatureConfig("weekday_sin", 1),
        FeatureConfig("weekday_cos", 1),
        FeatureConfig("gap"),
    )


class FeaturesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which features, the volatility scale, and what happens at gaps and outliers.

    Parameters
    ----------
    scale_span : int
        EW span in bars of σ², the mean squared log return, this bar's included. Nothing is said before five spans, nor
        before the longest warm-up of a feature.
    max_gap_bars : int
        A gap of at most this many missing bars is marked (feature ``gap``) and its return leaves σ alone; a longer one
        forgets everything and starts the warm-up again.
    closed_hours : float
        The longest time between two closes that is the market being closed, and no gap: 0 where trading never stops,
        such as 120 for shares (a night, a weekend, a holiday beside it).
    hampel_window, hampel_threshold : int, float
        Outlier filter on prices, off at 0: a bar's log moves from the last close are held within ``threshold`` robust
        deviations (1.4826 × median absolute deviation) of the median return of the last ``window`` bars.
    """

    scale_span: int = 48
    max_gap_bars: int = 6
    closed_hours: float = 0.0
    hampel_window: int = 0
    hampel_threshold: float = 10.0
    features: tuple[FeatureConfig, ...] = msgspec.field(default_factory=_default_features)

    def __post_init__(self) -> None:
        for name, low, high in (("scale_span", 2, 10_000), ("max_gap_bars", 0, 10_000), ("hampel_window", 0, 1_000)):
            if not low <= getattr(self, name) <= high:
                raise LSTMStrategyError(f"features.{name} is {getattr(self, name)}; it must be {low} to {high}")
        if not 0.0 <= self.closed_hours <= 1_000.0:
            raise LSTMStrategyError(f"features.closed_hours is {self.closed_hours}; it must be 0 to 1000")
        if not self.hampel_threshold > 0:  # NaN too
            raise LSTMStrategyError(f"features.hampel_threshold is {self.hampel_threshold}; it must be above 0")
        names = [feature.name for feature in self.features]
        repeated = {name for name in names if names.count(name) > 1}
        if not names or repeated:
            problem = f"names {', '.join(sorted(repeated))} twice" if repeated else "is empty"
            raise LSTMStrategyError(f"features.features {problem}; each feature must stand once")

    @property
    def closed_ns(self) -> int:
        """``closed_hours`` in nanoseconds."""
        return round(self.closed_hours * 3_600_000_000_000)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of x_TF."""
        return tuple(feature.name for feature in self.features)

    @property
    def warmup(self) -> int:
        """Bars before the first valid row."""
        return max(5 * self.scale_span, *(feature.warmup for feature in self.features))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMatrix:
    """Features of a history. Rows that are not valid (warm-up) are NaN.

    Parameters
    ----------
    x_TF : float32 [T, F]
        Dimensionless.
    scale_T : float64 [T]
        σ: volatility of one bar's log return, known at the bar's close.
    count_T : int64 [T]
        Bars since the start, or since the last gap that was too long to tolerate.
    filtered : int
        Bars that the Hampel filter changed.
    """

    x_TF: Float32
    scale_T: Float
    count_T: npt.NDArray[np.int64]
    filtered: int

    @property
    def valid_T(self) -> npt.NDArray[np.bool_]:
        """Rows past the warm-up."""
        return ~np.isnan(self.scale_T)


class Features:
    """The rolling state behind the features of one instrument.

    Parameters
    ----------
    config : FeaturesConfig
    timeframe : Timeframe
    tick : float
        The price step; σ never falls below one tick.
    scale_floor : float
        The least σ; 5 % of its median over the training span, 0 while that is being found.
    """

    def __init__(self, config: FeaturesConfig, timeframe: Timeframe, tick: float, scale_floor: float = 0.0) -> None:
        self.config = config
        self._kinds = np.array([_KIND_NUMBER[feature.kind] for feature in config.features], np.int64)
        self._spans = np.array([(f.span, f.slow, f.signal) for f in config.features], np.int64)
        sizes = [config.hampel_window, *(feature.state_size for feature in config.features)]
        self._offsets = N_FLOATS + np.cumsum(sizes, dtype=np.int64)[: len(config.features)]
        self._floats = np.zeros(N_FLOATS + sum(sizes))
        self._ints = np.zeros(N_INTS, np.int64)
        self._settings = np.zeros(N_SETTINGS)
        self._settings[ALPHA] = 2.0 / (config.scale_span + 1.0)
        self._settings[TICK] = tick
        self._settings[SCALE_FLOOR] = scale_floor
        self._settings[TIMEFRAME] = timeframe.ns
        self._settings[MAX_GAP] = config.max_gap_bars
        self._settings[HAMPEL_WINDOW] = config.hampel_window
        self._settings[HAMPEL_THRESHOLD] = config.hampel_threshold
        self._settings[WARM_UP] = config.warmup
        self._settings[CLOSED] = config.closed_ns
        self._out = np.zeros(len(config.features), np.float32)

    @property
    def count(self) -> int:
        """Bars since the start or the last reset."""
        return int(self._ints[COUNT])

    @property
    def last_ts(self) -> int | None:
        """Close stamp of the last bar seen."""
        return int(self._ints[LAST_TS]) or None

    def update(self, bar: Bar, context: Context = EMPTY_CONTEXT) -> tuple[Float32, float] | None:
        """Take one closed bar; return (x_F, scale), or None while warming up. x_F is overwritten by the next call.

        ``context`` holds as-of values from outside the bar; no feature of this version reads one, so it must be empty.
        """
        if context:
            raise LSTMStrategyError(f"context holds {', '.join(context)}; no feature of this model reads it")
        scale = step(self._kinds, self._spans, self._offsets, self._settings, self._floats, self._ints, *bar, self._out)
        return None if np.isnan(scale) else (self._out, scale)

    def run(self, bars: Bars) -> FeatureMatrix:
        """Take a history, from the present state on: the same step as `update`, looped."""
        n_bars = len(bars)
        x_TF = np.full((n_bars, len(self.config.features)), np.nan, np.float32)
        scale_T, count_T = np.full(n_bars, np.nan), np.zeros(n_bars, np.int64)
        before = int(self._ints[FILTERED])
        columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
        kernel = (self._kinds, self._spans, self._offsets, self._settings, self._floats, self._ints)
        loop(*kernel, *columns, x_TF, scale_T, count_T)
        return FeatureMatrix(x_TF, scale_T, count_T, int(self._ints[FILTERED]) - before)

    def state(self) -> bytes:
        """Everything that `restore` needs, as bytes."""
        return self._ints.tobytes() + self._floats.tobytes()

    def restore(self, state: bytes) -> None:
        """Continue where `state` was taken."""
        if len(state) != self._ints.nbytes + self._floats.nbytes:
            raise LSTMStrategyError(f"feature state has {len(state)} bytes; it belongs to other features")
        self._ints[:] = np.frombuffer(state[: self._ints.nbytes], np.int64)
        self._floats[:] = np.frombuffer(state[self._ints.nbytes :], np.float64)
