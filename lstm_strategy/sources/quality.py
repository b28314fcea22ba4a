"""What is wrong, odd or missing in a history of bars; nothing is ever repaired here."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import NS_PER_DAY, Float, Stamps, Timeframe, format_ns
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.store import Columns

__all__ = ["Gap", "Outlier", "QualityReport", "SplitSuspect", "ZeroVolumeRun", "check"]
__all__ += ["keeps_sessions", "missing_after", "opened_at"]

_SESSION_GAP = 5  # business days missing before a hole in daily shares counts: the longest closures are shorter

_OUTLIER_WINDOW = 500
_OUTLIER_MINIMUM = 100
_OUTLIER_SIGMAS = 15.0
_NORMAL_Q90 = 1.6449  # 90 % quantile of |z|; the median (MAD) is nil where most closes do not move, as in quiet minutes

_SPLIT_RATIOS = np.array([1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0])
_SPLIT_TOLERANCE = 0.03
_SPLIT_SIGMAS = 6.0
_SPLIT_TURNOVER = 4.0
_SPLIT_STAY = 5


class Gap(msgspec.Struct, frozen=True):
    """A hole: close stamps of the bars on either side, and how many bars (business days for shares) lack between."""

    start: str
    end: str
    missing: int


class ZeroVolumeRun(msgspec.Struct, frozen=True):
    """Two or more bars in a row without volume: close stamps of the first and the last, and their number."""

    start: str
    end: str
    bars: int


class Outlier(msgspec.Struct, frozen=True):
    """A close-to-close log return, in robust standard deviations of the bars before it."""

    ts: str
    log_return: float
    sigmas: float


class SplitSuspect(msgspec.Struct, frozen=True):
    """A bar whose open is its predecessor's close times 1 / ``ratio``, for good: 4 for a 4-for-1 split."""

    ts: str
    ratio: float


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over one history; ``errors`` is corruption, all else is for a person to judge."""

    bars: int
    gaps: int
    missing_bars: int
    largest_gap_bars: int
    duplicates: int
    unsorted: int
    ohlc_violations: int
    bad_values: int
    zero_volume_bars: int
    outliers: int
    errors: list[str]
    gap_list: list[Gap]
    zero_volume_runs: list[ZeroVolumeRun]
    outlier_list: list[Outlier]
    split_suspects: list[SplitSuspect]

    @property
    def warnings(self) -> int:
        """How many things a person should look at."""
        return self.gaps + self.zero_volume_bars + self.outliers + len(self.split_suspects)


def check(columns: Columns, timeframe: Timeframe, instrument: Instrument | None = None) -> QualityReport:
    """Look through close-stamped columns that need not be valid bars.

    Parameters
    ----------
    columns : dict
        ``ts_close`` int64 ns, the others float64, all [T].
    instrument : Instrument, optional
        An ``equity`` rests outside its sessions: only business days count (holidays are not known, so a hole must lack
        more than 5 of them), and steps within one UTC day. Without an instrument, daily bars that spare every weekend
        are taken as an equity's.

    Notes
    -----
    Outlier: a log return beyond 15 robust standard deviations: the 90 % quantile of absolute log returns over the 500
    bars before (at least 100), over 1.645, and no less than one tick. Split suspect: open over the close before within
    3 % of 1.5, 2, 3 … 100 or an inverse; beyond 6 such deviations; 5 closes on either side keep their level; and the
    money traded does not leap fourfold, as it does in a crash.
    """
    ts = columns["ts_close"]
    open_, high, low, close, volume = (columns[name] for name in ("open", "high", "low", "close", "volume"))
    errors: list[str] = []

    def corrupt(bad: npt.NDArray[np.bool_], problem: str) -> int:
        if bad.any():
            errors.append(f"{int(bad.sum())} rows: {problem}, first at {format_ns(ts[int(bad.argmax())])}")
        return int(bad.sum())

    prices = np.stack([open_, high, low, close]) if len(ts) else np.empty((4, 0))
    finite = np.isfinite(prices).all(axis=0) & np.isfinite(volume)
    positive = (prices > 0).all(axis=0) & (volume >= 0)
    bad_values = corrupt(~finite, "a value is not a finite number")
    bad_values += corrupt(finite & ~positive, "a price is not positive, or volume is negative")
    sane = finite & positive
    wrong_order = sane & ((high < np.maximum(open_, close)) | (low > np.minimum(open_, close)))
    ohlc_violations = corrupt(wrong_order, "high or low does not enclose open and close")
    step = np.diff(ts, prepend=ts[:1] - 1)
    unsorted = corrupt(step < 0, "the stamp is earlier than the row before")
    order = np.argsort(ts, kind="stable")
    repeated = np.zeros(len(ts), dtype=bool)
    repeated[order[1:]] = np.diff(ts[order]) == 0
    duplicates = corrupt(repeated, "the stamp is a duplicate")
    corrupt(ts % timeframe.ns != 0, f"the stamp is not on the {timeframe} grid")
    if not len(ts):
        errors.append("there are no bars")

    rows = order[(sane & ~repeated)[order]]
    sessions = keeps_sessions(ts, timeframe, instrument)
    gap_list = _gaps(np.unique(ts), timeframe, sessions)
    tick = float(instrument.tick) if instrument else 0.0
    log_return, sigma = _returns(close[rows], tick)
    # a return over a hole says nothing of one bar
    adjacent = np.diff(ts[rows], prepend=ts[rows][:1]) <= (5 * NS_PER_DAY if sessions else timeframe.ns)
    far = adjacent & (np.abs(log_return) > _OUTLIER_SIGMAS * sigma)
    outliers = [
        Outlier(format_ns(ts[rows[i]]), float(log_return[i]), float(abs(log_return[i]) / sigma[i]))
        for i in np.flatnonzero(far)
    ]
    silent = volume[rows] == 0
    return QualityReport(
        bars=len(ts),
        gaps=len(gap_list),
        missing_bars=sum(gap.missing for gap in gap_list),
        largest_gap_bars=max((gap.missing for gap in gap_list), default=0),
        duplicates=duplicates,
        unsorted=unsorted,
        ohlc_violations=ohlc_violations,
        bad_values=bad_values,
        zero_volume_bars=int(silent.sum()),
        outliers=len(outliers),
        errors=errors,
        gap_list=gap_list,
        zero_volume_runs=_zero_volume_runs(ts[rows], silent),
        outlier_list=outliers,
        split_suspects=_split_suspects(ts[rows], open_[rows], close[rows], volume[rows], sigma),
    )


def keeps_sessions(ts: Stamps, timeframe: Timeframe, instrument: Instrument | None) -> bool:
    """Say whether a market rests outside its sessions: an equity does, and daily bars that spare every weekend."""
    if instrument:
        return instrument.kind == "equity"
    return timeframe.ns == NS_PER_DAY and len(ts) >= 10 and not _on_weekend(ts - _session_shift(ts)).any()


def opened_at(ts: Stamps, timeframe: Timeframe, *, sessions: bool) -> Stamps:
    """Return when bars opened [T]; a daily bar of a session may be stamped with its own date instead of its close."""
    return np.asarray(ts - (_session_shift(ts) if sessions and timeframe.ns == NS_PER_DAY else timeframe.ns))


def missing_after(ts: Stamps, timeframe: Timeframe, *, sessions: bool) -> Stamps:
    """Return how many bars (business days for shares) lack after each of sorted, different stamps but the last."""
    missing = np.diff(ts) // timeframe.ns - 1
    if sessions and timeframe.ns <= NS_PER_DAY and len(ts):
        days = opened_at(ts, timeframe, sessions=True) // NS_PER_DAY
        dates = days.astype("datetime64[D]")
        between = np.busday_count(dates[:-1] + np.timedelta64(1, "D"), dates[1:])
        missing = np.where(days[1:] == days[:-1], missing, np.where(between > _SESSION_GAP, between, 0))
    return np.asarray(missing)


def _weekday(ts: Stamps) -> Stamps:
    """Monday 0 … Sunday 6."""
    return np.asarray((ts // NS_PER_DAY + 3) % 7)


def _on_weekend(ts: Stamps) -> npt.NDArray[np.bool_]:
    return np.asarray(_weekday(ts) >= 5)


def _session_shift(ts: Stamps) -> int:
    """A daily bar closes at 00:00 of the next day, or is stamped with its own date; take what spares the weekends."""
    return NS_PER_DAY if _on_weekend(ts - NS_PER_DAY).sum() <= _on_weekend(ts).sum() else 0


def _gaps(ts: Stamps, timeframe: Timeframe, sessions: bool) -> list[Gap]:
    """Return the holes between sorted, different stamps."""
    missing = missing_after(ts, timeframe, sessions=sessions)
    return [Gap(format_ns(ts[i]), format_ns(ts[i + 1]), int(missing[i])) for i in np.flatnonzero(missing > 0)]


def _returns(close: Float, tick: float) -> tuple[Float, Float]:
    """Return log returns [T] and their robust scale from bars before each (inf where too few)."""
    import pandas as pd  # slow to import

    log_return = np.diff(np.log(close), prepend=np.log(close[:1]))
    window = pd.Series(np.abs(log_return)).rolling(_OUTLIER_WINDOW, min_periods=_OUTLIER_MINIMUM)
    sigma = np.maximum(window.quantile(0.9).shift(1).to_numpy() / _NORMAL_Q90, np.maximum(tick / close, 1e-12))
    return log_return, np.where(np.isnan(sigma), np.inf, sigma)


def _zero_volume_runs(ts: Stamps, silent: npt.NDArray[np.bool_]) -> list[ZeroVolumeRun]:
    edges = np.diff(np.concatenate([[0], silent.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        ZeroVolumeRun(format_ns(ts[start]), format_ns(ts[end - 1]), int(end - start))
        for start, end in zip(starts, ends, strict=True)
        if end - start >= 2
    ]


def _split_suspects(ts: Stamps, open_: Float, close: Float, volume: Float, sigma: Float) -> list[SplitSuspect]:
    if len(ts) < 2:
        return []
    jump = np.log(open_[1:] / close[:-1])
    nearest = np.abs(np.abs(jump)[:, None] - np.log(_SPLIT_RATIOS)).argmin(axis=1)
    off = np.abs(np.abs(jump) - np.log(_SPLIT_RATIOS)[nearest])
    usual = np.where(np.isinf(sigma[1:]), 0.05, sigma[1:])
    suspects = []
    for i in np.flatnonzero((off < _SPLIT_TOLERANCE) & (np.abs(jump) > _SPLIT_SIGMAS * usual)):
        row = int(i) + 1
        was = np.abs(np.log(close[max(0, row - _SPLIT_STAY) : row] / close[i])).max()
        stays = np.abs(np.log(close[row : row + _SPLIT_STAY] / open_[row])).max()
        before, after = volume[i] * close[i], volume[row] * close[row]
        if max(was, stays) < abs(jump[i]) / 2 and (before == 0 or after < _SPLIT_TURNOVER * before):
            ratio = float(_SPLIT_RATIOS[nearest[i]])
            suspects.append(SplitSuspect(format_ns(ts[row]), ratio if jump[i] < 0 else 1 / ratio))
    return suspects
