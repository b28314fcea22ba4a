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
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.messages import GeneratePositionStatusReports
from nautilus_trader.execution.reports import ExecutionMassStatus, PositionStatusReport
from nautilus_trader.live.factories import LiveExecClientFactory
from nautilus_trader.model.enums import PositionSide
from nautilus_trader.model.objects import Quantity

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
_LOOKS = 3  # at orders and balances, until the latter stood still meanwhile


class OutcomeUnknownError(Exception):
    """Whether an order stands is not known: it stays in flight, and the engine asks the venue for it."""


class CarefulSpotClient(BinanceSpotExecutionClient):
    """The adapter's client, with four differences.

    - An order whose outcome is unknown stays in flight until the engine's own check has asked for it, and is not sent
      again: ``max_retries`` must not be set, since the venue takes a market order twice.
    - Trades and orders are asked for by the instruments that were loaded.
    - After the user-data stream was lost the balances are asked for as well.
    - At the start the position is what the account holds of the base currency, free and locked; so the account must be
      the strategy's own. Later, orders and trades alone tell.
    """

    def __init__(self, *, config: BinanceExecClientConfig, **given: Any) -> None:
        if config.max_retries:
            raise ValueError("max_retries must not be set: an order that was sent again may be filled twice")
        super().__init__(config=config, **given)
        self._submit_order_method = {kind: _certain(method) for kind, method in self._submit_order_method.items()}
        self._held: dict[str, Decimal] | None = None  # by currency, while the first reports are made
        self._started = False

    async def generate_mass_status(self, lookback_mins: int | None = None) -> ExecutionMassStatus | None:
        """Report orders and trades, the first time with positions that were the same before and after them."""
        if self._started:
            return await super().generate_mass_status(lookback_mins)
        status = None
        for _ in range(_LOOKS):
            self._held = await self._balances()
            status = await super().generate_mass_status(lookback_mins)
            if self._held == await self._balances():
                break
        self._held, self._started = None, True
        return status

    async def generate_position_status_reports(
        self, command: GeneratePositionStatusReports
    ) -> list[PositionStatusReport]:
        """Report what the account holds while it starts, and nothing later: not even, as the adapter does, "flat"."""
        held = self._held
        if held is None:
            return []
        reports = []
        for instrument in self._instrument_provider.list_all():
            quantity = held.get(instrument.base_currency.code, Decimal(0))
            trades = await self._http_account.query_user_trades(symbol=instrument.id.symbol.value)
            now = self._clock.timestamp_ns()
            reports.append(
                PositionStatusReport(
                    account_id=self.account_id,
                    instrument_id=instrument.id,
                    position_side=PositionSide.LONG if quantity else PositionSide.FLAT,
                    quantity=Quantity(quantity, instrument.size_precision),
                    avg_px_open=None if trades or not quantity else await self._last_price(instrument.id.symbol.value),
                    report_id=UUID4(),
                    ts_last=now,
                    ts_init=now,
                )
            )
        return reports

    async def _get_binance_active_position_symbols(self, symbol: str | None = None) -> set[str]:
        loaded = {instrument.id.symbol.value for instrument in self._instrument_provider.list_all()}
        return loaded if symbol is None else loaded & {symbol}

    async def _reconcile_after_resubscribe(self) -> None:
        """Ask for orders, trades and, as the adapter does not, for the balances: none of it was told meanwhile."""
        await super()._reconcile_after_resubscribe()
        await self._update_account_state()

    async def _balances(self) -> dict[str, Decimal]:
        account = await self._spot_http_account.query_spot_account_info(recv_window=str(self._recv_window))
        return {entry.asset: Decimal(entry.free) + Decimal(entry.locked) for entry in account.balances}

    async def _last_price(self, symbol: str) -> Decimal:
        """Return the price to count from where no trade tells of another: coins that were there before."""
        (ticker,) = await self._http_market.query_ticker_price(symbol=symbol)
        return Decimal(str(ticker.price))


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
        return CarefulSpotClient(
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
