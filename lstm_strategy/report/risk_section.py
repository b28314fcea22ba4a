"""The section on value at risk: the table, what a block is, where the model's levels end, and why there is none."""

from __future__ import annotations

from typing import Any

from lstm_strategy.bars import format_ns
from lstm_strategy.formatting import fixed, p_value, percent, whole
from lstm_strategy.report.risk import LEAST_DUE, LEVELS, Tail, Tails, levels_in
from lstm_strategy.report.run_types import Run

__all__ = ["risk_section", "tails_table"]


def risk_section(run: Run, tails: Tails | None) -> dict[str, Any]:
    """Return what the template knows as ``risk``; ``missing`` says why there is no table, and is empty where one is."""
    horizon = tails.horizon if tails else 1
    return {
        "rows": tails_table(tails),
        "missing": "" if tails else _missing(run),
        "horizon": horizon,
        "since": format_ns(tails.ts_first)[:16].replace("T", " ") if tails else "",
        "few": int(LEAST_DUE) if tails and any(tail.too_few for tail in tails.tails) else 0,
        "ends": _ends(run.forecasts[0].levels, [tail.level for tail in tails.tails]) if tails else "",
    }


def tails_table(tails: Tails | None) -> list[tuple[str, ...]]:
    """Value at risk and expected shortfall over the horizon, as forecast and as it came."""
    return [
        (
            f"VaR {percent(tail.level, 0)}",
            whole(tail.bars),
            fixed(tail.expected, 1 if tail.too_few else 0),
            whole(tail.breaches),
            *_tests(tail),
            percent(tail.foreseen, 2),
            percent(tail.suffered, 2),
        )
        for tail in (tails.tails if tails else ())
    ]


def _tests(tail: Tail) -> tuple[str, str]:
    return ("too few", "too few") if tail.too_few else (p_value(tail.p), p_value(tail.p_apart))


def _ends(levels: tuple[float, ...], judged: list[float]) -> str:
    """Say what lies beyond a model's outermost levels, and what that does to the figures."""
    outermost = max(levels[0], 1.0 - levels[-1])
    told = (
        f"The model's levels end at {_share(levels[0])} and {_share(levels[-1])}, and nothing is assumed to lie beyond:"
        " the shortfall forecast is understated"
    )
    for level in judged:
        if level <= outermost + 1e-9:
            even = abs(levels[0] + levels[-1] - 1.0) < 1e-9
            told += f", and at {_share(level)} it {'is' if even else 'can be'} no more than the value at risk itself"
    beyond = [_share(level) for level in LEVELS if level not in judged]
    return f"{told}." + (
        f" The value at risk at {' and '.join(beyond)} lies beyond, and is not judged." if beyond else ""
    )


def _missing(run: Run) -> str:
    """Say why nothing was judged."""
    if not run.forecasts:
        return "the model never spoke."
    of = run.forecasts[0]
    if not levels_in(of.levels):
        ends = f"{_share(of.levels[0])} to {_share(of.levels[-1])}"
        return f"the model's levels, {ends}, do not reach {_share(LEVELS[0])} on both sides."
    if run.markets and not (run.folder / "correlations.parquet").exists():
        return "the run has no correlations.parquet; repeat it."
    ahead = "a next bar" if of.horizon == 1 else f"all of the {of.horizon} bars after it, where a block begins"
    if run.markets:
        return f"no close has a position, a forecast for each instrument held, and {ahead}."
    return f"no close has a position, a forecast, and {ahead}."


def _share(level: float) -> str:
    return f"{100.0 * level:.4g}\N{NO-BREAK SPACE}%"
