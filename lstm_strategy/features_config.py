"""Which features: their kinds, names and warm-ups, and the settings they share; read by doors and kernel alike."""

from __future__ import annotations

from typing import Literal

import msgspec

from lstm_strategy.bars import NS_PER_HOUR
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["FeatureConfig", "FeaturesConfig", "Kind"]

_MIRRORED = frozenset({"return", "ema_distance", "macd", "rsi", "range_position", "close_position"})
_LONGEST_SEASONS = 20_000  # bars that one seasonal feature remembers

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
    "season_range",
    "season_volume",
]


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
    season_range       mean of ln(H / L) over those bars of the last n periods that stand where the next bar will stand
                       in its period, less the mean over all of them; ``period`` in bars: 24 finds the hour's own
                       range in hourly bars, 168 the week's; by the clock, so that a session's last bar looks at the
                       night; bars without range are left out, 0 where none is known
    season_volume      the same of ln V
    gap                missing bars just before this one, as a share of the longest gap tolerated
    ================== =========================================================================================
    """

    kind: Kind
    span: int = 1
    slow: int = 0
    signal: int = 0
    period: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.span <= 10_000:
            raise LSTMStrategyError(f"feature {self.kind}: span is {self.span}; it must be 1 to 10000")
        if self.kind == "macd" and not (self.span < self.slow <= 10_000 and 1 <= self.signal <= 10_000):
            values = f"span {self.span}, slow {self.slow}, signal {self.signal}"
            raise LSTMStrategyError(f"feature macd: {values}; it needs span < slow and a signal, such as 12, 26, 9")
        if self.kind != "macd" and (self.slow or self.signal):
            raise LSTMStrategyError(f"feature {self.kind}: slow and signal belong to macd only; remove them")
        seasonal = self.kind in ("season_range", "season_volume")
        if seasonal and not (self.period >= 2 and self.span * self.period <= _LONGEST_SEASONS):
            problem = f"span {self.span}, period {self.period}"
            raise LSTMStrategyError(
                f"feature {self.kind}: {problem}; it needs a period of 2 bars or more, such as 24, and at most"
                f" {_LONGEST_SEASONS} bars in span periods"
            )
        if not seasonal and self.period:
            raise LSTMStrategyError(f"feature {self.kind}: period belongs to season_range and season_volume; remove it")

    @property
    def name(self) -> str:
        """The column's name, such as ``return_24``."""
        spans: tuple[int, ...] = (self.span, self.slow, self.signal) if self.kind == "macd" else (self.span,)
        spans += (self.period,) if self.period else ()
        bare = self.kind in ("range", "close_position", "gap")
        return self.kind if bare else "_".join([self.kind, *map(str, spans)])

    @property
    def mirrored(self) -> bool:
        """Whether it changes its sign, and nothing else, where all returns change theirs."""
        return self.kind in _MIRRORED

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
            case "season_range" | "season_volume":
                return self.span * self.period
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
            case "season_range" | "season_volume":  # the sum and the number of what is known, then every bar's own
                return 2 + self.span * self.period
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
        if not 0 < self.hampel_threshold <= 1e6:  # NaN is neither
            raise LSTMStrategyError(
                f"features.hampel_threshold is {self.hampel_threshold}; it must be above 0, at most 1e6"
            )
        names = [feature.name for feature in self.features]
        repeated = {name for name in names if names.count(name) > 1}
        if not names or repeated:
            problem = f"names {', '.join(sorted(repeated))} twice" if repeated else "is empty"
            raise LSTMStrategyError(f"features.features {problem}; each feature must stand once")

    @property
    def closed_ns(self) -> int:
        """``closed_hours`` in nanoseconds."""
        return round(self.closed_hours * NS_PER_HOUR)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of x_TF."""
        return tuple(feature.name for feature in self.features)

    @property
    def warmup(self) -> int:
        """Bars before the first valid row."""
        return max(5 * self.scale_span, *(feature.warmup for feature in self.features))
