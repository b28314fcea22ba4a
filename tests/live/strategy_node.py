"""A node with `LSTMStrategy` on Binance spot as this package wires it, for the proofs on the local exchange.

Usage: strategy_node.py SETTINGS, a JSON object: http, ws, now (the venue's time, ns), model, state_dir. It answers on
standard output, in JSON, to each line of standard input with what it knows, and tells each bar that it has decided on.
"""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import json
import os
import signal
import sys
from typing import Any

import msgspec
from nautilus_trader.config import LiveExecEngineConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode

from lstm_strategy.decision import LimitsConfig, SizingConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.nautilus.adapters import ADAPTERS
from lstm_strategy.nautilus.engine import BarType, InstrumentId
from lstm_strategy.nautilus.pace import Pace
from lstm_strategy.nautilus.strategy import LSTMStrategy, LSTMStrategyConfig
from lstm_strategy.nautilus.venue_clients import Wiring

SETTINGS = json.loads(sys.argv[1])
INSTRUMENT = "BTCUSDT.BINANCE"
OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
faulthandler.register(signal.SIGUSR2)  # tells where it hangs


def say(**fields: Any) -> None:
    print(json.dumps(fields, default=str), file=OUT, flush=True)


class Told(LSTMStrategy):
    """Tells what it knows."""

    def on_start(self) -> None:
        super().on_start()
        asyncio.get_running_loop().add_reader(sys.stdin, self.answer)
        say(event="Started", **self.known())

    def answer(self) -> None:
        if sys.stdin.readline():
            say(answer="state", **self.known())
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin)

    def on_bar(self, bar: Any) -> None:
        super().on_bar(bar)
        say(event="Bar", ts=bar.ts_event)

    def handle_event(self, event: Any) -> None:
        super().handle_event(event)
        more = {name: str(getattr(event, name)) for name in ("last_qty", "reason") if hasattr(event, name)}
        if hasattr(event, "client_order_id"):
            say(event=type(event).__name__, id=event.client_order_id, **more)

    def known(self) -> dict[str, Any]:
        mine = self.cache.orders(strategy_id=self.id)
        forecaster = self.feed.model.forecaster
        return {
            "risk": None if self.risk is None else msgspec.to_builtins(self.risk),
            "ordered": self.keeper.ordered,
            "forecaster": hashlib.sha256(forecaster.state()).hexdigest(),
            "last_ts": forecaster.last_ts,
            "first_ts": self.feed._first_ts,
            "position": str(sum((p.signed_decimal_qty() for p in self.cache.positions_open()), 0)),
            "stops": [[o.client_order_id, str(o.leaves_qty)] for o in mine if o.has_trigger_price and o.is_open],
            "working": [o.client_order_id for o in mine if not o.has_trigger_price and not o.is_closed],
            "in_flight": [o.client_order_id for o in mine if o.is_inflight],
            "failure": None if self.failure is None else repr(self.failure),
            "collecting": self.collecting,
        }


def main() -> None:
    wiring = Wiring((INSTRUMENT,), False, SETTINGS["http"], SETTINGS["ws"], record_dir=SETTINGS["state_dir"])
    clients = ADAPTERS["binance"].clients(wiring)  # as `lstm-strategy live` has them
    quick = {"inflight_check_interval_ms": 300, "inflight_check_threshold_ms": 600, "inflight_check_retries": 3}
    fast = {"open_check_interval_secs": 0.5, "open_check_threshold_ms": 200}
    node = TradingNode(
        TradingNodeConfig(
            trader_id="TRADER-001",
            logging=LoggingConfig(log_level="ERROR", log_colors=False),
            exec_engine=LiveExecEngineConfig(reconciliation_startup_delay_secs=0.1, **clients.engine | quick | fast),
            data_clients={"BINANCE": clients.data},
            exec_clients={"BINANCE": clients.execution},
            timeout_connection=8.0,
            timeout_reconciliation=5.0,
            timeout_disconnection=2.0,
            timeout_post_stop=0.1,
        )
    )
    strategy = Told(
        LSTMStrategyConfig(
            instrument_id=InstrumentId.from_str(INSTRUMENT),
            bar_type=BarType.from_str(f"{INSTRUMENT}-1-HOUR-LAST-EXTERNAL"),
            external_order_claims=[InstrumentId.from_str(INSTRUMENT)],
            model=SETTINGS["model"],
            sizing=SizingConfig(tilt=0.0, target_volatility=0.2, no_trade_band=0.0),
            limits=LimitsConfig(max_drawdown=0.9, daily_loss=0.9),
            exits=ExitsConfig(stop=4.0, horizon=4, trailing=True, least_move=0.0),
            state_dir=SETTINGS["state_dir"],
        )
    )
    strategy.pace = Pace(lambda: SETTINGS["now"])
    node.trader.add_strategy(strategy)
    node.add_data_client_factory("BINANCE", clients.data_factory)
    node.add_exec_client_factory("BINANCE", clients.execution_factory)
    node.build()
    try:
        node.run()
    finally:
        node.dispose()


if __name__ == "__main__":
    main()
