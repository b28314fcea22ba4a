"""A forecast as the engine's custom data: what the actor publishes, others subscribe to, and the catalog keeps."""

# The engine reads the types of the fields: they must not be postponed.
from typing import Any

import numpy as np
import pyarrow as pa
from nautilus_trader.core.data import Data
from nautilus_trader.core.nautilus_pyo3.model import register_custom_data_class
from nautilus_trader.model.custom import customdataclass_pyo3
from nautilus_trader.model.data import DataType

from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.engine import InstrumentId, subscribe_custom

__all__ = ["ForecastData", "forecast_type", "subscribe_forecasts"]


@customdataclass_pyo3()  # type: ignore[no-untyped-call]
class ForecastData(Data):  # type: ignore[misc]
    """What a model says at one bar's close; ``ts_event`` is that close, ``ts_init`` when it was published.

    Parameters
    ----------
    instrument_id : InstrumentId
    model : str
        Name and version.
    scale : float
        The causal volatility of one bar's log return.
    horizons : list of int [H]
        Bars ahead.
    levels : list of float [Q]
    quantiles : list of float [H · Q]
        Of the log return, horizon by horizon; each is a float32.
    position : float
        As in `Forecast`; NaN where the model says none.
    proved : bool
        Whether parity of these forecasts with ones made offline was proved when it was published.
    """

    instrument_id: InstrumentId
    model: str
    scale: float
    horizons: list[int]
    levels: list[float]
    quantiles: list[float]
    position: float
    proved: bool

    _schema = pa.schema(
        {
            "instrument_id": pa.string(),
            "model": pa.string(),
            "scale": pa.float64(),
            "horizons": pa.list_(pa.int64()),
            "levels": pa.list_(pa.float64()),
            "quantiles": pa.list_(pa.float64()),
            "position": pa.float64(),
            "proved": pa.bool_(),
            "type": pa.string(),
            "ts_event": pa.int64(),
            "ts_init": pa.int64(),
        }
    )

    @classmethod
    def of(cls, forecast: Forecast, instrument_id: InstrumentId, model: str, ts_init: int, *, proved: bool) -> Any:
        """Return a forecast as the engine's data."""
        return cls(
            ts_event=forecast.ts_close,
            ts_init=ts_init,
            instrument_id=instrument_id,
            model=model,
            scale=forecast.scale,
            horizons=list(forecast.horizons),
            levels=list(forecast.levels),
            quantiles=forecast.quantiles_HQ.ravel().tolist(),
            position=forecast.position,
            proved=proved,
        )

    @property
    def forecast(self) -> Forecast:
        """The same to the last bit, with all that a `Forecast` can tell."""
        shape = (len(self.horizons), len(self.levels))
        quantiles_HQ = np.array(self.quantiles, np.float32).reshape(shape)
        return Forecast(
            self.ts_event, tuple(self.horizons), tuple(self.levels), quantiles_HQ, self.scale, self.position
        )


register_custom_data_class(ForecastData)


def forecast_type(instrument_id: InstrumentId | None = None) -> DataType:
    """Return the type under which the forecasts of one instrument are published; all of them where none is named."""
    return DataType(ForecastData, None if instrument_id is None else {"instrument_id": instrument_id.value})


def subscribe_forecasts(component: Any, instrument_id: InstrumentId | None = None) -> None:
    """Have an actor's or a strategy's ``on_data`` called with each `ForecastData` of an instrument, or of all."""
    subscribe_custom(component, forecast_type(instrument_id))
