"""A NautilusTrader node on the local exchange, as a program: asks for history, listens to bars, prints what it got.

Usage: replay_node.py HTTP_URL WS_URL BAR_TYPE HISTORY_START COUNT SECONDS. It ends after COUNT bars or SECONDS,
whichever comes first, and prints one JSON object: bars of the history and of the stream as [ts_event, open, high, low,
close, volume], and the instrument's steps.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pandas as pd
from nautilus_trader.adapters.binance import BINANCE, BinanceDataClientConfig, BinanceLiveDataClientFactory
from nautilus_trader.config import InstrumentProviderConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.trading.strategy import Strategy

HTTP, WS, BAR_TYPE, START, COUNT, SECONDS = sys.argv[1:]


class Listener(Strategy):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.bar_type = BarType.from_str(BAR_TYPE)
        self.history: list[list[Any]] = []
        self.live: list[list[Any]] = []
        self.steps: dict[str, str] = {}

    def on_start(self) -> None:
        instrument = self.cache.instrument(self.bar_type.instrument_id)
        self.steps = {
            "tick": str(instrument.price_increment),
            "lot": str(instrument.size_increment),
            "min_notional": str(instrument.min_notional),
        }
        self.clock.set_time_alert("end", self.clock.utc_now() + pd.Timedelta(seconds=float(SECONDS)), self.end)
        self.subscribe_bars(self.bar_type)
        self.request_bars(self.bar_type, start=pd.Timestamp(START, tz="UTC"))

    def on_historical_data(self, data: Bar) -> None:
        self.history.append(row(data))

    def on_bar(self, bar: Bar) -> None:
        self.live.append(row(bar))
        if len(self.live) == int(COUNT):
            self.end()

    def end(self, _: object = None) -> None:
        self.shutdown_system("heard enough")


def row(bar: Bar) -> list[Any]:
    prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return [bar.ts_event, *(value.as_double() for value in prices)]


def main() -> None:
    instrument_id = str(BarType.from_str(BAR_TYPE).instrument_id)
    node = TradingNode(
        TradingNodeConfig(
            logging=LoggingConfig(log_level="ERROR", log_colors=False),
            data_clients={
                BINANCE: BinanceDataClientConfig(
                    base_url_http=HTTP,
                    base_url_ws=WS,
                    instrument_provider=InstrumentProviderConfig(load_ids=frozenset([instrument_id])),
                )
            },
            timeout_connection=10.0,
            timeout_disconnection=2.0,
            timeout_post_stop=0.2,
        )
    )
    listener = Listener()
    node.trader.add_strategy(listener)
    node.add_data_client_factory(BINANCE, BinanceLiveDataClientFactory)
    node.build()
    try:
        node.run()
    finally:
        node.dispose()
    print("RESULT " + json.dumps({"history": listener.history, "live": listener.live, "steps": listener.steps}))


if __name__ == "__main__":
    main()
