"""Metrics: a node's status in Prometheus's text format."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from lstm_strategy.reasons import HALTS
from lstm_strategy.status import Event, Health, Snapshot
from lstm_strategy.watch.station import Consumer

__all__ = ["Metrics"]

_PREFIX = "lstm_strategy"
_INFERENCE_S = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1, 1.0)


class Metrics(Consumer):
    """Keeps the gauges and counters of one node; a gauge that has no value is NaN.

    Parameters
    ----------
    of_run : dict
        Labels of ``lstm_strategy_run_info``, such as trader and mode; never a secret.
    dropped : callable
        How many messages the station has dropped.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, of_run: dict[str, str], dropped: Callable[[], int] = lambda: 0) -> None:
        self.registry = CollectorRegistry()
        self._dropped = dropped
        self._known: set[tuple[str, str, str]] = set()
        Info("run", "What runs.", namespace=_PREFIX, registry=self.registry).info(of_run)
        self._equity = self._gauge("equity", "Marked to market at the last close, in quote currency.")
        self._day = self._gauge("day_pnl", "Since 00:00 UTC by bar close, in quote currency.")
        self._drawdown = self._gauge("drawdown_ratio", "Fall from the peak of equity.")
        self._gross = self._gauge("gross_exposure_ratio", "Absolute exposures of all instruments over equity.")
        self._net = self._gauge("net_exposure_ratio", "Signed exposures of all instruments over equity.")
        self._halted = self._gauge("halted", "1 while the halt of this reason holds.", "reason")
        self._connected = self._gauge("connected", "1 while the engine's client is connected.", "client")
        self._price = self._gauge("price", "The last close.", "instrument")
        self._position = self._gauge("position", "Signed quantity held.", "instrument")
        self._exposure = self._gauge("exposure_ratio", "Signed, of equity.", "instrument")
        self._target = self._gauge("target_exposure_ratio", "What was decided on.", "instrument")
        self._close = self._gauge("bar_close_timestamp_seconds", "Of the last bar decided on.", "instrument")
        self._decided = self._gauge("decided_timestamp_seconds", "Wall time of the last decision.", "instrument")
        self._lag = self._gauge("bar_lag_seconds", "From close to decision by the venue's clock.", "instrument")
        self._parity = self._gauge(
            "parity", "1 proved, 0 not proved, NaN where there is nothing to prove.", "instrument"
        )
        self._scale = self._gauge("forecast_scale", "Causal volatility of a bar's log return.", "instrument")
        self._quantile = self._gauge(
            "forecast_quantile", "Of the log return so many bars ahead.", "instrument", "horizon", "level"
        )
        labels = ("instrument", "horizon", "interval")
        self._coverage = self._gauge("interval_coverage_ratio", "Outcomes inside, of the last ones.", *labels)
        self._outcomes = self._gauge("interval_outcomes", "How many outcomes that is.", *labels)
        self._used = self._gauge("limit_used", "What is used of a limit, in its own unit.", "instrument", "limit")
        self._most = self._gauge("limit", "The limit as configured.", "instrument", "limit")
        self._room = self._gauge("limit_headroom_ratio", "The part of a limit that is left.", "instrument", "limit")
        self._model = self._gauge("model_info", "1 for the model that speaks.", "instrument", "model")
        self._decisions = self._counter("decisions", "Decisions by reason.", "instrument", "reason")
        self._orders = self._counter("orders", "Orders of decisions.", "instrument", "side")
        self._events = self._counter("events", "Fills, refusals, halts, swaps, troubles and the like.", "kind")
        self._drops = self._gauge("messages_dropped", "Not shown, since they came too fast.")
        self._inference = Histogram(
            "inference_seconds",
            "Features and network of one bar.",
            ["instrument"],
            namespace=_PREFIX,
            registry=self.registry,
            buckets=_INFERENCE_S,
        )
        self._models: dict[str, str] = {}
        self._halt: str | None = None  # not known before the first word of it
        self._fresh: dict[str, tuple[Snapshot, float]] = {}

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Count a decision; what it is at is set when somebody asks."""
        name = snapshot.instrument
        self._fresh[name] = snapshot, time.time()
        self._halt = snapshot.reason if snapshot.reason in HALTS else ""
        self._decisions.labels(name, snapshot.reason).inc()
        if snapshot.quantity:
            self._orders.labels(name, "buy" if snapshot.quantity > 0 else "sell").inc()
        if math.isfinite(snapshot.inference_s):
            self._inference.labels(name).observe(snapshot.inference_s)

    def _set(self, snapshot: Snapshot, wall: float) -> None:
        name = snapshot.instrument
        self._equity.set(snapshot.equity)
        self._day.set(snapshot.day_pnl)
        self._drawdown.set(snapshot.drawdown)
        self._gross.set(snapshot.gross)
        self._net.set(snapshot.net)
        for gauge, value in (
            (self._price, snapshot.price),
            (self._position, snapshot.position),
            (self._exposure, snapshot.exposure),
            (self._target, snapshot.target),
            (self._close, snapshot.ts_close / 1e9),
            (self._decided, wall),
            (self._lag, snapshot.lag_s),
            (self._parity, {"proved": 1.0, "unproved": 0.0}.get(snapshot.parity, math.nan)),
            (self._scale, snapshot.scale),
        ):
            gauge.labels(name).set(value)
        self._set_forecast(snapshot)
        for row in snapshot.coverage:
            self._coverage.labels(name, row.horizon, row.interval).set(row.share)
            self._outcomes.labels(name, row.horizon, row.interval).set(row.outcomes)
        for limit in snapshot.headroom:
            self._used.labels(name, limit.limit).set(limit.used)
            self._most.labels(name, limit.limit).set(limit.most)
            self._room.labels(name, limit.limit).set(limit.room)
        if self._models.get(name) != snapshot.model:
            if name in self._models:
                self._model.remove(name, self._models[name])
            self._models[name] = snapshot.model
            self._model.labels(name, snapshot.model).set(1.0)

    def on_event(self, event: Event) -> None:
        """Count it; a halt begins and ends between bars as well."""
        if event.kind in ("halt", "resumed"):
            self._halt = event.reason
        self._events.labels(event.kind).inc()

    def on_health(self, health: Health) -> None:
        """Set what is connected."""
        self._connected.labels("market_data").set(float(health.market_data))
        self._connected.labels("execution").set(float(health.execution))

    def text(self) -> bytes:
        """Return all of it."""
        for snapshot, wall in self._fresh.values():
            self._set(snapshot, wall)
        self._fresh.clear()
        if self._halt is not None:
            for halt in HALTS:
                self._halted.labels(halt.value).set(float(halt.value == self._halt))
        self._drops.set(self._dropped())
        return generate_latest(self.registry)

    def _set_forecast(self, snapshot: Snapshot) -> None:
        """Set the quantiles; those of another model's levels, or of a forecast that is gone, are taken away."""
        now = set()
        for horizon, row in zip(snapshot.horizons, snapshot.quantiles, strict=True):
            for level, value in zip(snapshot.levels, row, strict=True):
                labels = (snapshot.instrument, str(horizon), f"{level:g}")
                now.add(labels)
                self._quantile.labels(*labels).set(value)
        mine = {labels for labels in self._known if labels[0] == snapshot.instrument}
        for labels in mine - now:
            self._quantile.remove(*labels)
        self._known = (self._known - mine) | now

    def _gauge(self, name: str, told: str, *labels: str) -> Gauge:
        found = Gauge(name, told, labels, namespace=_PREFIX, registry=self.registry)
        if not labels:
            found.set(math.nan)
        return found

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(name, told, labels, namespace=_PREFIX, registry=self.registry)
