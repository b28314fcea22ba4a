"""Thin long lines for the screen without losing an extreme."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BUCKETS", "thin"]

BUCKETS = 1_200  # about one a pixel at full width


def thin(*lines_T: npt.NDArray[np.floating], buckets: int = BUCKETS) -> npt.NDArray[np.int64]:
    """Return the rows to draw: of each bucket of bars the first, the last, and every line's lowest and highest.

    A screen of ``buckets`` pixels cannot tell the result from the whole (the M4 aggregation of Jugel et al., 2014).
    Lines of up to ``4 * buckets`` bars are kept whole.
    """
    length = len(lines_T[0])
    if length <= 4 * buckets:
        return np.arange(length)
    width = -(-length // buckets)
    starts = np.arange(0, length, width)
    kept = [starts, np.minimum(starts + width, length) - 1]
    for line_T in lines_T:
        padded = np.full(len(starts) * width, np.nan)
        padded[:length] = line_T
        grid = padded.reshape(len(starts), width)
        kept.append(starts + np.where(np.isnan(grid), np.inf, grid).argmin(axis=1))
        kept.append(starts + np.where(np.isnan(grid), -np.inf, grid).argmax(axis=1))
    return np.unique(np.minimum(np.concatenate(kept), length - 1))
