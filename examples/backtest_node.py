"""Our strategy in a run of NautilusTrader's own BacktestNode, over a catalog that `lstm-strategy data` has written.

    python examples/backtest_node.py models/btcusdt_1h/VERSION catalog --start 2024-01-01

The engine fills a market order at the close that it was decided on, which flatters; `lstm-strategy backtest` runs the
same strategy with fills at the next open, spread, slippage and limits of volume. Without a no-trade band, as here, it
trades at every bar; by default only where a change is worth its costs.
"""

import argparse
from pathlib import Path

from nautilus_trader.backtest.node import BacktestNode
from nautilus_trader.config import (
    BacktestDataConfig,
    BacktestEngineConfig,
    BacktestRunConfig,
    BacktestVenueConfig,
    DataCatalogConfig,
    ImportableStrategyConfig,
    LoggingConfig,
)
from nautilus_trader.model.data import Bar

from lstm_strategy import Timeframe, load_artefact
from lstm_strategy.nautilus.catalog import bar_type

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="the artefact's folder")
parser.add_argument("catalog", help="the NautilusTrader catalog's folder")
parser.add_argument("--bar-type", help="such as BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL (default: the model's own)")
parser.add_argument("--horizon", type=int, default=1, help="bars; one of the model's (default: %(default)s)")
parser.add_argument("--start", help="first day; earlier bars warm the model up (default: that of the first bar)")
args = parser.parse_args()
trained = load_artefact(Path(args.model)).manifest
own = str(bar_type(next(iter(trained.instruments)), Timeframe.parse(trained.timeframe)))
bars = args.bar_type or own
instrument_id = bars.split("-")[0]

lstm = "lstm_strategy.nautilus.strategy:LSTMStrategy"
run = BacktestRunConfig(
    engine=BacktestEngineConfig(
        logging=LoggingConfig(log_level="ERROR"),
        catalogs=[
            DataCatalogConfig(path=str(Path(args.catalog).resolve()), fs_protocol="file")
        ],  # where the strategy asks for the bars before the first
        strategies=[
            ImportableStrategyConfig(
                strategy_path=lstm,
                config_path=f"{lstm}Config",
                config={
                    "instrument_id": instrument_id,
                    "bar_type": bars,
                    "model": args.model,
                    "sizing": {"horizon": args.horizon, "no_trade_band": 0.0},
                    "refill_holes": False,  # the catalog holds all that there is
                    "record": True,
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
node.run()
engine = node.get_engine(run.id)
(strategy,) = engine.trader.strategies()
if strategy.failure is not None:  # an exception in a handler stops the strategy; it does not stop the run
    raise strategy.failure
spoken = sum(forecast is not None for forecast in strategy.record.forecasts)
print(f"{len(strategy.record)} bars, {spoken} forecasts, {len(engine.cache.orders())} orders")
node.dispose()
