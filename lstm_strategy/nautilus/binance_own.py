"""The Binance spot client of a strategy that shares an account with coins of somebody's: it sees its own alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from nautilus_trader.execution.messages import GenerateFillReports, GenerateOrderStatusReports
from nautilus_trader.execution.reports import ExecutionMassStatus, FillReport, OrderStatusReport

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.binance_coins import (
    CoinsRecord,
    Held,
    SpotExecConfig,
    belongs,
    hidden,
    own_coins,
    read_records,
    traded,
    write,
)
from lstm_strategy.nautilus.binance_spot import CarefulSpotClient

__all__ = ["OwnCoinsClient"]

_PAGE = 1_000


class OwnCoinsClient(CarefulSpotClient):
    """A `CarefulSpotClient` with three differences.

    - Orders and trades that others of the account have made are not the strategy's, and are not reported.
    - Coins that are kept (`SpotExecConfig.keep`) are in no balance.
    - A start is refused where the account holds coins that nothing accounts for (`own_coins`).

    Attributes
    ----------
    refusal : LSTMStrategyError or None
        Why it cannot start.
    """

    def __init__(self, *, config: SpotExecConfig, **given: Any) -> None:
        self.refusal: LSTMStrategyError | None = None
        self._keep, self._place = config.keep, Path(config.record_dir or "")
        self._ids: dict[int, bool] = {}  # orders at the venue, and whether they are ours
        self._records: dict[str, CoinsRecord] = {}
        self._found: dict[str, CoinsRecord] = {}
        super().__init__(config=config, **given)
        self._belongs = belongs(self.trader_id.get_tag())

    async def generate_mass_status(self, lookback_mins: int | None = None) -> ExecutionMassStatus | None:
        """Report what is ours; the first time hold it against the account, and keep what was found."""
        first = not self._started
        try:
            if first:
                self._records = read_records(self._place)
            status = await super().generate_mass_status(lookback_mins)
            if first and status is not None:
                write(self._place, self._records | self._found)
        except LSTMStrategyError as error:
            self.refusal = error
            raise
        return status

    async def generate_order_status_reports(self, command: GenerateOrderStatusReports) -> list[OrderStatusReport]:
        """Report our orders."""
        found = []
        for report in await super().generate_order_status_reports(command):
            name = "" if report.client_order_id is None else report.client_order_id.value
            number = int(report.venue_order_id.value)
            ours = self.is_ours(name) if name else self._ids.get(number, True)  # one that was sent twice has lost it
            self._ids[number] = ours
            if ours:
                found.append(report)
        return found

    async def generate_fill_reports(self, command: GenerateFillReports) -> list[FillReport]:
        """Report our trades."""
        reports = await super().generate_fill_reports(command)
        for report in reports:
            await self._identify(report.instrument_id.symbol.value, {int(report.venue_order_id.value)})
        return [report for report in reports if self._ids[int(report.venue_order_id.value)]]

    def generate_account_state(self, balances: list[Any], *more: Any, **named: Any) -> None:
        """Tell balances, less what is kept."""
        super().generate_account_state(hidden(balances, self._keep), *more, **named)

    def is_ours(self, client_order_id: str) -> bool:
        """Say whether an order was sent by this trader."""
        return self._belongs(client_order_id)

    async def own(self, instrument: Any, total: Decimal) -> Decimal:
        """Return how many coins are the strategy's; raises as `own_coins` does."""
        symbol, coin = instrument.id.symbol.value, instrument.base_currency.code
        record = self._records.get(symbol)
        trades = await self._trades(symbol, record)
        await self._identify(symbol, {trade.orderId for trade in trades})
        gained = traded(trades, coin, lambda order: self._ids[order])
        (ticker,) = await self._http_market.query_ticker_price(symbol=symbol)
        least = Decimal(0) if instrument.min_notional is None else instrument.min_notional.as_decimal()
        dust = max(instrument.size_increment.as_decimal(), least / Decimal(str(ticker.price)))
        keep = self._keep.get(coin)
        ours, _ = own_coins(Held(coin, total, dust), keep, record, gained, self._place)
        last = max((trade.id or 0 for trade in trades), default=0 if record is None else record.last_trade)
        self._found[symbol] = CoinsRecord(keep=keep, own=str(ours), last_trade=last)
        return ours

    async def _trades(self, symbol: str, record: CoinsRecord | None) -> list[Any]:
        """Return all trades since the record; without one the last, from which on they count."""
        if record is None:
            return list(await self._http_account.query_user_trades(symbol=symbol, limit=1))
        found: list[Any] = []
        since = record.last_trade + 1
        while True:
            page = await self._http_account.query_user_trades(symbol=symbol, from_id=since, limit=_PAGE)
            found += page
            if len(page) < _PAGE:
                return found
            since = max(trade.id or 0 for trade in page) + 1

    async def _identify(self, symbol: str, orders: set[int]) -> None:
        """Learn whose orders are, of those that are not known yet."""
        while missing := orders - self._ids.keys():
            first = min(missing)
            page = await self._http_account.query_all_orders(symbol=symbol, order_id=first, limit=_PAGE)
            self._ids |= {order.orderId: self.is_ours(order.clientOrderId) for order in page}
            self._ids.setdefault(first, False)  # the venue does not know it any more

    def _handle_execution_report(self, raw: bytes) -> None:
        told = self._decoder_spot_order_update.decode(raw)
        if any(name and self.is_ours(name) for name in (told.c, told.C)):
            super()._handle_execution_report(raw)
