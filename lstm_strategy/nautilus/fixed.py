"""The catalog's fixed-point numbers: float64 arrays to int128 and back, exactly, without a loop per value."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float
from lstm_strategy.nautilus.engine import FIXED_DECIMALS

__all__ = ["decode", "encode", "precision_of", "to_steps"]

Words = npt.NDArray[np.uint64]
Steps = npt.NDArray[np.uint64]

_LOW_32 = np.uint64(0xFFFF_FFFF)
_32 = np.uint64(32)


def precision_of(step: str) -> int:
    """Return the decimals of a step written as text: ``0.01`` has 2, ``1`` and ``10`` have 0."""
    exponent = Decimal(step).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def to_steps(values: Float, precision: int) -> tuple[Steps, npt.NDArray[np.bool_]]:
    """Return values in units of ``10 ** -precision``, rounded to nearest, and where that changed the value.

    Parameters
    ----------
    values : float64 [T]
        Not negative.

    Returns
    -------
    uint64 [T], bool [T]
        A value counts as changed when it is further than four units in the last place from the rounded one.
    """
    scaled = np.rint(values * 10.0**precision)
    if len(scaled) and scaled.max() >= 2.0**63:
        raise OverflowError(f"{values.max()} is too large for {precision} decimals")
    return scaled.astype(np.uint64), np.abs(scaled / 10.0**precision - values) > 4.0 * np.spacing(values)


def encode(steps: Steps, precision: int) -> Words:
    """Return int128 = steps × 10^(16 − precision) as uint64 [T, 2], low word first."""
    factor = np.uint64(10 ** (FIXED_DECIMALS - precision))
    low_s, high_s = steps & _LOW_32, steps >> _32
    low_f, high_f = factor & _LOW_32, factor >> _32
    cross = low_s * high_f + (low_s * low_f >> _32)
    middle = (cross & _LOW_32) + high_s * low_f
    words = np.empty((len(steps), 2), np.uint64)
    words[:, 0] = steps * factor  # modulo 2^64
    words[:, 1] = high_s * high_f + (cross >> _32) + (middle >> _32)
    return words


def decode(words: Words, precision: int) -> tuple[Float, npt.NDArray[np.bool_]]:
    """Return the values, and where they have more decimals than ``precision``.

    The division by 10^n is exact where it is possible at all, so it is a shift by n bits and a product with the inverse
    of 5^n modulo 2^64; encoding the quotient again tells whether it was possible.

    Returns
    -------
    float64 [T], bool [T]
        Each value is the double nearest to the decimal number, for numbers of up to 15 significant digits.
    """
    decimals = FIXED_DECIMALS - precision
    low, high = words[:, 0], words[:, 1]
    if decimals:
        low = (low >> np.uint64(decimals)) | (high << np.uint64(64 - decimals))
    steps = low * np.uint64(pow(5**decimals, -1, 2**64))
    inexact = (encode(steps, precision) != words).any(axis=1)
    return steps.astype(np.float64) / 10.0**precision, inexact
