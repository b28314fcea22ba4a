"""What a person must know reaches everybody who watches: console, event log, webhooks, page and metrics."""

from __future__ import annotations

import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_dashboard import hooks
from test_live import Desk, desk, read_until  # noqa: F401 - desk is a fixture

from lstm_strategy import registry

FOLLOW = """
[live]
follow = true
follow_poll = 0.1
shadow_bars = 3
[live.alerts]
webhook = "TEST_HOOK"
"""


def until(held: Callable[[], Any], seconds: float = 60.0) -> Any:
    late = time.monotonic() + seconds
    while not (found := held()):
        assert time.monotonic() < late
        time.sleep(0.05)
    return found


def read(url: str) -> str:
    return urllib.request.urlopen(url, timeout=60).read().decode()  # noqa: S310 - this machine's


def damaged(models: Path, model: Path, version: str) -> None:
    """Make a version current whose graph is not what was saved."""
    folder = model.with_name(version)
    shutil.copytree(model, folder)
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])
    (model.parent / "current").write_text(f"{version}\n")
    assert registry.current(models, model.parent.name) == folder


def test_refused_versions_are_told_to_all_who_watch(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    """One is current when the node starts, another comes while it runs; the model that was named trades on."""
    models = tmp_path / "models"
    model = models / "tiny" / desk.model.name
    shutil.copytree(desk.model, model)
    damaged(models, model, "bad")
    own = Desk(desk.folder, model)
    with hooks() as server:
        words = ("--replay", "--speed", "9000", "--dashboard", "--dashboard-port", "0")
        experiment = own.experiment(FOLLOW, name="told")
        node = own.start("paper", experiment, *words, TEST_HOOK=f"{server.url}/fine/s3cret")
        told: list[str] = []
        try:
            link = read_until(node, "dashboard: ", told).split()[1]
            run = Path(read_until(node, "run: ", told).removeprefix("run: ").strip())
            first = read_until(node, "is taken instead", told)
            read_until(node, "✓ history", told)
            damaged(models, model, "worse")
            second = read_until(node, "tiny/worse is refused", told)

            def troubles() -> list[str]:
                return [body["text"] for body in server.at("/fine") if body["kind"] == "trouble"]

            until(lambda: len(troubles()) == 2)
            served = link.partition("#")[0] + "metrics"
            until(lambda: f'model="tiny/{desk.model.name}"' in read(served), 60.0)  # it trades on
            metrics = read(served)
            page = until(lambda: "".join(path.read_text() for path in run.glob("events.jsonl")))
        finally:
            node.send_signal(signal.SIGTERM)
            rest, _ = node.communicate(timeout=60)
    assert node.returncode == 0, rest
    version = desk.model.name
    for line, mark in ((first, "The current version is refused: "), (second, "Model tiny/worse is refused: ")):
        assert line.startswith(f"! BTCUSDT.BINANCE: {mark}"), line
        assert f"tiny/{version} " in line
    assert "tiny/bad" in first
    for text, mark in zip(troubles(), ("is taken instead", "trades on"), strict=True):
        assert mark in text
    assert re.search(r'^lstm_strategy_events_total\{kind="trouble"\} 2\.0$', metrics, re.MULTILINE), metrics
    assert page.count('"kind":"trouble"') == 2
    assert f'model="tiny/{version}"' in metrics, "it trades on"
