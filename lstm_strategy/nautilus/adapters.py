"""The venues as this package uses them: what each trades, its keys, its bars, and the clients that go there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import VENUES
from lstm_strategy.nautilus.venue_clients import (
    Clients,
    Wiring,
    binance_futures,
    binance_spot,
    bybit,
    hyperliquid,
    kraken,
    okx,
)

__all__ = ["ADAPTERS", "Adapter", "adapter_for", "require_keys", "require_offered"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One venue as this package uses it.

    Parameters
    ----------
    venue : str
        As instruments are named.
    kinds : tuple of str
        What is traded there through this adapter: ``spot``, ``perpetual``.
    keys, testnet_keys : tuple of str
        Environment variables that the adapter itself reads, and this package only looks for.
    intervals : str
        Bars that the venue makes, by our names.
    ping, testnet_ping : str
        Answered without a key, with any status below 500, where the venue is up.
    """

    name: str
    venue: str
    kinds: tuple[str, ...]
    keys: tuple[str, ...]
    testnet_keys: tuple[str, ...]
    intervals: str
    ping: str
    testnet_ping: str
    clients: Callable[[Wiring], Clients]


ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter(
            "binance",
            "BINANCE",
            ("spot",),
            ("BINANCE_API_KEY", "BINANCE_API_SECRET"),
            ("BINANCE_TESTNET_API_KEY", "BINANCE_TESTNET_API_SECRET"),
            "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d",
            "https://api.binance.com/api/v3/ping",
            "https://testnet.binance.vision/api/v3/ping",
            binance_spot,
        ),
        Adapter(
            "binance_futures",
            "BINANCE",
            ("perpetual",),
            ("BINANCE_API_KEY", "BINANCE_API_SECRET"),
            ("BINANCE_FUTURES_TESTNET_API_KEY", "BINANCE_FUTURES_TESTNET_API_SECRET"),
            "1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d",
            "https://fapi.binance.com/fapi/v1/ping",
            "https://testnet.binancefuture.com/fapi/v1/ping",
            binance_futures,
        ),
        Adapter(
            "bybit",
            "BYBIT",
            ("spot", "perpetual"),
            ("BYBIT_API_KEY", "BYBIT_API_SECRET"),
            ("BYBIT_TESTNET_API_KEY", "BYBIT_TESTNET_API_SECRET"),
            "1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d",
            "https://api.bybit.com/v5/market/time",
            "https://api-testnet.bybit.com/v5/market/time",
            bybit,
        ),
        Adapter(
            "okx",
            "OKX",
            ("spot", "perpetual"),
            ("OKX_API_KEY", "OKX_API_SECRET", "OKX_API_PASSPHRASE"),
            ("OKX_API_KEY", "OKX_API_SECRET", "OKX_API_PASSPHRASE"),
            "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d",
            "https://www.okx.com/api/v5/public/time",
            "https://www.okx.com/api/v5/public/time",
            okx,
        ),
        Adapter(
            "kraken",
            "KRAKEN",
            ("spot",),
            ("KRAKEN_SPOT_API_KEY", "KRAKEN_SPOT_API_SECRET"),
            (),  # spot has no test network
            "1m 5m 15m 30m 1h 4h 1d",
            "https://api.kraken.com/0/public/Time",
            "",
            kraken,
        ),
        Adapter(
            "hyperliquid",
            "HYPERLIQUID",
            ("spot", "perpetual"),
            ("HYPERLIQUID_PK",),
            ("HYPERLIQUID_TESTNET_PK",),
            "1m 3m 5m 15m 30m 1h 2h 4h 8h 12h 1d 3d",
            "https://api.hyperliquid.xyz/info",
            "https://api.hyperliquid-testnet.xyz/info",
            hyperliquid,
        ),
    )
}
"""By the name in ``live.venue``."""


def adapter_for(name: str | None, instrument_ids: tuple[str, ...], kinds: set[str], *, testnet: bool) -> Adapter:
    """Return the venue's adapter, told by the instruments where it is not named.

    Raises
    ------
    LSTMStrategyError
        Where there is none, where it is of another venue or kind of instrument, or where it has no test network.
    """
    venues = {instrument_id.rpartition(".")[2] for instrument_id in instrument_ids}
    if name is None:
        fitting = [a for a in ADAPTERS.values() if venues == {a.venue} and kinds <= set(a.kinds)]
        if not fitting:
            told = f"{'/'.join(sorted(kinds))} at {', '.join(sorted(venues))}"
            raise LSTMStrategyError(f"no adapter trades {told}; name one with live.venue: {', '.join(VENUES)}")
        adapter = fitting[0]
    else:
        adapter = ADAPTERS[name]
        if venues != {adapter.venue}:
            told = ", ".join(sorted(venues - {adapter.venue}))
            raise LSTMStrategyError(f"live.venue is {name}, whose instruments end in .{adapter.venue}, not .{told}")
        if not kinds <= set(adapter.kinds):
            told = ", ".join(sorted(kinds - set(adapter.kinds)))
            raise LSTMStrategyError(f"live.venue is {name}, which trades {', '.join(adapter.kinds)}, not {told}")
    if testnet and not adapter.testnet_ping:
        raise LSTMStrategyError(f"live.testnet is true, but {adapter.name} has no test network; practise on paper")
    return adapter


def require_offered(adapter: Adapter, timeframe: Timeframe) -> None:
    """Refuse a timeframe of which the venue makes no bars."""
    if timeframe.text not in adapter.intervals.split():
        raise LSTMStrategyError(
            f"data.timeframe is {timeframe}; {adapter.name} offers {', '.join(adapter.intervals.split())}"
        )


def require_keys(adapter: Adapter, *, testnet: bool) -> None:
    """Refuse to trade without keys in the environment; their values are looked at by the adapter alone."""
    names = adapter.testnet_keys if testnet else adapter.keys
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise LSTMStrategyError(
            f"{adapter.name} needs {' and '.join(missing)} in the environment; keys are read from nowhere else"
        )
