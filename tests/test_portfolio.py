"""Portfolio and panel without the engine: correlations, weights, joint limits, rounds; literal where it can be."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, LEVELS, NORMAL

from lstm_strategy import portfolio_solvers
from lstm_strategy.bars import Bar
from lstm_strategy.covariance import Covariance, shrink
from lstm_strategy.decision import Conditions, Costs, Decision, PortfolioState, Reason, RiskState, Seen, advance
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.joint_limits import join
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.nautilus.rounds import Arrival, Rounds
from lstm_strategy.panel import Member, Panel
from lstm_strategy.portfolio import Beliefs, PortfolioConfig, equal_risk, level, limit_turnover, proportions
from lstm_strategy.sizing import Shrinkage, SizingConfig, Trained

NAMES = ("A.X", "B.X", "C.X")


def closes(n: int, correlation: float = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    moves = math.sqrt(correlation) * common + math.sqrt(1.0 - correlation) * rng.normal(size=(n, len(NAMES)))
    return 100.0 * np.exp(np.cumsum(0.01 * moves, axis=0))


def follow(close_TS: np.ndarray, **changes: Any) -> Covariance:
    made = Covariance(NAMES, **({"span": 200, "scale_span": 20, "rows": 60} | changes))
    made.run(np.arange(1, len(close_TS) + 1) * HOUR.ns, close_TS)
    return made


# -- correlations -----------------------------------------------------------------------------------------------------


def test_a_snapshot_goes_on_as_if_never_stopped_and_the_future_changes_nothing() -> None:
    close_TS = closes(400)
    close_TS[[50, 51, 260], [0, 0, 2]] = np.nan
    whole, first = follow(close_TS), follow(close_TS[:250])
    known = first.correlation()
    again = Covariance(NAMES, span=200, scale_span=20, rows=60)
    again.restore(first.state())
    again.run(np.arange(251, 401) * HOUR.ns, close_TS[250:])
    assert again.state() == whole.state()
    assert (again.correlation() == whole.correlation()).all()
    assert (first.correlation() == known).all()
    changed = close_TS.copy()
    changed[250:] *= 3.0
    assert (follow(changed[:250]).correlation() == known).all()


def test_the_true_correlation_is_found_and_absent_names_keep_theirs() -> None:
    found = follow(closes(3000, 0.5), span=2000).correlation()
    assert found[np.triu_indices(3, 1)] == pytest.approx(0.5, abs=0.06)
    close_TS = closes(600, 0.5)
    close_TS[300:, 2] = np.nan
    one, before = follow(close_TS), follow(close_TS[:300])
    assert (one.effective[2] == before.effective[2]).all()
    assert one.effective[0, 1] > before.effective[0, 1] * 0.9
    # A return over three bars is compared with nobody's return over one.
    hole = closes(100)
    hole[[60, 61], 1] = np.nan
    gap = follow(hole[:63])
    assert (gap.effective[1, 0] == follow(hole[:60]).effective[1, 0]).all()


def test_shrinkage_by_hand() -> None:
    sample = np.array([[1.0, 0.2, 0.6], [0.2, 1.0, 0.4], [0.6, 0.4, 1.0]])
    found = shrink(sample, np.full((3, 3), 100.0))
    noise = (0.96**2 + 0.64**2 + 0.84**2) / 100.0
    intensity = noise / (0.2**2 + 0.2**2 + 0.0)
    assert found[0, 1] == pytest.approx(0.4 * intensity + 0.2 * (1.0 - intensity), abs=1e-12)
    assert found[0, 2] == pytest.approx(0.4 * intensity + 0.6 * (1.0 - intensity), abs=1e-12)
    few = np.full((3, 3), 100.0)
    few[0, 1] = few[1, 0] = 5.0  # next to nothing is known of this pair
    assert shrink(sample, few)[0, 1] == pytest.approx(0.5)
    assert (shrink(sample, np.zeros((3, 3))) == np.eye(3)).all()
    broken = np.array([[1.0, 0.95, -0.95], [0.95, 1.0, 0.95], [-0.95, 0.95, 1.0]])
    mended = shrink(broken, np.full((3, 3), 1e9))
    assert np.linalg.eigvalsh(mended)[0] > 0.0
    assert np.diag(mended) == pytest.approx(1.0)


def test_what_does_not_fit_is_refused() -> None:
    made = follow(closes(30))
    with pytest.raises(LSTMStrategyError, match="give them in time order"):
        made.update(5, np.ones(3))
    other = Covariance(NAMES, span=100, scale_span=20, rows=60)
    with pytest.raises(LSTMStrategyError, match="of other instruments or spans"):
        other.restore(made.state())
    for damaged in (b"", made.state()[:50], b"\x93\x01\x02\x03"):
        with pytest.raises(LSTMStrategyError, match="damaged"):
            made.restore(damaged)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_equal_risk_by_hand() -> None:
    assert equal_risk(np.diag([0.01, 0.04])) == pytest.approx([2 / 3, 1 / 3])
    both = np.array([[0.01, 0.014], [0.014, 0.04]])  # of two names the correlation does not matter
    assert equal_risk(both) == pytest.approx([2 / 3, 1 / 3])
    with pytest.raises(LSTMStrategyError, match="not finite and positive"):
        equal_risk(np.diag([0.01, 0.0]))


def test_equal_risk_contributions_are_equal() -> None:
    rng = np.random.default_rng(1)
    for size in (3, 10, 50):
        factor = rng.normal(size=(size, 3))
        covariance = (factor @ factor.T + np.eye(size)) * np.multiply.outer(*[10.0 ** rng.uniform(-3, 0, size)] * 2)
        weights = equal_risk(covariance)
        parts = weights * (covariance @ weights)
        assert parts == pytest.approx(parts.mean(), rel=1e-8)
        assert weights.sum() == pytest.approx(1.0)


def test_the_level_is_that_of_one_instrument() -> None:
    beliefs = Beliefs(np.array([0.001, 0.002]), np.array([0.01, 0.02]), 1 / 8760)
    correlation = np.array([[1.0, 0.5], [0.5, 1.0]])
    half = np.array([0.5, 0.5])
    std = math.sqrt(0.005**2 + 0.01**2 + 0.005 * 0.01)
    targeted = level(half, beliefs, correlation, SizingConfig(target_volatility=0.4, tilt=0.0))
    assert targeted == pytest.approx(half * 0.4 / (std * math.sqrt(8760)))
    kelly = level(half, beliefs, correlation, SizingConfig(mode="mean_variance", kelly_fraction=0.25))
    assert kelly == pytest.approx(half * 0.25 * 0.0015 / std**2)
    assert level(half, beliefs, correlation, SizingConfig(mode="fixed_fraction", fraction=0.6)) == pytest.approx(
        [0.3, 0.3]
    )
    short = level(-half, beliefs, correlation, SizingConfig(mode="mean_variance"))
    assert (short == 0.0).all()  # such a portfolio is expected to lose


@pytest.mark.parametrize("method", ["equal_risk", "mean_cvar", "hierarchical_risk_parity"])
def test_every_method_is_deterministic_and_keeps_to_the_sides(method: Any) -> None:
    if method != "equal_risk":
        pytest.importorskip("skfolio")
    made = follow(closes(300), rows=100)
    beliefs = Beliefs(np.array([0.0001, -0.0002, 0.0]), np.array([0.01, 0.02, 0.015]), 1 / 8760)
    portfolio = PortfolioConfig(method=method, scenarios=100)
    given = (portfolio, beliefs, made.correlation(), made.scenarios, np.array([1.0, -1.0, 0.0]))
    one, other = proportions(*given), proportions(*given)
    assert one.fallback == ""
    assert (one.weight_S == other.weight_S).all()
    assert one.weight_S[0] > 0.0 > one.weight_S[1]
    assert one.weight_S[2] == 0.0
    assert np.abs(one.weight_S).sum() == pytest.approx(1.0)


def test_the_names_that_others_do_not_move_with_get_more_from_the_tree() -> None:
    pytest.importorskip("skfolio")
    covariance = 1e-4 * np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    weights = portfolio_solvers.solve("hierarchical_risk_parity", np.zeros(3), covariance, np.zeros((5, 3)))
    assert weights[2] > 0.4
    assert weights[0] == pytest.approx(weights[1])


def test_mean_cvar_leaves_the_name_with_the_fat_tail() -> None:
    pytest.importorskip("skfolio")
    rng = np.random.default_rng(3)
    returns = rng.normal(0.0, 0.01, (400, 2))
    returns[::20, 1] -= 0.08
    weights = portfolio_solvers.solve("mean_cvar", returns.mean(axis=0), np.cov(returns.T), returns)
    assert weights[0] > 0.9
    failed = proportions(
        PortfolioConfig(method="mean_cvar"),
        Beliefs(np.zeros(2), np.array([0.01, 0.01]), 1 / 8760),
        np.eye(2),
        np.zeros((3, 2)),
        np.ones(2),
    )
    assert failed.weight_S == pytest.approx([0.5, 0.5])
    assert "3 scenarios are known so far, it takes 125" in failed.fallback


def test_turnover_holds_up_only_what_is_added() -> None:
    held, wanted = np.array([0.4, 0.0, 0.2]), np.array([0.1, 0.5, 0.3])
    assert limit_turnover(wanted, held, 0.6) == pytest.approx([0.1, 0.25, 0.25])  # .3 taken off leaves .3 of .6
    assert limit_turnover(wanted, held, 0.2) == pytest.approx([0.1, 0.0, 0.2])
    assert (limit_turnover(wanted, held, 0.95) == wanted).all()
    assert limit_turnover(np.array([-0.4]), np.array([0.2]), 0.3) == pytest.approx([-0.1])


# -- joint limits -----------------------------------------------------------------------------------------------------


def state(held: float, pending: float = 0.0, orders: int = 0, turnover: float = 0.0) -> PortfolioState:
    risk = msgspec.structs.replace(RiskState.start(HOUR.ns, 1e5), orders_hour=orders, orders_day=orders)
    return PortfolioState(HOUR.ns, 1e5, held, msgspec.structs.replace(risk, turnover_day=turnover), pending)


def decisions(*pairs: tuple[float, float]) -> list[Decision]:
    return [Decision(HOUR.ns, held, target, Reason.REBALANCE) for held, target in pairs]


def test_joint_limits_by_hand() -> None:
    limits = LimitsConfig(side="long_short", max_exposure=0.8, max_gross=1.0, max_net=0.8)
    # .5 taken off lets .6 of .9 be added, each in proportion.
    found = join(decisions((0.7, 0.2), (0.1, 0.7), (0.0, -0.3)), [state(0.7), state(0.1), state(0.0)], limits)
    assert [d.target for d in found] == pytest.approx([0.2, 0.1 + 0.6 * 7 / 9, -0.3 * 7 / 9])
    assert found[1].bound == ("max_gross",)
    assert found[0].bound == ()
    # Beyond the tolerance everyone gives in proportion.
    found = join(decisions((0.7, 0.7), (-0.5, -0.5)), [state(0.7), state(-0.5)], limits)
    assert [d.target for d in found] == pytest.approx([0.7 / 1.2, -0.5 / 1.2])
    assert {d.reason for d in found} == {Reason.GROSS_EXCEEDED}
    # Within it nothing is done, and nothing added.
    found = join(decisions((0.51, 0.6), (-0.5, -0.5)), [state(0.51), state(-0.5)], limits)
    assert [d.target for d in found] == [0.51, -0.5]
    assert found[0].reason == Reason.GROSS_EXCEEDED
    # What is on its way counts.
    found = join(decisions((0.2, 0.2), (0.0, 0.8)), [state(0.2, 0.3), state(0.0)], limits)
    assert found[1].target == pytest.approx(0.3)


def test_rates_are_those_of_the_account() -> None:
    limits = LimitsConfig(orders_per_hour=3, turnover_per_day=0.5)
    pairs = ((0.1, 0.2), (0.0, 0.3), (0.4, 0.1))
    found = join(decisions(*pairs), [state(0.1, orders=1), state(0.0), state(0.4)], limits)
    assert [d.target for d in found] == pytest.approx([0.1, 0.3, 0.1])  # one is left beside the reduction: the larger
    assert found[0].reason == Reason.ORDERS_PER_HOUR
    found = join(decisions(*pairs[:2]), [state(0.1, turnover=0.3), state(0.0)], limits)
    assert [d.target for d in found] == pytest.approx([0.15, 0.15])
    assert found[0].bound == ("turnover_per_day",)


def test_no_mix_of_names_exceeds_the_accounts_limits_and_their_order_does_not_matter() -> None:
    rng = np.random.default_rng(11)
    limits = LimitsConfig(side="long_short", max_exposure=1.0, max_gross=1.5, max_net=1.0, drift_tolerance=0.02)
    forced = cut = 0
    for _ in range(4000):
        count = int(rng.integers(1, 7))
        held, target = rng.uniform(-0.9, 0.9, (2, count)) * rng.choice([0.3, 1.0])
        target = np.where(rng.random(count) < 0.3, held, target)
        pending = np.where(rng.random(count) < 0.2, rng.uniform(-0.3, 0.3, count), 0.0)
        given = decisions(*zip(held.tolist(), target.tolist(), strict=True))
        states = [state(float(h), float(p)) for h, p in zip(held, pending, strict=True)]
        found = join(given, states, limits)
        order = rng.permutation(count)
        again = join([given[row] for row in order], [states[row] for row in order], limits)
        assert [d.target for d in again] == pytest.approx([found[row].target for row in order], abs=1e-12)
        ends = np.array([d.target for d in found])
        # Orders that are open, and not called back, stand for what they lead to.
        working = pending != 0.0
        back = np.array([d.cancel_opening for d in found])
        ahead = np.where(np.abs(held + pending) > np.abs(held), held + pending, held)
        called_back = np.where(np.abs(ends) < np.abs(held), ends, held)  # what takes away follows the cancel
        lead = np.where(working, np.where(back, called_back, ahead), ends)
        assert np.abs(lead).sum() <= 1.5 * 1.02 + 1e-9
        sides = held * ends
        assert (sides[~working] >= -1e-12).all() or (np.sign(ends) == np.sign(target))[held * ends < 0.0].all()
        forced += any("drift" in d.bound for d in found)
        cut += any(d.bound == ("max_gross",) or d.bound == ("max_net",) for d in found)
    assert forced > 100
    assert cut > 100


# -- the panel --------------------------------------------------------------------------------------------------------


def member(ts: int, held: float = 0.0, *, mean: float = 0.0, scale: float = 0.01, stale: bool = False) -> Member:
    quantiles = (mean + NORMAL * scale).astype(np.float32)[None]
    forecast = Forecast(ts, (1,), LEVELS, quantiles, scale)
    risk = advance(RiskState.start(ts, 1e5), ts, 1e5, LimitsConfig(), Seen(0.0, 100.0, scale, HOUR.ns))
    return Member(
        state=PortfolioState(ts, 1e5, held, risk),
        trained=Trained({1: Shrinkage(1.0, 0.0, 0.0)}),
        bars_per_year=8760.0,
        costs=Costs(),
        forecast=None if stale else forecast,
        latest=forecast,
        conditions=Conditions(stale=stale),
    )


def panel_after(n: int, **changes: Any) -> tuple[Panel, int]:
    sizing = SizingConfig(target_volatility=0.4, no_trade_band=0.0)
    portfolio = PortfolioConfig(span=100, scale_span=20, **changes)
    made = Panel(NAMES, portfolio, sizing, LimitsConfig(max_exposure=0.6, max_gross=1.2), HOUR.ns)
    for row, close_S in enumerate(closes(n)):
        made.observe((row + 1) * HOUR.ns, close_S)
    return made, n * HOUR.ns


def test_an_absent_name_holds_and_keeps_its_share() -> None:
    made, ts = panel_after(150)
    there = made.decide([member(ts), member(ts), member(ts)])
    assert all(decision.target > 0.1 for decision in there)
    held = [decision.target for decision in there]
    later = made.decide([member(ts, held[0]), member(ts, held[1], stale=True), member(ts, held[2])])
    assert later[1].reason == Reason.STALE_DATA
    assert later[1].target == held[1]
    assert later[0].target == pytest.approx(held[0])  # the others do not take its place
    nothing = made.decide([member(ts), member(ts, 0.0, stale=True), member(ts)])
    assert nothing[1].target == 0.0


def test_a_panel_goes_on_from_its_snapshot() -> None:
    made, ts = panel_after(150, every=7)
    made.decide([member(ts), member(ts), member(ts)])
    again, _ = panel_after(1, every=7)
    again.restore(made.state())
    for panel in (made, again):
        panel.observe(ts + HOUR.ns, np.array([101.0, 99.0, 100.0]))
    later = [member(ts + HOUR.ns), member(ts + HOUR.ns, scale=0.02), member(ts + HOUR.ns)]
    assert made.decide(later) == again.decide(later)
    assert made.state() == again.state()
    with pytest.raises(LSTMStrategyError, match="damaged"):
        again.restore(b"nonsense")


def test_before_enough_is_known_nothing_is_opened() -> None:
    made, ts = panel_after(20)
    assert {decision.reason for decision in made.decide([member(ts)] * 3)} == {Reason.NOT_READY}


# -- rounds -----------------------------------------------------------------------------------------------------------


def arrival(hour: int, waiting: bool = False) -> Arrival:
    return Arrival(Bar(hour * HOUR.ns, 1.0, 1.0, 1.0, 1.0, 1.0), None, waiting)


def test_a_round_is_decided_once_whatever_comes_first() -> None:
    for names in (("a", "b", "c"), ("c", "a", "b")):
        rounds = Rounds(("a", "b", "c"))
        assert [len(rounds.add(name, arrival(1))) for name in names] == [0, 0, 1]
    rounds = Rounds(("a", "b"))
    assert rounds.add("a", arrival(1)) == ()
    (ended,) = rounds.add("a", arrival(2))  # a later close ends what was open
    assert (ended.ts_close, set(ended.arrived)) == (HOUR.ns, {"a"})
    assert rounds.add("b", arrival(1)) == ()  # too late
    (done,) = rounds.add("b", arrival(2))
    assert set(done.arrived) == {"a", "b"}
    assert rounds.end() == ()
    rounds.add("b", arrival(3))
    assert [one.ts_close for one in rounds.end()] == [3 * HOUR.ns]  # the grace period is over
    assert rounds.add("a", arrival(3)) == ()


def test_a_history_that_came_late_completes_its_round_once_more() -> None:
    rounds = Rounds(("a", "b"))
    rounds.add("a", arrival(1, waiting=True))
    assert len(rounds.add("b", arrival(1, waiting=True))) == 1
    assert rounds.add("a", arrival(1)) == ()
    assert len(rounds.add("b", arrival(1))) == 1
    assert rounds.add("b", arrival(1)) == ()
