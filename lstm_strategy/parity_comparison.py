"""The comparison that parity rests on: steps as they were made, held against the same made offline."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lstm_strategy.artefact import Manifest
from lstm_strategy.bars import Bars, format_ns
from lstm_strategy.forecast import Float32

__all__ = ["Comparison", "Step"]

_HYBRID = 1e-5  # of a unit quantile: how far one pass of a hybrid is from its steps

type Step = tuple[Float32 | None, Float32 | None, float]  # features, raw quantiles, position


class Comparison:
    """Compares features, raw quantiles and positions, each in a unit of its own.

    Parameters
    ----------
    manifest : Manifest
        Of the model whose steps they are.
    tolerance : float
        In standard deviations of a feature in training, and units of σ√h of a raw quantile.
    """

    def __init__(self, manifest: Manifest, tolerance: float) -> None:
        self._n_features = len(manifest.features.names)
        self._names = [f"feature {name}" for name in manifest.features.names]
        self._names += [f"raw quantile {level} at horizon {h}" for h in manifest.horizons for level in manifest.levels]
        self._names.append("position")
        self._tolerance_C = np.full(len(self._names), tolerance)
        self._tolerance_C[: self._n_features] *= [row.std for row in manifest.feature_ranges]
        self._slack_C = np.zeros(len(self._names))
        self._slack_C[self._n_features :] = 0.0 if manifest.network.kind == "lstm" else _HYBRID

    def of(
        self,
        bars: Bars,
        steps: Iterable[Step],
        x_TF: Float32,
        raw_THQ: Float32,
        position_T: Float32,
        *,
        to_the_bit: bool = False,
    ) -> tuple[str, bool]:
        """Name the first difference beyond what is allowed, features first; say whether all is equal to the last bit.

        Parameters
        ----------
        steps : iterable of Step
            One a bar, None where there was nothing yet.
        x_TF, raw_THQ, position_T : ndarray
            The same, made offline.
        to_the_bit : bool
            Whether the tolerance counts for nothing; one pass of a hybrid still is 1e-5 from its steps.
        """
        n_features = self._n_features
        lived_TC = np.full((len(bars), len(self._names)), np.nan, np.float32)
        for row, (x_F, raw_HQ, position) in enumerate(steps):
            if x_F is not None:
                lived_TC[row, :n_features] = x_F
            if raw_HQ is not None:
                lived_TC[row, n_features:-1] = raw_HQ.ravel()
            lived_TC[row, -1] = position
        offline_TC = np.concatenate([x_TF, raw_THQ.reshape(len(bars), -1), position_T[:, None]], axis=1)
        same_TC = (lived_TC == offline_TC) | (np.isnan(lived_TC) & np.isnan(offline_TC))
        if same_TC.all():
            return "", True
        allowed_C = self._slack_C if to_the_bit else self._tolerance_C
        with np.errstate(invalid="ignore"):
            wrong_TC = ~same_TC & ~(np.abs(lived_TC - offline_TC) <= allowed_C)
        if not wrong_TC.any():
            return "", False
        row = int(wrong_TC.any(axis=1).argmax())
        column = int(wrong_TC[row].argmax())
        values = f"{lived_TC[row, column]:.9g} as it was stepped, {offline_TC[row, column]:.9g} offline"
        return f"{self._names[column]} at the bar closed at {format_ns(int(bars.ts_close[row]))} is {values}", False
