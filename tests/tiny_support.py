"""A whole artefact, untrained and small, for tests and proofs that need one in a moment.

``python tiny_support.py MODELS SETTINGS …`` (JSON objects) makes one of each for a process that shall not load torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

BTC = "BTCUSDT.BINANCE"
LEVELS, HORIZONS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99), (1, 4)
START = (-2.3, -1.3, -0.7, 0.0, 0.7, 1.3, 2.3)
HOURS_A_YEAR = 8760.0
# What trades it; a test adds its limits, and whatever else it is about.
EXPERIMENT = """
name = "tiny"
[data]
instruments = ["BTCUSDT.BINANCE"]
timeframe = "1h"
[split]
fit_end = 2020-06-01
stop_end = 2020-09-01
calibrate_end = 2022-02-11T16:00:00Z
[target]
horizons = [1, 4]
[sizing]
mode = "mean_variance"
horizon = 1
kelly_fraction = 0.05
no_trade_band = 0.0
[costs]
fee = 0.0004
"""


def make_tiny(
    models: Path,
    *,
    timeframe: str = "1h",
    instruments: Sequence[str] = (BTC,),
    bars_per_year: float = HOURS_A_YEAR,
    centre: float = 0.01,
    trust: float = 0.5,
    seed: int = 11,
    version: str = "1",
) -> Path:
    """Save it below ``models`` and return its folder: default features, horizons 1 and 4.

    ``trust`` and ``centre`` are the slope and the centre of its mean at horizon 1; another ``seed`` is another network.
    """
    import torch
    from safetensors.torch import save as to_safetensors

    from lstm_strategy import artefact
    from lstm_strategy.decision import Shrinkage
    from lstm_strategy.features import FeaturesConfig
    from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
    from lstm_strategy.network import StreamingLSTM
    from lstm_strategy.research.export import export

    features, config = FeaturesConfig(), NetworkConfig(hidden=8, dropout=0.0)
    names = features.names
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StreamingLSTM(config, torch.zeros(len(names)), torch.ones(len(names)), torch.tensor([START, START]))
        with torch.no_grad():
            network.head.weight.mul_(10.0)  # so that the forecasts differ visibly from bar to bar
        graph = export(network)
    fit = artefact.InstrumentFit(tick=0.01, scale_floor=1e-4, bars_per_year=bars_per_year)
    manifest = artefact.Manifest(
        name="tiny",
        version=version,
        package_version="0.1.0",
        timeframe=timeframe,
        instruments=dict.fromkeys(instruments, fit),
        features=features,
        feature_ranges=[artefact.FeatureRange(name, 0.0, 1.0, -8.0, 8.0) for name in names],
        horizons=HORIZONS,
        levels=LEVELS,
        network=config,
        training=TrainConfig(),
        spans={"fit": ("2020-01-01T01:00:00Z", "2021-01-01T00:00:00Z")},
        data_sha256=dict.fromkeys(instruments, "0" * 64),
        baseline=[list(START), list(START)],
        calibration=[[-0.05, 0.0, 0.02, 0.01, 0.0, -0.01, 0.05], [0.1, 0.0, 0.0, -0.01, 0.0, 0.0, -0.1]],
        shrinkage=[Shrinkage(trust, centre, 0.001), Shrinkage()],
        warmup_bars=496,
        scores={"pinball_calibrate": 0.3},
    )
    weights = to_safetensors({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    return artefact.save(models, manifest, graph, weights)


if __name__ == "__main__":
    for settings in sys.argv[2:]:
        make_tiny(Path(sys.argv[1]), **json.loads(settings))
