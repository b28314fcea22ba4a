"""What watches a node: status, metrics, alerts, and the page in a browser against a node that trades on paper."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import chromium
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from catalog_support import bring_in
from prometheus_client.parser import text_string_to_metric_families
from tiny_support import EXPERIMENT

from lstm_strategy import artefact
from lstm_strategy.alerts_config import AlertsConfig
from lstm_strategy.board import Board
from lstm_strategy.cli_watch import _extra
from lstm_strategy.decision import Decision, LimitsConfig, Reason, RiskState, Shrinkage, halt
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.headroom import Headroom, Shared, Yardstick
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.status import Event, Health, Latched, Observed
from lstm_strategy.watch.alerts import Alerts, Bucket, targets_of
from lstm_strategy.watch.event_log import EventLog
from lstm_strategy.watch.metrics import Metrics
from lstm_strategy.watch.station import Consumer, Station
from lstm_strategy.watch.web import TOKEN_HEADER, Web, listen

BTC, HOUR = "BTCUSDT.BINANCE", 3_600_000_000_000
START = 1_700_000_000_000_000_000 // HOUR * HOUR
LEVELS = (0.1, 0.5, 0.9)
EVERY_LIMIT = LimitsConfig(
    max_gross=2.0,
    max_net=1.5,
    max_order_notional=1_000.0,
    orders_per_hour=2,
    orders_per_day=10,
    turnover_per_day=4.0,
    flip_hours=6.0,
    daily_loss=0.1,
    max_drawdown=0.4,
    max_losses=5,
    cooldown_hours=12.0,
    max_volatility=1.0,
    price_fence=0.2,
    price_fence_scales=10.0,
    max_stale_bars=2,
    feature_range=4.0,
    initial_margin=0.25,
)


def forecast_at(ts_close: int, width: float = 0.01, horizons: tuple[int, ...] = (1, 2)) -> Forecast:
    row = np.array([-width, 0.0, width], np.float32)
    return Forecast(ts_close, horizons, LEVELS, np.array([row * math.sqrt(h) for h in horizons]), width / 1.28)


def observed(number: int = 0, price: float = 100.0, **more: Any) -> Observed:
    """One decision an hour; ``more`` replaces any field."""
    ts_close = START + number * HOUR
    risk = RiskState.start(ts_close, 1_000.0)
    fields: dict[str, Any] = {
        "instrument": BTC,
        "decision": Decision(ts_close, 0.25, 0.5, Reason.REBALANCE),
        "forecast": forecast_at(ts_close),
        "action": "sent",
        "quantity": 2.5,
        "price": price,
        "equity": 1_000.0,
        "risk": risk,
        "shared": Shared(0.25, 0.25, 1, 3, 0.5),
        "position": 2.5,
        "yardstick": Yardstick(limits=LimitsConfig(), bar_ns=HOUR, hole_ns=HOUR, bars_per_year=8_760.0),
        "model": "tiny/1",
        "seen": time.time_ns(),
        "lag_s": 0.25,
        "inference_s": 4e-5,
        "parity": "proved",
    } | more
    return Observed(**fields)


def told(kind: Any = "trouble", text: str = "something") -> Event:
    return Event(kind=kind, text=text, ts=time.time_ns(), instrument=BTC)


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    late = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < late, "never true"
        time.sleep(0.01)
    return found


# -- status ------------------------------------------------------------------------------------------------------------


def test_every_configured_limit_has_its_headroom() -> None:
    yardstick = Yardstick(
        limits=EVERY_LIMIT, bar_ns=HOUR, hole_ns=HOUR, bars_per_year=8_760.0, widest=3.0, horizon=1, margin=True
    )
    board = Board()
    board.take(observed(0, yardstick=yardstick))
    ts_close = START + 4 * HOUR  # three bars are missing
    risk = msgspec.structs.replace(
        RiskState.start(ts_close, 1_100.0),
        peak_equity=1_250.0,
        side_since=ts_close - 2 * HOUR,
        losses=2,
        cooldown_until=ts_close + 3 * HOUR,
    )
    snapshot, _ = board.take(observed(4, 110.0, yardstick=yardstick, risk=risk, outside=1.0))
    found = {one.limit: one for one in snapshot.headroom}
    scale = 0.01 / 1.28
    expected = {
        "max_exposure": (0.25, 1.0),
        "max_step": (0.25, 1.0),
        "max_gross": (0.25, 2.0),
        "max_net": (0.25, 1.5),
        "initial_margin": (0.0625, 1.0),
        "max_order_notional": (275.0, 1_000.0),
        "orders_per_hour": (1, 2),
        "orders_per_day": (3, 10),
        "turnover_per_day": (0.5, 4.0),
        "flip_hours": (4.0, 6.0),
        "daily_loss": (1.0 - 1_000.0 / 1_100.0, 0.1),
        "max_drawdown": (0.2, 0.4),
        "max_losses": (2, 5),
        "cooldown_hours": (3.0, 12.0),
        "max_volatility": (scale * math.sqrt(8_760.0), 1.0),
        "price_fence": (0.1, 0.2),
        "price_fence_scales": (math.log(1.1) / (scale * 2.0), 10.0),
        "max_stale_bars": (3, 2),
        "feature_range": (1.0, 4.0),
        "widest_interval": (0.02, 3.0 * scale),
    }
    for column, key in ((0, "used"), (1, "most")):
        wanted = {name: pair[column] for name, pair in expected.items()}
        assert {name: getattr(one, key) for name, one in found.items()} == pytest.approx(wanted)
    assert found["max_drawdown"].room == pytest.approx(0.5)
    assert found["max_stale_bars"].room == 0.0
    configured = {name for name in LimitsConfig.__struct_fields__ if getattr(EVERY_LIMIT, name) is not None}
    assert configured - set(found) == {"side", "drift_tolerance", "flatten_on"}  # which are no amounts to be used up
    few, _ = Board().take(observed())
    assert {one.limit for one in few.headroom} == {"max_exposure", "max_step", "daily_loss", "max_drawdown"}
    assert math.isnan(Headroom("feature_range", math.nan, 4.0, "std").room)


def test_coverage_counts_matured_outcomes_and_no_hole() -> None:
    board = Board(window=3)
    for number, price in enumerate((100.0, 100.5, 103.0, 103.1, 103.2)):  # 80 % of ±1 % an hour: one falls outside
        snapshot, _ = board.take(observed(number, price))
    assert [(row.horizon, row.interval, row.outcomes) for row in snapshot.coverage] == [(1, 0.8, 3), (2, 0.8, 3)]
    assert [row.share for row in snapshot.coverage] == pytest.approx([2 / 3, 1 / 3])
    again, _ = board.take(observed(4, 103.2))  # a second look at a bar
    assert again.coverage == snapshot.coverage
    after, _ = board.take(observed(7, 150.0))  # beyond a hole there is no outcome
    assert after.coverage == snapshot.coverage


def test_a_board_is_bounded_and_tells_what_changes() -> None:
    board = Board(history=5, events=3)
    for number in range(20):
        board.take(observed(number))
        board.tell(told(text=str(number)))
    assert len(board.points[BTC]) == 5
    assert [event.text for _, event in board.events] == ["17", "18", "19"]
    ts_close = START + 20 * HOUR
    stopped = observed(
        20,
        decision=Decision(ts_close, 0.0, 0.0, Reason.HALT_ORDERED),
        risk=halt(RiskState.start(ts_close, 1_000.0), "dashboard: enough"),
    )
    _, events = board.take(stopped)
    assert [(event.kind, event.instrument) for event in events] == [("halt", "")]
    assert "dashboard: enough" in events[0].text
    assert board.take(msgspec.structs.replace(stopped, instrument="ETHUSDT.BINANCE"))[1] == []  # the same halt
    _, events = board.take(observed(21, model="tiny/2", parity="unproved", problem="feature x differs"))
    assert [event.kind for event in events] == ["resumed", "swap", "trouble"]
    assert "feature x differs" in events[2].text
    _, events = board.take(observed(22, model="tiny/2"))
    assert [event.text for event in events] == ["parity is proved again"]
    up = Health(market_data=True, execution=True, collecting=False, since=1)
    assert board.check(up) == []
    assert [e.text for e in board.check(msgspec.structs.replace(up, market_data=False))] == [
        "the connection for market data is lost"
    ]
    assert board.counts[BTC, "rebalance"] == 22


def test_a_halt_between_bars_is_told_at_once_and_only_once() -> None:
    board, metrics = Board(), Metrics({})
    halted = ("halted", (("reason", "halt_ordered"),))
    metrics.on_snapshot(board.take(observed())[0])
    assert series(metrics)[halted] == 0.0

    def latch(reason: str, text: str = "KILL: enough") -> list[Event]:
        events = board.latch(Latched(reason=reason, text=text, ts=1))
        for event in events:
            metrics.on_event(event)
        return events

    (event,) = latch("halt_ordered")
    assert (event.kind, event.text) == ("halt", "halt_ordered: KILL: enough")
    assert (board.halt, board.halt_text, series(metrics)[halted]) == ("halt_ordered", "KILL: enough", 1.0)
    ts_close = START + HOUR
    risk = halt(RiskState.start(ts_close, 1_000.0), "KILL: enough")
    stopped = observed(1, decision=Decision(ts_close, 0.0, 0.0, Reason.HALT_ORDERED), risk=risk)
    snapshot, events = board.take(stopped)
    metrics.on_snapshot(snapshot)
    assert events == latch("halt_ordered") == []
    (event,) = latch("", "looked into")
    assert (event.kind, event.text) == ("resumed", "halt_ordered is lifted: looked into")
    assert (board.halt, series(metrics)[halted]) == ("", 0.0)
    assert board.take(observed(2))[1] == latch("") == []
    # Where a bar comes first, it is the bar that tells.
    assert [event.kind for event in board.take(msgspec.structs.replace(stopped, decision=at(3)))[1]] == ["halt"]
    assert latch("halt_ordered") == []
    assert [event.kind for event in board.take(observed(4))[1]] == ["resumed"]
    assert latch("") == []


def at(number: int) -> Decision:
    return Decision(START + number * HOUR, 0.0, 0.0, Reason.HALT_ORDERED)


def test_what_is_filled_between_bars_is_on_the_chart() -> None:
    board = Board()
    for number in range(2):
        board.take(observed(number, quantity=0.0))
    shown = board.number
    for quantity in (-1.5, -1.0):
        board.tell(Event(kind="fill", text="sell", ts=1, instrument=BTC, quantity=quantity))
    assert [point.filled for point in board.points[BTC]] == [0.0, -2.5]
    assert [point.number > shown for point in board.points[BTC]] == [False, True]
    assert len({board.points[BTC][-1].number, *(number for number, _ in board.events)}) == 3


# -- station -----------------------------------------------------------------------------------------------------------


class Slow(Consumer):
    def __init__(self) -> None:
        self.go, self.seen = threading.Event(), 0

    def on_snapshot(self, snapshot: Any) -> None:
        self.seen += 1
        self.go.wait(10.0)


class Broken(Consumer):
    def on_snapshot(self, snapshot: Any) -> None:
        raise ValueError("oh")


def test_whoever_watches_keeps_nobody_waiting_and_holds_no_more_than_so_many() -> None:
    said: list[str] = []
    slow, board = Slow(), Board()
    with Station(board, [Broken(), slow], [], said.append, most=50) as station:
        began = time.monotonic()
        for number in range(1_000):
            station.put(observed(number))
        assert time.monotonic() - began < 8.0  # the slow one takes one in 10 s
        assert len(station._waiting) <= 50
        assert station.dropped >= 900
        slow.go.set()
        until(lambda: any("dropped" in event.text for _, event in board.events))
    assert slow.seen + station.dropped == 1_000
    assert said == ["Broken failed and is left out: ValueError: oh"]
    station.put(observed(1_000))  # after the end: neither taken nor raised


def test_what_cannot_be_shown_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    log = EventLog(tmp_path / "events.jsonl", said.append)
    with Station(Board(), [log], [], said.append) as station:
        station.put(observed(0))
        station.put(observed(1, -1.0))  # no logarithm
        station.put(observed(2, 101.0))
        station.put(told("fill", "buy 1"))
    assert len(said) == 1
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["decision", "decision", "fill"]
    assert lines[0]["tightest_limit"] == "max_exposure"
    assert lines[2] | {"ts": ""} == {"ts": "", "kind": "fill", "instrument": BTC, "text": "buy 1"}
    full = EventLog(tmp_path / "no" / "folder" / "events.jsonl", said.append)
    for _ in range(3):
        full.on_event(told())
    full.close()
    log.close()
    assert len(said) == 2
    assert "cannot be written" in said[1]


# -- metrics -----------------------------------------------------------------------------------------------------------


def series(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name.removeprefix("lstm_strategy_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_metrics_are_prometheus_text_and_forget_what_is_gone() -> None:
    board, metrics = Board(), Metrics({"trader": "T-1", "mode": "paper"}, lambda: 7)
    assert math.isnan(series(metrics)["equity", ()])
    for number in range(3):
        metrics.on_snapshot(board.take(observed(number))[0])
    metrics.on_event(told("fill"))
    metrics.on_health(Health(market_data=True, execution=False, collecting=False, since=1))
    found = series(metrics)
    of = (("instrument", BTC),)
    assert found["equity", ()] == 1_000.0
    assert found["exposure_ratio", of] == 0.25
    assert found["bar_lag_seconds", of] == 0.25
    assert found["parity", of] == 1.0
    assert found["decisions_total", (("instrument", BTC), ("reason", "rebalance"))] == 3.0
    assert found["orders_total", (("instrument", BTC), ("side", "buy"))] == 3.0
    quantile = (("horizon", "1"), ("instrument", BTC), ("level", "0.9"))
    assert found["forecast_quantile", quantile] == pytest.approx(0.01)
    assert found["interval_coverage_ratio", (("horizon", "1"), ("instrument", BTC), ("interval", "0.8"))] == 1.0
    assert found["limit_headroom_ratio", (("instrument", BTC), ("limit", "max_exposure"))] == 0.75
    assert found["inference_seconds_count", of] == 3.0
    assert found["inference_seconds_bucket", (("instrument", BTC), ("le", "5e-05"))] == 3.0
    assert found["model_info", (("instrument", BTC), ("model", "tiny/1"))] == 1.0
    assert found["run_info", (("mode", "paper"), ("trader", "T-1"))] == 1.0
    assert found["events_total", (("kind", "fill"),)] == 1.0
    assert found["connected", (("client", "execution"),)] == 0.0
    assert found["messages_dropped", ()] == 7.0
    metrics.on_snapshot(board.take(observed(3, forecast=None, model="tiny/2", inference_s=math.nan, parity="none"))[0])
    found = series(metrics)
    assert not [name for name, _ in found if name == "forecast_quantile"]
    assert [labels for name, labels in found if name == "model_info"] == [(("instrument", BTC), ("model", "tiny/2"))]
    assert found["inference_seconds_count", of] == 3.0
    assert math.isnan(found["parity", of])


def test_the_documentation_names_every_metric() -> None:
    text = (Path(__file__).parents[1] / "docs" / "watching.md").read_text(encoding="utf-8")
    table = text.partition("## Metrics")[2].partition("Silence:")[0]
    named = {
        name for row in table.splitlines() if row.startswith("|") for name in re.findall("`(.+?)`", row.split("|")[1])
    }
    metrics = Metrics({"trader": "T-1"})
    metrics.on_snapshot(Board().take(observed())[0])
    metrics.on_event(told())
    families = [family for family in metrics.registry.collect() if not family.name.endswith("_created")]
    suffix = {"counter": "_total", "info": "_info"}
    assert named == {family.name.removeprefix("lstm_strategy_") + suffix.get(family.type, "") for family in families}


# -- alerts ------------------------------------------------------------------------------------------------------------


class Hooks(ThreadingHTTPServer):
    """Takes webhooks: /slow answers too late, /failing with 500, all else at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.go, self.broken = threading.Event(), True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def at(self, place: str) -> list[dict[str, Any]]:
        return [body for path, body in self.taken if path.startswith(place)]


class _Hook(BaseHTTPRequestHandler):
    server: Hooks

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.taken.append((self.path, body))
        if self.path.startswith("/slow"):
            self.server.go.wait(5.0)
        failing = self.path.startswith("/failing") and self.server.broken
        try:
            self.send_response(500 if failing else 204)
            self.send_header("content-length", "0")
            self.end_headers()
        except OSError:  # it was not waited for
            pass

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hooks() -> Iterator[Hooks]:
    with Hooks() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            server.shutdown()
            thread.join()


def alerting(server: Hooks, said: list[str], places: dict[str, str], **config: Any) -> Alerts:
    settings = AlertsConfig(**{name: name.upper() for name in places}, **config)
    environment = {name.upper(): server.url + place for name, place in places.items()}
    return Alerts(settings, targets_of(settings, environment), {"trader": "T-1"}, said.append, between_s=0.01)


def test_a_slow_and_a_failing_service_hold_up_nobody_and_tell_no_secret() -> None:
    said: list[str] = []
    places = {"slack": "/slow/s3cret", "discord": "/failing/s3cret", "webhook": "/fine/s3cret"}
    with hooks() as server:
        alerts = alerting(server, said, places, timeout=0.2)
        with Station(Board(), [alerts], [alerts], said.append) as station:
            began = time.monotonic()
            for number in range(3):
                station.put(told(text=str(number)))
            assert time.monotonic() - began < 0.5  # the slow one would take three attempts of .2 s for each
            until(lambda: len(server.at("/fine")) == 3)
            until(lambda: alerts.counts["discord"]["lost"] == 3)
            server.broken = False
            station.put(told(text="again"))
            until(lambda: any("again" in text for text in said))
            until(lambda: any("slack" in text for text in said))
            server.go.set()
            until(lambda: alerts.counts["slack"]["sent"] > 0)
        assert [body["text"][-1] for body in server.at("/fine")][:3] == ["0", "1", "2"]
    assert len(server.at("/failing")) == 3 * 3 + 1  # three attempts each
    assert sorted(said) == sorted(set(said))
    assert "alerts do not reach slack (no answer in time); trading goes on without them" in said
    assert "alerts do not reach discord (it answers 500); trading goes on without them" in said
    assert "alerts reach discord again; 3 were lost so far" in said
    assert not [text for text in said if "s3cret" in text or "127.0.0.1" in text]
    assert "s3cret" not in repr(targets_of(AlertsConfig(slack="S"), {"S": "https://hooks.example/s3cret"}))


def test_a_stop_waits_for_no_webhook() -> None:
    with hooks() as server:
        alerts = alerting(server, [], {"slack": "/slow"}, timeout=60.0)
        with Station(Board(), [alerts], [alerts], lambda _: None) as station:
            station.put(told("stop"))
            until(lambda: server.at("/slow"))
            began = time.monotonic()
        assert time.monotonic() - began < 30.0


def test_each_service_gets_its_own_words() -> None:
    with hooks() as server:
        config = AlertsConfig(
            telegram_token="TOKEN",  # noqa: S106 - the variable's name
            telegram_chat="CHAT",
            telegram_api=server.url,
            slack="SLACK",
            discord="DISCORD",
            webhook="HOOK",
        )
        environment = {"TOKEN": "1:a", "CHAT": "-5"} | {
            name: f"{server.url}/{name}" for name in ("SLACK", "DISCORD", "HOOK")
        }
        alerts = Alerts(config, targets_of(config, environment), {"trader": "T-1", "mode": "live"}, print)
        with Station(Board(), [alerts], [alerts], print) as station:
            station.put(told("halt", "<b> & @everyone"))
            station.put(told("step", "not asked for"))
            until(lambda: len(server.taken) == 4)
        text = f"⛔ T-1 (live) halt {BTC}: <b> & @everyone"
        assert server.at("/bot1:a/sendMessage") == [{"chat_id": "-5", "text": text, "disable_web_page_preview": True}]
        assert server.at("/SLACK") == [{"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}]
        assert server.at("/DISCORD") == [{"content": text, "allowed_mentions": {"parse": []}}]
        (plain,) = server.at("/HOOK")
        assert (plain["kind"], plain["text"], plain["instrument"], plain["trader"]) == ("halt", text, BTC, "T-1")


def test_alerts_keep_to_a_rate_count_what_they_hold_back_and_keep_room_for_halts() -> None:
    now = [0.0]
    bucket = Bucket(10, lambda: now[0])
    assert [bucket.take("fill") for _ in range(7)] == [True] * 5 + [False] * 2
    assert [bucket.take("halt") for _ in range(6)] == [True] * 5 + [False]
    now[0] = 6.0
    assert [bucket.take("halt"), bucket.take("halt")] == [True, False]
    with hooks() as server:
        alerts = alerting(server, [], {"webhook": "/"}, per_minute=4)
        with Station(Board(), [alerts], [alerts], lambda _: None) as station:
            for number in range(30):
                station.put(told("fill", str(number)))
            until(lambda: alerts.counts["webhook"]["held_back"] == 28)
            time.sleep(0.1)  # the count alone uses up nothing that is kept
            station.put(told("halt", "now"))
            station.put(told("halt", "once more"))
            until(lambda: len(server.taken) >= 4)
        texts = [body["text"] for body in server.at("/")]
    assert [text.split()[3] for text in texts[:4]] == ["fill", "fill", "halt", "halt"]
    counts = [int(match[1]) for text in texts if (match := re.search(r"(\d+) alerts? w", text))]
    assert sum(counts) == 28  # none goes untold


@pytest.mark.parametrize("kind", ["refusal", "trouble", "halt"])
def test_no_storm_keeps_a_halt_or_a_stop_back(kind: str) -> None:
    with hooks() as server:
        alerts = alerting(server, [], {"webhook": "/"}, per_minute=4, events=("refusal", "trouble", "halt", "stop"))
        with Station(Board(), [alerts], [alerts], lambda _: None) as station:
            for number in range(30):
                station.put(told(kind, str(number)))
            station.put(told("halt", "the loss of the day"))
            station.put(told("stop", "over"))
            until(
                lambda: (
                    sum(body["kind"] in ("halt", "stop") for body in server.at("/")) >= (32 if kind == "halt" else 2)
                )
            )
        kinds = [body["kind"] for body in server.at("/")]
    assert (kinds.count("halt"), kinds.count("stop")) == (31 if kind == "halt" else 1, 1)
    assert kind == "halt" or kinds.count(kind) == 2  # half of the rate


@pytest.mark.parametrize(
    ("wrong", "told_of"),
    [
        ({"slack": "https://hooks.slack.com/services/s3cret"}, "live.alerts.slack is not the name"),
        ({"telegram_token": "TOKEN"}, "needs both"),
        ({"per_minute": 0}, "live.alerts.per_minute is 0"),
        ({"timeout": math.inf}, "live.alerts.timeout is inf"),
        ({"telegram_api": "http://example.com"}, "live.alerts.telegram_api"),
    ],
)
def test_settings_of_alerts_are_checked_and_secrets_not_repeated(wrong: dict[str, Any], told_of: str) -> None:
    with pytest.raises(LSTMStrategyError, match=told_of) as error:
        AlertsConfig(**wrong)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("value", ["", "s3cret", "http://example.com/s3cret", "https://[s3cret", "ftp://127.0.0.1/"])
def test_a_variable_that_is_not_set_or_no_url_is_named_alone(value: str) -> None:
    with pytest.raises(LSTMStrategyError, match="HOOK") as error:
        targets_of(AlertsConfig(webhook="HOOK"), {"HOOK": value})
    assert "s3cret" not in str(error.value)


# -- the page, asked directly ------------------------------------------------------------------------------------------


class Shown:
    """A page of a board, without a node."""

    def __init__(self, port: int, web: Web, station: Station, halts: list[str]) -> None:
        self.port, self.web, self.station, self.halts = port, web, station, halts

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode()
        finally:
            connection.close()

    def halt(self, **headers: str) -> int:
        mine = {"Origin": f"http://127.0.0.1:{self.port}", TOKEN_HEADER.replace("-", "_"): self.web.token} | headers
        return self.ask("POST", "/halt", "because", **{name: value for name, value in mine.items() if value})[0]


@pytest.fixture
def shown() -> Iterator[Shown]:
    board, halts = Board(), list[str]()
    metrics, sock = Metrics({"trader": "T-1"}), listen(0)

    def order_halt(reason: str) -> bool:
        halts.append(reason)
        return True

    run = {"mode": "paper", "bar_s": 3_600.0, "interval": 0.8}
    web = Web(board, metrics, run, {"rebalance": "worth it"}, order_halt, sock, lambda event: station.put(event))
    station = Station(board, [metrics, web], [web], print)
    with station:
        station.put(observed(0))
        until(lambda: board.latest)
        yield Shown(sock.getsockname()[1], web, station, halts)


def test_files_are_served_to_this_machine_by_name_and_with_their_headers(shown: Shown) -> None:
    for path in ("/", "/page.css", "/page.js", "/chart.js"):
        status, headers, text = shown.ask("GET", path)
        assert status == 200
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert not re.search(r"https?://(?!www\.w3\.org)", text)  # nothing from elsewhere
        assert not re.search(r"\son\w+\s*=\s*[\"']|javascript:|innerHTML|\sstyle=", text)
    assert "access-control-allow-origin" not in headers
    assert shown.web._socket.getsockname()[0] == "127.0.0.1"
    assert shown.ask("GET", "/nothing")[0] == 404
    for host in ("evil.example", "evil.example:80", f"127.0.0.1.evil.example:{shown.port}", ""):
        assert shown.ask("GET", "/status", Host=host)[0] == 421
    assert shown.ask("GET", "/status", Host="localhost:9")[0] == 200  # by a tunnel from another port
    status, headers, text = shown.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert "lstm_strategy_equity 1000.0" in text
    assert shown.web.token not in text


def test_only_the_page_itself_with_its_token_may_halt(shown: Shown) -> None:
    for method in ("GET", "HEAD", "PUT", "OPTIONS", "DELETE"):
        assert shown.ask(method, "/halt", x_lstm_strategy_token=shown.web.token)[0] == 405
    refused: list[dict[str, str]] = [
        {TOKEN_HEADER.replace("-", "_"): ""},
        {TOKEN_HEADER.replace("-", "_"): "wrong"},
        {TOKEN_HEADER.replace("-", "_"): shown.web.token[:-1]},
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": f"https://127.0.0.1:{shown.port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ]
    for headers in refused:
        assert shown.halt(**headers) == 403, headers
    assert shown.halt(Host="evil.example", Origin="http://evil.example") == 421
    assert shown.halts == []
    status, _, text = shown.ask("POST", "/halt", "x" * 2_000, Origin=f"http://127.0.0.1:{shown.port}")
    assert (status, "token" in text) == (403, True)
    assert shown.halt() == 202
    assert shown.halt(Sec_Fetch_Site="same-origin") == 202
    assert shown.halts == ["dashboard: because"] * 2
    origin = f"http://127.0.0.1:{shown.port}"
    reply = shown.ask("POST", "/halt", "x" * 2_000, Origin=origin, x_lstm_strategy_token=shown.web.token)
    assert reply[0] == 413
    events = shown.station.board.events
    until(lambda: len(events) == 2)
    assert {event.text for _, event in events} == {"somebody gave a wrong token to halt"}


def test_a_page_hears_everything_once_then_what_is_new_and_that_it_is_over(shown: Shown) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=60)
    connection.request("GET", "/events")
    reply = connection.getresponse()
    assert reply.getheader("content-type", "").startswith("text/event-stream")

    def message() -> dict[str, Any]:
        line = reply.readline()
        while not line.startswith(b"data: "):
            line = reply.readline()
        found: dict[str, Any] = json.loads(line[6:])
        return found

    first = message()
    assert first["words"] == {"rebalance": "worth it"}
    assert [point[2] for point in first["instruments"][BTC]["points"]] == [100.0]
    assert first["instruments"][BTC]["latest"]["headroom"][0]["room"] == 0.75
    for number in range(1, 400):
        shown.station.put(observed(number, 100.0 + number))
    shown.station.put(told("fill", "buy"))
    seen, events = [], []
    while not events:
        again = message()
        seen += [point[2] for point in again["instruments"][BTC]["points"]]
        events += again["events"]
    assert seen == sorted(set(seen))
    assert seen[-1] == 499.0
    assert events[0][1]["text"] == "buy"
    assert again["words"] == {}
    shown.station.__exit__(None, None, None)
    rest = reply.read()
    assert b"event: end" in rest
    connection.close()


def test_no_more_pages_than_so_many(shown: Shown) -> None:
    pages = [http.client.HTTPConnection("127.0.0.1", shown.port, timeout=60) for _ in range(17)]
    for page in pages:
        page.request("GET", "/events")
    replies = [page.getresponse() for page in pages]
    assert sorted(reply.status for reply in replies) == [200] * 16 + [503]
    for page, reply in zip(pages, replies, strict=True):
        reply.close()
        page.close()
    until(lambda: not shown.web._news)  # whoever has gone leaves nothing behind


def test_a_taken_port_and_a_missing_extra_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = listen(0)
    with pytest.raises(LSTMStrategyError, match="--dashboard-port"):
        listen(taken.getsockname()[1])
    taken.close()
    monkeypatch.delitem(sys.modules, "lstm_strategy.watch.web")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(LSTMStrategyError, match=r"needs uvicorn, .*pip install 'lstm-strategy\[live\]'"):
        _extra()


# -- a node, a browser -------------------------------------------------------------------------------------------------

WATCHED = """
[limits]
daily_loss = 0.5
max_drawdown = 0.9
orders_per_day = 24
max_volatility = 5.0
feature_range = 8.0
[live.alerts]
webhook = "TEST_HOOK"
discord = "TEST_DISCORD"
"""
HISTORY, BARS = 1_000, 800


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_artefact: Path) -> Path:
    """A folder with a catalog, a model that trades often, and an experiment."""
    folder = tmp_path_factory.mktemp("desk")
    tiny = artefact.load(tiny_artefact)
    shrinkage = [Shrinkage(1.0, -0.13, 0.001), Shrinkage()]
    manifest = msgspec.structs.replace(tiny.manifest, shrinkage=shrinkage)
    artefact.save(folder, manifest, tiny.graph, (tiny_artefact / "weights.safetensors").read_bytes())
    config = SimulationConfig(instrument_id=BTC, timeframe="1h", bars=HISTORY + BARS, seed=5, start="2022-01-01")
    bars, described = simulate(config), simulated_instrument(config)
    bring_in(folder / "catalog", bars, described)
    (folder / "experiment.toml").write_text(EXPERIMENT + WATCHED)
    return folder


@contextmanager
def node(desk: Path, server: Hooks) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A node on a replay, ten hours a second, with its page; yields process, link and what it says."""
    words = ["paper", "experiment.toml", "--catalog", "catalog", "--runs", "runs", "--model", "tiny/1", "--replay"]
    words += ["--speed", "36000", "--dashboard", "--dashboard-port", "0", "--json"]
    environment = {"TEST_HOOK": f"{server.url}/fine/s3cret", "TEST_DISCORD": f"{server.url}/failing/s3cret"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from lstm_strategy.cli import main; main()", *words],
        cwd=desk,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    reader.start()
    try:
        link = until(lambda: re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", "".join(said)), 60.0)
        yield process, link[0], said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


SPOT = "Number(document.querySelector('#price').dataset.bars || 0)"
FAN = "document.querySelectorAll('#price path.fan').length === 3 && document.querySelector('#price path.line') !== null"
BANNER = "!document.getElementById('banner').hidden"
WIDTH = "document.querySelector('#price path.line').getBBox().width"


def test_the_page_shows_a_running_node_and_its_button_halts_it(desk: Path, tmp_path: Path) -> None:
    browser = chromium.find_chromium()
    if browser is None:
        pytest.skip("no Chromium")
    shots = Path(os.environ.get("LSTM_STRATEGY_TEST_SHOTS", str(tmp_path)))
    with (
        hooks() as server,
        node(desk, server) as (process, link, said),
        chromium.browse(browser, tmp_path / "p") as page,
    ):
        page.visit(link, 1280)
        page.wait(f"{SPOT} > 12 && {FAN}", 30.0)
        assert page.ask("location.hash") == ""  # the token is out of sight
        before = page.ask("[document.querySelector('#health dd:nth-of-type(4)').textContent, document.title]")
        assert page.ask(WIDTH) > 100
        page.wait(f"document.querySelector('#health dd:nth-of-type(4)').textContent !== {json.dumps(before[0])}")
        assert BTC in before[1]
        limits = page.ask("[...document.querySelectorAll('#limits li')].map(row => row.firstChild.textContent)")
        named = {"max exposure", "daily loss", "max drawdown", "orders per day", "max volatility", "feature range"}
        assert named <= set(limits)
        assert page.ask("document.querySelector('#decisions tbody').rows.length") > 5
        prices = page.ask("[...document.querySelectorAll('#decisions td:nth-child(2)')].map(one => one.textContent)")
        assert all(re.fullmatch(r"\d{1,3}(,\d{3})*\.\d{2}", price) for price in prices), prices
        heads = page.ask("[...document.querySelectorAll('#coverage th')].map(one => one.textContent)")
        assert heads == ["Interval", "1 bar", "4 bars"]
        page.wait("[...document.querySelectorAll('#events b')].some(kind => kind.textContent === 'fill')")
        page.screenshot(shots / "dashboard-1280.png")
        origin = link.split("/#")[0]
        assert {request.split("/")[2] for request in page.requests if request.startswith("http")} == {origin[7:]}
        status = page.ask(
            "fetch('/halt', {method: 'POST', headers: {'X-LSTM-Strategy-Token': 'x'}}).then(r => r.status)"
        )
        assert status == 403
        assert "lstm_strategy_equity" in page.ask("fetch('/metrics').then(reply => reply.text())")
        assert [error for error in page.errors if "403" not in error] == []

        page.visit(link.replace("/#", "/?narrow#"), 390, dark=True)
        page.wait(f"{SPOT} > 3 && {FAN}")
        assert page.ask("document.documentElement.scrollWidth") <= 390
        page.screenshot(shots / "dashboard-390.png")
        page.ask("document.getElementById('halt').click()")
        assert page.ask("document.getElementById('ask').open && document.getElementById('token-row').hidden")
        page.ask("sessionStorage.clear()")
        assert page.errors == []

        url, token = link.split("#token=")  # without the link's fragment it is asked for
        page.visit(f"{url}?typed", 390, dark=True)
        page.wait(FAN)
        page.ask("document.getElementById('halt').click()")
        assert page.ask("!document.getElementById('token-row').hidden")
        page.ask("document.getElementById('reason').value = 'a test says so'")
        for typed, after in (("wrong", "document.getElementById('ask-error').textContent"), (token, BANNER)):
            page.ask(f"document.getElementById('token').value = {json.dumps(typed)}")
            page.ask("document.getElementById('confirm').click()")
            page.wait(after)
        assert "dashboard: a test says so" in page.ask("document.getElementById('banner').textContent")
        page.wait("document.getElementById('side').textContent === 'flat'")
        happened = page.ask("document.getElementById('events').textContent")
        assert "a halt was ordered by the dashboard's button (a test says so)" in happened
        page.screenshot(shots / "dashboard-halted.png")
        assert [error for error in page.errors if "403" not in error] == []
        process.send_signal(signal.SIGTERM)
        page.wait("document.getElementById('live').textContent === 'the node has ended'", 30.0)
        process.wait(30)

    told_all = "".join(said)
    assert process.returncode == 0, told_all
    summary = msgspec.json.decode(said[-1])
    folder = desk / summary["run_path"]
    reasons = pq.read_table(folder / "decisions.parquet")["reason"].to_pylist()
    assert "halt_ordered" in reasons
    assert summary["fills"] > 5
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds.count("decision") == len(reasons)
    assert (kinds[0], kinds[-1]) == ("start", "stop")
    assert {"step", "fill", "halt"} <= set(kinds)
    alerted = [body["kind"] for body in server.at("/fine")]
    assert {"start", "fill", "halt", "stop"} <= set(alerted)
    assert told_all.count("alerts do not reach discord") == 1
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [content for content in files if b"s3cret" in content or token.encode() in content]
    assert "s3cret" not in told_all
    shutil.rmtree(desk / "runs")
