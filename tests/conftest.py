"""What every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from node_support import ended
from tiny_support import make_tiny

if TYPE_CHECKING:
    from nautilus_trader.backtest.engine import BacktestEngine

settings.register_profile("ours", deadline=None)  # how long an example takes tells of the machine, not of the code
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def no_node_outlives_its_test() -> Iterator[None]:
    with ended():
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real market history: $LSTM_STRATEGY_TEST_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("LSTM_STRATEGY_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "crypto").is_dir():
        pytest.skip(f"no market data in {folder}; name a folder with LSTM_STRATEGY_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole artefact: untrained, on the default features, BTCUSDT.BINANCE at 1h, horizons 1 and 4."""
    return make_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture
def engines() -> Iterator[list[BacktestEngine]]:
    """Engines that a test adds are disposed of when it is over."""
    made: list[BacktestEngine] = []
    yield made
    for engine in made:
        engine.dispose()
