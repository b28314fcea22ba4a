"""The forecaster: closed bar in, forecast out; features, network and calibration with their rolling state."""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np

from lstm_strategy.artefact import Artefact
from lstm_strategy.bars import Bar, Bars, BarsError, Float, Timeframe, format_ns
from lstm_strategy.conformal import STATIC, CalibrationConfig, Conformal
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import EMPTY_CONTEXT, Context, FeatureMatrix, Features
from lstm_strategy.forecast import Float32, Forecast, Forecasts
from lstm_strategy.forecast_kernel import calibrate
from lstm_strategy.network_step import open_network

__all__ = ["Forecaster"]


class _Snapshot(msgspec.Struct, frozen=True):
    model: str
    instrument_id: str
    last_ts: int
    features: bytes
    network: bytes
    conformal: bytes = b""


class Forecaster:
    """Streams the bars of one instrument through a model. Not thread-safe; needs no torch.

    `update` and `run` may be mixed in any order: a history run at once and the same bars one by one give the same
    forecasts and leave the same state (hybrids: up to rounding, see `run`). Where the calibration is adaptive, a start
    without a snapshot begins with the artefact's own shifts alone.
    """

    def __init__(self, artefact: Artefact, instrument_id: str, calibration: CalibrationConfig = STATIC) -> None:
        manifest = artefact.manifest
        fit = artefact.require_instrument(instrument_id)
        self.artefact, self.instrument_id, self.calibration = artefact, instrument_id, calibration
        self.timeframe = Timeframe.parse(manifest.timeframe)
        self.features = Features(manifest.features, self.timeframe, fit.tick, fit.scale_floor)
        self._first_row = manifest.features.warmup
        self.warmup_bars = max(manifest.warmup_bars, self._first_row)
        self._calibration_HQ = np.array(manifest.calibration, np.float32)
        hole_ns = max(self.timeframe.ns, manifest.features.closed_ns)
        conformal = Conformal(calibration, manifest.horizons, manifest.levels, hole_ns)
        self._conformal = conformal if calibration.adaptive else None
        self._root_H = np.sqrt(np.array(manifest.horizons, np.float64))
        self._scale_1 = np.ones(1)
        rows = [(row.lowest, row.highest, row.std) for row in manifest.feature_ranges]
        self._lowest_F, self._highest_F, self._std_F = np.array(rows, np.float64).T
        self._x_F: Float32 | None = None
        self._raw_HQ: Float32 | None = None
        self._network = open_network(artefact, instrument_id)
        self._compile()

    def _compile(self) -> None:
        """Compile all that bars need now: at the first bar it would keep a node's loop waiting for seconds."""
        manifest, blank = self.artefact.manifest, self.state()
        bar = Bar(self.timeframe.ns, 1.0, 1.0, 1.0, 1.0, 0.0)
        self.update(bar)
        self.restore(blank)
        self.run(Bars.of_one(self.instrument_id, self.timeframe, bar))
        self.restore(blank)
        Forecast(0, manifest.horizons, manifest.levels, self._calibration_HQ, 1.0).moments(manifest.horizons[0])

    @property
    def last_ts(self) -> int | None:
        """Close stamp of the last bar taken, None before the first."""
        return self.features.last_ts

    @property
    def ready(self) -> bool:
        """Whether the warm-up is over and bars yield forecasts."""
        return self.features.count >= self.warmup_bars

    @property
    def last_step(self) -> tuple[Float32 | None, Float32 | None]:
        """The last bar's features [F] and, where `update` spoke, the network's quantiles [H, Q] in σ√h, to be read.

        The quantiles are those before calibration. None during warm-up and after `restore`.
        """
        return self._x_F, self._raw_HQ

    def outside_range(self, tolerance: float) -> bool:
        """Say whether a feature of the last bar lies outside the range of the training span.

        Parameters
        ----------
        tolerance : float
            By more than this many of its standard deviations there. Without features (warm-up, right after `restore`)
            nothing is inside.
        """
        if self._x_F is None:
            return True
        slack_F = tolerance * self._std_F
        inside_F = (self._x_F >= self._lowest_F - slack_F) & (self._x_F <= self._highest_F + slack_F)
        return not inside_F.all()

    def update(self, bar: Bar, context: Context = EMPTY_CONTEXT) -> Forecast | None:
        """Take one closed bar; return its forecast, or None while warming up.

        Raises
        ------
        BarsError
            Where the bar is not a later bar of this timeframe, or its prices cannot be; the state is then unchanged.
        """
        self._check(bar)
        self._raw_HQ = None
        forecast = self._forecast(bar, context)
        return forecast if self._conformal is None else self._conformal.step(bar.ts_close, bar.close, forecast)

    def _forecast(self, bar: Bar, context: Context) -> Forecast | None:
        """Step features and network; calibrate as the artefact says."""
        row = self.features.update(bar, context)
        if row is None:
            self._x_F = None
            return None
        x_F, scale = row[0].copy(), row[1]  # the next bar overwrites them
        self._x_F = x_F
        network = self._network
        if self.features.count == self._first_row:
            network.reset()
        raw_1HQ = network.step(x_F).reshape(1, *self._calibration_HQ.shape).copy()
        if self.features.count < self.warmup_bars:
            return None
        self._raw_HQ = raw_1HQ[0]
        manifest = self.artefact.manifest
        self._scale_1[0] = scale
        quantiles_HQ = self._to_returns(raw_1HQ, self._scale_1, self._calibration_HQ)[0]
        return Forecast(bar.ts_close, manifest.horizons, manifest.levels, quantiles_HQ, scale, network.position)

    def run(self, bars: Bars, *, exact: bool = False) -> Forecasts:
        """Take a history from the present state on; return the forecast at every bar, NaN while warming up.

        An "lstm" says the same to the last bit as `update` bar by bar; the other kinds do within 1e-5 of a unit
        quantile, and to the last bit where it is to be ``exact``: then their network steps from bar to bar.
        """
        return self.run_with_raw(bars, exact=exact)[0]

    def run_with_raw(self, bars: Bars, *, exact: bool = False) -> tuple[Forecasts, Forecasts]:
        """Do as `run`; return the forecasts, and beside them what they were before calibration."""
        matrix, raw_THQ, position_T = self.trace(bars, exact=exact)
        manifest, held_T = self.artefact.manifest, position_T if self._network.has_position else None

        def of(quantiles_THQ: Float32) -> Forecasts:
            columns = (bars.ts_close, quantiles_THQ, matrix.scale_T, held_T)
            return Forecasts(self.instrument_id, manifest.horizons, manifest.levels, *columns)

        raw = self._to_returns(raw_THQ, matrix.scale_T, np.zeros_like(self._calibration_HQ))
        calibrated = of(self._to_returns(raw_THQ, matrix.scale_T, self._calibration_HQ))
        if self._conformal is not None:
            calibrated = self._conformal.run(calibrated, bars.close)
        return calibrated, of(raw)

    def trace(self, bars: Bars, *, exact: bool = False) -> tuple[FeatureMatrix, Float32, Float32]:
        """Do as `run`, but make no forecasts of it: an adaptive calibration does not notice.

        Returns
        -------
        matrix : FeatureMatrix
        raw_THQ : float32 [T, H, Q]
            The network's quantiles before calibration in units of σ√h, NaN while warming up.
        position_T : float32 [T]
            NaN while warming up, and where the network says none.
        """
        if bars.instrument_id != self.instrument_id or bars.timeframe.ns != self.timeframe.ns:
            wanted = f"{self.instrument_id} {self.timeframe}"
            raise LSTMStrategyError(
                f"bars are of {bars.instrument_id} {bars.timeframe}; this forecaster takes {wanted}"
            )
        if len(bars):
            self._check(next(iter(bars[:1])))
        matrix = self.features.run(bars)
        if len(bars):
            self._raw_HQ = None
            self._x_F = matrix.x_TF[-1] if matrix.valid_T[-1] else None
        shape = (len(bars), *self._calibration_HQ.shape)
        raw_THQ, position_T = np.full(shape, np.nan, np.float32), np.full(len(bars), np.nan, np.float32)
        stepped = exact and self.artefact.manifest.network.kind != "lstm"
        starts = np.flatnonzero(matrix.count_T == self._first_row)
        valid = np.flatnonzero(matrix.valid_T)
        for rows in np.split(valid, np.searchsorted(valid, starts)):
            if len(rows):
                if matrix.count_T[rows[0]] == self._first_row:
                    self._network.reset()
                raw_TN, position_T[rows] = self._network.run(matrix.x_TF[rows], stepped)
                raw_THQ[rows] = raw_TN.reshape(-1, *shape[1:])
        raw_THQ[matrix.count_T < self.warmup_bars] = position_T[matrix.count_T < self.warmup_bars] = np.nan
        return matrix, raw_THQ, position_T

    def take_over(self, other: Forecaster) -> None:
        """Continue with the features and the network of another forecaster of the same model, which has seen the bars.

        What an adaptive calibration has learned stays.
        """
        self.features.restore(other.features.state())
        self._network.restore(other._network.state())

    def warm_up(self, bars: Bars) -> None:
        """Take a history without looking at its forecasts; the state is the same to the last bit as after `update`."""
        self.run(bars, exact=True)

    def state(self) -> bytes:
        """Everything that `restore` needs, hashed, with the stamp of the last bar."""
        label, network = self.artefact.label, self._network.state()
        conformal = b"" if self._conformal is None else self._conformal.state()
        snapshot = _Snapshot(label, self.instrument_id, self.last_ts or 0, self.features.state(), network, conformal)
        content = msgspec.msgpack.encode(snapshot)
        return hashlib.sha256(content).digest() + content

    def restore(self, state: bytes) -> None:
        """Continue where `state` was taken; refuse what is damaged or belongs to another model."""
        digest, content = state[:32], state[32:]
        if hashlib.sha256(content).digest() != digest:
            raise LSTMStrategyError("forecaster state is damaged (its hash differs); warm up from history instead")
        try:
            snapshot = msgspec.msgpack.decode(content, type=_Snapshot)
        except msgspec.MsgspecError as error:
            raise LSTMStrategyError(f"forecaster state is of another kind ({error}); warm up instead") from None
        ours = (self.artefact.label, self.instrument_id)
        if (snapshot.model, snapshot.instrument_id) != ours:
            theirs = f"{snapshot.model} on {snapshot.instrument_id}"
            raise LSTMStrategyError(f"forecaster state is of {theirs}, not of {' on '.join(ours)}; warm up instead")
        if len(snapshot.network) != len(self._network.state()):
            raise LSTMStrategyError("forecaster state is of a network of another size; warm up instead")
        if (self._conformal is None) != (not snapshot.conformal):
            raise LSTMStrategyError("forecaster state was made at another calibration.adaptive; warm up instead")
        if self._conformal is not None:
            self._conformal.restore(snapshot.conformal)
        self.features.restore(snapshot.features)
        self._x_F = self._raw_HQ = None
        self._network.restore(snapshot.network)

    def _check(self, bar: Bar) -> None:
        ts, o, h, l, c, v = bar  # noqa: E741
        last = self.features.last_ts
        if last is not None and ts <= last:
            problem = f"is not later than the last one, {format_ns(last)}"
        elif ts % self.timeframe.ns:
            problem = f"is not stamped at a {self.timeframe} close"
        elif not (0.0 < l <= o <= h < math.inf and l <= c <= h and 0.0 <= v < math.inf):
            problem = f"has impossible values: open {o}, high {h}, low {l}, close {c}, volume {v}"
        else:
            return
        raise BarsError(f"{self.instrument_id}: the bar closed at {format_ns(ts)} {problem}")

    def _to_returns(self, raw_NHQ: Float32, scale_N: Float, shift_HQ: Float32) -> Float32:
        """Calibrate [N, H, Q] in units of σ√h, keep the levels in order, and give them the unit of log returns."""
        found_NHQ = np.empty_like(raw_NHQ)
        calibrate(raw_NHQ, shift_HQ, scale_N, self._root_H, found_NHQ)
        return found_NHQ
