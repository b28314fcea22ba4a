"""The venues' clients: NautilusTrader's own configurations and factories of each, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from nautilus_trader.config import InstrumentProviderConfig

from lstm_strategy.nautilus.engine import InstrumentId, Venue

__all__ = ["Clients", "Wiring", "binance_futures", "binance_spot", "bybit", "hyperliquid", "kraken", "okx"]


class Wiring(NamedTuple):
    """What a node's clients are made for.

    ``http`` and ``ws`` are other addresses than the venue's own, as the local exchange has; ``venue`` is the name in
    the instruments where it is not the adapter's. ``keep`` and ``record_dir``: whose the coins of a spot account are
    (see `binance_coins`).
    """

    instrument_ids: tuple[str, ...]
    testnet: bool = False
    http: str | None = None
    ws: str | None = None
    venue: str | None = None
    keep: dict[str, str] = {}  # noqa: RUF012
    record_dir: str | None = None

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


def binance_spot(wiring: Wiring) -> Clients:
    """Return Binance's own data client, and our execution client of spot orders."""
    from nautilus_trader.adapters.binance import (
        BinanceAccountType,
        BinanceDataClientConfig,
        BinanceLiveDataClientFactory,
    )

    from lstm_strategy.nautilus.binance_coins import SpotExecConfig
    from lstm_strategy.nautilus.binance_spot import SPOT_ENGINE, BinanceSpotExecClientFactory

    shared = _binance(wiring, BinanceAccountType.SPOT)
    data = BinanceDataClientConfig(**shared)
    shared["base_url_ws"] = None if wiring.ws is None else f"{wiring.ws}/ws-api/v3"
    execution = SpotExecConfig(**shared, keep=wiring.keep, record_dir=wiring.record_dir)
    return Clients(data, BinanceLiveDataClientFactory, execution, BinanceSpotExecClientFactory, SPOT_ENGINE)


def binance_futures(wiring: Wiring) -> Clients:
    """Return Binance's clients of USDⓈ-M; max_retries stays unset: an order that was sent again may be filled twice."""
    from nautilus_trader.adapters.binance import BinanceAccountType

    return _named_alike("Binance", _binance(wiring, BinanceAccountType.USDT_FUTURES), base_url_ws_stream=wiring.ws)


def _binance(wiring: Wiring, account_type: Any) -> dict[str, Any]:
    from nautilus_trader.adapters.binance import BinanceInstrumentProviderConfig
    from nautilus_trader.adapters.binance.common.enums import BinanceEnvironment

    return {
        "venue": Venue(wiring.venue or "BINANCE"),
        "account_type": account_type,
        "environment": BinanceEnvironment.TESTNET if wiring.testnet else BinanceEnvironment.LIVE,
        "base_url_http": wiring.http,
        "base_url_ws": wiring.ws,
        "instrument_provider": BinanceInstrumentProviderConfig(load_ids=wiring.provider.load_ids),
    }


def bybit(wiring: Wiring) -> Clients:
    """Return Bybit's clients, of spot or linear contracts."""
    from nautilus_trader.adapters.bybit import BybitEnvironment, BybitProductType

    linear = _any_named(wiring, "-LINEAR")
    shared = {
        "product_types": (BybitProductType.LINEAR if linear else BybitProductType.SPOT,),
        "environment": BybitEnvironment.TESTNET if wiring.testnet else BybitEnvironment.MAINNET,
        "base_url_http": wiring.http,
        "instrument_provider": wiring.provider,
    }
    return _named_alike("Bybit", shared, use_spot_position_reports=not linear)


def okx(wiring: Wiring) -> Clients:
    """Return OKX's clients, of spot or linear swaps."""
    from nautilus_trader.core.nautilus_pyo3 import OKXContractType, OKXEnvironment, OKXInstrumentType

    swap = _any_named(wiring, "-SWAP")
    shared = {
        "instrument_types": (OKXInstrumentType.SWAP if swap else OKXInstrumentType.SPOT,),
        "contract_types": (OKXContractType.LINEAR,) if swap else None,
        "environment": OKXEnvironment.DEMO if wiring.testnet else OKXEnvironment.LIVE,
        "base_url_http": wiring.http,
        "base_url_ws": wiring.ws,
        "instrument_provider": wiring.provider,
    }
    return _named_alike("OKX", shared, use_spot_cash_position_reports=not swap)


def kraken(wiring: Wiring) -> Clients:
    """Return Kraken's clients of spot."""
    from nautilus_trader.adapters.kraken import KrakenEnvironment, KrakenProductType

    shared = {
        "product_types": (KrakenProductType.SPOT,),
        "environment": KrakenEnvironment.LIVE,
        "base_url_http_spot": wiring.http,
        "base_url_ws_spot": wiring.ws,
        "instrument_provider": wiring.provider,
    }
    return _named_alike("Kraken", shared, use_spot_position_reports=True)


def hyperliquid(wiring: Wiring) -> Clients:
    """Return Hyperliquid's clients, of spot or perpetuals."""
    from nautilus_trader.adapters.hyperliquid import HyperliquidProductType
    from nautilus_trader.core.nautilus_pyo3 import HyperliquidEnvironment

    perpetual = _any_named(wiring, "-PERP")
    shared = {
        "product_types": (HyperliquidProductType.PERP if perpetual else HyperliquidProductType.SPOT,),
        "environment": HyperliquidEnvironment.TESTNET if wiring.testnet else HyperliquidEnvironment.MAINNET,
        "base_url_ws": wiring.ws,
        "instrument_provider": wiring.provider,
    }
    return _named_alike("Hyperliquid", shared)


def _named_alike(prefix: str, shared: dict[str, Any], **execution: Any) -> Clients:
    """Return the clients of an adapter that calls them ``<prefix>DataClientConfig`` and so on, as most of them do."""
    package = import_module(f"nautilus_trader.adapters.{prefix.lower()}")
    return Clients(
        getattr(package, f"{prefix}DataClientConfig")(**shared),
        getattr(package, f"{prefix}LiveDataClientFactory"),
        getattr(package, f"{prefix}ExecClientConfig")(**shared, **execution),
        getattr(package, f"{prefix}LiveExecClientFactory"),
    )


def _any_named(wiring: Wiring, suffix: str) -> bool:
    """Say whether a symbol ends so, by which these venues tell their perpetuals."""
    return any(name.partition(".")[0].endswith(suffix) for name in wiring.instrument_ids)
