"""What a download is to bring and what it still lacks, told from what is held, without asking anybody."""

from __future__ import annotations

import time

import msgspec

from lstm_strategy.bars import NS_PER_DAY, Timeframe, format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.ccxt_config import ClientConfig
from lstm_strategy.sources.ccxt_markets import MarketKind, venue_of
from lstm_strategy.sources.holes import VenueHole, read_holes, spans_of
from lstm_strategy.sources.spans import Spans
from lstm_strategy.sources.store import RawStore

__all__ = [
    "FIRST",
    "SOURCE",
    "DownloadConfig",
    "Downloaded",
    "Planned",
    "Source",
    "held_of",
    "plan",
    "require_origin",
    "told",
    "wanted_of",
]

FIRST = "2009-01-03"  # no coin is older
SOURCE = "source.json"
_REPAIRS = 3  # runs that asked for a hole in vain before `repair` leaves it for a day
_REST_NS = NS_PER_DAY


class DownloadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to download: bars that open at ``since`` or later and close by ``until`` (ISO dates; None: by now).

    Without ``since`` from the first bar held on. ``repair``: ask again for holes recorded as the venue's, and for all
    others from the first bar held on.
    """

    client: ClientConfig
    symbols: tuple[str, ...]
    timeframe: str = "1h"
    since: str | None = None
    until: str | None = None
    funding: bool = False
    repair: bool = False

    def __post_init__(self) -> None:
        Timeframe.parse(self.timeframe)
        if not self.symbols:
            raise LSTMStrategyError("name at least one symbol, such as BTC/USDT")
        if self.funding and self.client.market != "swap":
            raise LSTMStrategyError("only swaps have funding rates; add --market swap or leave --funding out")
        if self.since and self.until and parse_ns(self.since) >= parse_ns(self.until):
            raise LSTMStrategyError(f"--since {self.since} is not before --until {self.until}")
        if self.since and parse_ns(self.since) > time.time_ns():
            raise LSTMStrategyError(f"--since {self.since} lies in the future")


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What one symbol still lacks, as far as that is known without asking: spans of opening times."""

    symbol: str
    instrument: str | None
    held: int
    missing: list[tuple[str, str]]
    bars: int


class Downloaded(msgspec.Struct, kw_only=True):
    """What became of one symbol. ``holes``: what the venue does not have; ``withheld``: has, but does not give.

    ``requests`` and ``retries`` are those of the whole run, since its markets share one client.
    """

    symbol: str
    instrument: str
    timeframe: str
    added: int = 0
    held: int = 0
    first: str | None = None
    last: str | None = None
    pages: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0
    holes: int = 0
    hole_bars: int = 0
    withheld: list[tuple[str, str]] = []
    funding_added: int = 0
    funding_held: int = 0


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose bars an instrument holds, in CCXT's words; kept beside it. ``origin``: see `ClientConfig`."""

    exchange: str
    symbol: str
    market: MarketKind
    origin: str | None = None


def plan(config: DownloadConfig, store: RawStore) -> list[Planned]:
    """Return what would be asked for, without asking anybody; an unknown symbol counts as not held."""
    timeframe = Timeframe.parse(config.timeframe)
    known = _known(config, store)
    planned = []
    for symbol in config.symbols:
        instrument_id = known.get(symbol)
        if instrument_id is not None:
            require_origin(config, store, instrument_id)
        wanted, held = wanted_of(config, store, instrument_id, timeframe, time.time_ns())
        spans = [(format_ns(start), format_ns(end)) for start, end in wanted]
        planned.append(
            Planned(
                symbol=symbol,
                instrument=instrument_id,
                held=held.length // timeframe.ns,
                missing=spans,
                bars=wanted.length // timeframe.ns,
            )
        )
    return planned


def require_origin(config: DownloadConfig, store: RawStore, instrument_id: str) -> None:
    """Refuse to put bars beside those of another origin, a replay's beside the venue's own above all."""
    if not any(name == instrument_id for name, _ in store.entries()):
        return
    folder = store.market_folder(instrument_id)
    try:
        held = msgspec.json.decode((folder / SOURCE).read_bytes(), type=Source)
    except FileNotFoundError:
        return  # brought in from files
    except (OSError, msgspec.DecodeError) as error:
        raise LSTMStrategyError(
            f"{folder / SOURCE} cannot be read ({error}); remove {folder} and start over"
        ) from error
    asked = config.client.origin
    if held.origin != asked:
        raise LSTMStrategyError(
            f"{instrument_id} in catalog {store.root} came from {_named(held.origin, held.exchange)}, this download"
            f" asks {_named(asked, config.client.exchange)}; the two do not mix: name another --catalog"
        )


def _named(origin: str | None, exchange: str) -> str:
    return {None: f"{exchange} itself", "local": "a local exchange"}.get(origin, str(origin))


def held_of(config: DownloadConfig, store: RawStore) -> set[str]:
    """Return the instruments of the symbols that are held in any timeframe."""
    known = _known(config, store)
    return {known[symbol] for symbol in config.symbols if symbol in known} & {name for name, _ in store.entries()}


def _known(config: DownloadConfig, store: RawStore) -> dict[str, str]:
    """Return the instruments that earlier downloads made of the symbols."""
    found: dict[str, str] = {}
    for path in (store.root / "raw" / venue_of(config.client.exchange)).glob(f"*/{SOURCE}"):
        try:
            source = msgspec.json.decode(path.read_bytes(), type=Source)
            instrument_id = msgspec.json.decode((path.parent / "instrument.json").read_bytes(), type=Instrument).id
        except (OSError, msgspec.DecodeError, LSTMStrategyError):
            continue
        if (source.exchange, source.market) == (config.client.exchange, config.client.market):
            found |= {source.symbol: instrument_id, source.symbol.partition(":")[0]: instrument_id}
    return found


def wanted_of(
    config: DownloadConfig, store: RawStore, instrument_id: str | None, timeframe: Timeframe, now: int
) -> tuple[Spans, Spans]:
    """Return opening times to ask for, and those held."""
    step = timeframe.ns
    held, settled = Spans(), Spans()
    if instrument_id is not None:
        held = store.spans(instrument_id, timeframe)
        holes = read_holes(store.folder(instrument_id, timeframe))
        settled = spans_of([hole for hole in holes if not config.repair or _left(hole)])
    if config.since is None and not len(held):
        raise LSTMStrategyError(
            f"nothing is held of {' '.join(config.symbols)} {timeframe}; say from when on, such as --since 2018-01-01"
        )
    since = parse_ns(config.since) if config.since else held.start
    if config.repair and len(held):
        since = min(since, held.start)
    since = -(-max(since, parse_ns(FIRST)) // step) * step
    until = min(now, parse_ns(config.until)) if config.until else now
    until = until // step * step
    return Spans([(since, until)]).less(held).less(settled) if since < until else Spans(), held


def _left(hole: VenueHole) -> bool:
    return hole.asked >= _REPAIRS and time.time_ns() - parse_ns(hole.last_asked) < _REST_NS


def told(config: DownloadConfig, store: RawStore, symbol: str, instrument_id: str) -> Downloaded:
    """Return what is held of a symbol."""
    timeframe = Timeframe.parse(config.timeframe)
    held = store.spans(instrument_id, timeframe)
    holes = [hole for hole in read_holes(store.folder(instrument_id, timeframe)) if hole.settled]
    return Downloaded(
        symbol=symbol,
        instrument=instrument_id,
        timeframe=timeframe.text,
        held=held.length // timeframe.ns,
        first=format_ns(held.start + timeframe.ns) if len(held) else None,
        last=format_ns(held.end) if len(held) else None,
        holes=len(holes),
        hole_bars=spans_of(holes).length // timeframe.ns,
        withheld=[(hole.start, hole.end) for hole in holes if hole.reason == "withheld"],
    )
