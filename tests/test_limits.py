"""Each limit: when it holds, what it forbids, when it lifts; and settings that contradict each other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from venue_support import COSTS, FORECASTS, TRAINED, told

from lstm_strategy.bars import format_ns, parse_ns
from lstm_strategy.decision import (
    FINE,
    FLATTENING,
    HALTS,
    NO_INCREASE,
    Conditions,
    Costs,
    Decision,
    LimitsConfig,
    PortfolioState,
    Reason,
    RiskState,
    Seen,
    SizingConfig,
    advance,
    count_order,
    decide,
    halt,
    resume,
)
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.formatting import percent
from lstm_strategy.limits import fit_exposures, require_consistent, require_tradable
from lstm_strategy.reasons import RATES

NOON = parse_ns("2024-05-01T12:00")
HOUR = 3_600_000_000_000
KELLY = SizingConfig(mode="mean_variance", kelly_fraction=10.0, no_trade_band=0.0)
UP, DOWN = told(0.02), told(-0.02)
BOTH_SIDES = {"side": "long_short", "max_exposure": 2.0, "max_step": 10.0}


def decided(
    held: float = 0.0,
    limits: LimitsConfig | None = None,
    forecast: Any = UP,
    sizing: SizingConfig = KELLY,
    conditions: Conditions = FINE,
    state: dict[str, Any] | None = None,
    **risk: Any,
) -> Decision:
    remembered = msgspec.structs.replace(RiskState.start(NOON, 1000.0), **risk)
    return decide(
        forecast,
        PortfolioState(NOON, 1000.0, held, remembered, **(state or {})),
        sizing,
        limits or LimitsConfig(**BOTH_SIDES),
        COSTS,
        trained=TRAINED,
        bars_per_year=8760.0,
        conditions=conditions,
    )


def walk(risk: RiskState, limits: LimitsConfig, *bars: tuple[float, float, float, float]) -> RiskState:
    """Advance by (hours, equity, position, price), a scale of 1 %."""
    ts_close = risk.ts_close or NOON
    for hours, equity, position, price in bars:
        ts_close += round(hours * HOUR)
        risk = advance(risk, ts_close, equity, limits, Seen(position, price, 0.01, HOUR))
    return risk


def started(position: float = 0.0) -> RiskState:
    return walk(RiskState.start(NOON, 1000.0, position), LimitsConfig(), (0, 1000.0, position, 100.0))


# What forbids an increase

HINDRANCES: dict[Reason, dict[str, Any]] = {
    Reason.NOT_READY: {"conditions": Conditions(ready=False)},
    Reason.PARITY_UNPROVED: {"conditions": Conditions(parity=False)},
    Reason.STALE_DATA: {"stale": True},
    Reason.PRICE_FENCE: {"fenced": True},
    Reason.FEATURE_RANGE: {"conditions": Conditions(outside_range=True)},
    Reason.UNPROTECTED: {"conditions": Conditions(unprotected=True)},
    Reason.EXIT_PAUSE: {"conditions": Conditions(paused=True)},
    Reason.VOLATILITY: {"limits": {"max_volatility": 0.1}},  # 0.3 % an hour is 28 % a year
    Reason.LOSS_COOLDOWN: {"cooldown_until": NOON + 1},
    Reason.INTERVAL_TOO_WIDE: {"sizing": {"widest_interval": 0.5}},
    Reason.ORDERS_PER_HOUR: {"limits": {"orders_per_hour": 2}, "orders_hour": 2},
    Reason.ORDERS_PER_DAY: {"limits": {"orders_per_day": 9}, "orders_day": 9},
}


def hindered(
    reason: Reason, held: float, forecast: Any, mode: str = "mean_variance", limits: dict[str, Any] | None = None
) -> Decision:
    settings = dict(HINDRANCES[reason])
    limited = LimitsConfig(**BOTH_SIDES, **settings.pop("limits", {}), **(limits or {}))
    sizing = msgspec.structs.replace(KELLY, mode=mode, **settings.pop("sizing", {}))
    return decided(held, limited, forecast, sizing, **settings)


@pytest.mark.parametrize("reason", sorted(NO_INCREASE))
@given(
    st.floats(-2.5, 2.5),
    st.sampled_from(FORECASTS),
    st.sampled_from(["mean_variance", "volatility_target", "quantile"]),
)
@settings(deadline=None, max_examples=50)
def test_what_forbids_an_increase_lets_a_position_shrink_and_nothing_else(
    reason: Reason, held: float, forecast: Any, mode: str
) -> None:
    found = hindered(reason, held, forecast, mode)
    assert min(held, 0.0) <= found.target <= max(held, 0.0)
    free = decided(held, forecast=forecast, sizing=msgspec.structs.replace(KELLY, mode=mode))
    assert found.cancel_opening == (reason not in RATES or free.cancel_opening)  # what was sent in time may fill
    if min(held, 0.0) <= free.target <= max(held, 0.0) and mode != "quantile":
        assert found.target == free.target  # a reduction is let through whole


@pytest.mark.parametrize("reason", sorted(NO_INCREASE))
def test_each_has_a_reason_of_its_own_and_lifts(reason: Reason) -> None:
    assert hindered(reason, 0.0, UP).reason == reason
    assert hindered(reason, 0.5, UP).target == 0.5
    assert hindered(reason, 0.5, DOWN).target == 0.0  # closed, and not turned
    assert decided(0.5, forecast=DOWN).target == -2.0


@pytest.mark.parametrize("reason", FLATTENING)
@pytest.mark.parametrize("forecast", [UP, None])
def test_each_flattens_where_told_to(reason: Reason, forecast: Any) -> None:
    found = hindered(reason, 0.5, forecast, limits={"flatten_on": (reason.value,)})
    if forecast is None and reason in (Reason.VOLATILITY, Reason.INTERVAL_TOO_WIDE):
        assert found.reason == Reason.NO_FORECAST  # they are read from the forecast
    else:
        assert (found.target, found.reason, found.cancel_opening) == (0.0, reason, True)


def test_an_ordered_halt_flattens_whatever_is_said() -> None:
    found = decided(0.5, ordered_halt=True)
    assert (found.target, found.reason, found.cancel_opening) == (0.0, Reason.HALT_ORDERED, True)


# What cuts an increase


@given(
    st.floats(-2.0, 2.0),
    st.sampled_from(FORECASTS),
    st.none() | st.floats(1.0, 3000.0),
    st.none() | st.floats(0.01, 4.0),
    st.floats(0.0, 4.0),
)
@settings(deadline=None, max_examples=300)
def test_what_is_added_keeps_to_order_size_and_turnover(
    held: float, forecast: Any, notional: float | None, turnover: float | None, traded: float
) -> None:
    limits = LimitsConfig(**BOTH_SIDES, max_order_notional=notional, turnover_per_day=turnover)
    found = decided(held, limits, forecast, turnover_day=traded)
    free = decided(held, forecast=forecast)
    through = held * found.target < 0.0
    added = abs(found.target) - (0.0 if through else abs(held))
    if added > 1e-12:
        assert added * 1000.0 <= (notional or math.inf) * (1 + 1e-9)
        assert traded + abs(found.target - held) <= (turnover or math.inf) * (1 + 1e-9)
    assert min(held, free.target) <= found.target <= max(held, free.target)
    if held * free.target >= 0.0 and abs(free.target) < abs(held):
        assert found.target == free.target


def test_the_limit_that_leaves_no_room_is_the_reason() -> None:
    used_up = LimitsConfig(**BOTH_SIDES, turnover_per_day=1.0)
    assert decided(0.5, used_up, turnover_day=1.0).reason == Reason.TURNOVER
    tiny = LimitsConfig(**BOTH_SIDES, max_order_notional=0.01)
    assert decided(0.5, tiny).reason == Reason.ORDER_NOTIONAL
    cut = decided(0.5, LimitsConfig(**BOTH_SIDES, max_order_notional=100.0))
    assert (cut.target, cut.reason) == (pytest.approx(0.6), Reason.REBALANCE)
    assert cut.bound[-1] == "max_order_notional"


@pytest.mark.parametrize(
    ("hours", "held", "forecast", "target"),
    [
        (5.0, 1.0, DOWN, 0.0),  # closed, and not turned
        (5.0, 0.0, DOWN, 0.0),
        (5.0, 0.0, UP, 2.0),  # the same side may be taken again
        (6.0, 1.0, DOWN, -2.0),
        (5.0, -0.00005, DOWN, -0.00005),  # dust is no way around it
    ],
)
def test_the_other_side_waits_its_time(hours: float, held: float, forecast: Any, target: float) -> None:
    limits = LimitsConfig(**BOTH_SIDES, flip_hours=6.0)
    found = decided(held, limits, forecast, side=1, side_since=NOON - round(hours * HOUR))
    assert found.target == pytest.approx(target)
    assert ("flip_time" in found.bound) == (hours < 6.0 and forecast is DOWN)


@given(st.floats(-3, 3), st.floats(0, 4), st.floats(-4, 4), st.sampled_from(FORECASTS))
@settings(deadline=None, max_examples=200)
def test_gross_and_net_leave_to_a_name_what_the_others_do(
    held: float, gross: float, share: float, forecast: Any
) -> None:
    net = max(min(share, gross), -gross)  # the others' sum is never more than their sizes
    limits = LimitsConfig(**BOTH_SIDES, max_gross=3.0, max_net=2.0, drift_tolerance=0.0)
    found = decided(held, limits, forecast, state={"other_gross": gross, "other_net": net})
    assert abs(found.target) <= max(3.0 - gross, 0.0) + 1e-12
    assert found.target <= max(2.0 - net, 0.0) + 1e-12
    assert found.target >= -max(2.0 + net, 0.0) - 1e-12


def test_gross_and_net_have_reasons_of_their_own() -> None:
    limits = LimitsConfig(**BOTH_SIDES, max_gross=3.0, max_net=2.0)
    found = decided(1.5, limits, state={"other_gross": 2.0, "other_net": 0.0})
    assert (found.target, found.reason, found.bound[0]) == (1.0, Reason.GROSS_EXCEEDED, "max_gross")
    found = decided(1.5, limits, state={"other_gross": 1.0, "other_net": 1.0})
    assert (found.target, found.reason, found.bound[0]) == (1.0, Reason.NET_EXCEEDED, "max_net")
    assert decided(2.5, limits).reason == Reason.LIMIT_EXCEEDED


def test_open_orders_that_lead_beyond_a_cap_are_called_back() -> None:
    assert not decided(1.0, state={"pending": 1.0}).cancel_opening
    assert decided(1.0, state={"pending": 1.1}).cancel_opening
    assert decided(1.0, LimitsConfig(), state={"pending": -1.1}).cancel_opening  # through zero where long only


# Several names

vectors = st.lists(st.floats(-3, 3), min_size=1, max_size=12).map(np.array)


@given(vectors, st.sampled_from(["long_only", "long_short"]), st.none() | st.floats(1, 6), st.none() | st.floats(1, 3))
@settings(deadline=None, max_examples=300)
def test_several_names_fit_all_caps(targets_S: Any, side: Any, gross: float | None, net: float | None) -> None:
    if gross is not None and net is not None and net > gross:
        gross, net = net, gross
    limits = LimitsConfig(side=side, max_exposure=1.0, max_gross=gross, max_net=net)
    fitted, bound = fit_exposures(targets_S, limits)
    assert np.abs(fitted).max() <= 1.0
    assert np.abs(fitted).sum() <= (gross or math.inf) * (1 + 1e-12)
    assert abs(fitted.sum()) <= (net or math.inf) * (1 + 1e-12)
    assert (fitted * targets_S >= 0.0).all()
    assert (np.abs(fitted) <= np.abs(targets_S)).all()
    assert (fitted == targets_S).all() == (not bound)
    again, _ = fit_exposures(fitted, limits)
    np.testing.assert_allclose(again, fitted, rtol=1e-12)
    permuted, _ = fit_exposures(targets_S[::-1], limits)
    np.testing.assert_allclose(permuted[::-1], fitted, rtol=1e-12)


def test_the_larger_side_gives_way_to_the_net() -> None:
    limits = LimitsConfig(side="long_short", max_exposure=1.0, max_net=1.0, max_gross=2.0)
    fitted, bound = fit_exposures(np.array([1.0, 1.0, -0.2]), limits)
    np.testing.assert_allclose(fitted, [0.6, 0.6, -0.2])
    assert bound == ("max_net",)
    with pytest.raises(LSTMStrategyError, match="not finite"):
        fit_exposures(np.array([1.0, math.nan]), limits)


# What is remembered


def test_losing_positions_in_a_row_pause_and_the_pause_ends() -> None:
    limits = LimitsConfig(max_losses=2, cooldown_hours=5.0, daily_loss=1.0, max_drawdown=1.0)
    lost = walk(started(), limits, (1, 999.0, 5, 100.0), (1, 990.0, 0, 98.0))
    assert (lost.losses, lost.cooldown_until) == (1, 0)
    won = walk(lost, limits, (1, 989.0, 5, 98.0), (1, 999.0, 0, 100.0))
    assert won.losses == 0
    turned = walk(lost, limits, (1, 989.0, 5, 98.0), (1, 980.0, -5, 96.0))  # the second loss ends in a short
    assert turned.losses == 0
    assert turned.cooldown_until == turned.ts_close + 5 * HOUR
    assert turned.trade_equity == 980.0
    later = walk(turned, limits, (1, 979.0, 0, 96.0))
    assert later.losses == 1  # and a third begins a new row
    # The costs of entering count: equity before the entry is what a position is measured by.
    assert walk(started(), limits, (1, 999.5, 5, 100.0), (1, 999.7, 0, 100.1)).losses == 1


def test_dust_does_not_keep_a_position_open() -> None:
    limits = LimitsConfig(daily_loss=1.0)
    assert walk(started(), limits, (1, 999.0, 5, 100.0), (1, 990.0, 0.0009, 98.0)).losses == 1
    assert walk(started(), limits, (1, 999.0, 5, 100.0), (1, 990.0, 0.01, 98.0)).losses == 0


@pytest.mark.parametrize(
    ("limits", "hours", "price", "fenced"),
    [
        ({"price_fence": 0.1}, 1, 110.1, True),
        ({"price_fence": 0.1}, 1, 109.9, False),
        ({"price_fence": 0.1}, 1, 89.9, True),
        ({"price_fence_scales": 3.0}, 1, 103.1, True),  # ln 1.031 = .0305
        ({"price_fence_scales": 3.0}, 1, 103.0, False),
        ({"price_fence_scales": 3.0}, 4, 106.1, False),  # four bars: twice as far
        ({"price_fence_scales": 3.0}, 4, 106.3, True),
        ({}, 1, 1000.0, False),
    ],
)
def test_the_fence_is_around_the_last_close(limits: dict[str, Any], hours: int, price: float, fenced: bool) -> None:
    config = LimitsConfig(**limits)
    risk = walk(started(), config, (hours, 1000.0, 0, price))
    assert risk.fenced == fenced
    assert not walk(risk, config, (1, 1000.0, 0, price)).fenced  # the next bar stands on the new price


def test_the_fence_uses_the_deviation_known_before_the_jump() -> None:
    limits = LimitsConfig(price_fence_scales=3.0)
    jump = Seen(0.0, 120.0, 0.5, HOUR)  # which the jump itself has raised
    assert advance(started(), NOON + HOUR, 1000.0, limits, jump).fenced


@pytest.mark.parametrize(("hours", "stale"), [(1, False), (3, False), (4, True)])
def test_missing_bars_make_one_stale(hours: int, stale: bool) -> None:
    limits = LimitsConfig(max_stale_bars=2)
    risk = walk(started(), limits, (hours, 1000.0, 0, 100.0))
    assert risk.stale == stale
    assert not walk(risk, limits, (1, 1000.0, 0, 100.0)).stale
    closed = Seen(0.0, 100.0, 0.01, HOUR, closed_ns=72 * HOUR)
    assert not advance(started(), NOON + 60 * HOUR, 1000.0, limits, closed).stale  # a weekend is no gap


def test_orders_and_turnover_count_by_hour_and_day_of_the_bar_close() -> None:
    limits = LimitsConfig()
    risk = started(2.0)
    assert (risk.turnover_day, risk.side) == (0.0, 1)  # what was held at the start is no turnover
    risk = count_order(walk(count_order(risk), limits, (1, 1000.0, 4, 100.0)))
    assert (risk.orders_hour, risk.orders_day, risk.turnover_day) == (1, 2, pytest.approx(0.2))
    risk = walk(risk, limits, (11, 1000.0, 3, 100.0))  # 00:00 ends the day
    assert (risk.orders_hour, risk.orders_day, risk.turnover_day) == (0, 2, pytest.approx(0.3))
    assert walk(count_order(risk), limits, (0.25, 1000.0, 3, 100.0)).orders_day == 0
    assert walk(risk, limits, (0.25, 1000.0, 3, 100.0)).turnover_day == 0.0
    quarter = walk(count_order(started()), limits, (0.25, 1000.0, 0, 100.0))  # 12:15 is another hour than 12:00
    assert quarter.orders_hour == 0
    assert walk(count_order(quarter), limits, (0.75, 1000.0, 0, 100.0)).orders_hour == 1


@given(
    st.lists(st.tuples(st.floats(0.25, 30), st.floats(500, 1500), st.integers(-9, 9), st.floats(50, 200)), max_size=9)
)
@settings(deadline=None, max_examples=100)
def test_seeing_a_bar_twice_is_seeing_it_once(bars: list[tuple[float, float, float, float]]) -> None:
    limits = LimitsConfig(
        price_fence=0.1, max_stale_bars=1, max_losses=1, turnover_per_day=1.0, daily_loss=0.2, max_drawdown=0.3
    )
    risk = started()
    for bar in bars:
        risk = walk(risk, limits, bar)
        assert walk(risk, limits, (0, *bar[1:])) == risk


def test_the_side_is_since_it_was_taken() -> None:
    limits = LimitsConfig(daily_loss=1.0, max_drawdown=1.0)
    risk = walk(started(), limits, (1, 1000, 2, 100), (1, 1000, 5, 100), (1, 1000, 0, 100), (1, 1000, 3, 100))
    assert (risk.side, risk.side_since) == (1, NOON + HOUR)
    risk = walk(risk, limits, (1, 1000, -1, 100))
    assert (risk.side, risk.side_since) == (-1, NOON + 5 * HOUR)


# Latches


def test_a_latched_halt_says_why_survives_and_is_lifted_for_a_reason() -> None:
    limits = LimitsConfig(daily_loss=1.0, max_drawdown=0.1)
    risk = walk(started(), limits, (1, 1200.0, 0, 100.0), (1, 1000.0, 0, 100.0))
    assert risk.drawdown_halt
    assert risk.halt_text == f"{format_ns(NOON + 2 * HOUR)}: equity 1000 is {percent(1 / 6, 2)} below its peak, 1200"
    again = RiskState.decode(risk.encode())
    assert again == risk
    assert walk(again, limits, (1, 900.0, 0, 100.0)).halt_text == risk.halt_text  # what began it
    lifted = resume(again, " checked the fills ")
    assert (lifted.drawdown_halt, lifted.halt_text, lifted.resume_text) == (False, "", "checked the fills")
    assert not walk(lifted, limits, (1, 950.0, 0, 100.0)).drawdown_halt


def test_an_ordered_halt_latches() -> None:
    limits = LimitsConfig()
    risk = walk(halt(started(), "kill file"), limits, (30, 1000.0, 0, 100.0))
    assert (risk.ordered_halt, risk.halt_text) == (True, "kill file")
    assert not resume(risk, "file removed").ordered_halt
    for act in (halt, resume):
        with pytest.raises(LSTMStrategyError, match="is empty"):
            act(risk, "  ")


def test_an_older_state_is_read_and_a_damaged_one_refused() -> None:
    older = {"day": 1, "equity": 5.0, "day_start_equity": 5.0, "peak_equity": 9.0, "drawdown_halt": True}
    assert RiskState.decode(msgspec.msgpack.encode(older)).drawdown_halt
    for damaged in (b"", b"rubbish", msgspec.msgpack.encode({"day": "one"})):
        with pytest.raises(LSTMStrategyError, match="a halt may be lost") as refusal:
            RiskState.decode(damaged)
        assert "\n" not in str(refusal.value)


# Settings that contradict each other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_exposure": 2.0, "max_gross": 1.5}, r"limits\.max_exposure is 2\.0, above limits\.max_gross, 1\.5"),
        ({"max_exposure": 2.0, "max_net": 1.5}, r"limits\.max_exposure is 2\.0, above limits\.max_net"),
        ({"max_net": 3.0, "max_gross": 2.0}, r"limits\.max_net is 3\.0, above limits\.max_gross"),
        ({"orders_per_hour": 9, "orders_per_day": 3}, r"limits\.orders_per_hour is 9, above limits\.orders_per_day"),
        ({"max_order_notional": 0.0}, r"limits\.max_order_notional is 0\.0"),
        ({"turnover_per_day": math.nan}, r"limits\.turnover_per_day is nan"),
        ({"orders_per_day": 0}, r"limits\.orders_per_day is 0"),
        ({"max_losses": 0}, r"limits\.max_losses is 0"),
        ({"cooldown_hours": 0.0}, r"limits\.cooldown_hours is 0"),
        ({"flip_hours": -1.0}, r"limits\.flip_hours is -1"),
        ({"flip_hours": math.inf}, r"limits\.flip_hours is inf; it must be 0 to 87600"),
        ({"cooldown_hours": 1e7}, r"limits\.cooldown_hours is 10000000\.0; it must be above 0, at most 87600"),
        ({"max_stale_bars": -1}, r"limits\.max_stale_bars is -1"),
        ({"feature_range": -0.1}, r"limits\.feature_range is -0\.1"),
        ({"price_fence_scales": 0.0}, r"limits\.price_fence_scales is 0"),
        ({"max_volatility": 0.0}, r"limits\.max_volatility is 0"),
    ],
)
def test_contradictory_limits_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LSTMStrategyError, match=message) as refusal:
        LimitsConfig(**settings)
    assert "\n" not in str(refusal.value)


LEVELS = (0.05, 0.5, 0.95)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: require_consistent(SizingConfig(), LimitsConfig(), Costs(fee=0.0)), "costs are 0.0 a side"),
        (
            lambda: require_consistent(
                SizingConfig(mode="quantile", no_trade_band=0.0), LimitsConfig(), Costs(fee=0.0), LEVELS
            ),
            "mode quantile weighs",
        ),
        (
            lambda: require_consistent(SizingConfig(mode="fixed_fraction", fraction=1.5), LimitsConfig(), COSTS),
            r"sizing\.fraction is 1\.5, above limits\.max_exposure",
        ),
        (
            lambda: require_consistent(SizingConfig(mode="quantile", interval=0.95), LimitsConfig(), COSTS, LEVELS),
            r"sizing\.interval is 0\.95; the model's levels reach an interval of 0\.9",
        ),
        (lambda: require_tradable(LimitsConfig(max_order_notional=9.0), 10.2), "the venue's smallest order is 10.2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(check: Callable[[], None], message: str) -> None:
    with pytest.raises(LSTMStrategyError, match=message) as refusal:
        check()
    assert "\n" not in str(refusal.value)


def test_what_goes_together_passes() -> None:
    require_consistent(SizingConfig(no_trade_band=0.0), LimitsConfig(), Costs(fee=0.0), LEVELS)
    require_consistent(SizingConfig(mode="quantile", interval=0.9), LimitsConfig(), COSTS, LEVELS)
    require_tradable(LimitsConfig(max_order_notional=10.2), 10.2)
    require_tradable(LimitsConfig(), 1e9)


# The table


def test_the_table_of_limits_tells_every_key_and_reason() -> None:
    text = (Path(__file__).parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    told_of = set(re.findall(r"`([a-z_.]+)`", " ".join(rows)))
    assert set(LimitsConfig.__struct_fields__) <= told_of
    limits = HALTS | NO_INCREASE | {Reason.FLIP_TIME, Reason.TURNOVER, Reason.ORDER_NOTIONAL}
    limits |= {Reason.LIMIT_EXCEEDED, Reason.GROSS_EXCEEDED, Reason.NET_EXCEEDED}
    assert {reason.value for reason in limits} <= told_of
    for name, default in msgspec.to_builtins(LimitsConfig()).items():
        row = next(line for line in rows if f"| `{name}` |" in line)
        plain = default if default is None or isinstance(default, str | tuple) else f"{default:g}"
        shown = {"side": '"long_only"', "flatten_on": "[]"}.get(name, plain or "none")
        assert f"| {shown} |" in row, row
    assert all(len(one.split("|")) == len(other.split("|")) for one, other in pairwise(rows))
