"""What ``[live]`` of an experiment says: which venue, paper or real money, and how a node starts and stops."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from lstm_strategy.alerts_config import AlertsConfig
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["CACHE_PASSWORD", "CACHE_PORT", "VENUES", "LiveConfig"]

VENUES = ("binance", "binance_futures", "bybit", "okx", "kraken", "hyperliquid")
"""What ``live.venue`` may be; each is one adapter of NautilusTrader (see `nautilus.adapters`)."""

CACHE_PASSWORD = "LSTM_STRATEGY_REDIS_PASSWORD"  # noqa: S105
"""Environment variable of the password for ``live.cache``, where that asks for one."""
CACHE_PORT = 6379

_TRADER = r"[A-Za-z0-9_]{1,40}-[A-Za-z0-9_]{1,20}"


class LiveConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `paper` and `live` run an experiment.

    Parameters
    ----------
    mode : "paper" or "live"
        What the experiment is meant for. Real money needs "live" here, and ``--yes-trade-real-money`` beside it.
    venue : str, optional
        One of `VENUES`; told by the instruments where not given.
    testnet : bool
        Whether the venue's test network is traded on, whose money is not real.
    account : "cash" or "margin", optional
        The kind of account; as in [backtest] where not given.
    trader_id : str, optional
        Such as ``DESK-001``; of two nodes with one only the first may run. Made of the experiment's name where None.
    start_timeout : float, optional
        Seconds to wait for a venue that cannot be reached; for ever where not given.
    history : float
        Seconds at the venue after which a request for history that was not answered is repeated.
    silence : float
        Lengths of a bar without any bar after which that is told.
    flatten_on_stop : bool
        Whether the end of the node closes its positions; orders are cancelled in any case.
    grace : float
        Seconds that this may take; with a few more for the connections the node has ended.
    follow : bool
        Whether a version of the model that is promoted while the node runs takes over (see `nautilus.swap`).
    follow_poll : float
        Wall seconds between two looks at the registry.
    shadow_bars : int
        Bars on which it must have forecast, unheard, before it does; 1 or more.
    parity_every : int
        Bars between two proofs that what is traded on is what would be made offline (see `parity`).
    keep : dict of str
        By coin, what the account holds of it that is not the strategy's: it is in no balance, and never sold. Real
        money on Binance spot (see `nautilus.binance_coins`).
    cache : str, optional
        ``redis://HOST:PORT``, or ``rediss://`` for TLS: where the engine keeps orders and positions of real money as
        well (see `nautilus.cache_database`); a password comes from the environment.
    alerts : AlertsConfig
        ``[live.alerts]``: who is told of halts, fills and troubles.
    """

    mode: Literal["paper", "live"] = "paper"
    venue: str | None = None
    testnet: bool = False
    account: Literal["cash", "margin"] | None = None
    trader_id: str | None = None
    start_timeout: float | None = None
    history: float = 30.0
    silence: float = 3.0
    flatten_on_stop: bool = False
    grace: float = 10.0
    follow: bool = False
    follow_poll: float = 30.0
    shadow_bars: int = 24
    parity_every: int = 24
    keep: dict[str, str] = msgspec.field(default_factory=dict)
    cache: str | None = None
    alerts: AlertsConfig = msgspec.field(default_factory=AlertsConfig)

    def __post_init__(self) -> None:
        if self.venue is not None and self.venue not in VENUES:
            raise LSTMStrategyError(f"live.venue is {self.venue[:40]!r}; it must be one of {', '.join(VENUES)}")
        if self.trader_id is not None and not re.fullmatch(_TRADER, self.trader_id):
            raise LSTMStrategyError(
                f"live.trader_id is {self.trader_id[:80]!r}; it must be a name and a tag, such as DESK-001"
            )
        for coin, amount in self.keep.items():
            _require_amount(coin, amount)
        if self.cache is not None:
            _require_address(self.cache)
        for name, value, least in (
            ("start_timeout", self.start_timeout, 0.0),
            ("history", self.history, 0.1),
            ("silence", self.silence, 1.0),
            ("grace", self.grace, 0.0),
            ("follow_poll", self.follow_poll, 0.1),
        ):
            if value is not None and not least <= value <= 86_400.0:
                raise LSTMStrategyError(f"live.{name} is {value}; it must be {least:g} to 86400")
        for key, bars in (("shadow_bars", self.shadow_bars), ("parity_every", self.parity_every)):
            if not 1 <= bars <= 100_000:
                raise LSTMStrategyError(f"live.{key} is {bars}; it must be 1 to 100000 bars")


def _require_amount(coin: str, amount: str) -> None:
    try:
        good = Decimal(amount).is_finite() and Decimal(amount) >= 0
    except InvalidOperation:
        good = False
    if not good or not re.fullmatch(r"[A-Z0-9]{1,20}", coin):
        raise LSTMStrategyError(
            f'live.keep says {coin[:40]!r} = {amount[:40]!r}; it must be a coin and an amount, such as BTC = "0.5"'
        )


def _require_address(text: str) -> None:
    """Refuse what is no database's address, without telling it: somebody may have put a password in."""
    try:
        parts = urlsplit(text)
        port = CACHE_PORT if parts.port is None else parts.port
        good = bool(parts.hostname) and text == f"{parts.scheme}://{parts.netloc}" and "@" not in text and port > 0
    except ValueError:
        good = False
    if not good or parts.scheme not in ("redis", "rediss"):
        raise LSTMStrategyError(
            f"live.cache must be redis://HOST:PORT, or rediss://HOST:PORT; a password belongs into {CACHE_PASSWORD}"
        )
