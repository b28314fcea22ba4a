"""What a node cannot run with, from the command line: one line that names it and the way out, exit code 1, no order."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from test_live import BTC, KEYS, LIVE, SECRET, UNLISTED, Desk, desk, exchange, secrets_in  # noqa: F401 - desk is a fixture
from trading_support import new_secret, trading

from lstm_strategy.cli import main
from lstm_strategy.nautilus.node_settings import hold_trader
from lstm_strategy.sources.store import RawStore
from lstm_strategy.state_folder import StateFolder

AGREED = "--yes-trade-real-money"
BOTH: tuple[tuple[str, list[str]], ...] = (("paper", []), ("live", [AGREED]))


type Told = Callable[..., tuple[str, str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    """With keys in the environment, run a command as a shell does; return its one line of error, and all it said."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "400")

    def run(words: list[str], code: int = 1) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["lstm-strategy", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == code, said
        assert not said.out, "nothing for programs"
        lines = said.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, said.err
        assert lines[-1] == errors[0], "it is the last thing said"
        assert "Traceback" not in said.err
        assert "unexpected" not in errors[0]
        return errors[0], said.err

    return run


def refused_by_venue(desk: Desk, verb: str, experiment: Path, *more: str, **environment: str) -> tuple[str, str]:  # noqa: F811
    """Do so in a process of its own: the engine writes one log a process, which tells why it could not start."""
    node = desk.start(verb, experiment, *more, **environment, COLUMNS="400")
    said, _ = node.communicate(timeout=90)
    assert node.returncode == 1, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "Traceback" not in said
    return errors[0], said


def test_no_keys(desk: Desk, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in KEYS:
        monkeypatch.delenv(name)
    error, _ = told(desk.words("live", desk.experiment(LIVE), AGREED))
    assert "binance needs BINANCE_API_KEY and BINANCE_API_SECRET in the environment" in error


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"BINANCE_API_SECRET": new_secret()}, "-1022"),
        ({"BINANCE_API_KEY": "another0123456789"}, "-2015"),
        ({}, "may not trade"),
    ],
    ids=["secret of another key", "unknown key", "account that may not trade"],
)
def test_wrong_keys(desk: Desk, wrong: dict[str, str], why: str) -> None:  # noqa: F811
    with exchange(desk, trading=trading(SECRET, may_trade=bool(wrong))) as venue:
        words = (desk.experiment(LIVE), AGREED, "--base-url", venue.url)
        error, said = refused_by_venue(desk, "live", *words, **KEYS | wrong)
        assert not venue.server.trading.books["BTCUSDT"].orders
    assert error.startswith("error: binance: ")
    assert why in error
    assert "✓ account" not in said
    assert not secrets_in(desk.folder / "runs", said, *wrong.values())


def test_venue_unreachable(desk: Desk, told: Told) -> None:  # noqa: F811
    words = ["--base-url", "http://127.0.0.1:9", "--start-timeout", "0.2"]
    for verb, more in BOTH:
        experiment = desk.experiment(LIVE.replace("start_timeout = 1\n", ""))
        error, said = told(desk.words(verb, experiment, *more, *words))
        assert "error: binance cannot be reached: http" in error
        assert "(live.start_timeout)" in error
        assert "trying again" in said


def test_instrument_not_listed(desk: Desk) -> None:  # noqa: F811
    store = RawStore(desk.folder / "catalog")
    store.write_instrument(msgspec.structs.replace(store.read_instrument(BTC), id=UNLISTED, base="NOSUCH"))
    experiment = desk.experiment(LIVE, names=UNLISTED)
    with exchange(desk, trading=trading(SECRET)) as venue:
        for verb, more in BOTH:
            error, _ = refused_by_venue(desk, verb, experiment, *more, "--base-url", venue.url, **KEYS)
            assert error == f"error: binance does not list {UNLISTED}; nothing was sent"
        assert not any(book.orders for book in venue.server.trading.books.values())


def test_timeframe_not_offered(desk: Desk, told: Told) -> None:  # noqa: F811
    experiment = desk.experiment(LIVE)
    experiment.write_text(experiment.read_text().replace('timeframe = "1h"', 'timeframe = "7m"'))
    for verb, more in BOTH:
        error, _ = told(desk.words(verb, experiment, *more))
        assert error.startswith("error: data.timeframe is 7m; binance offers 1s, 1m, 3m")


def test_artefact_missing_damaged_or_of_another_instrument(
    desk: Desk,  # noqa: F811
    tmp_path: Path,
    told: Told,
) -> None:
    def refused(model: Path, names: str = BTC) -> list[str]:
        other = Desk(desk.folder, model)
        experiment = other.experiment(LIVE, names=names)
        return [told(other.words(verb, experiment, *more))[0] for verb, more in BOTH]

    assert all("no whole artefact" in error for error in refused(tmp_path / "none"))
    damaged = tmp_path / "tiny" / "1"
    shutil.copytree(desk.model, damaged)
    graph = damaged / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    assert all("does not match its sha256 in the manifest" in error for error in refused(damaged))
    store = RawStore(desk.folder / "catalog")
    store.write_instrument(msgspec.structs.replace(store.read_instrument(BTC), id="ETHUSDT.BINANCE", base="ETH"))
    assert all("was not trained on ETHUSDT.BINANCE; it knows" in e for e in refused(desk.model, "ETHUSDT.BINANCE"))


def test_account_that_cannot_short(
    desk: Desk,  # noqa: F811
    tmp_path: Path,
    told: Told,
) -> None:
    """Said to be one on margin, a spot account is none all the same."""
    text = desk.experiment('[backtest]\naccount = "margin"\n' + LIVE).read_text()
    short = tmp_path / "short.toml"
    short.write_text(text.replace("[limits]", '[limits]\nside = "long_short"'))
    error, _ = told(desk.words("live", short, AGREED))
    assert error.startswith("error: limits.side is long_short; a spot account at binance cannot short: trade a perp")
    text = text.replace('account = "margin"', 'account = "cash"').replace("[limits]", '[limits]\nside = "long_short"')
    short.write_text(text)
    for verb, more in BOTH:
        error, _ = told(desk.words(verb, short, *more))
        assert "cannot short" in error


def test_two_nodes_with_one_trader_id(desk: Desk, told: Told) -> None:  # noqa: F811
    """On one machine a lock says so; on two the lease does (`test_redis`)."""
    experiment = desk.experiment(LIVE + 'trader_id = "DESK-007"\n')
    with hold_trader(desk.folder / "runs" / ".traders", "DESK-007"):
        for verb, more in BOTH:
            error, _ = told(desk.words(verb, experiment, *more))
            assert error.startswith(f"error: trader DESK-007 runs already (process {os.getpid()}); stop it, or give")


def test_a_state_folder_that_another_holds(desk: Desk, told: Told) -> None:  # noqa: F811
    for verb, more in BOTH:
        folder = StateFolder(desk.folder / "runs" / "tiny" / verb / "state")
        folder.acquire("somebody")
        error, _ = told(desk.words(verb, desk.experiment(LIVE), *more))
        folder.release()
        assert "is held by another process (process" in error


def test_wrongly_called(desk: Desk, told: Told) -> None:  # noqa: F811
    error, _ = told(desk.words("live", desk.experiment(LIVE), "--yes"), code=2)
    assert "--yes" in error
