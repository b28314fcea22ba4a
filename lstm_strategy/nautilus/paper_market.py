"""What a bar does to the simulated market of paper trading: its open, the way inside it, its close; as a backtest's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nautilus_trader.common.component import TestClock

from lstm_strategy.bars import Bars
from lstm_strategy.nautilus.bar_path import path_quotes
from lstm_strategy.nautilus.engine import EngineBar, EngineInstrument, QuoteTick
from lstm_strategy.nautilus.fills import open_quotes
from lstm_strategy.nautilus.paper_exchange import PaperExchange, PaperVenueConfig

__all__ = ["PaperMarket", "at_close"]


class PaperMarket:
    """Shows bars to an exchange.

    Parameters
    ----------
    tell : callable
        Takes a quote on to the engine.

    Attributes
    ----------
    past : bool
        Whether bars are shown that closed while nobody was there: the time that the strategies know stands still.
    """

    def __init__(
        self, exchange: PaperExchange, clock: TestClock, settings: PaperVenueConfig, tell: Callable[[QuoteTick], None]
    ) -> None:
        self.past = False
        self._exchange, self._clock, self._settings, self._tell = exchange, clock, settings, tell

    def show(self, bars: Bars, bar: EngineBar) -> None:
        """Let the market go through a bar; ``bars`` is the same, as read."""
        ts_close, instrument = int(bars.ts_close[0]), self._exchange.cache.instrument(bar.bar_type.instrument_id)
        if instrument is not None:
            for quote in self._quotes(bars, instrument):
                self._show(quote)
            self._set_time(ts_close)
            closed = at_close(bar, ts_close)
            for module in self._exchange.modules:
                module.pre_process(closed)

    def _quotes(self, bars: Bars, instrument: EngineInstrument) -> Iterator[QuoteTick]:
        terms = self._settings.terms[bars.instrument_id]
        yield from open_quotes(
            bars,
            instrument,
            spread=terms.spread,
            slippage=terms.slippage,
            volume_share=terms.volume_share,
            least=terms.least,
        )
        if self._settings.inside_bars:
            yield from path_quotes(bars, instrument, terms.volume_share)

    def _show(self, quote: QuoteTick) -> None:
        """Let the market be here, then let what was sent before arrive; in the backtest's order."""
        now = int(quote.ts_init)
        self._set_time(now)
        self._exchange.shown = quote.instrument_id
        self._exchange.process_quote_tick(quote)
        self._tell(quote)
        self._exchange.process(now)

    def _set_time(self, now: int) -> None:
        """Go on to an event's stamp; of several instruments those of one close overlap."""
        if not self.past:
            self._exchange.told_ns = now
        self._clock.set_time(now)


def at_close(bar: EngineBar, ts_close: int) -> EngineBar:
    """Return a bar with the stamp of its close; a venue's may lie a millisecond before."""
    prices = bar.open, bar.high, bar.low, bar.close
    return EngineBar(bar.bar_type, *prices, bar.volume, ts_close, ts_close)
