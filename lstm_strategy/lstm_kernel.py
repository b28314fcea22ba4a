"""The compiled step of an LSTM, from features to quantiles: one bar goes through the same machine code as many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from lstm_strategy.compiled import compiled

__all__ = ["run"]

_CLIP = np.float32(8.0)  # as the network's
_EPSILON = np.float32(1e-5)  # of torch's LayerNorm
_HALF, _ONE, _STEEPEST = np.float32(0.5), np.float32(1.0), np.float32(20.0)

# tanh is x·P(x²)/Q(x²) between these bounds and ±1 beyond, within 4e-7: the rational minimax approximation that Eigen
# and ONNX Runtime use, with their coefficients.
_BOUND = np.float32(7.90531110763549805)
_P6, _P5, _P4 = np.float32(-2.76076847742355e-16), np.float32(2.00018790482477e-13), np.float32(-8.60467152213735e-11)
_P3, _P2 = np.float32(5.12229709037114e-08), np.float32(1.48572235717979e-05)
_P1, _P0 = np.float32(6.37261928875436e-04), np.float32(4.89352455891786e-03)
_Q3, _Q2 = np.float32(1.19825839466702e-06), np.float32(1.18534705686654e-04)
_Q1, _Q0 = np.float32(2.26843463243900e-03), np.float32(4.89352518554385e-03)


@njit(inline="always", error_model="numpy")
def _tanh(x: Any) -> Any:
    x = min(max(x, -_BOUND), _BOUND)
    s = x * x
    p = (((((_P6 * s + _P5) * s + _P4) * s + _P3) * s + _P2) * s + _P1) * s + _P0
    q = ((_Q3 * s + _Q2) * s + _Q1) * s + _Q0
    return x * p / q


@njit(inline="always", error_model="numpy")
def _add_product(x: Any, weights: Any, at: int, out: Any) -> Any:
    """Add x @ W, W [x.size, out.size] in row-major order from ``at`` on; return where it ends."""
    width, whole = out.size, x.size - x.size % 4
    for row in range(0, whole, 4):  # four at once, in the order of one by one: out is read and written once for all
        first = at + row * width
        w0, w1 = weights[first : first + width], weights[first + width : first + 2 * width]
        w2, w3 = weights[first + 2 * width : first + 3 * width], weights[first + 3 * width : first + 4 * width]
        x0, x1, x2, x3 = x[row], x[row + 1], x[row + 2], x[row + 3]
        for column in range(width):
            out[column] = (((out[column] + x0 * w0[column]) + x1 * w1[column]) + x2 * w2[column]) + x3 * w3[column]
    for row in range(whole, x.size):
        last, value = weights[at + row * width : at + (row + 1) * width], x[row]
        for column in range(width):
            out[column] += value * last[column]
    return at + x.size * out.size


@njit(inline="always", error_model="numpy")
def _put(weights: Any, at: int, out: Any) -> Any:
    for i in range(out.size):
        out[i] = weights[at + i]
    return at + out.size


@njit(inline="always", error_model="numpy")
def _normalise(z: Any, weights: Any, at: int) -> Any:
    """Normalise over the width; weights and biases from ``at`` on."""
    mean, variance = np.float32(0.0), np.float32(0.0)
    for i in range(z.size):
        mean += z[i]
    mean /= np.float32(z.size)
    for i in range(z.size):
        variance += (z[i] - mean) * (z[i] - mean)
    root = math.sqrt(variance / np.float32(z.size) + _EPSILON)
    for i in range(z.size):
        z[i] = (z[i] - mean) / root * weights[at + i] + weights[at + z.size + i]
    return at + 2 * z.size


@njit(inline="always", error_model="numpy")
def _cell(z: Any, h: Any, c: Any, weights: Any, at: int, gates: Any) -> Any:
    """Take one layer's step: z in, and the new h out; the gates are torch's i, f, g, o."""
    width = z.size
    at = _put(weights, at, gates)
    at = _add_product(z, weights, at, gates)
    at = _add_product(h, weights, at, gates)
    i_gate, f_gate = gates[:width], gates[width : 2 * width]
    g_gate, o_gate = gates[2 * width : 3 * width], gates[3 * width :]
    for i in range(width):
        entering = _HALF + _HALF * _tanh(_HALF * i_gate[i])
        staying = _HALF + _HALF * _tanh(_HALF * f_gate[i])
        c[i] = staying * c[i] + entering * _tanh(g_gate[i])
    for i in range(width):
        h[i] = (_HALF + _HALF * _tanh(_HALF * o_gate[i])) * _tanh(c[i])
        z[i] = h[i]
    return at


@njit(inline="always", error_model="numpy")
def _add_quantiles(said: Any, levels: int, share: Any, out: Any) -> None:
    """Add a member's share: the middle level, and from it outwards gaps that are never negative."""
    middle = levels // 2
    for first in range(0, said.size, levels):
        centre = said[first]
        out[first + middle] += share * centre
        level = centre
        for gap in range(middle, levels - 1):
            level += _softplus(said[first + 1 + gap])
            out[first + gap + 1] += share * level
        level = centre
        for gap in range(middle - 1, -1, -1):
            level -= _softplus(said[first + 1 + gap])
            out[first + gap] += share * level


@njit(inline="always", error_model="numpy")
def _softplus(x: Any) -> Any:
    return x if x > _STEEPEST else np.float32(math.log1p(math.exp(x)))


# Compiled where it is imported, so that no first bar and no hot-swap waits for it; without Python's lock, so that a
# model tried in a thread keeps no loop waiting.
@compiled(
    "void(int64[::1], float32[::1], float32[:, ::1], float32[:, ::1])",
    fastmath={"contract"},
    nogil=True,
)
def run(sizes: Any, memory: Any, x_TF: Any, out_TN: Any) -> None:
    """Step through bars, from the present state on.

    Compiled for these types alone, in C order; others are a TypeError.

    Parameters
    ----------
    sizes : int64 [8]
        How many features F, numbers D in a hidden state, layers L, members M of an ensemble, levels Q at each horizon,
        and numbers S that the head says; whether layers are normalised, and whether a position is said.
    memory : float32 [2 · M · L · D + F + 5 · D + S + W]
        The state (all members' and layers' h, then their c), which is carried on; room to work in; and the weights as
        `lstm_step` lays them out.
    x_TF : float32 [T, F]
    out_TN : float32 [T, H · Q + 1]
        Gets the quantiles in units of σ√h, and the position, NaN where none is said.
    """
    n_features, width, layers, members, levels, n_said, normalised, has_position = sizes
    depth = layers * width
    cells = memory[members * depth : 2 * members * depth]
    at = 2 * members * depth
    x, z = memory[at : at + n_features], memory[at + n_features : at + n_features + width]
    at += n_features + width
    gates, said = memory[at : at + 4 * width], memory[at + 4 * width : at + 4 * width + n_said]
    weights = memory[at + 4 * width + n_said :]
    share = _ONE / np.float32(members)
    n_quantiles = out_TN.shape[1] - 1
    for t in range(x_TF.shape[0]):
        for i in range(n_features):
            x[i] = min(max((x_TF[t, i] - weights[i]) / weights[n_features + i], -_CLIP), _CLIP)
        at = 2 * n_features
        out = out_TN[t]
        out[:] = np.float32(0.0)
        for member in range(members):
            at = _put(weights, at, z)
            at = _add_product(x, weights, at, z)
            if normalised:
                at = _normalise(z, weights, at)
            for i in range(width):
                z[i] = _tanh(z[i])
            for layer in range(layers):
                first = member * depth + layer * width
                at = _cell(z, memory[first : first + width], cells[first : first + width], weights, at, gates)
            if normalised:
                at = _normalise(z, weights, at)
            at = _put(weights, at, said)
            at = _add_product(z, weights, at, said)
            if n_said == n_quantiles:
                _add_quantiles(said, levels, share, out)
            else:
                for row in range(n_said):
                    for level in range(levels):
                        out[row * levels + level] += share * (said[row] + weights[at + row * levels + level])
                at += n_quantiles
            if has_position:
                held = weights[at]
                for i in range(width):
                    held += z[i] * weights[at + 1 + i]
                out[n_quantiles] += share * _tanh(held)
                at += 1 + width
        if not has_position:
            out[n_quantiles] = np.float32(np.nan)
