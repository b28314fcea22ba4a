"""NautilusTrader's Binance spot execution client, made safe to restart and to trust after an answer that tells nothing.

As it comes (1.231), that client reports no position for spot, so that the engine invents a sale of whatever the account
still holds when it starts again; it asks for trades of no symbol that the fresh cache does not know; and it takes an
order for rejected where the venue said no more than that it does not know (HTTP 5xx, -1006, -1007) or that the order is
there already (-2010, duplicate). `docs/live.md` tells what each of these looks like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from nautilus_trader.adapters.binance import BinanceExecClientConfig
from nautilus_trader.adapters.binance.common.credentials import get_api_key, get_api_secret
from nautilus_trader.adapters.binance.common.enums import BinanceEnvironment
from nautilus_trader.adapters.binance.factories import (
    get_cached_binance_http_client,
    get_cached_binance_spot_instrument_provider,
)
from nautilus_trader.adapters.binance.http.error import BinanceError, BinanceServerError
from nautilus_trader.adapters.binance.spot.execution import BinanceSpotExecutionClient
from nautilus_trader.execution.messages import GenerateOrderStatusReports, GeneratePositionStatusReports
from nautilus_trader.execution.reports import ExecutionMassStatus, OrderStatusReport, PositionStatusReport
from nautilus_trader.live.factories import LiveExecClientFactory
from nautilus_trader.model.identifiers import VenueOrderId
from nautilus_trader.model.objects import Quantity

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.adoption import adopt, position_of
from lstm_strategy.nautilus.binance_coins import SpotExecConfig

__all__ = ["SPOT_ENGINE", "BinanceSpotExecClientFactory", "CarefulSpotClient", "OutcomeUnknownError"]

SPOT_ENGINE: dict[str, Any] = {
    "generate_missing_orders": True,
    "open_check_interval_secs": 15.0,
    "open_check_open_only": False,
    "open_check_lookback_mins": 10 * 365 * 24 * 60,
    "open_check_missing_retries": 1_000_000,
}
"""What `LiveExecEngineConfig` must be set to with this client.

All orders are looked at every 15 s, since an event that the user-data stream lost is told no other way. The adapter
leaves out orders older than the look-back, and the engine takes what was left out for rejected after so many looks, as
it would a stop that has rested for an hour: hence ten years, and a count that is never reached. What is not at the
venue at all is told by the check of orders in flight.
"""

_UNKNOWN = (-1006, -1007)
_DUPLICATE = (-2010, "Duplicate order sent.")
_BALANCES_FOLLOW_S = 1.0  # at most, after an order event; in the same burst of messages, as a rule
_LOOKS = 3  # at orders and balances, until the latter stood still meanwhile


class OutcomeUnknownError(Exception):
    """Whether an order stands is not known: it stays in flight, and the engine asks the venue for it."""


class CarefulSpotClient(BinanceSpotExecutionClient):
    """The adapter's client, with five differences.

    - An order whose outcome is unknown stays in flight until the engine's own check has asked for it, and is not sent
      again: ``max_retries`` must not be set, since the venue takes a market order twice.
    - Trades and orders are asked for by the instruments that were loaded.
    - Balances are taken in before the order events that changed them, though the venue tells them after: who sizes an
      order when another was cancelled must not count on what that one had locked.
    - After the user-data stream was lost the balances are asked for as well.
    - At the start the position is what the account holds of the base currency, free and locked; so the account must be
      the strategy's own. Later, orders and trades alone tell.
    """

    def __init__(self, *, config: BinanceExecClientConfig, **given: Any) -> None:
        if config.max_retries:
            raise ValueError("max_retries must not be set: an order that was sent again may be filled twice")
        super().__init__(config=config, **given)
        self._submit_order_method = {kind: _certain(method) for kind, method in self._submit_order_method.items()}
        self._started = False
        self._told: list[bytes] = []  # order events whose balances are not known yet
        self._ahead = -1  # stamp of balances that were told before their order event, ms

    async def generate_mass_status(self, lookback_mins: int | None = None) -> ExecutionMassStatus | None:
        """Report orders and trades; the first time, what the account holds beside them as one more trade."""
        if self._started:
            return await super().generate_mass_status(lookback_mins)
        owned: dict[Any, Decimal] = {}
        for _ in range(_LOOKS):
            held, refusal = await self._balances(), None
            status = await super().generate_mass_status(lookback_mins)
            instruments = self._instrument_provider.list_all()
            try:
                owned = {one: await self.own(one, held.get(one.base_currency.code, Decimal(0))) for one in instruments}
            except LSTMStrategyError as error:
                refusal = error
            if held == await self._balances():
                break
        if refusal is not None:
            raise refusal
        self._started = True
        if status is None:
            return None
        for instrument, coins in owned.items():
            await self._require_open_orders(status, instrument)
            await self._adopt(status, instrument, coins)
        return status

    async def own(self, _instrument: Any, total: Decimal) -> Decimal:
        """Return how many of the coins that the account holds are the strategy's: all of them."""
        return total

    def is_ours(self, _client_order_id: str) -> bool:
        """Say whether an order is to be known: all of the account's are."""
        return True

    async def generate_order_status_reports(self, command: GenerateOrderStatusReports) -> list[OrderStatusReport]:
        """Report orders; one that the venue took twice under one identifier keeps it once, the open one before all."""
        reports = await super().generate_order_status_reports(command)
        named: set[str] = set()
        for report in sorted(reports, key=lambda report: not report.is_open):
            name = "" if report.client_order_id is None else report.client_order_id.value
            if name in named:
                report.client_order_id = None
            named.add(name)
        return list(reports)

    async def generate_position_status_reports(self, _: GeneratePositionStatusReports) -> list[PositionStatusReport]:
        """Report nothing: not even, as the adapter does, "flat"."""
        return []

    def _handle_execution_report(self, raw: bytes) -> None:
        stamp = self._decoder_spot_order_update.decode(raw).T
        if not self._told and stamp <= self._ahead:
            super()._handle_execution_report(raw)
            return
        if not self._told:
            self._loop.call_later(_BALANCES_FOLLOW_S, self._pass_on)
        self._told.append(raw)

    def _handle_account_update(self, raw: bytes) -> None:
        super()._handle_account_update(raw)
        self._ahead = -1 if self._told else self._decoder_spot_account_update.decode(raw).u
        self._pass_on()

    def _pass_on(self) -> None:
        told, self._told = self._told, []
        for raw in told:
            try:
                super()._handle_execution_report(raw)
            except Exception as error:
                self._log.exception(f"Error on handling {raw!r}", error)

    async def _get_binance_active_position_symbols(self, symbol: str | None = None) -> set[str]:
        loaded = {instrument.id.symbol.value for instrument in self._instrument_provider.list_all()}
        return loaded if symbol is None else loaded & {symbol}

    async def _reconcile_after_resubscribe(self) -> None:
        """Ask for balances, which the adapter does not, then for orders and trades: none of it was told meanwhile."""
        await self._update_account_state()
        await super()._reconcile_after_resubscribe()

    async def _balances(self) -> dict[str, Decimal]:
        account = await self._spot_http_account.query_spot_account_info(recv_window=str(self._recv_window))
        if not account.canTrade:
            raise LSTMStrategyError("the venue says that the account may not trade; nothing was sent")
        return {entry.asset: Decimal(entry.free) + Decimal(entry.locked) for entry in account.balances}

    async def _require_open_orders(self, status: ExecutionMassStatus, instrument: Any) -> None:
        """Refuse to start where an open order is not among the reports: the adapter takes an error for "none"."""
        resting = await self._http_account.query_open_orders(symbol=instrument.id.symbol.value)
        ours = [order.orderId for order in resting if self.is_ours(order.clientOrderId)]
        if others := [order.orderId for order in resting if order.orderId not in ours]:
            self._log.warning(f"{instrument.id}: open orders {others} are not the strategy's, and are left alone")
        missing = [order for order in ours if VenueOrderId(str(order)) not in status.order_reports]
        if missing:
            raise RuntimeError(
                f"{instrument.id}: the venue has open orders {missing} that it did not report; start again"
            )

    async def _adopt(self, status: ExecutionMassStatus, instrument: Any, held: Decimal) -> None:
        """Add the trade that brings the position that the reports make to what the account holds, at the last price."""
        change = held - position_of(status, instrument, self._cache)
        if not Quantity(abs(change), instrument.size_precision).as_decimal():
            return
        (ticker,) = await self._http_market.query_ticker_price(symbol=instrument.id.symbol.value)
        adopt(status, instrument, change, Decimal(str(ticker.price)), self.account_id, self._clock.timestamp_ns())
        self._log.warning(f"{instrument.id}: {change:+} that no order accounts for is taken into the position")


class BinanceSpotExecClientFactory(LiveExecClientFactory):
    """Makes a `CarefulSpotClient` as the adapter makes its own."""

    @staticmethod
    def create(  # type: ignore[override]
        loop: asyncio.AbstractEventLoop, name: str, config: BinanceExecClientConfig, msgbus: Any, cache: Any, clock: Any
    ) -> CarefulSpotClient:
        """Return the client; credentials not in the configuration come from the environment."""
        environment = config.environment or BinanceEnvironment.LIVE
        key = config.api_key or get_api_key(config.account_type, environment)
        secret = config.api_secret or get_api_secret(config.account_type, environment)
        shared = {"clock": clock, "account_type": config.account_type, "environment": environment}
        client = get_cached_binance_http_client(
            **shared,
            api_key=key,
            api_secret=secret,
            key_type=config.key_type,
            base_url=config.base_url_http,
            is_us=config.us,
            proxy_url=config.proxy_url,
        )
        provider = get_cached_binance_spot_instrument_provider(
            **shared, client=client, config=config.instrument_provider, venue=config.venue
        )
        made: type[CarefulSpotClient] = CarefulSpotClient
        if isinstance(config, SpotExecConfig) and config.record_dir is not None:
            from lstm_strategy.nautilus.binance_own import OwnCoinsClient

            made = OwnCoinsClient
        return made(
            **shared,
            loop=loop,
            name=name,
            client=client,
            msgbus=msgbus,
            cache=cache,
            instrument_provider=provider,
            base_url_ws=config.base_url_ws or "",  # which the adapter does not read
            config=config,
            api_key=key,
            api_secret=secret,
        )


def _certain(method: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Tell answers that say nothing of an order from those that refuse it."""

    async def submit(*given: Any) -> None:
        try:
            await method(*given)
        except BinanceError as error:
            if _says_nothing(error):
                raise OutcomeUnknownError(f"{given[0].client_order_id}: {error}") from error
            raise

    return submit


def _says_nothing(error: BinanceError) -> bool:
    told = error.message if isinstance(error.message, dict) else {}
    code, text = told.get("code"), told.get("msg")
    return isinstance(error, BinanceServerError) or code in _UNKNOWN or (code, text) == _DUPLICATE
