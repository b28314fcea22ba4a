"""The usual way, as a rival: the same network on shuffled 64-bar windows, its loss at the last bar of each."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from lstm_strategy.hyperparameters import NetworkConfig, TargetConfig, TrainConfig
from lstm_strategy.network import StreamingLSTM
from lstm_strategy.research.batches import Sequence
from lstm_strategy.research.losses import constant_quantiles, pinball

__all__ = ["WINDOW", "WindowTrainer", "Windows", "forecast_windows"]

WINDOW = 64


class Windows:
    """Every window of ``WINDOW`` bars that ends at a labelled bar; laid out in memory once, gathered by batch."""

    def __init__(self, found: list[Sequence]) -> None:
        found = [sequence for sequence in found if len(sequence.x_TF) >= WINDOW]
        windows = [sequence.x_TF.unfold(0, WINDOW, 1).permute(0, 2, 1) for sequence in found]
        labels = [sequence.y_TH[WINDOW - 1 :] for sequence in found]
        known = [~torch.isnan(y_TH).all(dim=1) for y_TH in labels]
        self.x = torch.cat([window[rows] for window, rows in zip(windows, known, strict=True)])
        self.y = torch.cat([y_TH[rows] for y_TH, rows in zip(labels, known, strict=True)])

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int, *, shuffled: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x [WINDOW, B, F], y [B, H])."""
        order = torch.randperm(len(self)) if shuffled else torch.arange(len(self))
        for rows in order.split(size):
            yield self.x[rows].transpose(0, 1), self.y[rows]


def forecast_windows(network: StreamingLSTM, x_WBF: Tensor) -> Tensor:
    """Return the quantiles [B, H * Q] at the last bar of each window, the state started at rest."""
    h, c = network.initial_state(x_WBF.shape[1])
    q_WBN, _, _ = network(x_WBF, h, c)
    return q_WBN[-1]


class WindowTrainer:
    """Trains with the package's optimiser and rate, held constant; only the gradient steps are on the clock."""

    def __init__(
        self, fit: list[Sequence], stop: list[Sequence], target: TargetConfig, config: TrainConfig, batch: int
    ) -> None:
        torch.manual_seed(config.seed)
        inputs = torch.cat([sequence.x_TF for sequence in fit])
        start_HQ = constant_quantiles(fit, target.levels)
        self.network = StreamingLSTM(NetworkConfig(), inputs.mean(dim=0), inputs.std(dim=0).clamp_min(1e-6), start_HQ)
        self.fit, self.stop, self.batch, self.config = Windows(fit), Windows(stop), batch, config
        self.levels_Q = torch.tensor(target.levels)
        self.n_horizons = len(target.horizons)
        self.cpu_seconds, self.targets = 0.0, 0

    def curve(self, interval: float, patience: float, longest: float) -> list[tuple[float, float]]:
        """Train until the validation loss has not improved for ``patience`` CPU seconds; return (CPU seconds, loss)."""
        optimiser = torch.optim.AdamW(
            self.network.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        points: list[tuple[float, float]] = []
        best, best_at = float("inf"), 0.0
        while True:
            for x_WBF, y_BH in self.fit.batches(self.batch, shuffled=True):
                started = time.process_time()
                q_BHQ = forecast_windows(self.network, x_WBF).unflatten(-1, (self.n_horizons, -1))
                loss = pinball(q_BHQ, y_BH, self.levels_Q)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
                optimiser.step()
                self.cpu_seconds += time.process_time() - started
                self.targets += len(y_BH)
                if self.cpu_seconds - (points[-1][0] if points else 0.0) < interval:
                    continue
                points.append((self.cpu_seconds, self.judge()))
                if points[-1][1] < best:
                    best, best_at = points[-1][1], self.cpu_seconds
                if self.cpu_seconds - best_at > patience or self.cpu_seconds > longest:
                    return points

    @torch.no_grad()
    def judge(self) -> float:
        """Validation loss, by windows too."""
        self.network.eval()
        found = [forecast_windows(self.network, x_WBF) for x_WBF, _ in self.stop.batches(256, shuffled=False)]
        self.network.train()
        return float(pinball(torch.cat(found).unflatten(-1, (self.n_horizons, -1)), self.stop.y, self.levels_Q))
