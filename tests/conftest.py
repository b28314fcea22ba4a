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


@pytest.fixture(scope="session")
def tiny_artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole artefact: untrained, on the default features, BTCUSDT.BINANCE at 1h, horizons 1 and 4."""
    import torch
    from safetensors.torch import save as to_safetensors

    from lstm_strategy import artefact
    from lstm_strategy.decision import Shrinkage
    from lstm_strategy.features import FeaturesConfig
    from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
    from lstm_strategy.network import StreamingLSTM
    from lstm_strategy.research.export import export

    levels, horizons, start = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99), (1, 4), (-2.3, -1.3, -0.7, 0.0, 0.7, 1.3, 2.3)
    features, config = FeaturesConfig(), NetworkConfig(hidden=8, dropout=0.0)
    names = features.names
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = StreamingLSTM(config, torch.zeros(len(names)), torch.ones(len(names)), torch.tensor([start, start]))
        with torch.no_grad():
            network.head.weight.mul_(10.0)  # so that the forecasts differ visibly from bar to bar
        graph = export(network)
    manifest = artefact.Manifest(
        name="tiny",
        version="1",
        package_version="0.1.0",
        timeframe="1h",
        instruments={"BTCUSDT.BINANCE": artefact.InstrumentFit(tick=0.01, scale_floor=1e-4, bars_per_year=8760.0)},
        features=features,
        feature_ranges=[artefact.FeatureRange(name, 0.0, 1.0, -8.0, 8.0) for name in names],
        horizons=horizons,
        levels=levels,
        network=config,
        training=TrainConfig(),
        spans={"fit": ("2020-01-01T01:00:00Z", "2021-01-01T00:00:00Z")},
        data_sha256={"BTCUSDT.BINANCE": "0" * 64},
        baseline=[list(start), list(start)],
        calibration=[[-0.05, 0.0, 0.02, 0.01, 0.0, -0.01, 0.05], [0.1, 0.0, 0.0, -0.01, 0.0, 0.0, -0.1]],
        shrinkage=[Shrinkage(0.5, 0.01, 0.001), Shrinkage()],
        warmup_bars=496,
        scores={"pinball_calibrate": 0.3},
    )
    weights = to_safetensors({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    return artefact.save(tmp_path_factory.mktemp("models"), manifest, graph, weights)
