"""The correlations that a panel's decisions were made with, close by close, as a table of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa

from lstm_strategy.bars import Bars, Float
from lstm_strategy.covariance import Covariance
from lstm_strategy.portfolio import PortfolioConfig

__all__ = ["correlations_table", "upper_of"]

_STAMP = pa.timestamp("ns", "UTC")


def upper_of(correlation_SS: Float) -> Float:
    """Return what stands above the diagonal, row by row, float32 [S (S − 1) / 2]."""
    return np.asarray(correlation_SS[np.triu_indices(len(correlation_SS), 1)], dtype=np.float32)


def correlations_table(
    names: tuple[str, ...], used: Mapping[int, Float], bars: Mapping[str, Bars], portfolio: PortfolioConfig
) -> pa.Table:
    """Return one row a close: its stamp, and the correlations above the diagonal (`upper_of`), names in the metadata.

    Parameters
    ----------
    names : tuple of str [S]
        In the order of the panel.
    used : dict of float32 [S (S − 1) / 2]
        By close; what the decisions of that close were made with. Where names are sized separately there is nothing,
        and the same causal step is looped over ``bars``.
    """
    rows = dict(used) if portfolio.needs_covariance else _looped(names, bars, portfolio)
    values = [upper.tolist() for upper in rows.values()]
    table = pa.table(
        {
            "ts_close": pa.array(list(rows), _STAMP),
            "correlation": pa.array(values, pa.list_(pa.float32())),
        }
    )
    return table.replace_schema_metadata({"names": msgspec.json.encode(names)})


def _looped(names: tuple[str, ...], bars: Mapping[str, Bars], portfolio: PortfolioConfig) -> dict[int, Float]:
    follows = Covariance(names, span=portfolio.span, scale_span=portfolio.scale_span, rows=1)
    closes = [dict(zip(bars[name].ts_close.tolist(), bars[name].close.tolist(), strict=True)) for name in names]
    found = {}
    for ts_close in sorted({ts for own in closes for ts in own}):
        follows.update(ts_close, np.array([own.get(ts_close, math.nan) for own in closes]))
        found[ts_close] = upper_of(follows.correlation())
    return found
