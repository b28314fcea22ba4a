"""The market of a backtest: what the engine is fed with for one instrument, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lstm_strategy import artefact
from lstm_strategy.bars import Bars, Timeframe, format_ns
from lstm_strategy.decision import Costs
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.carry import carry_module
from lstm_strategy.nautilus.catalog import read_catalog, read_engine_instrument
from lstm_strategy.nautilus.current import require_current
from lstm_strategy.nautilus.engine import EngineInstrument, QuoteTick
from lstm_strategy.nautilus.fills import open_quotes
from lstm_strategy.nautilus.instruments import from_engine, to_engine
from lstm_strategy.nautilus.liquidation import liquidation_module
from lstm_strategy.nautilus.participation import participation_module
from lstm_strategy.nautilus.source import Source, of_artefact, of_schedule
from lstm_strategy.schedule import Schedule, require_same_bars
from lstm_strategy.sources.funding import Funding, funding_path, read_funding
from lstm_strategy.sources.store import RawStore

__all__ = ["Market", "carry_modules", "open_market", "venue_modules"]


@dataclass(frozen=True, slots=True)
class Market:
    """One instrument as the engine is given it: bars, a quote an open, what holding it costs, and who forecasts."""

    source: Source
    instrument: EngineInstrument
    bars: Bars
    charged: Costs
    quotes: list[QuoteTick]
    modules: tuple[Any, ...]
    funding_known: tuple[int, int] | None


def open_market(settings: BacktestSettings) -> Market:
    """Return what the engine is fed with for one instrument; raises as `run_backtest` does."""
    timeframe = Timeframe.parse(settings.timeframe)
    model = settings.model
    source = of_schedule(model) if isinstance(model, Schedule) else of_artefact(artefact.load(model))
    instrument = read_engine_instrument(settings.catalog, settings.instrument_id)
    if settings.account == "cash" and from_engine(instrument).kind == "perpetual":
        raise LSTMStrategyError(f'{settings.instrument_id} is a perpetual; it needs backtest.account = "margin"')
    held = read_catalog(settings.catalog, settings.instrument_id, timeframe)
    require_current(settings.catalog, held)
    if isinstance(model, Schedule):
        require_same_bars(model, held)
        if model.recorded is not None and settings.limits.feature_range is not None:
            raise LSTMStrategyError(
                f"limits.feature_range is {settings.limits.feature_range}, but recorded forecasts come without"
                ' features; leave it out, or let the models step with model.forecasts = "stepped"'
            )
    bars = _span(settings, held)
    charged = settings.charged or settings.costs
    thin = settings.participation is not None
    quotes = open_quotes(
        bars,
        instrument,
        spread=charged.spread,
        slippage=charged.slippage,
        volume_share=settings.participation or settings.volume_share,
        least=0 if thin else 1,
    )
    rates = _funding(settings, instrument)
    modules = _carry(settings, instrument, rates)
    known = None if rates is None else (int(rates.ts[0]), int(rates.ts[-1]))
    return Market(source, instrument, bars, charged, quotes, modules, known)


def venue_modules(members: Sequence[BacktestSettings]) -> tuple[Any, ...]:
    """Return what else the venue does with the orders and positions of one account."""
    settings = members[0]
    bar_ns, found = Timeframe.parse(settings.timeframe).ns, []
    asked = {member.instrument_id: member.maintenance for member in members}
    if settings.account == "margin" and any(asked.values()):
        found.append(liquidation_module(asked, bar_ns, inside_bars=settings.inside_bars))
    if settings.participation is not None:
        found.append(participation_module(bar_ns))
    return tuple(found)


def carry_modules(settings: BacktestSettings) -> tuple[Any, ...]:
    """Return what holding one instrument costs, as far as rates are known."""
    instrument = to_engine(RawStore(settings.catalog).read_instrument(settings.instrument_id))
    return _carry(settings, instrument, _funding(settings, instrument))


def _span(settings: BacktestSettings, bars: Bars) -> Bars:
    span = bars.between(settings.start, settings.end)
    if len(span) < 2:
        raise LSTMStrategyError(
            f"{settings.instrument_id} {settings.timeframe}: the catalog has {len(span)} bars in the backtest's span;"
            f" it holds {format_ns(bars.ts_close[0])} to {format_ns(bars.ts_close[-1])}"
        )
    return span


def _funding(settings: BacktestSettings, instrument: EngineInstrument) -> Funding | None:
    """The rates of a perpetual, where they are wanted and there are any."""
    store = RawStore(settings.catalog)
    if not settings.funding or from_engine(instrument).kind != "perpetual":
        return None
    return read_funding(store, settings.instrument_id) if funding_path(store, settings.instrument_id).exists() else None


def _carry(settings: BacktestSettings, instrument: EngineInstrument, rates: Funding | None) -> tuple[Any, ...]:
    borrow = settings.borrow if from_engine(instrument).kind == "spot" else 0.0
    if rates is None and not borrow:
        return ()
    ts, rate = ([], []) if rates is None else (rates.ts.tolist(), rates.rate.tolist())
    return (carry_module(instrument, ts, rate, borrow),)
