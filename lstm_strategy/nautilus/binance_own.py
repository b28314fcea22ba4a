"""The Binance spot client of a strategy that shares an account with coins of somebody's: it sees its own alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from nautilus_trader.adapters.binance.common.enums import BinanceExecutionType, BinanceOrderStatus
from nautilus_trader.execution.messages import GenerateFillReports, GenerateOrderStatusReports
from nautilus_trader.execution.reports import ExecutionMassStatus, FillReport, OrderStatusReport

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.binance_coins import (
    CoinsRecord,
    Held,
    SpotExecConfig,
    belongs,
    hidden,
    locked_by,
    own_coins,
    read_records,
    traded,
    write,
)
from lstm_strategy.nautilus.binance_spot import CarefulSpotClient

__all__ = ["OwnCoinsClient"]

_PAGE = 1_000
_SETTLES_S = 5.0  # balances and the order events that changed them are told one after the other


class OwnCoinsClient(CarefulSpotClient):
    """A `CarefulSpotClient` with three differences.

    - Orders and trades that others of the account have made are not the strategy's, and are not reported.
    - Coins that are kept (`SpotExecConfig.keep`) are in no balance.
    - A start is refused where the account holds coins that nothing accounts for (`own_coins`).

    Attributes
    ----------
    refusal : LSTMStrategyError or None
        Why it cannot start.
    said : list of str
        What a person should know, of coins that are missing while it runs.
    """

    def __init__(self, *, config: SpotExecConfig, **given: Any) -> None:
        self.refusal: LSTMStrategyError | None = None
        self._keep, self._place = config.keep, Path(config.record_dir or "")
        self._ids: dict[int, bool] = {}  # orders at the venue, and whether they are ours
        self._records: dict[str, CoinsRecord] = {}
        self._found: dict[str, CoinsRecord] = {}
        self.said: list[str] = []
        self._dust: dict[str, Decimal] = {}
        self._totals: dict[str, Decimal] = {}
        self._short: set[str] = set()
        self._left: dict[str, Decimal] = {}  # of orders: what the venue has told of them, and the engine may not know
        self._last_told: tuple[tuple[Any, ...], dict[str, Any]] | None = None
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
                self._loop.call_later(_SETTLES_S, self._tell_balances)  # when the engine knows what was reported
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
        self._last_told = (balances, *more), named
        ours: dict[str, Decimal] | None = None
        if self._started:  # before that the engine knows no order
            alive = [*self._cache.orders_open(self.venue), *self._cache.orders_inflight(self.venue)]
            orders = {order.client_order_id.value: order for order in alive}
            self._left = {name: left for name, left in self._left.items() if name in orders}
            ours = locked_by(orders.values(), self._left, self._instrument_provider.find)
        self._totals |= {balance.currency.code: balance.total.as_decimal() for balance in balances}
        if self._started and not self._keep.keys().isdisjoint(balance.currency.code for balance in balances):
            self._loop.call_later(_SETTLES_S, self._look_for_missing)
        super().generate_account_state(hidden(balances, self._keep, ours), *more, **named)

    def _tell_balances(self) -> None:
        """Tell them anew: what our own orders lock of them has changed, or is known only now."""
        if self._last_told is not None:
            given, named = self._last_told
            self.generate_account_state(*given, **named)

    def _look_for_missing(self) -> None:
        """Say once that the account holds less than what is kept and the strategy's position."""
        for instrument in self._instrument_provider.list_all():
            coin = instrument.base_currency.code
            if coin not in self._keep or self._told:
                continue
            positions = self._cache.positions_open(instrument_id=instrument.id)
            held = sum((position.signed_decimal_qty() for position in positions), Decimal(0))
            total, wanted = self._totals.get(coin, Decimal(0)), Decimal(self._keep[coin]) + max(held, Decimal(0))
            if total >= wanted - self._dust.get(coin, Decimal(0)):
                self._short.discard(coin)
            elif coin not in self._short:
                self._short.add(coin)
                text = (
                    f"the account holds {total} {coin}, less than the {self._keep[coin]} that live.keep leaves alone"
                    f" and the position of {held}: the position cannot be protected or closed whole; give the coins"
                    f" back, or correct live.keep.{coin} and start again"
                )
                self._log.warning(text)
                self.said.append(text)

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
        self._dust[coin] = dust
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
        if not any(name and self.is_ours(name) for name in (told.c, told.C)):
            return
        rests = told.X in (BinanceOrderStatus.NEW, BinanceOrderStatus.PARTIALLY_FILLED)
        name = told.C if told.C and told.x == BinanceExecutionType.CANCELED else told.c or told.C
        self._left[name] = Decimal(told.q) - Decimal(told.z) if rests else Decimal(0)
        if not self._told and self._ahead >= told.T:  # its balances were told before it
            self._tell_balances()
        super()._handle_execution_report(raw)
