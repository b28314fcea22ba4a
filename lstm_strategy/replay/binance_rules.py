"""The rules of Binance's markets: ``exchangeInfo`` from a saved reply where there is one, else from the instruments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.market import Market
from lstm_strategy.sources.instruments import step_decimals

__all__ = ["exchange_info", "load_exchange_info"]

_LARGEST = 64 << 20  # bytes; the whole of Binance is 20 MB
_RATE_LIMITS = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
    {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200000},
]
_SPOT_ORDERS = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"]
_FUTURES_ORDERS = ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"]
_MOST = "9000000.00000000"


def load_exchange_info(path: Path) -> dict[str, dict[str, Any]]:
    """Return the symbols of a saved ``exchangeInfo`` reply by name.

    Raises
    ------
    LSTMStrategyError
        Where the file is none.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise LSTMStrategyError(f"{path}: larger than {_LARGEST:,} bytes; this is no saved exchangeInfo reply")
        document = msgspec.json.decode(path.read_bytes())
        return {str(entry["symbol"]): entry for entry in document["symbols"]}
    except OSError as error:
        raise LSTMStrategyError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise LSTMStrategyError(f"{path}: not a saved exchangeInfo reply of Binance ({error})") from error


def exchange_info(markets: Sequence[Market], server_ms: int, saved: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the reply for these markets; a spot market that was saved has its saved rules."""
    return {
        "timezone": "UTC",
        "serverTime": server_ms,
        "rateLimits": _RATE_LIMITS,
        "exchangeFilters": [],
        "symbols": [
            _futures(market) if market.perpetual else saved.get(market.symbol) or _spot(market) for market in markets
        ],
    }


def _spot(market: Market) -> dict[str, Any]:
    instrument = market.instrument
    return {
        "symbol": market.symbol,
        "status": "TRADING",
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _SPOT_ORDERS,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            *_steps(market),
            {
                "filterType": "NOTIONAL",
                "minNotional": f"{instrument.min_notional or 0.0:.8f}",
                "applyMinToMarket": True,
                "maxNotional": _MOST,
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _futures(market: Market) -> dict[str, Any]:
    instrument = market.instrument
    return {
        "symbol": market.symbol,
        "pair": market.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": int(market.base.opened[0]) // 1_000_000,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": instrument.base,
        "quoteAsset": instrument.quote,
        "marginAsset": instrument.quote,
        "pricePrecision": step_decimals(instrument.tick),
        "quantityPrecision": step_decimals(instrument.lot),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            *_steps(market),
            {"filterType": "MIN_NOTIONAL", "notional": f"{instrument.min_notional or 0.0:g}"},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        ],
        "orderTypes": _FUTURES_ORDERS,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def _steps(market: Market) -> list[dict[str, str]]:
    instrument = market.instrument
    tick, lot = _eight(instrument.tick), _eight(instrument.lot)
    least = _eight(instrument.min_quantity or instrument.lot)
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
        {
            "filterType": "LOT_SIZE",
            "minQty": least,
            "maxQty": _eight(instrument.max_quantity or _MOST),
            "stepSize": lot,
        },
    ]


def _eight(step: str) -> str:
    return f"{float(step):.8f}"
