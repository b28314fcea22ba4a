"""What watches a node that a command runs: event log, alerts, and with ``--dashboard`` the page and the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lstm_strategy.console import console
from lstm_strategy.errors import LSTMStrategyError

if TYPE_CHECKING:
    from socket import socket

    from lstm_strategy.nautilus.node_settings import NodeSettings
    from lstm_strategy.nautilus.watching import Watching
    from lstm_strategy.watch.metrics import Metrics
    from lstm_strategy.watch.web import Web

__all__ = ["DASHBOARD_PORT", "DashboardOption", "DashboardPortOption", "watching"]

DASHBOARD_PORT = 8765

DashboardOption = Annotated[
    bool, typer.Option("--dashboard", help="A web page on this machine, and /metrics for Prometheus.")
]
DashboardPortOption = Annotated[
    int, typer.Option("--dashboard-port", min=0, max=65_535, help="Its port; 0 takes any free one.")
]


@contextmanager
def watching(settings: NodeSettings, port: int | None) -> Iterator[Watching]:
    """Watch a node while the block runs; yield the observer for `run_node`.

    Parameters
    ----------
    port : int, optional
        Of the dashboard; none is shown where None.

    Raises
    ------
    LSTMStrategyError
        Where a variable of ``[live.alerts]`` is not set, the extra is missing, or the port is taken: before anything
        is connected.
    """
    from lstm_strategy.board import Board
    from lstm_strategy.nautilus.watching import Watching
    from lstm_strategy.report.words import ACTIONS, REASONS
    from lstm_strategy.watch.alerts import Alerts, targets_of
    from lstm_strategy.watch.event_log import EventLog
    from lstm_strategy.watch.station import Consumer, Service, Station

    mode = "live" if settings.real else "paper" if settings.rehearsal is None else "replay"
    name = settings.run_folder.parents[1].name
    of_run = {"name": name, "trader": settings.trader_id, "mode": mode, "venue": settings.adapter.name}
    alerts = settings.live.alerts
    targets = targets_of(alerts)
    board = Board()

    def say(text: str) -> None:
        console.print(f"[yellow]![/yellow] {escape(text)}", highlight=False, soft_wrap=True)
        station.put(_event("trouble", text))

    log = EventLog(settings.run_folder / "events.jsonl", say)
    consumers: list[Consumer] = [log]
    services: list[Service] = []
    station = Station(board, consumers, services, say)
    observer = Watching(station.put, margin=settings.shared.account == "margin")
    if targets:
        alerting = Alerts(alerts, targets, of_run, say)
        consumers.append(alerting)
        services.append(alerting)
    with ExitStack() as stack:
        stack.callback(log.close)
        if port is not None:
            shown = of_run | {
                "timeframe": settings.timeframe.text,
                "bar_s": settings.timeframe.ns / 1e9,
                "currency": settings.currency,
                "interval": settings.shared.sizing.interval,
            }
            metrics_of, web_of, listen = _extra()
            sock = listen(port)
            stack.callback(sock.close)
            metrics = metrics_of(of_run, lambda: station.dropped)
            page = web_of(board, metrics, shown, REASONS | ACTIONS, observer.order_halt, sock, station.put)
            consumers += [metrics, page]
            services.append(page)
        stack.enter_context(station)
        if port is not None:
            console.print(f"dashboard: {page.link}", soft_wrap=True, highlight=False, markup=False)
        names = ", ".join(settings.names)
        station.put(_event("start", f"{names} {settings.timeframe} at {settings.adapter.name}"))
        try:
            yield observer
        except BaseException as error:
            # Others' exceptions may say anything; what is sent to webhooks says no more than their kind.
            why = str(error) if isinstance(error, LSTMStrategyError) else type(error).__name__
            station.put(_event("stop", f"ended: {why}"[:500]))
            raise
        station.put(_event("stop", "ended"))


def _extra() -> tuple[type[Metrics], type[Web], Callable[[int], socket]]:
    try:
        from lstm_strategy.watch.metrics import Metrics
        from lstm_strategy.watch.web import Web, listen
    except ImportError as error:
        raise LSTMStrategyError(
            f"--dashboard needs {error.name or 'starlette'}, which is not installed; install the extra:"
            " pip install 'lstm-strategy[live]'"
        ) from error
    return Metrics, Web, listen


def _event(kind: Any, text: str) -> Any:
    from lstm_strategy.status import Event

    return Event(kind=kind, text=text, ts=time.time_ns())
