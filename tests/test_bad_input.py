"""What a node cannot run with, from the command line: one line that names it and the way out, exit code 1, no order."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
from test_live import BTC, KEYS, LIVE, SECRET, UNLISTED, Desk, desk, exchange  # noqa: F401 - desk is a fixture
from trading_support import KEY, new_secret, trading

from lstm_strategy.cli import main
from lstm_strategy.nautilus.node_settings import hold_trader
from lstm_strategy.sources.store import RawStore

AGREED = "--yes-trade-real-money"


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], code: int = 1
) -> tuple[str, str]:
    """Run the command as a shell does; return its one line of error, and all else that it said."""
    monkeypatch.setattr(sys, "argv", ["lstm-strategy", *words])
    monkeypatch.setenv("COLUMNS", "400")
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


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def test_no_keys(desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    error, _ = told(capsys, monkeypatch, desk.words("live", desk.experiment(LIVE), AGREED))
    assert "binance needs BINANCE_API_KEY and BINANCE_API_SECRET in the environment" in error


@pytest.mark.parametrize("wrong", ["secret", "key", "kind", "forbidden"])
def test_wrong_keys(desk: Desk, wrong: str) -> None:  # noqa: F811
    """A secret of another key, a key that nobody knows, one of a kind that the venue takes no log-on with, one that
    may not trade.
    """
    environment = (
        KEYS
        | {
            "secret": {"BINANCE_API_SECRET": new_secret()},
            "key": {"BINANCE_API_KEY": "another0123456789"},
            "kind": {"BINANCE_API_SECRET": "plain-hmac-secret-0123456789"},
            "forbidden": {},
        }[wrong]
    )
    with exchange(desk, trading=trading(SECRET, may_trade=wrong != "forbidden")) as venue:
        node = desk.start("live", desk.experiment(LIVE), AGREED, "--base-url", venue.url, **environment, COLUMNS="400")
        said, _ = node.communicate(timeout=90)
        assert not venue.server.trading.books["BTCUSDT"].orders
    assert node.returncode == 1, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert errors[0].startswith("error: binance: "), errors
    assert ("may not trade" if wrong == "forbidden" else "did not let the account in") in errors[0], errors
    assert "✓ account" not in said
    for word in {KEY, SECRET, *environment.values()}:
        assert word not in said


def test_venue_unreachable(
    desk: Desk,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keys: None,
) -> None:
    words = ["--base-url", "http://127.0.0.1:9", "--start-timeout", "0.2"]
    for verb, more in (("paper", []), ("live", [AGREED])):
        experiment = desk.experiment(LIVE.replace("start_timeout = 1\n", ""))
        error, said = told(capsys, monkeypatch, desk.words(verb, experiment, *more, *words))
        assert "error: binance cannot be reached (" in error
        assert "see live.start_timeout" in error
        assert "trying again" in said


def test_instrument_not_listed(desk: Desk) -> None:  # noqa: F811
    store = RawStore(desk.folder / "catalog")
    store.write_instrument(msgspec.structs.replace(store.read_instrument(BTC), id=UNLISTED, base="NOSUCH"))
    experiment = desk.experiment(LIVE, names=UNLISTED)
    with exchange(desk, trading=trading(SECRET)) as venue:
        for verb, more in (("paper", ()), ("live", (AGREED,))):
            node = desk.start(verb, experiment, *more, "--base-url", venue.url, **KEYS, COLUMNS="400")
            said, _ = node.communicate(timeout=90)
            assert node.returncode == 1, said
            (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
            assert error == f"error: binance does not list {UNLISTED}; nothing was sent", said
        assert not any(book.orders for book in venue.server.trading.books.values())


def test_timeframe_not_offered(
    desk: Desk,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keys: None,
) -> None:
    experiment = desk.experiment(LIVE)
    experiment.write_text(experiment.read_text().replace('timeframe = "1h"', 'timeframe = "7m"'))
    for verb, more in (("paper", []), ("live", [AGREED])):
        error, _ = told(capsys, monkeypatch, desk.words(verb, experiment, *more))
        assert error.startswith("error: data.timeframe is 7m; binance offers 1s, 1m, 3m")


def test_artefact_missing_damaged_or_of_another_instrument(
    desk: Desk,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keys: None,
) -> None:
    def refused(model: Path, names: str = BTC) -> list[str]:
        other = Desk(desk.folder, model)
        experiment = other.experiment(LIVE, names=names)
        pairs = (("paper", []), ("live", [AGREED]))
        return [told(capsys, monkeypatch, other.words(verb, experiment, *more))[0] for verb, more in pairs]

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
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keys: None,
) -> None:
    """Said to be one on margin, it is a spot account all the same: the venue is believed, not the experiment."""
    text = desk.experiment('[backtest]\naccount = "margin"\n' + LIVE).read_text()
    short = tmp_path / "short.toml"
    short.write_text(text.replace("[limits]", '[limits]\nside = "long_short"'))
    with exchange(desk, trading=trading(SECRET)) as venue:
        node = desk.start("live", short, AGREED, "--base-url", venue.url, **KEYS, COLUMNS="400")
        said, _ = node.communicate(timeout=90)
        assert not venue.server.trading.books["BTCUSDT"].orders
    assert node.returncode == 1, said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "limits.side is long_short; the cash account BINANCE" in error
    assert "cannot short" in error
    text = text.replace('account = "margin"', 'account = "cash"').replace("[limits]", '[limits]\nside = "long_short"')
    short.write_text(text)
    for verb, more in (("paper", []), ("live", [AGREED])):
        error, _ = told(capsys, monkeypatch, desk.words(verb, short, *more))
        assert "cannot short" in error


def test_two_nodes_with_one_trader_id(
    desk: Desk,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keys: None,
) -> None:
    """On one machine a lock says so; on two the lease does (`test_redis`)."""
    experiment = desk.experiment(LIVE + 'trader_id = "DESK-007"\n')
    with hold_trader(desk.folder / "runs" / ".traders", "DESK-007"):
        for verb, more in (("paper", []), ("live", [AGREED])):
            error, _ = told(capsys, monkeypatch, desk.words(verb, experiment, *more))
            assert error.startswith(f"error: trader DESK-007 runs already (process {os.getpid()}); stop it, or give")


def test_wrongly_called(desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    error, _ = told(capsys, monkeypatch, desk.words("live", desk.experiment(LIVE), "--yes"), code=2)
    assert "--yes" in error
