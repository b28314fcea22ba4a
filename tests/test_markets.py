"""Markets: CCXT's words for them into NautilusTrader's, on samples in the shape of each venue's reply."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt
import msgspec
import pytest

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.catalog import read_catalog, write_catalog
from lstm_strategy.nautilus.engine import CryptoPerpetual, CurrencyPair
from lstm_strategy.nautilus.instruments import from_engine, to_engine
from lstm_strategy.sources.ccxt_markets import find_market, instrument_id_of, instrument_of
from lstm_strategy.sources.simulate import SimulationConfig, simulate
from lstm_strategy.sources.store import RawStore

# Replies made by hand in each venue's shape, one market of a kind, put through CCXT's own parser.
BINANCE_SPOT = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "baseAssetPrecision": 8,
    "quoteAsset": "USDT",
    "quotePrecision": 8,
    "quoteAssetPrecision": 8,
    "orderTypes": ["LIMIT", "MARKET"],
    "isSpotTradingAllowed": True,
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True, "maxNotional": "9000000.0"},
    ],
    "permissions": ["SPOT"],
}
BINANCE_LINEAR = {
    "symbol": "BTCUSDT",
    "pair": "BTCUSDT",
    "contractType": "PERPETUAL",
    "deliveryDate": 4133404800000,
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "marginAsset": "USDT",
    "pricePrecision": 2,
    "quantityPrecision": 3,
    "orderTypes": ["LIMIT", "MARKET"],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "556.80", "maxPrice": "4529764", "tickSize": "0.10"},
        {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
        {"filterType": "MIN_NOTIONAL", "notional": "100"},
    ],
}
BINANCE_INVERSE = {
    "symbol": "BTCUSD_PERP",
    "pair": "BTCUSD",
    "contractType": "PERPETUAL",
    "deliveryDate": 4133404800000,
    "contractStatus": "TRADING",
    "contractSize": 100,
    "baseAsset": "BTC",
    "quoteAsset": "USD",
    "marginAsset": "BTC",
    "pricePrecision": 1,
    "quantityPrecision": 0,
    "orderTypes": ["LIMIT", "MARKET"],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "1000", "maxPrice": "4520958", "tickSize": "0.1"},
        {"filterType": "LOT_SIZE", "minQty": "1", "maxQty": "1000000", "stepSize": "1"},
    ],
}
OKX_SPOT = {
    **{"instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "settleCcy": "", "ctVal": ""},
    **{"ctMult": "", "ctValCcy": "", "ctType": "", "tickSz": "0.1", "lotSz": "0.00000001", "minSz": "0.00001"},
    **{"state": "live", "listTime": "1548133413000", "expTime": "", "alias": "", "optType": "", "stk": "", "uly": ""},
    **{"lever": "10", "category": "1", "maxLmtSz": "9999999999", "maxMktSz": "1000000"},
}
OKX_LINEAR = OKX_SPOT | {
    **{"instType": "SWAP", "instId": "BTC-USDT-SWAP", "baseCcy": "", "quoteCcy": "", "settleCcy": "USDT"},
    **{"uly": "BTC-USDT", "ctVal": "0.01", "ctMult": "1", "ctValCcy": "BTC", "ctType": "linear", "lotSz": "0.01"},
    **{"minSz": "0.01", "lever": "100"},
}
OKX_INVERSE = OKX_LINEAR | {
    **{"instId": "BTC-USD-SWAP", "settleCcy": "BTC", "uly": "BTC-USD", "ctVal": "100", "ctValCcy": "USD"},
    **{"ctType": "inverse", "lotSz": "0.1", "minSz": "0.1"},
}


def made(exchange: str, symbol: str, native: str, kind: str, **told: Any) -> dict[str, Any]:
    """A market in the shape of CCXT's own structure."""
    base, _, rest = symbol.partition("/")
    quote, _, settle = rest.partition(":")
    return {
        "id": native,
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "settle": settle or None,
        "type": kind,
        "spot": kind == "spot",
        "swap": kind == "swap",
        "linear": (quote == settle) if settle else None,
        "inverse": (base == settle) if settle else None,
        "contractSize": 1.0 if settle else None,
        "taker": 0.0006,
        "maker": 0.0001,
        "precision": {"price": 0.1, "amount": 0.001},
        "limits": {"amount": {"min": 0.001, "max": 100.0}, "cost": {"min": 5.0, "max": None}},
        "info": {},
    } | told


def parsed(exchange: str, reply: dict[str, Any]) -> dict[str, Any]:
    """One market by CCXT's parser of that venue, completed as `load_markets` does."""
    venue = getattr(ccxt, exchange)()
    venue.options |= {"crossMarginPairsData": [], "isolatedMarginPairsData": []}
    market = venue.parse_market(reply)
    return dict(next(iter(venue.set_markets([market]).values())))


TABLE = [
    ("binance", parsed("binance", BINANCE_SPOT), "BTCUSDT.BINANCE", "BTC/USDT"),
    ("binance", parsed("binance", BINANCE_LINEAR), "BTCUSDT-PERP.BINANCE", "BTC/USDT:USDT"),
    ("binance", parsed("binance", BINANCE_INVERSE), "BTCUSD-PERP.BINANCE", "BTC/USD:BTC"),
    ("bybit", made("bybit", "BTC/USDT", "BTCUSDT", "spot"), "BTCUSDT-SPOT.BYBIT", "BTC/USDT"),
    ("bybit", made("bybit", "BTC/USDT:USDT", "BTCUSDT", "swap"), "BTCUSDT-LINEAR.BYBIT", "BTC/USDT:USDT"),
    ("bybit", made("bybit", "BTC/USD:BTC", "BTCUSD", "swap"), "BTCUSD-INVERSE.BYBIT", "BTC/USD:BTC"),
    ("okx", parsed("okx", OKX_SPOT), "BTC-USDT.OKX", "BTC/USDT"),
    ("okx", parsed("okx", OKX_LINEAR), "BTC-USDT-SWAP.OKX", "BTC/USDT:USDT"),
    ("okx", parsed("okx", OKX_INVERSE), "BTC-USD-SWAP.OKX", "BTC/USD:BTC"),
    ("kraken", made("kraken", "BTC/USD", "XXBTZUSD", "spot"), "BTC/USD.KRAKEN", "BTC/USD"),
    ("krakenfutures", made("k", "BTC/USD:USD", "PF_XBTUSD", "swap"), "PF_XBTUSD.KRAKEN", "BTC/USD:USD"),
    ("krakenfutures", made("k", "BTC/USD:BTC", "PI_XBTUSD", "swap"), "PI_XBTUSD.KRAKEN", "BTC/USD:BTC"),
    ("coinbase", made("coinbase", "BTC/USD", "BTC-USD", "spot"), "BTC-USD.COINBASE", "BTC/USD"),
    ("coinbaseexchange", made("c", "ETH/USDC", "ETH-USDC", "spot"), "ETH-USDC.COINBASE", "ETH/USDC"),
    (
        "hyperliquid",
        made("h", "BTC/USDC:USDC", "0", "swap", info={"name": "BTC"}),
        "BTC-USD-PERP.HYPERLIQUID",
        "BTC/USDC:USDC",
    ),
    (
        "hyperliquid",
        made("h", "XYZ-TSLA/USDC:USDC", "110001", "swap", info={"name": "xyz:TSLA"}),
        "xyz:TSLA-USD-PERP.HYPERLIQUID",
        "XYZ-TSLA/USDC:USDC",
    ),
    ("hyperliquid", made("h", "PURR/USDC", "PURR/USDC", "spot"), "PURR-USDC-SPOT.HYPERLIQUID", "PURR/USDC"),
    ("gate", made("gate", "BTC/USDT:USDT", "BTC_USDT", "swap"), "BTC_USDT-PERP.GATE", "BTC/USDT:USDT"),
]


@pytest.mark.parametrize(("exchange", "market", "instrument_id", "symbol"), TABLE, ids=[row[2] for row in TABLE])
def test_names_both_ways(exchange: str, market: dict[str, Any], instrument_id: str, symbol: str) -> None:
    assert (instrument_id_of(exchange, market), market["symbol"]) == (instrument_id, symbol)
    markets = {row[3]: row[1] for row in TABLE if row[0] == exchange}
    kind = "spot" if market["spot"] else "swap"
    for name in (symbol, instrument_id, instrument_id.rpartition(".")[0]):
        assert find_market(exchange, markets, name, kind)["symbol"] == symbol


@pytest.mark.parametrize(("exchange", "market", "instrument_id", "symbol"), TABLE, ids=[row[2] for row in TABLE])
def test_the_engine_takes_every_one(exchange: str, market: dict[str, Any], instrument_id: str, symbol: str) -> None:
    mode = getattr(ccxt, exchange)().precisionMode
    instrument = instrument_of(exchange, market, mode, 0)
    assert msgspec.json.decode(msgspec.json.encode(instrument), type=Instrument) == instrument
    engine = to_engine(instrument)
    assert engine.id.value == instrument_id
    assert isinstance(engine, CurrencyPair if market["spot"] else CryptoPerpetual)
    if instrument.inverse or Decimal(instrument.multiplier) != 1:
        with pytest.raises(LSTMStrategyError, match=r"inverse: its contract is|a contract; orders are sized"):
            from_engine(engine)
    else:
        assert from_engine(engine) == instrument


def test_what_binance_says_of_bitcoin() -> None:
    spot, linear, inverse = (instrument_of("binance", row[1], 4, 2) for row in TABLE[:3])
    assert msgspec.structs.asdict(spot) == {
        **{"id": "BTCUSDT.BINANCE", "kind": "spot", "base": "BTC", "quote": "USDT", "tick": "0.01", "lot": "0.00001"},
        **{"min_quantity": "0.00001", "max_quantity": "9000", "min_notional": 5.0, "maker_fee": 0.001},
        **{"taker_fee": 0.001, "inverse": False, "multiplier": "1", "settle": None, "price_decimals": None},
    }
    assert (linear.tick, linear.lot, linear.min_notional, linear.price_decimals) == ("0.1", "0.001", 100.0, 2)
    assert (inverse.inverse, inverse.multiplier, inverse.settle, inverse.lot) == (True, "100", "BTC", "1")
    engine = to_engine(inverse)
    assert (engine.is_inverse, str(engine.multiplier), engine.settlement_currency.code) == (True, "100", "BTC")


def test_okx_contracts_are_a_hundredth_of_a_bitcoin() -> None:
    instrument = instrument_of("okx", TABLE[7][1], 4, 1)
    assert (instrument.multiplier, instrument.lot, instrument.inverse) == ("0.01", "0.01", False)
    with pytest.raises(LSTMStrategyError, match=r"BTC-USDT-SWAP.OKX is of 0.01 BTC a contract; orders are sized for"):
        from_engine(to_engine(instrument))


@pytest.mark.parametrize(
    ("mode", "precision", "decimals", "tick", "lot", "history"),
    [
        (4, {"price": 0.01, "amount": 1e-8}, 2, "0.01", "0.00000001", None),
        (4, {"price": "0.5", "amount": "10"}, 1, "0.5", "10", None),
        (4, {"price": 0.01, "amount": 0.1}, 4, "0.01", "0.1", 4),
        (2, {"price": 2, "amount": 8}, 2, "0.01", "0.00000001", None),
        (2, {"price": 0, "amount": -2}, 0, "1", "100", None),
        (3, {"price": 5, "amount": 3}, 6, "0.000001", "0.001", None),
        (4, {"price": None, "amount": 0.1}, 3, "0.001", "0.1", None),
        (4, {"price": 0.1, "amount": None}, 1, "0.1", "0.25", None),
    ],
)
def test_the_three_ways_of_precision(
    mode: int, precision: dict[str, Any], decimals: int, tick: str, lot: str, history: int | None
) -> None:
    limits = {"amount": {"min": 0.25, "max": None}, "cost": {"min": None, "max": None}}
    market = made("any", "A/B", "AB", "spot", precision=precision, limits=limits)
    instrument = instrument_of("any", market, mode, decimals)
    assert (instrument.tick, instrument.lot, instrument.price_decimals) == (tick, lot, history)
    assert Decimal(instrument.min_quantity or 0) % Decimal(lot) == 0
    assert Decimal(instrument.min_quantity or 0) >= Decimal("0.25")


def test_a_tick_that_was_finer_once_carries_its_history(tmp_path: Path) -> None:
    config = SimulationConfig(instrument_id="ABUSDT.ANY", tick="0.0001", bars=50)
    bars = simulate(config)
    market = made("any", "AB/USDT", "ABUSDT", "spot", precision={"price": 0.01, "amount": 0.001})
    instrument = instrument_of("any", market, 4, 4)
    write_catalog(tmp_path, bars, instrument)
    assert list(read_catalog(tmp_path, "ABUSDT.ANY", bars.timeframe)) == list(bars)
    assert from_engine(to_engine(instrument)) == instrument
    assert to_engine(instrument).price_increment.as_decimal() == Decimal("0.01")


def test_a_slash_in_the_name_goes_all_the_way(tmp_path: Path) -> None:
    from nautilus_trader.model.data import Bar
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    bars = simulate(SimulationConfig(instrument_id="BTC/USD.KRAKEN", tick="0.1", bars=50))
    instrument = instrument_of("kraken", made("kraken", "BTC/USD", "XXBTZUSD", "spot"), 4, 1)
    store = RawStore(tmp_path)
    store.merge(bars)
    store.write_instrument(instrument)
    write_catalog(tmp_path, store.read("BTC/USD.KRAKEN", bars.timeframe), store.read_instrument("BTC/USD.KRAKEN"))
    assert list(read_catalog(tmp_path, "BTC/USD.KRAKEN", bars.timeframe)) == list(bars)
    theirs = ParquetDataCatalog(tmp_path).query(Bar, identifiers=["BTC/USD.KRAKEN-1-HOUR-LAST-EXTERNAL"])
    assert len(theirs) == 50
    assert ParquetDataCatalog(tmp_path).instruments(instrument_ids=["BTC/USD.KRAKEN"])[0].id.value == "BTC/USD.KRAKEN"


@pytest.mark.parametrize(
    ("wanted", "kind", "problem"),
    [
        ("BTC/USTD", "spot", r"binance has no spot market 'BTC/USTD' among its 1; near it are BTC/USDT"),
        ("BTC/USDT:USDT", "spot", r"BTC/USDT:USDT is there with --market swap"),
        ("DOGE/EUR", "swap", r"binance has no swap market 'DOGE/EUR' among its 2$"),
    ],
)
def test_a_wrong_symbol_is_told_its_neighbours(wanted: str, kind: Any, problem: str) -> None:
    markets = {row[3]: row[1] for row in TABLE if row[0] == "binance"}
    with pytest.raises(LSTMStrategyError, match=problem):
        find_market("binance", markets, wanted, kind)


def test_an_old_description_reads_on(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    folder = store.market_folder("A.B")
    folder.mkdir(parents=True)
    folder.joinpath("instrument.json").write_text(
        '{"id": "A.B", "kind": "spot", "base": "A", "quote": "B", "tick": "0.1", "lot": "1", "min_quantity": null,'
        ' "max_quantity": null, "min_notional": null, "maker_fee": 0.001, "taker_fee": 0.001}'
    )
    assert store.read_instrument("A.B") == Instrument(id="A.B", kind="spot", base="A", quote="B", tick="0.1", lot="1")


@pytest.mark.parametrize(
    "told", [{"swap": False, "spot": False, "type": "future"}, {"precision": {}, "limits": {}}, {"id": "../x"}]
)
def test_what_is_no_market_of_ours_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(LSTMStrategyError, match=r"A/B"):
        instrument_of("any", made("any", "A/B", "AB", "spot", **told), 4, 2)
