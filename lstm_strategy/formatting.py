"""Figures as people read them: per cent, numbers, counts and p-values, written alike on every page and console."""

from __future__ import annotations

import math

__all__ = ["BETTER", "NO_VALUE", "fixed", "p_value", "percent", "whole"]

NO_VALUE = "–"
BETTER = "better (+) or worse (−)"
"""Over a share by which a loss lies below (+) or above (−) another's, always written with its sign."""


def percent(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """Write a fraction as a percentage that no line break divides; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    digits = 0 if abs(value) >= 10 else digits
    return fixed(100 * value, digits, signed=signed) + "\N{NO-BREAK SPACE}%"


def fixed(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """Write a number with thousands separators and a true minus sign; nothing is ever written as −0."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def p_value(value: float | None) -> str:
    """Write a p-value; one too small to show is less than what can be shown, never nothing."""
    return "< 0.0001" if value is not None and value < 0.0001 else fixed(value, 4)


def whole(value: int) -> str:
    """Write a count."""
    return f"{value:,}"
