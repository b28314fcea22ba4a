"""The one exception that users are meant to read: a single line naming the thing, the value and the way out."""

from __future__ import annotations

__all__ = ["LSTMStrategyError", "StateError", "first_line_of"]


class LSTMStrategyError(Exception):
    """A mistake in the input, the data or the configuration, told in one line."""


class StateError(LSTMStrategyError):
    """What an earlier process kept cannot be gone on with; whether it may be left behind is a person's to say."""


def first_line_of(error: BaseException) -> str:
    """Return the first line of what another's exception says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
