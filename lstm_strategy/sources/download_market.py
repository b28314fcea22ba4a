"""The download of one market: durable pages, the instrument that carries them, the venue's holes, funding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import NS_PER_DAY, Bars, Timeframe, format_ns, parse_ns
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources import pages
from lstm_strategy.sources.ccxt_config import DownloadError
from lstm_strategy.sources.ccxt_markets import instrument_id_of, instrument_of
from lstm_strategy.sources.ccxt_page import BadPageError, Page
from lstm_strategy.sources.download_plan import FIRST, SOURCE, DownloadConfig, Downloaded, Source, told, wanted_of
from lstm_strategy.sources.funding import funding_path, keep_funding, read_funding
from lstm_strategy.sources.holes import Reason, record_holes
from lstm_strategy.sources.instruments import decimals_of, step_decimals
from lstm_strategy.sources.spans import Spans
from lstm_strategy.sources.store import RawStore
from lstm_strategy.sources.sweep import Sweep

if TYPE_CHECKING:
    from lstm_strategy.sources.ccxt_client import Client

__all__ = ["MarketDownload", "Progress"]

_FINAL_AFTER_NS = NS_PER_DAY  # what lacks after the last bar may still come
_FOLD_ROWS = 100_000
_FUNDING_PAGE = 1000
_WITNESSES = 10  # bars that are held, asked for to hear whether the venue answers
_FUNDING_LEAP_NS = 90 * NS_PER_DAY

type Progress = Callable[[str, int, int, int], None]
"""Told symbol, bars passed, bars in all, bars added."""


class MarketDownload:
    """One symbol of a download."""

    def __init__(
        self, config: DownloadConfig, store: RawStore, client: Client, symbol: str, market: Any, progress: Progress
    ) -> None:
        self.config, self.store, self.client, self.market = config, store, client, market
        self.symbol, self.ccxt_symbol, self.progress = symbol, str(market["symbol"]), progress
        self.timeframe = Timeframe.parse(config.timeframe)
        self.id = instrument_id_of(client.name, market)
        self.folder = store.folder(self.id, self.timeframe)
        self.added = self.pages = self.waiting = self.folded = 0
        self.decimals = self._decimals_held()

    async def run(self) -> Downloaded:
        started, step = time.monotonic(), self.timeframe.ns
        self.client.checks[self.ccxt_symbol] = self._refuse_beyond_engine
        self._describe(self.decimals)
        pages.prepare(self.folder)
        pages.sweep_up(self.folder)
        now = await self.client.now_ns()
        wanted, held = wanted_of(self.config, self.store, self.id, self.timeframe, now)
        self.folded, before = held.length // step, Spans(held)
        total, start = wanted.length // step, wanted.start if len(wanted) else 0
        sweep = Sweep(
            client=self.client,
            symbol=self.ccxt_symbol,
            timeframe=self.timeframe,
            limit=self.client.page_limit(self.ccxt_symbol),
            timeframes=tuple(self.client.exchange.timeframes or ()),
            held=held,
            keep=self._keep,
            passed=lambda at: self.progress(self.symbol, min(total, (at - start) // step), total, self.added),
        )
        try:
            if len(wanted):
                denied = await sweep.fill(wanted, now // step * step - step)
                if not len(held):
                    raise DownloadError(
                        f"{self.client.name} gave no bars of {self.ccxt_symbol} {self.timeframe} from"
                        f" {format_ns(wanted.start)} to {format_ns(wanted.end)}; try other dates, or later"
                    )
                sure = await self._sure(held, before) if len(denied) else Spans()
                record_holes(self.folder, held, _reasons(denied, sweep.withheld, held, now), sure)
            self.progress(self.symbol, total, total, self.added)
        finally:
            await asyncio.to_thread(pages.fold, self.folder)
        result = told(self.config, self.store, self.symbol, self.id)
        result.added, result.pages, result.seconds = self.added, self.pages, round(time.monotonic() - started, 3)
        result.requests, result.retries = self.client.requests, self.client.retries
        if self.config.funding:
            result.funding_added = await self._funding(now)
            result.funding_held = len(read_funding(self.store, self.id).ts) if self._has_funding() else 0
        return result

    async def _sure(self, held: Spans, before: Spans) -> Spans:
        """Return the time in which what the venue denied is its own: up to the last bar, unless it is mute now."""
        listed = not len(before) or held.start < before.start  # this run has heard the first bar
        if not listed:
            try:
                page = await self.client.candles(self.ccxt_symbol, self.timeframe, held.start, _WITNESSES)
            except DownloadError:
                return Spans()
            listed = len(page) > 0
        return Spans([(0, held.end)]) if listed else Spans()

    async def _keep(self, page: Page) -> None:
        """Make one page durable; fold now and then, so that no reader meets thousands of files."""
        bars = Bars(self.id, self.timeframe, page.opens + self.timeframe.ns, *page.values.T)
        decimals = decimals_of(page.values[:, :4])
        if decimals > self.decimals:  # the instrument must carry the bars at any moment
            self._describe(decimals)
        await asyncio.to_thread(pages.write_page, self.folder, bars)
        self.added += len(bars)
        self.pages += 1
        self.waiting += len(bars)
        if self.waiting >= max(_FOLD_ROWS, self.folded // 2):
            await asyncio.to_thread(pages.fold, self.folder)
            pages.prepare(self.folder)
            self.folded, self.waiting = self.folded + self.waiting, 0

    def _refuse_beyond_engine(self, page: Page) -> None:
        """Refuse what the engine's fixed-point numbers cannot hold, before it is durable."""
        decimals = max(self.decimals, decimals_of(page.values[:, :4]))
        instrument = self._instrument(decimals)
        for values, places, name in (
            (page.values[:, :4], max(decimals, step_decimals(instrument.tick)), "price"),
            (page.values[:, 4:], step_decimals(instrument.lot), "volume"),
        ):
            scaled = np.rint(values * 10.0**places)
            bad = scaled >= 2.0**63
            if name == "price":
                bad |= np.abs(scaled / 10.0**places - values) > 4.0 * np.spacing(values)
            if bad.any():
                row, column = divmod(int(bad.argmax()), bad.shape[1])
                raise BadPageError(
                    f"{name} does not fit {places} decimals at {format_ns(page.opens[row])}: {values[row, column]}"
                )

    def _instrument(self, decimals: int) -> Instrument:
        return instrument_of(self.client.name, self.market, self.client.exchange.precisionMode, decimals)

    def _decimals_held(self) -> int:
        """Return the decimals of the bars held in any timeframe; a download keeps them beside the instrument."""
        source = self.folder.parent / SOURCE
        if source.exists() and self.store.has_instrument(self.id):
            held = self.store.read_instrument(self.id)
            return max(held.price_decimals or 0, step_decimals(held.tick))
        found = 0
        for name, timeframe in self.store.entries():
            if name == self.id:
                bars = self.store.read(name, timeframe)
                found = max(
                    [found, *(decimals_of(getattr(bars, column)) for column in ("open", "high", "low", "close"))]
                )
        return found

    def _describe(self, decimals: int) -> None:
        """Keep what the venue says of the market, and where its bars come from."""
        self.decimals = decimals
        instrument = self._instrument(decimals)
        if not self.store.has_instrument(self.id) or self.store.read_instrument(self.id) != instrument:
            self.store.write_instrument(instrument)
        source = Source(self.client.name, self.ccxt_symbol, self.config.client.market, self.config.client.origin)
        path = self.folder.parent / SOURCE
        encoded = msgspec.json.format(msgspec.json.encode(source), indent=1) + b"\n"
        if not path.exists() or path.read_bytes() != encoded:
            with atomic_write(path) as temporary:
                temporary.write_bytes(encoded)

    def _has_funding(self) -> bool:
        return funding_path(self.store, self.id).exists()

    async def _funding(self, now: int) -> int:
        """Bring in the rates that are missing before the first and after the last held."""
        since = parse_ns(self.config.since or FIRST)
        until = min(now, parse_ns(self.config.until)) if self.config.until else now
        bars = self.store.spans(self.id, self.timeframe)
        since = asked_from = max(since, bars.start) if len(bars) else since
        added = 0
        if self._has_funding():
            held = read_funding(self.store, self.id).ts
            mark = _funding_asked(self.folder.parent)
            since = int(held[-1]) + 1 if mark is not None and mark <= asked_from else since
        cursor = since
        while cursor < until:
            ts, rate = await self.client.funding_rates(self.ccxt_symbol, cursor, _FUNDING_PAGE)
            inside = (ts >= cursor) & (ts < until)
            if not inside.any():  # a venue may look at a short time from there on alone
                cursor += _FUNDING_LEAP_NS
                continue
            added += keep_funding(self.store, self.id, ts[inside], rate[inside])
            self.pages += 1
            cursor = int(ts[inside][-1]) + 1
        _note_funding(self.folder.parent, asked_from)
        return added


def _funding_asked(folder: Path) -> int | None:
    """Return from when on funding has been asked for; None where never to the end."""
    try:
        return int((folder / "funding.since").read_text())
    except (OSError, ValueError):
        return None


def _note_funding(folder: Path, since: int) -> None:
    before = _funding_asked(folder)
    if before is None or since < before:
        with atomic_write(folder / "funding.since") as temporary:
            temporary.write_text(f"{since}\n")


def _reasons(denied: Spans, withheld: Spans, held: Spans, now: int) -> dict[Reason, Spans]:
    """Return what of the denied time is final: before a bar that is there, or a day ago at the least."""
    final = max(held.end if len(held) else 0, now - _FINAL_AFTER_NS)
    empty, kept_back = Spans(), Spans()
    for start, end in denied:
        span = Spans([(start, min(end, final))])
        for part in span.less(withheld):
            empty.add(*part)
        for part in span.less(span.less(withheld)):
            kept_back.add(*part)
    return {"empty": empty, "withheld": kept_back}
