"""No self-deception: networks trained on noise are found to know nothing, and one with an edge is found to have it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from scipy.stats import norm

from lstm_strategy.bars import Timeframe
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.hyperparameters import LEVELS, NetworkConfig, Spans, TargetConfig, TrainConfig
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.labels import build_sample, span_mask
from lstm_strategy.research.scores import GroupScores, ScoredTable
from lstm_strategy.research.scores_group import group_scores, pinball_N
from lstm_strategy.research.train import RUN_IN, forecast_sequences, train
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

SEEDS = 20
TARGET = TargetConfig(horizons=(1,))
FEATURES = FeaturesConfig(
    scale_span=24,
    features=(
        FeatureConfig("return", 1),
        FeatureConfig("return", 4),
        FeatureConfig("range"),
        FeatureConfig("hour_sin"),
    ),
)


def score(table: ScoredTable, oracle: np.ndarray | None = None) -> GroupScores:
    losses = {} if oracle is None else {"oracle": pinball_N(table.y, oracle, LEVELS)}
    return group_scores(table, losses, 300, 0)


def judged(seed: int, edge: float = 0.0, epochs: int = 8) -> tuple[ScoredTable, np.ndarray]:
    """Forecasts of a network on its test span, in raw returns, and the true law beside them."""
    market = SimulationConfig(bars=2_600, seed=seed, noise=edge == 0.0, edge=edge)
    bars = simulate(market)
    ends = [int(bars.ts_close[row]) for row in (1_200, 1_500, 1_500)]
    spans: Spans = {
        "fit": (None, ends[0]),
        "stop": (ends[0], ends[1]),
        "calibrate": (ends[1], ends[2]),
        "test": (ends[2], None),
    }
    sample = build_sample(bars, simulated_instrument(market), FEATURES, TARGET.horizons, spans)
    config = TrainConfig(
        seed=seed, epochs=epochs, patience=epochs // 2, chunk=128, burn_in=32, batch=8, learning_rate=0.01
    )
    with TemporaryDirectory() as folder:
        trained = train([sample], spans, TARGET, NetworkConfig(hidden=8), config, Path(folder) / "checkpoint")
    q_NHQ, y_NH = forecast_sequences(trained.network, sequences([sample], spans["test"], 1, RUN_IN))
    rows = np.flatnonzero(span_mask(bars, spans["test"], 1) & ~np.isnan(sample.y_TH[:, 0]))
    scale = sample.matrix.scale_T[rows]
    np.testing.assert_array_equal(y_NH[:, 0].numpy(), sample.y_TH[rows, 0])
    table = ScoredTable(
        ts=bars.ts_close[rows],
        instrument=np.full(len(rows), "SIM.SIM"),
        horizon=np.ones(len(rows), np.int64),
        y=y_NH[:, 0].numpy().astype(np.float64) * scale,
        q_NQ=q_NHQ[:, 0].numpy().astype(np.float64) * scale[:, None],
        scale=np.ones(len(rows)),
        levels=LEVELS,
    )
    sigma = market.volatility / np.sqrt(Timeframe.parse(market.timeframe).bars_per_year)
    return table, np.tile(sigma * norm.ppf(LEVELS) - sigma**2 / 2.0, (len(rows), 1))


@cache
def on_noise() -> tuple[GroupScores, ...]:
    found = []
    for seed in range(SEEDS):
        table, oracle = judged(seed)
        found.append(score(table, oracle))
    return tuple(found)


def test_the_true_law_of_noise_is_never_beaten() -> None:
    for scores in on_noise():
        assert not scores.verdict.startswith("Better")
        assert scores.dm["oracle"].statistic < 1.96
        assert scores.skill_ci["oracle"][0] < 0.0
    assert np.mean([scores.skill["oracle"] for scores in on_noise()]) < 0.0


def test_noise_has_no_direction() -> None:
    """At 5 % one of twenty is to be expected, more than two come once in thirteen tries; the seeds are fixed."""
    found = [scores.rank_ic_ci for scores in on_noise()]
    assert sum(ends is not None and (ends[0] > 0.0 or ends[1] < 0.0) for ends in found) <= 2
    signs = [scores.direction_above_chance_ci for scores in on_noise()]
    assert sum(ends is not None and (ends[0] > 0.0 or ends[1] < 0.0) for ends in signs) <= 2
    assert sum("No directional skill found" in scores.verdict for scores in on_noise()) >= SEEDS - 2
    assert sum(ends is not None for ends in found) >= SEEDS // 2  # most networks do say something


@pytest.mark.parametrize("seed", [3, 4])
def test_an_edge_is_found_by_the_same_measure(seed: int) -> None:
    table, _ = judged(seed, edge=0.5, epochs=40)
    assert "Directional skill found" in score(table).verdict


def test_a_network_that_saw_the_outcome_beats_the_true_law() -> None:
    """The test above can fail: with a tenth of the outcome in the forecast it does."""
    table, oracle = judged(0)
    peeking = ScoredTable(
        table.ts, table.instrument, table.horizon, table.y, oracle + 0.1 * table.y[:, None], table.scale, LEVELS
    )
    scores = score(peeking, oracle)
    assert scores.verdict.startswith("Better than every baseline")
    assert scores.dm["oracle"].statistic > 1.96
    assert "Directional skill found" in scores.verdict
