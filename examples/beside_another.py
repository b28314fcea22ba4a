"""Our strategy beside another one, NautilusTrader's moving-average cross, on one node and one account.

    python examples/beside_another.py models/btcusdt_1h/VERSION catalog --start 2024-01-01

Each knows its own orders and position alone, by its strategy id; equity and cash are the account's. Two strategies of
this package on one account are better one: `LSTMPortfolioStrategy` shares its limits out among instruments.
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

lstm, cross = "lstm_strategy.nautilus.strategy:LSTMStrategy", "nautilus_trader.examples.strategies.ema_cross:EMACross"
both = {"instrument_id": instrument_id, "bar_type": bars}
run = BacktestRunConfig(
    engine=BacktestEngineConfig(
        logging=LoggingConfig(log_level="ERROR"),
        catalogs=[DataCatalogConfig(path=str(Path(args.catalog).resolve()), fs_protocol="file")],
        strategies=[
            ImportableStrategyConfig(
                strategy_path=lstm,
                config_path=f"{lstm}Config",
                config=both
                | {
                    "model": args.model,
                    "order_id_tag": "LSTM",
                    "sizing": {"horizon": args.horizon, "no_trade_band": 0.0},
                    "limits": {"max_exposure": 0.25},  # of the account's equity; the rest is the other's
                    "refill_holes": False,
                },
            ),
            ImportableStrategyConfig(
                strategy_path=cross,
                config_path=f"{cross}Config",
                config=both | {"trade_size": "0.5", "order_id_tag": "CROSS", "request_bars": False},
            ),
        ],
    ),
    venues=[
        BacktestVenueConfig(
            name=instrument_id.split(".")[1],
            oms_type="NETTING",
            account_type="MARGIN",  # the cross goes short
            starting_balances=["100000 USDT"],
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
for strategy in engine.trader.strategies():
    if getattr(strategy, "failure", None) is not None:
        raise strategy.failure
    orders = engine.cache.orders(strategy_id=strategy.id)
    print(f"{strategy.id}: {len(orders)} orders")
node.dispose()
