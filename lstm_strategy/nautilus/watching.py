"""Watching: hands each decision, fill and connection of a running node to whoever shows it; takes an order to halt."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lstm_strategy.forecaster import Forecaster
from lstm_strategy.headroom import Shared, Yardstick
from lstm_strategy.nautilus.engine import OrderDenied, OrderFilled, OrderRejected, name_of_side
from lstm_strategy.nautilus.feed import Feed
from lstm_strategy.nautilus.history import timeframe_of
from lstm_strategy.nautilus.node_build import Built
from lstm_strategy.nautilus.status import Decided
from lstm_strategy.reasons import Reason
from lstm_strategy.status import Event, Health, Latched, Observed

__all__ = ["Watching", "ignored_by", "latched_by", "said_of_models", "short", "short_money"]

_BEAT_S = 1.0


class Watching:
    """An observer that only gathers references and numbers, some tens of microseconds a decision; others do the rest.

    Parameters
    ----------
    publish : callable
        Takes `Observed`, `Event`, `Health` and `Latched` without waiting and without raising.
    margin : bool
        Whether the account borrows.
    """

    def __init__(self, publish: Callable[[Observed | Event | Health | Latched], None], *, margin: bool) -> None:
        self._publish, self._margin = publish, margin
        self._built: Built | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._models: dict[str, tuple[str, Yardstick, _Ranges | None]] = {}

    def on_started(self, built: Built) -> None:
        """Take the node whose strategy runs; to be called on its loop."""
        self._built, self._loop = built, asyncio.get_running_loop()
        self._beat()

    def on_step(self, step: str, text: str) -> None:
        """Tell of a step of the start."""
        self._tell("step", f"{step}: {text}")

    def on_latched(self, reason: str, text: str) -> None:
        """Tell what is latched."""
        self._publish(Latched(reason=reason, text=text, ts=time.time_ns()))

    def on_ordered(self, text: str, instrument: str) -> None:
        """Tell of a halt that somebody ordered."""
        self._tell("ordered", text, instrument)

    def on_trouble(self, text: str) -> None:
        """Tell of trouble."""
        self._tell("trouble", text)

    def on_decided(self, told: Decided) -> None:
        """Hand over a decision."""
        built = self._built
        if built is None:
            return
        strategy, name, decision = built.strategy, told.instrument, told.decision
        holder = strategy.holders()[name]
        feed: Feed | None = holder.feed
        if feed is None:
            return
        label, yardstick, ranges = self._of_model(name, holder, feed)
        parity = feed.monitor.parity
        now = strategy.pace.now(strategy.clock.timestamp_ns())
        took = told.forecast is not None and told.forecast.ts_close == decision.ts_close
        self._publish(
            Observed(
                instrument=name,
                decision=decision,
                forecast=told.forecast,
                action=told.action.value,
                quantity=told.quantity,
                price=told.price,
                equity=told.equity,
                risk=holder.risk,
                shared=_shared(strategy, decision.exposure),
                position=math.nan if holder.risk is None else holder.risk.position,
                yardstick=yardstick,
                model=label,
                seen=time.time_ns(),
                lag_s=(now - decision.ts_close) / 1e9,
                inference_s=feed.took_s if took else math.nan,
                parity="none" if parity is None else "proved" if parity.proved else "unproved",
                problem="" if parity is None else "; ".join(parity.problems.values()),
                outside=math.nan if ranges is None else ranges.outside(),
            )
        )

    def order_halt(self, reason: str) -> bool:
        """Cancel, flatten and latch, from any thread; say whether there is a node to do it."""
        built, loop = self._built, self._loop
        if built is None or loop is None:
            return False
        try:
            loop.call_soon_threadsafe(built.strategy.order_halt, reason)
        except RuntimeError:  # the loop has ended
            return False
        return True

    def _of_model(self, name: str, holder: Any, feed: Feed) -> tuple[str, Yardstick, _Ranges | None]:
        """Return what is the same from bar to bar, as long as one model speaks."""
        model, settings = feed.model, holder.settings
        known = self._models.get(name)
        if known is not None and known[0] == model.version:
            return known
        sizing, limits, forecaster = settings.sizing, settings.limits, model.forecaster
        levels = model.levels or (0.1, 0.9)
        widest = math.nan
        if sizing.widest_interval is not None:
            width = model.trained.width if sizing.width_unit == "trained" else 1.0
            widest = sizing.widest_interval * width * math.sqrt(sizing.horizon)
        bar_ns = timeframe_of(settings.bar_type).ns
        yardstick = Yardstick(
            limits=limits,
            bar_ns=bar_ns,
            hole_ns=max(bar_ns, model.closed_ns),
            bars_per_year=model.bars_per_year,
            interval=min(sizing.interval, 1.0 - 2.0 * max(levels[0], 1.0 - levels[-1])),
            horizon=sizing.horizon,
            widest=widest,
            margin=self._margin,
        )
        ranges = None
        if limits.feature_range is not None and isinstance(forecaster, Forecaster):
            ranges = _Ranges(forecaster)
        self._models[name] = (model.version, yardstick, ranges)
        return self._models[name]

    def on_heard(self, event: Any) -> None:
        """Tell of fills and refusals; whatever goes wrong here is nothing to the strategy."""
        try:
            if isinstance(event, OrderFilled):
                side, name = name_of_side(event, "order_side"), event.instrument_id.value
                fee = "" if event.commission is None else f", fee {event.commission}"
                text = f"{side} {short(event.last_qty)} at {short(event.last_px)}{fee}"
                self._tell("fill", text, name, float(event.last_qty) * (1.0 if side.upper() == "BUY" else -1.0))
            elif isinstance(event, OrderRejected | OrderDenied):
                text = f"{type(event).__name__}: {' '.join(str(event.reason).split())[:300]}"
                self._tell("refusal", text, event.instrument_id.value)
        except Exception as error:
            self._tell("trouble", f"an event cannot be told: {type(error).__name__}")

    def _beat(self) -> None:
        """Look at the connections, again and again as long as the node's loop runs."""
        built, loop = self._built, self._loop
        if built is None or loop is None:
            return
        try:
            kernel, strategy = built.node.kernel, built.strategy
            if not strategy.is_running:  # what ends closes its connections
                return
            self._publish(
                Health(
                    market_data=kernel.data_engine.check_connected(),
                    execution=kernel.exec_engine.check_connected(),
                    collecting=strategy.collecting,
                    since=time.time_ns(),
                )
            )
        except Exception as error:
            self._tell("trouble", f"the connections cannot be looked at: {type(error).__name__}")
            return
        loop.call_later(_BEAT_S, self._beat)

    def _tell(self, kind: Any, text: str, instrument: str = "", quantity: float = 0.0) -> None:
        self._publish(Event(kind=kind, text=text, ts=time.time_ns(), instrument=instrument, quantity=quantity))


class _Ranges:
    """How far one forecaster's features are from what its training saw."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        ranges = forecaster.artefact.manifest.feature_ranges
        self._lowest_F, self._highest_F, self._std_F = (
            np.array([getattr(row, name) for row in ranges]) for name in ("lowest", "highest", "std")
        )

    def outside(self) -> float:
        """Return the deviations of the worst feature, 0 inside; NaN without features."""
        x_F, _ = self._forecaster.last_step
        if x_F is None:
            return math.nan
        away_F = np.maximum(self._lowest_F - x_F, x_F - self._highest_F) / self._std_F
        return max(float(away_F.max()), 0.0)


def short(value: Any) -> str:
    """Write a price or a quantity without the zeros of its precision."""
    return f"{value.as_decimal().normalize():f}"


def short_money(value: Any) -> str:
    """Write an amount with its thousands and at least two decimals, such as 100,000.00 USDT."""
    amount = value.as_decimal().normalize()
    return f"{amount:,.{max(-amount.as_tuple().exponent, 2)}f} {value.currency.code}"


def latched_by(strategy: Any) -> tuple[str, str]:
    """Return what a strategy has latched now, a reason of `HALTS` or "", and why, or why it was lifted."""
    risks = [holder.risk for holder in strategy.holders().values() if holder.risk is not None]
    if strategy.keeper.ordered:
        return Reason.HALT_ORDERED.value, strategy.keeper.ordered
    if (fallen := next((risk for risk in risks if risk.drawdown_halt), None)) is not None:
        return Reason.HALT_DRAWDOWN.value, fallen.halt_text
    return "", next((risk.resume_text for risk in risks if risk.resume_text), "")


def ignored_by(strategy: Any) -> dict[str, str]:
    """Return what is to be said of bars that count for nothing, by instrument."""
    feeds = {name: holder.feed for name, holder in strategy.holders().items()}
    return {name: feed.ignored for name, feed in feeds.items() if feed is not None and feed.ignored}


def said_of_models(strategy: Any, told: dict[str, int]) -> list[str]:
    """Return what is to be said of versions that were refused, and not in ``told``: how often it was, by instrument."""
    found = []
    for name, holder in strategy.holders().items():
        swap = None if holder.feed is None else holder.feed.swap
        if swap is not None and (new := swap.told - told.get(name, 0)):
            told[name] = swap.told
            found += [f"{name}: {text}" for text in list(swap.said)[-new:]]
    return found


def _shared(strategy: Any, exposure: float) -> Shared:
    """Sum up what the account's names have ordered, and hold."""
    holders = strategy.holders().values()
    risks = [holder.risk for holder in holders if holder.risk is not None]
    states = [seat.state for seat in getattr(strategy, "seats", {}).values() if seat.state is not None]
    exposures = [state.exposure for state in states] or [exposure]
    return Shared(
        gross=sum(map(abs, exposures)),
        net=sum(exposures),
        orders_hour=sum(risk.orders_hour for risk in risks),
        orders_day=sum(risk.orders_day for risk in risks),
        turnover_day=sum(risk.turnover_day for risk in risks),
    )
