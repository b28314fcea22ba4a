"""What speaks in the place of one forecaster: forecasts that were recorded, or a walk-forward's models in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lstm_strategy import artefact
from lstm_strategy.bars import Bar, Bars, BarsError, Timeframe, format_ns
from lstm_strategy.conformal import STATIC, CalibrationConfig, Conformal
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import EMPTY_CONTEXT, Context
from lstm_strategy.forecast import Float32, Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.schedule import Schedule, Turn, recording

__all__ = ["Recorded", "Switching"]


class _Speaker:
    """Knows whose turn it is, and takes bars in time order; `Forecaster`'s interface.

    An adaptive calibration goes on from one model to the next, and is not done to forecasts that have had it.
    """

    def __init__(self, schedule: Schedule, calibration: CalibrationConfig = STATIC) -> None:
        self.schedule = schedule
        hole_ns = max(Timeframe.parse(schedule.timeframe).ns, schedule.closed_ns)
        conformal = Conformal(calibration, schedule.horizons, schedule.levels, hole_ns)
        self._conformal = conformal if calibration.adaptive and not schedule.adapted else None
        self.last_ts: int | None = None
        self.warmup_bars = 0
        self._ready = False
        self._now = 0

    @property
    def ready(self) -> bool:
        """Whether the last bar had a forecast."""
        return self._ready

    @property
    def adaptive(self) -> bool:
        """Whether what it says depends on all bars and forecasts before."""
        return self._conformal is not None

    def _adapt(self, bar: Bar, forecast: Forecast | None) -> Forecast | None:
        self._ready = forecast is not None
        return forecast if self._conformal is None else self._conformal.step(bar.ts_close, bar.close, forecast)

    @property
    def turn(self) -> Turn:
        """The turn of the last bar; the one before it between two, the first before all."""
        return self.schedule.turns[self._now]

    def _take(self, ts_close: int) -> Turn | None:
        """Note the bar; return whose turn it is."""
        if self.last_ts is not None and ts_close <= self.last_ts:
            name = self.schedule.instrument_id
            raise BarsError(
                f"{name}: the bar closed at {format_ns(ts_close)} is not later than the last one,"
                f" {format_ns(self.last_ts)}"
            )
        self.last_ts = ts_close
        turns = self.schedule.turns
        while self._now + 1 < len(turns) and turns[self._now + 1].first <= ts_close:
            self._now += 1
        turn = turns[self._now]
        return turn if turn.first <= ts_close <= turn.last else None

    @property
    def last_step(self) -> tuple[Float32 | None, Float32 | None]:
        """Nothing: what was recorded are forecasts, without the features and the raw quantiles behind them."""
        return None, None

    def state(self) -> bytes:
        """Nothing: what is recorded, or switched by date, is for histories."""
        return b""

    def restore(self, state: bytes) -> None:
        """Refuse: bars in their order are all there is to go on from."""
        raise LSTMStrategyError(f"{self.schedule.label} keeps no state of its {len(self.schedule.turns)} models")


class Recorded(_Speaker):
    """Says at each bar what was recorded for it; runs no network."""

    def __init__(self, schedule: Schedule, calibration: CalibrationConfig = STATIC) -> None:
        super().__init__(schedule, calibration)
        self._forecasts = recording(schedule).by_stamp()

    def update(self, bar: Bar, context: Context = EMPTY_CONTEXT) -> Forecast | None:
        """Return the recorded forecast of this bar, None where there is none."""
        forecast = self._forecasts.get(bar.ts_close) if self._take(bar.ts_close) else None
        return self._adapt(bar, forecast)

    def warm_up(self, bars: Bars) -> None:
        """Take a history without looking at its forecasts."""
        for bar in bars:
            self.update(bar)


class Switching(_Speaker):
    """Streams bars through the model whose turn it is; each begins with every bar that came before its turn.

    So each forecasts to the last bit what it did when it was evaluated over the same bars.
    """

    def __init__(self, schedule: Schedule, calibration: CalibrationConfig = STATIC) -> None:
        super().__init__(schedule, calibration)
        self._models = []
        for turn in schedule.turns:
            loaded = artefact.load(Path(str(turn.folder)))
            if turn.trained_until is None or loaded.trained_until > turn.trained_until:
                raise LSTMStrategyError(
                    f"{schedule.label}: model {loaded.label} has learned from bars up to"
                    f" {format_ns(loaded.trained_until)}, later than its turn says; evaluate again"
                )
            self._models.append(loaded)
        self._timeframe = Timeframe.parse(schedule.timeframe)
        self._past: list[Bar] = []
        self._forecaster: Forecaster | None = None
        self._whose = -1

    def update(self, bar: Bar, context: Context = EMPTY_CONTEXT) -> Forecast | None:
        """Take one closed bar; return the forecast of the model whose turn it is."""
        turn = self._take(bar.ts_close)
        forecast = None
        if turn is not None:
            if self._whose != self._now:
                self._forecaster, self._whose = self._switch(), self._now
            assert self._forecaster is not None  # noqa: S101 - set with the first turn
            forecast = self._forecaster.update(bar, context)
        self._past.append(bar)
        return self._adapt(bar, forecast)

    @property
    def last_step(self) -> tuple[Float32 | None, Float32 | None]:
        """As `Forecaster.last_step`; None between two turns."""
        if self._forecaster is None or self._forecaster.last_ts != self.last_ts:
            return None, None
        return self._forecaster.last_step

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features of its models, which are one and the same (see `walk_forward_schedule`)."""
        return self._models[0].manifest.features.names

    def outside_range(self, tolerance: float) -> bool:
        """Say so of the last bar, as `Forecaster` does of the model whose turn it is."""
        return self._forecaster is None or self._forecaster.outside_range(tolerance)

    def warm_up(self, bars: Bars) -> None:
        """Take a history without looking at its forecasts."""
        for bar in bars:
            if self.adaptive:  # which looks at them
                self.update(bar)
                continue
            if self._take(bar.ts_close) is not None and self._whose == self._now and self._forecaster is not None:
                self._forecaster.update(bar)
            self._past.append(bar)

    def _switch(self) -> Forecaster:
        loaded = self._models[self._now]
        forecaster = Forecaster(loaded, self.schedule.instrument_id)
        if self._past:
            columns = (np.array(column) for column in zip(*self._past, strict=True))
            forecaster.warm_up(Bars(self.schedule.instrument_id, self._timeframe, *columns))
        return forecaster
