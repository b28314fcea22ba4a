"""The forecasts without our strategy: `ForecastActor` publishes them, and somebody else's strategy trades on them.

    python examples/forecasts_alone.py models/btcusdt_1h/VERSION catalog --start 2024-01-01

With `--keep` they go to the catalog as well, where any run finds them again as `ForecastData`.
"""

import argparse
from pathlib import Path
from typing import Any

from nautilus_trader.backtest.node import BacktestNode
from nautilus_trader.config import (
    BacktestDataConfig,
    BacktestEngineConfig,
    BacktestRunConfig,
    BacktestVenueConfig,
    DataCatalogConfig,
    ImportableActorConfig,
    LoggingConfig,
    StrategyConfig,
)
from nautilus_trader.model.data import Bar
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy import Timeframe, load_artefact
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.forecast_data import ForecastData, subscribe_forecasts


class CalmHoursConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    trade_size: str = "0.1"


class CalmHours(Strategy):  # type: ignore[misc]
    """Holds one lot while the loss to be feared is below what it has been; no more than a way to use a forecast."""

    def __init__(self, config: CalmHoursConfig) -> None:
        super().__init__(config)
        self.heard, self.usual = 0, 0.0

    def on_start(self) -> None:
        subscribe_forecasts(self, self.config.instrument_id)

    def on_data(self, data: Any) -> None:
        if not isinstance(data, ForecastData):
            return
        self.heard += 1
        name = self.config.instrument_id
        feared = -data.forecast.quantile(0.1, data.horizons[0])  # one outcome in ten is worse
        self.usual += (feared - self.usual) / min(self.heard, 48)
        calm = data.proved and feared < self.usual
        if calm != self.portfolio.is_net_long(name):
            size = self.cache.instrument(name).make_qty(self.config.trade_size)
            side = OrderSide.BUY if calm else OrderSide.SELL
            self.submit_order(self.order_factory.market(name, side, size))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="the artefact's folder")
parser.add_argument("catalog", help="the NautilusTrader catalog's folder")
parser.add_argument("--bar-type", help="such as BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL (default: the model's own)")
parser.add_argument("--start", help="first day; earlier bars warm the model up (default: that of the first bar)")
parser.add_argument(
    "--keep", action="store_true", help="write the forecasts to the catalog (default: they are not kept)"
)
args = parser.parse_args()
trained = load_artefact(Path(args.model)).manifest
own = str(bar_type(next(iter(trained.instruments)), Timeframe.parse(trained.timeframe)))
bars = args.bar_type or own
instrument_id = bars.split("-")[0]

actor = "lstm_strategy.nautilus.actor:ForecastActor"
run = BacktestRunConfig(
    engine=BacktestEngineConfig(
        logging=LoggingConfig(log_level="ERROR"),
        catalogs=[DataCatalogConfig(path=str(Path(args.catalog).resolve()), fs_protocol="file")],
        actors=[
            ImportableActorConfig(
                actor_path=actor,
                config_path=f"{actor}Config",
                config={
                    "instrument_id": instrument_id,
                    "bar_type": bars,
                    "model": args.model,
                    "refill_holes": False,
                    "catalog": args.catalog if args.keep else None,
                },
            )
        ],
    ),
    venues=[
        BacktestVenueConfig(
            name=instrument_id.split(".")[1], oms_type="NETTING", account_type="CASH", starting_balances=["100000 USDT"]
        )
    ],
    data=[BacktestDataConfig(catalog_path=args.catalog, data_cls=Bar, instrument_id=instrument_id, bar_types=[bars])],
    start=args.start,
    dispose_on_completion=False,
    raise_exception=True,
)
node = BacktestNode(configs=[run])
node.build()
engine = node.get_engine(run.id)
strategy = CalmHours(CalmHoursConfig(instrument_id=InstrumentId.from_str(instrument_id)))
engine.add_strategy(strategy)
node.run()
(publisher,) = engine.trader.actors()
if publisher.failure is not None:
    raise publisher.failure
if not publisher.published:
    raise SystemExit(f"error: {args.catalog} has no bars of {bars} that a forecast could be made of; name another")
print(f"{publisher.published} forecasts published, {strategy.heard} heard, {len(engine.cache.orders())} orders")
node.dispose()
