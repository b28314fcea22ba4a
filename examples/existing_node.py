"""A trading node that is there already (Binance spot data, simulated execution), and the three lines that it takes.

    python examples/existing_node.py models/btcusdt_1h/VERSION

It trades on paper until Ctrl-C. `--http` and `--ws` point it at another server, such as `lstm-strategy replay`.
"""

import argparse
from pathlib import Path

from nautilus_trader.adapters.binance import BINANCE, BinanceDataClientConfig, BinanceLiveDataClientFactory
from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.factory import SandboxLiveExecClientFactory
from nautilus_trader.config import ImportableStrategyConfig, InstrumentProviderConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode

from lstm_strategy import Timeframe, load_artefact
from lstm_strategy.nautilus.catalog import bar_type

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="the artefact's folder")
parser.add_argument("--bar-type", help="such as BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL (default: the model's own)")
parser.add_argument(
    "--decisions", help="folder that gets every bar's decision, for lstm-strategy explain (default: none)"
)
parser.add_argument("--http", help="where history is asked for (default: Binance)")
parser.add_argument("--ws", help="where bars are heard (default: Binance)")
args = parser.parse_args()
trained = load_artefact(Path(args.model)).manifest
own = str(bar_type(next(iter(trained.instruments)), Timeframe.parse(trained.timeframe)))
bars = args.bar_type or own
instrument_id = bars.split("-")[0]

# The three lines.
lstm = "lstm_strategy.nautilus.strategy:LSTMStrategy"
settings = {
    "instrument_id": instrument_id,
    "bar_type": bars,
    "model": args.model,
    "decision_log": args.decisions,
}
strategies = [ImportableStrategyConfig(strategy_path=lstm, config_path=f"{lstm}Config", config=settings)]

node = TradingNode(
    TradingNodeConfig(
        trader_id="PAPER-001",
        logging=LoggingConfig(log_level="INFO", log_colors=False),
        data_clients={
            BINANCE: BinanceDataClientConfig(
                base_url_http=args.http,
                base_url_ws=args.ws,
                instrument_provider=InstrumentProviderConfig(load_ids=frozenset([instrument_id])),
            )
        },
        exec_clients={
            BINANCE: SandboxExecutionClientConfig(
                venue=BINANCE, account_type="CASH", starting_balances=["10000 USDT"], base_currency=None
            )
        },
        timeout_disconnection=5.0,
        timeout_post_stop=1.0,
        strategies=strategies,
    )
)
node.add_data_client_factory(BINANCE, BinanceLiveDataClientFactory)
node.add_exec_client_factory(BINANCE, SandboxLiveExecClientFactory)
node.build()
try:
    node.run()
finally:
    node.dispose()
