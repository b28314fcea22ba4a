"""Compiles a function to machine code that is kept on disk, so that the next process need not; says where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["compiled"]


def compiled(signature: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator: `numba.njit` with numpy's rules of division, its machine code kept.

    Without a signature it compiles at the first call, else at once.

    Raises
    ------
    LSTMStrategyError
        Where neither the package's folder nor the user's can be written, as in a container without a home.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, cache=True, error_model="numpy", **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            raise LSTMStrategyError(
                f"the machine code of {function.__name__} can be kept neither beside {function.__code__.co_filename}"
                " nor in the user's cache; name a folder that can be written in the environment: NUMBA_CACHE_DIR"
            ) from None

    return decorate
