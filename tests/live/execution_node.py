"""A node with NautilusTrader's own Binance spot clients, data and execution, that does what it is told line by line.

Usage: execution_node.py SETTINGS, a JSON object: http, ws, instrument, bar_type, and what the engine and the execution
client are configured with. Keys come from BINANCE_API_KEY and BINANCE_API_SECRET. Each line of standard input is a
command (JSON: ``do`` and its arguments), each line of standard output an event or an answer; logs go to standard error.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
from decimal import Decimal
from typing import Any

from nautilus_trader.adapters.binance import (
    BINANCE,
    BinanceDataClientConfig,
    BinanceExecClientConfig,
    BinanceLiveDataClientFactory,
    BinanceLiveExecClientFactory,
)
from nautilus_trader.config import (
    InstrumentProviderConfig,
    LiveExecEngineConfig,
    LoggingConfig,
    StrategyConfig,
    TradingNodeConfig,
)
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import ClientOrderId, InstrumentId, TraderId
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.nautilus.binance_spot import SPOT_ENGINE, BinanceSpotExecClientFactory

SETTINGS = json.loads(sys.argv[1])
OUT = os.fdopen(os.dup(1), "w")  # for us alone: the engine logs to both streams from a thread of its own
os.dup2(2, 1)
faulthandler.register(signal.SIGUSR2)  # tells where it hangs
INSTRUMENT = InstrumentId.from_str(SETTINGS["instrument"])


def say(**fields: Any) -> None:
    print(json.dumps(fields, default=str), file=OUT, flush=True)


class Hand(Strategy):
    """Sends what it is told to, tells what becomes of it, and decides nothing."""

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(INSTRUMENT)
        asyncio.get_running_loop().add_reader(sys.stdin, self.read)
        say(event="Started", **self.state())

    def read(self) -> None:
        line = sys.stdin.readline()
        if line:
            self.carry_out(**json.loads(line))
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin)

    def carry_out(self, do: str, **asked: Any) -> None:
        if do == "state":
            say(answer=do, **self.state())
        elif do == "stop":
            self.shutdown_system("told to")
        elif do == "cancel":
            self.cancel_order(self.cache.order(ClientOrderId(asked["id"])))
        elif do == "cancel_all":
            self.cancel_all_orders(INSTRUMENT)
        else:
            order = self.make(do, **asked)
            say(answer=do, id=order.client_order_id)
            self.submit_order(order)

    def make(self, do: str, side: str, quantity: str, price: str = "0", trigger: str = "0", post: bool = False) -> Any:
        name, size = OrderSide[side], self.instrument.make_qty(Decimal(quantity))
        if do == "market":
            return self.order_factory.market(INSTRUMENT, name, size)
        limit = self.instrument.make_price(Decimal(price))
        if do == "limit":
            return self.order_factory.limit(INSTRUMENT, name, size, limit, post_only=post)
        return self.order_factory.stop_limit(
            INSTRUMENT, name, size, limit, self.instrument.make_price(Decimal(trigger))
        )

    def on_order_event(self, event: Any) -> None:
        more = {name: getattr(event, name) for name in ("last_qty", "reason", "commission") if hasattr(event, name)}
        say(event=type(event).__name__, id=event.client_order_id, **more)

    def state(self) -> dict[str, Any]:
        account = self.portfolio.account(INSTRUMENT.venue)
        balances = {} if account is None else account.balances()
        return {
            "orders": {o.client_order_id.value: [o.status_string(), str(o.filled_qty)] for o in self.cache.orders()},
            "mine": [o.client_order_id.value for o in self.cache.orders(strategy_id=self.id)],
            "open": [o.client_order_id.value for o in self.cache.orders_open()],
            "position": {p.strategy_id.value: str(p.signed_decimal_qty()) for p in self.cache.positions_open()},
            "free": {str(c): str(b.free.as_decimal()) for c, b in balances.items()},
            "locked": {str(c): str(b.locked.as_decimal()) for c, b in balances.items() if b.locked},
        }


def main() -> None:
    provider = InstrumentProviderConfig(load_ids=frozenset([INSTRUMENT.value]))
    claims = [INSTRUMENT] if SETTINGS.get("claim", True) else None
    careful = SETTINGS.get("careful", True)
    engine = SPOT_ENGINE if careful else {}
    engine = {"inflight_check_interval_ms": 300, "inflight_check_threshold_ms": 600} | engine | SETTINGS["engine"]
    node = TradingNode(
        TradingNodeConfig(
            trader_id=TraderId("TRADER-001"),
            logging=LoggingConfig(log_level=SETTINGS.get("log", "ERROR"), log_colors=False),
            exec_engine=LiveExecEngineConfig(reconciliation_startup_delay_secs=0.1, **engine),
            data_clients={
                BINANCE: BinanceDataClientConfig(
                    base_url_http=SETTINGS["http"], base_url_ws=SETTINGS["ws"], instrument_provider=provider
                )
            },
            exec_clients={
                BINANCE: BinanceExecClientConfig(
                    api_key=os.environ["BINANCE_API_KEY"],
                    api_secret=os.environ["BINANCE_API_SECRET"],
                    base_url_http=SETTINGS["http"],
                    base_url_ws=SETTINGS["ws"] + "/ws-api/v3",
                    instrument_provider=provider,
                    **SETTINGS.get("client", {}),
                )
            },
            timeout_connection=8.0,
            timeout_reconciliation=5.0,
            timeout_disconnection=2.0,
            timeout_post_stop=0.1,
        )
    )
    hand = Hand(StrategyConfig(strategy_id="HAND", order_id_tag="1", external_order_claims=claims))
    node.trader.add_strategy(hand)
    node.add_data_client_factory(BINANCE, BinanceLiveDataClientFactory)
    node.add_exec_client_factory(BINANCE, BinanceSpotExecClientFactory if careful else BinanceLiveExecClientFactory)
    node.build()
    try:
        node.run()
    finally:
        node.dispose()


if __name__ == "__main__":
    main()
