"""The actor that publishes forecasts: those of the strategy, on the bus and in the catalog, and nothing else."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_support import HOUR, SPOT, random_bars, tell
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig, LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from test_strategy import engine_bars

from lstm_strategy import artefact
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.actor import ForecastActor, ForecastActorConfig
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.forecast_data import ForecastData, subscribe_forecasts
from lstm_strategy.nautilus.instruments import to_engine

BTC = to_engine(SPOT).id


class Listener(Actor):
    """Keeps what it hears."""

    def __init__(self, name: str = "listener", of: Any = None) -> None:
        super().__init__(ActorConfig(component_id=name))
        self.heard: list[ForecastData] = []
        self._of = of

    def on_start(self) -> None:
        subscribe_forecasts(self, self._of)

    def on_data(self, data: Any) -> None:
        assert isinstance(data, ForecastData)
        self.heard.append(data)


def play(engines: list[BacktestEngine], actors: list[Actor], bars: Any) -> None:
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engines.append(engine)
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.CASH, [Money(1_000, USDT)], bar_execution=False)
    engine.add_instrument(to_engine(SPOT))
    for actor in actors:
        engine.add_actor(actor)
    engine.add_data(engine_bars(bars))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's own use of pandas
        engine.run()


def actor(model: object, **changes: Any) -> ForecastActor:
    settings = {"instrument_id": BTC, "bar_type": bar_type(SPOT.id, HOUR), "model": str(model), **changes}
    return ForecastActor(ForecastActorConfig(**settings))


def test_it_publishes_what_the_model_says_and_the_catalog_gives_it_back(
    engines: list[BacktestEngine], tiny_artefact: Path, tmp_path: Path
) -> None:
    bars = random_bars(600)
    one = actor(tiny_artefact, catalog=str(tmp_path), catalog_bars=40, refill_holes=False)
    of_this, of_all = Listener("this", BTC), Listener("all")
    of_another = Listener("another", type(BTC).from_str("ETHUSDT.BINANCE"))
    play(engines, [one, of_this, of_all, of_another], bars)
    assert one.failure is None
    wanted = Forecaster(artefact.load(tiny_artefact), SPOT.id).run(bars)
    rows = np.flatnonzero(~np.isnan(wanted.quantiles_THQ[:, 0, 0]))
    assert len(rows) == one.published == len(of_this.heard) > 100
    assert of_all.heard == of_this.heard
    assert of_another.heard == []
    read = ParquetDataCatalog(str(tmp_path)).custom_data(ForecastData, instrument_ids=[SPOT.id])
    for source in (of_this.heard, [getattr(data, "data", data) for data in read]):
        assert [data.ts_event for data in source] == bars.ts_close[rows].tolist()
        for row, data in zip(rows, source, strict=True):
            forecast = data.forecast
            np.testing.assert_array_equal(forecast.quantiles_HQ, wanted.quantiles_THQ[row])
            assert (forecast.horizons, forecast.levels, forecast.scale) == ((1, 4), wanted.levels, wanted.scale_T[row])
            assert (data.instrument_id, data.model) == (BTC, "tiny/1")
    assert len(list(tmp_path.rglob("*.parquet"))) == 1 + len(rows) // 40  # in batches, the rest at the stop

    again = actor(tiny_artefact, catalog=str(tmp_path), refill_holes=False)
    play(engines, [again], bars)  # what is kept already is left as it is
    assert again.published == len(rows)
    assert len(ParquetDataCatalog(str(tmp_path)).custom_data(ForecastData)) == len(rows)


def test_a_disk_that_refuses_stops_no_forecasts(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tell(monkeypatch, lambda _: 0.001)

    def refuse(*_: object) -> None:
        raise OSError("planted")

    monkeypatch.setattr(ParquetDataCatalog, "write_data", refuse)
    one, listener = actor("told/1", catalog=str(tmp_path), catalog_bars=3), Listener()
    play(engines, [one, listener], random_bars(20))
    assert one.failure is None
    assert len(listener.heard) == 20


def test_an_exception_stops_it_loudly(engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(ts: int) -> float:
        if ts == 8 * HOUR.ns:
            raise ZeroDivisionError("planted")
        return 0.001

    tell(monkeypatch, mean)
    one, listener = actor("told/1"), Listener()
    play(engines, [one, listener], random_bars(20))
    assert isinstance(one.failure, ZeroDivisionError)
    assert not one.is_running
    assert [data.ts_event // HOUR.ns for data in listener.heard] == list(range(1, 8))


def test_its_snapshot_goes_on_where_it_was(engines: list[BacktestEngine], tiny_artefact: Path) -> None:
    bars = random_bars(600)
    first, second, listener = actor(tiny_artefact), actor(tiny_artefact), Listener()
    play(engines, [first], bars[:550])
    second.on_load(first.on_save())
    play(engines, [second, listener], bars[550:])
    assert [data.ts_event for data in listener.heard] == bars.ts_close[550:].tolist()

    whole = Forecaster(artefact.load(tiny_artefact), SPOT.id).run(bars)
    np.testing.assert_array_equal(listener.heard[-1].forecast.quantiles_HQ, whole.quantiles_THQ[-1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bar_type": bar_type("ETHUSDT.BINANCE", HOUR)}, "is not of instrument"),
        ({"bar_type": type(bar_type(SPOT.id, HOUR)).from_str("BTCUSDT.BINANCE-15-MINUTE-LAST-EXTERNAL")}, "1h bars"),
        ({"catalog": "/nowhere"}, "is no folder"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_start(
    engines: list[BacktestEngine], tiny_artefact: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(LSTMStrategyError, match=told):
        play(engines, [actor(tiny_artefact, **changes)], random_bars(5))
