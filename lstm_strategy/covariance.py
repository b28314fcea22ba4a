"""Correlations of several names' returns: causal, exponentially weighted, shrunk; one step, streamed or looped."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps, format_ns
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["LEAST_PAIRS", "Covariance", "shrink"]

LEAST_PAIRS = 20.0
"""Effective observations below which nothing is known of a pair."""
_WIDEST = 8.0  # deviations; a larger move counts as one of this size
_LEAST_EIGENVALUE = 1e-4


class Covariance:
    """Follows S names from close to close.

    At each stamp every present name has a return r since its last close, in units of its own deviation known *before*:
    z = r / σ, cut at ±8. σ² is the exponentially weighted mean of r². Where two names have returns over the same
    interval, the pair's moments take z_i z_j, z_i² and z_j² in, with decay λ = 1 − 2 / (span + 1):

        r_ij = Σ w z_i z_j / √(Σ w z_i² · Σ w z_j²),   n_ij = (Σ w)² / Σ w²

    A name that is absent keeps what it had. There is no other version of this step: an array of closes is looped over.

    Parameters
    ----------
    names : tuple of str [S]
    span, scale_span : int
        Bars of the exponential weights: of the correlations, of each name's own deviation.
    rows : int
        How many of the latest z are kept as scenarios.
    """

    def __init__(self, names: tuple[str, ...], *, span: int, scale_span: int, rows: int) -> None:
        n_names = len(names)
        self.names, self.last_ts = names, 0
        self._span, self._scale_span, self._rows = span, scale_span, rows
        self._decay, self._scale_decay = 1.0 - 2.0 / (span + 1.0), 1.0 - 2.0 / (scale_span + 1.0)
        self._ts_S: Stamps = np.zeros(n_names, np.int64)
        self._close_S: Float = np.zeros(n_names)
        self._variance_S: Float = np.zeros(n_names)
        self._weight_S: Float = np.zeros(n_names)
        self._seen_S: Stamps = np.zeros(n_names, np.int64)
        # Σw z_i z_j, Σw z_i² (of the pairs ij), Σw, Σw²
        self._moments: Float = np.zeros((4, n_names, n_names))
        self._scenarios: Float = np.zeros((0, n_names))

    def update(self, ts_close: int, close_S: Float) -> None:
        """Take one stamp's closes, float64 [S], NaN where a name is absent.

        Raises
        ------
        LSTMStrategyError
            For a stamp that is not later than the last one.
        """
        if ts_close <= self.last_ts:
            last = format_ns(self.last_ts)
            raise LSTMStrategyError(f"closes of {format_ns(ts_close)} came after {last}; give them in time order")
        self.last_ts = ts_close
        present = np.isfinite(close_S) & (close_S > 0.0)
        moved = present & (self._ts_S > 0)
        r_S = np.zeros(len(close_S))
        r_S[moved] = np.log(close_S[moved] / self._close_S[moved])
        known = moved & (self._seen_S >= self._scale_span // 2) & (self._variance_S > 0.0)
        z_S = np.full(len(close_S), np.nan)
        sigma_S = np.sqrt(self._variance_S[known] / self._weight_S[known])
        z_S[known] = np.clip(r_S[known] / sigma_S, -_WIDEST, _WIDEST)
        r_S[known] = z_S[known] * sigma_S
        keep = self._scale_decay
        self._variance_S[moved] = keep * self._variance_S[moved] + (1.0 - keep) * r_S[moved] ** 2
        self._weight_S[moved] = keep * self._weight_S[moved] + (1.0 - keep)
        self._seen_S[moved] += 1
        if known.any():
            self._take_pairs(z_S, known)
            self._scenarios = np.vstack([self._scenarios[1 - self._rows :], z_S])
        self._ts_S[present], self._close_S[present] = ts_close, close_S[present]

    def _take_pairs(self, z_S: Float, known: npt.NDArray[np.bool_]) -> None:
        same = np.equal.outer(self._ts_S, self._ts_S) & np.logical_and.outer(known, known)
        z = np.where(known, z_S, 0.0)
        square_SS = np.repeat(z[:, None] ** 2, len(z), axis=1)
        fresh = 1.0 - self._decay
        added = np.stack([np.multiply.outer(z, z), square_SS, np.ones_like(square_SS)]) * fresh
        self._moments[:3, same] = self._decay * self._moments[:3, same] + added[:, same]
        self._moments[3, same] = self._decay**2 * self._moments[3, same] + fresh * fresh

    def run(self, ts_close_T: Stamps, close_TS: Float) -> None:
        """Take a history, float64 [T, S], NaN where a name is absent."""
        for ts_close, close_S in zip(ts_close_T.tolist(), close_TS, strict=True):
            self.update(ts_close, close_S)

    @property
    def effective(self) -> Float:
        """Effective observations of each pair, and on the diagonal of each name, float64 [S, S]."""
        weight, squares = self._moments[2], self._moments[3]
        return np.asarray(np.divide(weight * weight, squares, out=np.zeros_like(weight), where=squares > 0.0))

    @property
    def scenarios(self) -> Float:
        """The latest z at which every name was present, oldest first, float64 [N, S]."""
        return self._scenarios[np.isfinite(self._scenarios).all(axis=1)]

    def correlation(self) -> Float:
        """Return the shrunk correlations (see `shrink`), positive definite, float64 [S, S]."""
        cross, square = self._moments[0], self._moments[1]
        size = np.sqrt(square * square.T)
        return shrink(np.divide(cross, size, out=np.zeros_like(cross), where=size > 0.0), self.effective)

    def state(self) -> bytes:
        """Return everything, to the last bit."""
        arrays = (self._ts_S, self._close_S, self._variance_S, self._weight_S, self._seen_S, self._moments)
        return msgspec.msgpack.encode(
            [self._facts(), self.last_ts, *(array.tobytes() for array in (*arrays, self._scenarios))]
        )

    def restore(self, state: bytes) -> None:
        """Go on from what `state` gave.

        Raises
        ------
        LSTMStrategyError
            Where it is damaged, or of other names or spans; nothing is changed then.
        """
        n_names = len(self.names)
        try:
            facts, last_ts, *parts = msgspec.msgpack.decode(state)
            ts, seen = (np.frombuffer(parts[row], np.int64).copy() for row in (0, 4))
            close, variance, weight = (np.frombuffer(parts[row], np.float64).copy() for row in (1, 2, 3))
            moments: Float = np.frombuffer(parts[5], np.float64).copy().reshape(4, n_names, n_names)
            scenarios: Float = np.frombuffer(parts[6], np.float64).copy().reshape(-1, n_names)
            fine = all(len(array) == n_names for array in (ts, close, variance, weight, seen))
        except (msgspec.MsgspecError, ValueError, TypeError, IndexError) as error:
            raise LSTMStrategyError(f"the saved covariance is damaged ({error}); it starts anew") from None
        if facts != self._facts() or not fine:
            raise LSTMStrategyError("the saved covariance is of other instruments or spans; it starts anew")
        self.last_ts, self._ts_S, self._close_S, self._variance_S = int(last_ts), ts, close, variance
        self._weight_S, self._seen_S, self._moments, self._scenarios = weight, seen, moments, scenarios

    def _facts(self) -> list[Any]:
        return [list(self.names), self._span, self._scale_span, self._rows]


def shrink(sample_SS: Float, effective_SS: Float) -> Float:
    """Shrink correlations towards their mean, and make them positive definite.

    The target is the constant correlation r̄ of Ledoit and Wolf, "Honey, I shrunk the sample covariance matrix", 2004;
    the intensity that of Schäfer and Strimmer, "A shrinkage approach to large-scale covariance matrix estimation",
    2005, with the variance of a correlation of normal variables:

        δ = min(1, Σ_{i<j} (1 − r_ij²)² / n_ij  /  Σ_{i<j} (r_ij − r̄)²),   C_ij = δ r̄ + (1 − δ) r_ij

    Pairs with fewer than `LEAST_PAIRS` effective observations take no part and get r̄, 0 where no pair is known.
    Eigenvalues below 1e-4 are raised to it, and the diagonal brought back to 1.

    Parameters
    ----------
    sample_SS, effective_SS : float64 [S, S]
        Correlations, and how many independent observations each is worth.
    """
    n_names = len(sample_SS)
    upper = np.triu_indices(n_names, 1)
    r_P, n_P = sample_SS[upper], effective_SS[upper]
    known = n_P >= LEAST_PAIRS
    # With a mean below this no matrix of so many names has it everywhere.
    mean = max(float(r_P[known].mean()), -0.9 / (n_names - 1)) if known.any() else 0.0
    spread = float(((r_P[known] - mean) ** 2).sum())
    noise = float(((1.0 - r_P[known] ** 2) ** 2 / n_P[known]).sum())
    intensity = min(1.0, noise / spread) if spread > 0.0 else 1.0
    shrunk_SS = np.eye(n_names)
    shrunk_SS[upper] = np.where(known, intensity * mean + (1.0 - intensity) * r_P, mean)
    shrunk_SS = shrunk_SS + np.triu(shrunk_SS, 1).T
    try:  # of a hundred names in a tenth of the time that their eigenvalues take
        np.linalg.cholesky(shrunk_SS - _LEAST_EIGENVALUE * np.eye(n_names))
    except np.linalg.LinAlgError:
        pass
    else:
        return np.asarray(shrunk_SS)
    values, vectors = np.linalg.eigh(shrunk_SS)
    raised = (vectors * np.maximum(values, _LEAST_EIGENVALUE)) @ vectors.T
    size_S = np.sqrt(np.diag(raised))
    raised = raised / np.multiply.outer(size_S, size_S)
    return np.asarray((raised + raised.T) / 2.0)
