"""The one exception that users are meant to read: a single line naming the thing, the value and the way out."""

from __future__ import annotations

__all__ = ["LSTMStrategyError"]


class LSTMStrategyError(Exception):
    """A mistake in the input, the data or the configuration, told in one line."""
