"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real market history: $LSTM_STRATEGY_TEST_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("LSTM_STRATEGY_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "crypto").is_dir():
        pytest.skip(f"no market data in {folder}; name a folder with LSTM_STRATEGY_TEST_DATA")
    return folder
