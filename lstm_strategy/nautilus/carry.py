"""What holding costs: a perpetual's funding and the interest on borrowed coins, charged to the simulated account."""

from __future__ import annotations

import bisect
from typing import Any

import msgspec
from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.config import ImportableActorConfig

from lstm_strategy.bars import NS_PER_YEAR, utc_day
from lstm_strategy.nautilus.engine import EngineBar, EngineInstrument, InstrumentId, Money

__all__ = ["Carried", "CarryModule", "CarryModuleConfig", "carried", "carry_module", "charges"]

_HERE = "lstm_strategy.nautilus.carry"
_KEY = "lstm_strategy.carry"


class Carried(msgspec.Struct, frozen=True):
    """What a run paid and received in quote currency, both positive, and over how many fundings of a position."""

    funding_paid: float = 0.0
    funding_received: float = 0.0
    fundings: int = 0
    interest: float = 0.0


class CarryModuleConfig(SimulationModuleConfig, frozen=True, kw_only=True):
    """Settings of `CarryModule`.

    Parameters
    ----------
    funding_ts : tuple of int
        When funding was paid, nanoseconds, rising.
    funding_rates : tuple of float
        What longs paid to shorts, as fractions of the position's value.
    borrow : float
        Interest a year on the value of a short position.
    """

    instrument_id: str
    funding_ts: tuple[int, ...] = ()
    funding_rates: tuple[float, ...] = ()
    borrow: float = 0.0


class CarryModule(SimulationModule):  # type: ignore[misc]
    """Charges whoever holds a position when funding is due, and shorts at the end of each UTC day.

    Funding due at the very close of a bar is paid by what was held up to it, not by what an order of that close leads
    to; its value is that of the last price known then (a bar's close, or an open's middle). All of it reaches the
    account with the next event of the market.
    """

    _ts: int
    _next: int
    _price: float
    _owed: float
    _told: Carried
    _charged: int

    def __init__(self, config: CarryModuleConfig) -> None:
        super().__init__(config)
        self._settings = config
        self._instrument_id = InstrumentId.from_str(config.instrument_id)
        self._start()

    @property
    def instrument(self) -> str:
        """Whose carry this is."""
        return self._settings.instrument_id

    @property
    def owed(self) -> float:
        """Interest that the account has not paid yet, in quote currency."""
        return self._owed

    @property
    def reckoned(self) -> int:
        """Until when funding and interest are reckoned, ns UTC: by the events of all instruments."""
        return self._ts

    def go_on(self, price: float, owed: float, reckoned: int) -> None:
        """Go on after a restart: with its instrument's last price, the interest owed, and until when that is known."""
        self._price, self._owed, self._ts = price, owed, reckoned
        self._next = bisect.bisect_left(self._settings.funding_ts, reckoned)

    def pre_process(self, data: Any) -> None:
        """Settle what was due before this event, at the price before it; then take its price."""
        ts, settings = int(data.ts_event), self._settings
        if self._price:
            position = self._position()
            while self._next < len(settings.funding_ts) and settings.funding_ts[self._next] < ts:
                if position:
                    self._fund(ts, -position * self._price * settings.funding_rates[self._next])
                self._next += 1
            if position < 0.0:
                self._owed += -position * self._price * settings.borrow * (ts - self._ts) / NS_PER_YEAR
            if self._owed and utc_day(ts) != utc_day(self._ts):
                self._told = msgspec.structs.replace(self._told, interest=self._told.interest + self._owed)
                self._charge(ts, -self._owed)
                self._owed = 0.0
        else:  # what was due before the first price was nobody's
            self._next = bisect.bisect_left(settings.funding_ts, ts)
        self._ts = ts
        if (data.bar_type.instrument_id if isinstance(data, EngineBar) else data.instrument_id) != self._instrument_id:
            return
        self._price = float(data.close) if isinstance(data, EngineBar) else float(data.bid_price + data.ask_price) / 2.0

    def process(self, ts_now: int) -> None:
        """Nothing: everything has happened before the event."""

    def log_diagnostics(self, logger: Any) -> None:
        """Nothing: the summary tells it."""

    def reset(self) -> None:
        """Begin anew."""
        self._start()

    def _start(self) -> None:
        self._ts, self._next, self._price, self._owed, self._told = 0, 0, 0.0, 0.0, Carried()
        self._charged = 0

    def _position(self) -> float:
        held = self.exchange.cache.positions_open(instrument_id=self._instrument_id)
        return float(sum(position.signed_qty for position in held))

    def _fund(self, ts: int, amount: float) -> None:
        told = self._told
        self._told = msgspec.structs.replace(
            told,
            funding_paid=told.funding_paid + max(-amount, 0.0),
            funding_received=told.funding_received + max(amount, 0.0),
            fundings=told.fundings + 1,
        )
        self._charge(ts, amount)

    def _charge(self, ts: int, amount: float) -> None:
        currency = self.exchange.cache.instrument(self._instrument_id).quote_currency
        self.exchange.adjust_account(Money(amount, currency))
        self.exchange.cache.add(f"{_KEY}.{self._settings.instrument_id}", msgspec.json.encode(self._told))
        self.exchange.cache.add(
            f"{_KEY}.{self._settings.instrument_id}.{self._charged}", msgspec.json.encode((ts, -amount))
        )
        self._charged += 1


def carry_module(
    instrument: EngineInstrument, funding_ts: list[int], funding_rates: list[float], borrow: float
) -> ImportableActorConfig:
    """Return the venue's setting that makes a run pay for what it holds."""
    return ImportableActorConfig(
        actor_path=f"{_HERE}:CarryModule",
        config_path=f"{_HERE}:CarryModuleConfig",
        config={
            "component_id": f"CarryModule-{instrument.id.value}",  # several names have one each
            "instrument_id": instrument.id.value,
            "funding_ts": funding_ts,
            "funding_rates": funding_rates,
            "borrow": borrow,
        },
    )


def carried(cache: Any, instrument_id: str) -> Carried:
    """Return what a finished run paid and received for one instrument; nothing where it held nothing."""
    told = cache.get(f"{_KEY}.{instrument_id}")
    return Carried() if told is None else msgspec.json.decode(told, type=Carried)


def charges(cache: Any, instrument_id: str) -> list[tuple[int, float]]:
    """Return each charge of a finished run: when it reached the account (ns), and what was paid (negative: earned)."""
    found: list[tuple[int, float]] = []
    while (told := cache.get(f"{_KEY}.{instrument_id}.{len(found)}")) is not None:
        found.append(msgspec.json.decode(told, type=tuple[int, float]))
    return found
