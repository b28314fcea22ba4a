"""Rows of a run as plain columns of numbers: a fifth of the memory that as many decisions and forecasts take."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.decision import Decision
from lstm_strategy.forecast import Float32, Forecast
from lstm_strategy.reasons import Reason

__all__ = ["DecisionRows", "ForecastRows"]

_NONE = -1  # the stamp of a forecast that there was not


class DecisionRows(Sequence[Decision]):
    """Decisions of successive bars; each that is read is made anew, and equal to the one that was appended.

    Attributes
    ----------
    said : list of tuple
        All that was ever said beside numbers: reason, what bound, and whether opening orders are to be cancelled.
    """

    def __init__(self) -> None:
        self._stamps, self._exposures, self._targets = array("q"), array("d"), array("d")
        self._said = array("i")  # numbers of what was said of them, of which few differ
        self._numbers: dict[tuple[Reason, tuple[str, ...], bool], int] = {}
        self.said: list[tuple[Reason, tuple[str, ...], bool]] = []

    def append(self, decision: Decision) -> None:
        """Add one row."""
        self._stamps.append(decision.ts_close)
        self._exposures.append(decision.exposure)
        self._targets.append(decision.target)
        said = decision.reason, decision.bound, decision.cancel_opening
        number = self._numbers.setdefault(said, len(self.said))
        if number == len(self.said):
            self.said.append(said)
        self._said.append(number)

    def pop(self) -> None:
        """Drop the last row."""
        for column in (self._stamps, self._exposures, self._targets, self._said):
            column.pop()

    def drop_first(self, rows: int) -> None:
        """Drop the oldest rows."""
        for column in (self._stamps, self._exposures, self._targets, self._said):
            del column[:rows]

    def __len__(self) -> int:
        return len(self._stamps)

    @overload
    def __getitem__(self, row: int) -> Decision: ...
    @overload
    def __getitem__(self, row: slice) -> list[Decision]: ...
    def __getitem__(self, row: int | slice) -> Decision | list[Decision]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return Decision(self._stamps[row], self._exposures[row], self._targets[row], *self.said[self._said[row]])

    def __iter__(self) -> Iterator[Decision]:
        said = self.said
        for ts_close, exposure, target, number in zip(
            self._stamps, self._exposures, self._targets, self._said, strict=True
        ):
            yield Decision(ts_close, exposure, target, *said[number])

    @property
    def numbers(self) -> npt.NDArray[np.int32]:
        """Which of `said` was said, int32 [T]."""
        return np.array(self._said, np.int32)

    @property
    def last_ts(self) -> int:
        """Close of the last row's bar; −1 where there is none."""
        return self._stamps[-1] if self._stamps else _NONE

    @property
    def ts_close(self) -> Stamps:
        """Closes, int64 [T] ns UTC."""
        return np.array(self._stamps, np.int64)

    @property
    def exposures(self) -> Float:
        """What was held when each was made, float64 [T] of equity."""
        return np.array(self._exposures, np.float64)

    @property
    def targets(self) -> Float:
        """What was wanted, float64 [T] of equity."""
        return np.array(self._targets, np.float64)


class ForecastRows(Sequence[Forecast | None]):
    """Forecasts of successive bars, None where there was none; all of the same horizons and levels."""

    def __init__(self) -> None:
        self._stamps, self._scales, self._positions = array("q"), array("d"), array("d")
        self._quantiles = array("f")  # a row for each, NaN where there was none, from the first forecast on
        self._horizons: tuple[int, ...] = ()
        self._levels: tuple[float, ...] = ()

    def append(self, forecast: Forecast | None) -> None:
        """Add one row.

        Raises
        ------
        ValueError
            For a forecast of other horizons or levels than the first.
        """
        if forecast is None:
            self._quantiles.extend([math.nan] * self._width)
            stamp, scale, position = _NONE, math.nan, math.nan
        else:
            if not self._levels:
                self._horizons, self._levels = forecast.horizons, forecast.levels
                self._quantiles.extend([math.nan] * self._width * len(self))
            elif (forecast.horizons, forecast.levels) != (self._horizons, self._levels):
                raise ValueError(f"forecasts of horizons {self._horizons} and {forecast.horizons} in one run")
            self._quantiles.frombytes(np.asarray(forecast.quantiles_HQ, np.float32).tobytes())
            stamp, scale, position = forecast.ts_close, forecast.scale, forecast.position
        self._stamps.append(stamp)
        self._scales.append(scale)
        self._positions.append(position)

    def pop(self) -> None:
        """Drop the last row."""
        for column in (self._stamps, self._scales, self._positions):
            column.pop()
        del self._quantiles[len(self) * self._width :]

    def drop_first(self, rows: int) -> None:
        """Drop the oldest rows."""
        for column in (self._stamps, self._scales, self._positions):
            del column[:rows]
        del self._quantiles[: rows * self._width]

    def __len__(self) -> int:
        return len(self._stamps)

    @overload
    def __getitem__(self, row: int) -> Forecast | None: ...
    @overload
    def __getitem__(self, row: slice) -> list[Forecast | None]: ...
    def __getitem__(self, row: int | slice) -> Forecast | list[Forecast | None] | None:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        stamp, width = self._stamps[row], self._width
        if stamp == _NONE:
            return None
        first = (row % len(self)) * width
        quantiles = np.array(self._quantiles[first : first + width], np.float32)
        quantiles_HQ = quantiles.reshape(len(self._horizons), len(self._levels))
        return Forecast(stamp, self._horizons, self._levels, quantiles_HQ, self._scales[row], self._positions[row])

    @property
    def scales(self) -> Float:
        """Volatility of a bar, float64 [T]; NaN where there was no forecast."""
        return np.array(self._scales, np.float64)

    @property
    def positions(self) -> Float32:
        """What the network would hold, float32 [T]; NaN where it says nothing."""
        return np.array(self._positions, np.float32)

    def quantiles(self, n_horizons: int, n_levels: int) -> Float32:
        """Return the quantiles, float32 [T, H, Q]; NaN where there was no forecast."""
        if not self._levels:
            return np.full((len(self), n_horizons, n_levels), np.nan, np.float32)
        return np.array(self._quantiles, np.float32).reshape(-1, n_horizons, n_levels)

    @property
    def _width(self) -> int:
        return len(self._horizons) * len(self._levels)
