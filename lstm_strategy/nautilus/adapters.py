"""The venues: for each one small mapping to NautilusTrader's own adapter, imported when it is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from nautilus_trader.config import InstrumentProviderConfig

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import VENUES
from lstm_strategy.nautilus.engine import InstrumentId, Venue

__all__ = ["ADAPTERS", "Adapter", "Clients", "Wiring", "adapter_for", "require_keys", "require_offered"]


class Wiring(NamedTuple):
    """What a node's clients are made for.

    ``http`` and ``ws`` are other addresses than the venue's own, as the local exchange has; ``venue`` is the name in
    the instruments where it is not the adapter's.
    """

    instrument_ids: tuple[str, ...]
    testnet: bool = False
    http: str | None = None
    ws: str | None = None
    venue: str | None = None

    @property
    def provider(self) -> InstrumentProviderConfig:
        """Loads these instruments alone."""
        return InstrumentProviderConfig(load_ids=frozenset(map(InstrumentId.from_str, self.instrument_ids)))


class Clients(NamedTuple):
    """Configurations and factories of one venue's clients; no configuration holds a key.

    ``engine``: what else `LiveExecEngineConfig` must be set to where real orders go there.
    """

    data: Any
    data_factory: type[Any]
    execution: Any
    execution_factory: type[Any]
    engine: dict[str, Any] = {}  # noqa: RUF012


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


def _binance(futures: bool) -> Callable[[Wiring], Clients]:
    def make(wiring: Wiring) -> Clients:
        from nautilus_trader.adapters.binance import (
            BinanceAccountType,
            BinanceDataClientConfig,
            BinanceExecClientConfig,
            BinanceInstrumentProviderConfig,
            BinanceLiveDataClientFactory,
            BinanceLiveExecClientFactory,
        )
        from nautilus_trader.adapters.binance.common.enums import BinanceEnvironment

        from lstm_strategy.nautilus.binance_spot import SPOT_ENGINE, BinanceSpotExecClientFactory

        shared: dict[str, Any] = {
            "venue": Venue(wiring.venue or "BINANCE"),
            "account_type": BinanceAccountType.USDT_FUTURES if futures else BinanceAccountType.SPOT,
            "environment": BinanceEnvironment.TESTNET if wiring.testnet else BinanceEnvironment.LIVE,
            "base_url_http": wiring.http,
            "base_url_ws": wiring.ws,
            "instrument_provider": BinanceInstrumentProviderConfig(load_ids=wiring.provider.load_ids),
        }
        data = BinanceDataClientConfig(**shared), BinanceLiveDataClientFactory
        if futures:  # max_retries stays unset: a market order that was sent again may be filled twice
            execution = BinanceExecClientConfig(**shared, base_url_ws_stream=wiring.ws)
            return Clients(*data, execution, BinanceLiveExecClientFactory)
        shared["base_url_ws"] = None if wiring.ws is None else f"{wiring.ws}/ws-api/v3"
        return Clients(*data, BinanceExecClientConfig(**shared), BinanceSpotExecClientFactory, SPOT_ENGINE)

    return make


def _bybit(wiring: Wiring) -> Clients:
    from nautilus_trader.adapters.bybit import (
        BybitDataClientConfig,
        BybitEnvironment,
        BybitExecClientConfig,
        BybitLiveDataClientFactory,
        BybitLiveExecClientFactory,
        BybitProductType,
    )

    linear = any(name.partition(".")[0].endswith("-LINEAR") for name in wiring.instrument_ids)
    shared: dict[str, Any] = {
        "product_types": (BybitProductType.LINEAR if linear else BybitProductType.SPOT,),
        "environment": BybitEnvironment.TESTNET if wiring.testnet else BybitEnvironment.MAINNET,
        "base_url_http": wiring.http,
        "instrument_provider": wiring.provider,
    }
    return Clients(
        BybitDataClientConfig(**shared),
        BybitLiveDataClientFactory,
        BybitExecClientConfig(**shared, use_spot_position_reports=not linear),
        BybitLiveExecClientFactory,
    )


def _okx(wiring: Wiring) -> Clients:
    from nautilus_trader.adapters.okx import (
        OKXDataClientConfig,
        OKXExecClientConfig,
        OKXLiveDataClientFactory,
        OKXLiveExecClientFactory,
    )
    from nautilus_trader.core.nautilus_pyo3 import OKXContractType, OKXEnvironment, OKXInstrumentType

    swap = any(name.partition(".")[0].endswith("-SWAP") for name in wiring.instrument_ids)
    shared: dict[str, Any] = {
        "instrument_types": (OKXInstrumentType.SWAP if swap else OKXInstrumentType.SPOT,),
        "contract_types": (OKXContractType.LINEAR,) if swap else None,
        "environment": OKXEnvironment.DEMO if wiring.testnet else OKXEnvironment.LIVE,
        "base_url_http": wiring.http,
        "base_url_ws": wiring.ws,
        "instrument_provider": wiring.provider,
    }
    return Clients(
        OKXDataClientConfig(**shared),
        OKXLiveDataClientFactory,
        OKXExecClientConfig(**shared, use_spot_cash_position_reports=not swap),
        OKXLiveExecClientFactory,
    )


def _kraken(wiring: Wiring) -> Clients:
    from nautilus_trader.adapters.kraken import (
        KrakenDataClientConfig,
        KrakenEnvironment,
        KrakenExecClientConfig,
        KrakenLiveDataClientFactory,
        KrakenLiveExecClientFactory,
        KrakenProductType,
    )

    shared: dict[str, Any] = {
        "product_types": (KrakenProductType.SPOT,),
        "environment": KrakenEnvironment.LIVE,
        "base_url_http_spot": wiring.http,
        "base_url_ws_spot": wiring.ws,
        "instrument_provider": wiring.provider,
    }
    return Clients(
        KrakenDataClientConfig(**shared),
        KrakenLiveDataClientFactory,
        KrakenExecClientConfig(**shared, use_spot_position_reports=True),
        KrakenLiveExecClientFactory,
    )


def _hyperliquid(wiring: Wiring) -> Clients:
    from nautilus_trader.adapters.hyperliquid import (
        HyperliquidDataClientConfig,
        HyperliquidExecClientConfig,
        HyperliquidLiveDataClientFactory,
        HyperliquidLiveExecClientFactory,
        HyperliquidProductType,
    )
    from nautilus_trader.core.nautilus_pyo3 import HyperliquidEnvironment

    perpetual = any(name.partition(".")[0].endswith("-PERP") for name in wiring.instrument_ids)
    shared: dict[str, Any] = {
        "product_types": (HyperliquidProductType.PERP if perpetual else HyperliquidProductType.SPOT,),
        "environment": HyperliquidEnvironment.TESTNET if wiring.testnet else HyperliquidEnvironment.MAINNET,
        "base_url_ws": wiring.ws,
        "instrument_provider": wiring.provider,
    }
    return Clients(
        HyperliquidDataClientConfig(**shared),
        HyperliquidLiveDataClientFactory,
        HyperliquidExecClientConfig(**shared),
        HyperliquidLiveExecClientFactory,
    )


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
            _binance(futures=False),
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
            _binance(futures=True),
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
            _bybit,
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
            _okx,
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
            _kraken,
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
            _hyperliquid,
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
