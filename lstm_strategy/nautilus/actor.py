"""The actor: publishes each forecast on the bus for other strategies, and keeps it in the catalog; sends no orders."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from lstm_strategy.bars import Bar
from lstm_strategy.conformal import STATIC, CalibrationConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.engine import BarType, EngineBar, InstrumentId, loud
from lstm_strategy.nautilus.feed import Feed
from lstm_strategy.nautilus.forecast_data import ForecastData, forecast_type
from lstm_strategy.nautilus.pace import REAL_TIME, Pace
from lstm_strategy.nautilus.session import Stream, open_stream

__all__ = ["ForecastActor", "ForecastActorConfig"]


class ForecastActorConfig(ActorConfig, frozen=True, kw_only=True):
    """Settings of `ForecastActor`.

    Parameters
    ----------
    instrument_id, bar_type : str
        Such as ``BTCUSDT.BINANCE`` and ``BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL``.
    model : str
        The artefact's folder, ``models/<name>/<version>``.
    calibration
        As in `lstm_strategy.conformal`.
    history_timeout_s, history_attempts, refill_holes
        As of `LSTMStrategyConfig`.
    parity_every, parity_tolerance, follow, follow_poll_s, shadow_bars
        As of `LSTMStrategyConfig`.
    catalog : str, optional
        Folder of the NautilusTrader catalog that keeps what is published; those it has already are left as they are.
    catalog_bars : int
        Forecasts that are written together; as many are lost with a process that dies.
    """

    instrument_id: InstrumentId
    bar_type: BarType
    model: str
    calibration: CalibrationConfig = STATIC
    history_timeout_s: float = 30.0
    history_attempts: int = 10
    refill_holes: bool = True
    parity_every: int = 24
    parity_tolerance: float = 0.001
    follow: bool = False
    follow_poll_s: float = 30.0
    shadow_bars: int = 24
    catalog: str | None = None
    catalog_bars: int = 256


class ForecastActor(Actor):  # type: ignore[misc]
    """Publishes an artefact's forecasts of one instrument as `ForecastData`.

    They are those of `LSTMStrategy` on the same bars, to the last bit: both stream through the same `Feed`.

    Attributes
    ----------
    failure : Exception or None
        What stopped the actor, if anything did.
    published : int
        Forecasts since the start.
    pace : Pace
        The time of the bars, where it is not the clock's.
    """

    pace: Pace = REAL_TIME

    def __init__(self, config: ForecastActorConfig) -> None:
        super().__init__(config)
        self.settings = config
        self.failure: Exception | None = None
        self.published = 0
        self._stream: Stream | None = None
        self._feed: Feed | None = None
        self._restored: bytes | None = None
        self._waiting: list[Any] = []
        self._kept_until = 0

    def on_start(self) -> None:
        """Verify the model, then ask for history; raise any problem."""
        settings = self.settings
        self._stream = stream = open_stream(self)
        if settings.catalog is not None:
            self._kept_until = _last_kept(settings.catalog, settings.instrument_id)
        self._feed = Feed(self, stream, settings.bar_type, settings, on_closed=self._on_closed)
        self._feed.start(self._restored)
        if self.failure is not None:
            raise self.failure

    def on_historical_data(self, data: Any) -> None:
        """Keep a bar of the requested history."""
        if self._feed is not None:
            self._feed.add_past(data)

    @loud
    def on_bar(self, bar: EngineBar) -> None:
        """Forecast at a closed bar."""
        if self._feed is not None and self.failure is None:
            self._feed.add(bar)

    def _on_closed(self, bar: Bar, forecast: Forecast | None, *, waiting: bool) -> None:
        if forecast is None or waiting or self._stream is None or self._feed is None:
            return
        settings = self.settings
        who, now, proved = self._stream.model.version, self.clock.timestamp_ns(), self._feed.proved
        data = ForecastData.of(forecast, settings.instrument_id, who, now, proved=proved)
        self.publish_data(forecast_type(settings.instrument_id), data)
        self.published += 1
        if settings.catalog is not None and data.ts_init > self._kept_until:
            self._waiting.append(data)
            if len(self._waiting) >= settings.catalog_bars:
                self._write()

    def _write(self) -> None:
        """Hand what waits to the catalog; a disk that refuses is told, and stops no forecasts."""
        catalog, waiting = self.settings.catalog, self._waiting
        if catalog is None or not waiting:
            return
        self._waiting = []
        try:
            ParquetDataCatalog(catalog).write_data(waiting)
        except (OSError, ValueError) as error:
            self.log.error(f"{len(waiting)} forecasts could not be written to {catalog}: {error}; publishing goes on")
        else:
            self._kept_until = waiting[-1].ts_init

    def fail(self, where: str, error: Exception) -> None:
        """Remember the first exception, log it whole, and stop."""
        self.failure = self.failure or error
        self.log.error(f"Stopped by an exception in {where}:\n{''.join(traceback.format_exception(error))}")
        if self.is_running:
            self.stop()

    def on_stop(self) -> None:
        """Keep what was not yet written."""
        if self._feed is not None:
            self._feed.stop()
        self._write()

    def on_reset(self) -> None:
        """Forget everything but the settings."""
        self.failure = self._stream = self._feed = self._restored = None
        self.published, self._waiting, self._kept_until = 0, [], 0

    def on_save(self) -> dict[str, bytes]:
        """Return the forecaster's snapshot; of a start that failed the one it began with."""
        if self._stream is None or self._stream.model.forecaster.last_ts is None:
            return {} if self._restored is None else {"forecaster": self._restored}
        return {"forecaster": self._stream.model.forecaster.state()}

    def on_load(self, state: dict[str, bytes]) -> None:
        """Take back what `on_save` gave."""
        self._restored = state.get("forecaster")


def _last_kept(catalog: str, instrument_id: InstrumentId) -> int:
    """Return when the newest forecast in a catalog was published, 0 where there is none."""
    if not Path(catalog).is_dir():
        raise LSTMStrategyError(
            f"catalog {catalog} is no folder; make it with `lstm-strategy data import`, or leave it out"
        )
    last = ParquetDataCatalog(catalog).query_last_timestamp(ForecastData, identifier=instrument_id.value)
    return 0 if last is None else int(last.value)
