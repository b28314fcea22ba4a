"""How the wall's time and the venue's go together: they are the same, but for a replay that stands or races."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["LEAST_S", "REAL_TIME", "Pace"]

LEAST_S = 1.0
"""Seconds of the wall below which nobody loses patience with a machine."""


class Pace:
    """Tells the venue's time, and how long a wait in the venue's time is on the wall.

    Limits, days and cool-downs need neither: they run by the closes of bars. Liveness does (silence, unanswered
    requests, grace periods), and so behaves at any speed of a replay as it does in real time.

    Parameters
    ----------
    venue_ns : callable, optional
        The venue's time, ns UTC; the wall's where not given.
    speed : float
        How many seconds go by at the venue in one of the wall.
    """

    def __init__(self, venue_ns: Callable[[], int] | None = None, speed: float = 1.0) -> None:
        self._venue_ns, self.speed = venue_ns, speed

    def now(self, wall_ns: int) -> int:
        """Return the venue's time when the wall's is ``wall_ns``, ns UTC."""
        return wall_ns if self._venue_ns is None else self._venue_ns()

    def wall_s(self, seconds: float, least: float = LEAST_S) -> float:
        """Return the wall's seconds in which so many pass at the venue.

        No fewer than ``least``, or than ``seconds`` where those are fewer still: machines and networks do not race.
        """
        return max(seconds / self.speed, min(seconds, least))


REAL_TIME = Pace()
