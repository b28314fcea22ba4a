"""Maintenance margin by a venue's tiers: what is asked for, where it liquidates, and tables that make no sense."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from catalog_support import bring_in
from engine_support import PERPETUAL, make_bars
from test_liquidation import FLAT, fills, played
from typer.testing import CliRunner

from lstm_strategy.cli import app
from lstm_strategy.cli_jobs import Places, margin_told, settings_of
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import BacktestConfig
from lstm_strategy.margin import MarginTier, lines_of, margin_asked, require_maintenance, words_of
from lstm_strategy.nautilus.liquidation import liquidation_price
from lstm_strategy.sources.margin_tiers import keep_tiers, read_tiers, tiers_from_file
from lstm_strategy.sources.store import RawStore

# Brackets in the shape and of the size of those of bitcoin on Binance's USD-M futures.
BINANCE: list[dict[str, Any]] = [
    {"initialLeverage": most, "notionalFloor": floor, "notionalCap": cap, "maintMarginRatio": rate, "cum": cum}
    for most, floor, cap, rate, cum in [
        (125, 0, 50_000, 0.004, 0.0),
        (100, 50_000, 600_000, 0.005, 50.0),
        (75, 600_000, 3_000_000, 0.0065, 950.0),
        (50, 3_000_000, 12_000_000, 0.01, 11_450.0),
        (25, 12_000_000, 70_000_000, 0.02, 131_450.0),
    ]
]
STEEP = (
    MarginTier(above=0.0, upto=50_000.0, rate=0.004),
    MarginTier(above=50_000.0, upto=150_000.0, rate=0.05, amount=2_300.0),
    MarginTier(above=150_000.0, rate=0.1, amount=9_800.0),
)


def slices(value: float, tiers: tuple[MarginTier, ...]) -> float:
    """What is asked for, added up slice by slice: each at its own tier's rate."""
    ends = [*(tier.above for tier in tiers[1:]), math.inf]
    return sum(
        tier.rate * (min(value, end) - tier.above) for tier, end in zip(tiers, ends, strict=True) if value > tier.above
    )


@pytest.mark.parametrize("value", [1.0, 50_000.0, 50_001.0, 149_999.0, 150_000.0, 3e6])
def test_each_slice_of_a_position_is_asked_for_at_its_own_rate(value: float) -> None:
    assert margin_asked(value, lines_of(STEEP)) == pytest.approx(slices(value, STEEP))
    assert lines_of(0.05) == ((0.05, 0.0),)
    assert [amount for _, amount in lines_of(STEEP)] == [0.0, pytest.approx(2_300.0), pytest.approx(9_800.0)]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_price_is_where_equity_is_what_the_tiers_ask_for(side: float) -> None:
    rng = np.random.default_rng(3)
    hit = set()
    for _ in range(300):
        position, margin = side * 10 ** rng.uniform(0, 3), 10 ** rng.uniform(3, 5.5)
        price = liquidation_price(position, 1000.0, margin, lines_of(STEEP))
        if price <= 0.0:
            continue
        equity = margin + position * (price - 1000.0)
        value = abs(position) * price
        assert equity == pytest.approx(slices(value, STEEP), abs=1e-6 * value + 1e-6)
        hit.add(sum(value > tier.above for tier in STEEP))
        worse = price * (1.0 - side * 0.01)
        assert margin + position * (worse - 1000.0) < slices(abs(position) * worse, STEEP)
    assert hit == {1, 2, 3}  # every tier decided some


def test_a_rule_is_told_in_words() -> None:
    nbsp = "\N{NO-BREAK SPACE}"
    assert words_of(0.0) == "no liquidation"
    assert words_of(0.0125) == f"one maintenance rate, 1.25{nbsp}% of a position's value"
    assert words_of((MarginTier(above=0.0, rate=0.1),)) == f"one tier, 10{nbsp}% of a position's value"
    assert words_of(STEEP) == f"3 tiers, 0.4{nbsp}% of a position's value at first, 10{nbsp}% above 150,000"


def test_a_run_liquidates_by_the_tier_that_the_position_falls_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 200 coins at 1000 with 100,000: the second tier, 100,000 + 200 (p - 1000) = .05 · 200 p - 2,300 at 514.2; one rate
    # of 5 % would have closed at 526.3, one of 10 % at 555.5.
    rows = [FLAT, FLAT, (1000.0, 1000.0, 500.0, 1000.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3, maintenance=STEEP)
    assert fills(finished)[:2] == [(2, "buy", 1000.0, 200.0), (3, "sell", 514.2, 200.0)]
    kept = played(tmp_path / "b", monkeypatch, [FLAT, FLAT, (1000.0, 1000.0, 514.3, 1000.0), FLAT], lambda _: 1e-3,
                  maintenance=STEEP)  # fmt: skip
    assert kept.summary["liquidations"] == []


def test_names_of_one_account_have_tiers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two longs of 150,000 each: what is asked for the other one, by its own table, is not there for the first."""
    from panel_support import AAA, BBB, FUTURE, run_on, tell_each

    from lstm_strategy.bars import Bars
    from lstm_strategy.decision import LimitsConfig
    from lstm_strategy.nautilus import panel_backtest

    tell_each(monkeypatch, lambda *_: 1e-3)
    rows = {AAA.id: [FLAT, FLAT, (1000.0, 1000.0, 300.0, 1000.0), FLAT], BBB.id: [FLAT] * 4}
    panel = [
        Bars(name, PERPETUAL_BARS.timeframe, PERPETUAL_BARS.ts_close, *np.array(bars, float).T, np.full(4, 1e6))
        for name, bars in rows.items()
    ]
    plain = panel_backtest.PanelSettings

    def with_tiers(**settings: Any) -> Any:
        asked = {AAA.id: 0.05, BBB.id: STEEP}
        settings["members"] = tuple(
            msgspec.structs.replace(member, maintenance=asked[member.instrument_id]) for member in settings["members"]
        )
        return plain(**settings)

    monkeypatch.setattr("panel_support.PanelSettings", with_tiers)
    bold = LimitsConfig(max_exposure=1.5, max_step=4.0, daily_loss=1.0, max_drawdown=1.0, drift_tolerance=10.0)
    done = run_on(tmp_path, panel, kind=FUTURE, account="margin", limits=bold, liquidation_fee=0.01)
    (lost,) = done.summary["liquidations"]
    other = 0.1 * 150_000.0 - 9_800.0
    assert lost["instrument"] == AAA.id
    assert lost["price"] == pytest.approx((150_000.0 - 100_000.0 + other) / (150.0 * 0.95), abs=0.02)


PERPETUAL_BARS = make_bars(np.full(4, 1000.0), np.full(4, 1000.0), PERPETUAL)


@pytest.mark.parametrize(
    ("tiers", "problem"),
    [
        ([], "has no tier; its first tier must be above = 0"),
        ([(10.0, None, 0.01, None)], r"begins at 10; its first tier must be above = 0"),
        ([(0.0, 50.0, 0.01, None), (60.0, None, 0.02, None)], "has a gap: after the tier up to 50 comes one above 60"),
        ([(0.0, 50.0, 0.01, None), (40.0, None, 0.02, None)], "has an overlap"),
        ([(0.0, None, 0.02, None), (40.0, None, 0.01, None)], r"rate falls from 0\.02 to 0\.01 above 40"),
        ([(0.0, None, 0.01, 5.0)], r"amount is 5 above 0; the rates say 0"),
        ([(0.0, 50_000.0, 0.004, 0.0), (50_000.0, None, 0.005, 40.0)], "amount is 40 above 50,000; the rates say 50"),
        ([(0.0, None, 1.2, None)], r"rate is 1\.2 above 0"),
        ([(0.0, 0.0, 0.1, None)], "a tier reaches from 0 to 0; it must rise"),
        ([(0.0, None, 0.01, None), (0.0, None, 0.02, None)], "overlap"),
        ([(0.0, None, math.nan, None)], "rate is nan above 0"),
        ([(0.0, None, 0.01, None), (math.nan, None, 0.02, None)], "a tier reaches from nan"),
        ([(0.0, None, 0.01, math.nan)], "amount is nan above 0"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_in_one_line(tiers: list[Any], problem: str) -> None:
    table = tuple(MarginTier(above=above, upto=upto, rate=rate, amount=amount) for above, upto, rate, amount in tiers)
    with pytest.raises(LSTMStrategyError, match=problem) as refused:
        require_maintenance(table)
    assert "\n" not in str(refused.value)
    with pytest.raises(LSTMStrategyError, match=problem):
        BacktestConfig(maintenance=table)


def test_an_account_too_bold_for_the_tier_it_opens_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 % above 150,000: a table's first rate would allow what its last one takes away."""
    table = (MarginTier(above=0.0, rate=0.004), MarginTier(above=150_000.0, rate=0.9))
    with pytest.raises(
        LSTMStrategyError, match=r"initial_margin is 0\.1, below backtest\.maintenance, 0\.228 of 200,000"
    ):
        played(tmp_path, monkeypatch, [FLAT] * 3, lambda _: 1e-3, maintenance=table)


@pytest.mark.parametrize("shape", ["reply", "one", "bare", "ccxt"])
def test_replies_of_venues_are_read(tmp_path: Path, shape: str) -> None:
    reply = {"symbol": "BTCUSDT", "brackets": BINANCE}
    ccxt = {
        "BTCUSDT": [
            {"tier": 1, "currency": "USDT", "minNotional": row["notionalFloor"],
             "maxNotional": row["notionalCap"], "maintenanceMarginRate": row["maintMarginRatio"],
             "maxLeverage": row["initialLeverage"], "info": {"cum": str(row["cum"])}}
            for row in BINANCE
        ]
    }  # fmt: skip
    content = {
        "reply": [{"symbol": "ETHUSDT", "brackets": BINANCE[:1]}, reply],
        "one": reply,
        "bare": BINANCE,
        "ccxt": ccxt,
    }
    (file := tmp_path / "brackets.json").write_text(json.dumps(content[shape]))
    tiers = tiers_from_file(file, "BTCUSDT")
    assert [(tier.above, tier.rate, tier.amount) for tier in tiers] == [
        (row["notionalFloor"], row["maintMarginRatio"], row["cum"]) for row in BINANCE
    ]
    # 1,000,000 USDT: 0.65 % less 950.
    assert margin_asked(1e6, lines_of(tiers)) == pytest.approx(5_550.0)
    store = RawStore(tmp_path / "catalog")
    assert read_tiers(store, PERPETUAL.id) == ()
    keep_tiers(store, PERPETUAL.id, tiers)
    assert read_tiers(store, PERPETUAL.id) == tiers


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list of tiers of BTCUSDT"),
        ('{"ETHUSDT": []}', "has no tiers of BTCUSDT; it has ETHUSDT: name one with --symbol"),
        ('[{"notionalFloor": 0}]', "a tier of BTCUSDT lacks"),
        ('[{"above": 5, "rate": 0.1}]', "begins at 5"),
        ("[1]", "a tier of BTCUSDT lacks"),
    ],
)
def test_files_that_are_no_tiers_are_refused_in_one_line(tmp_path: Path, content: str, problem: str) -> None:
    (file := tmp_path / "brackets.json").write_text(content)
    with pytest.raises(LSTMStrategyError, match=problem) as refused:
        tiers_from_file(file, "BTCUSDT")
    assert "\n" not in str(refused.value)


def test_tiers_are_brought_in_and_used_unless_the_experiment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from lstm_strategy import cli_jobs
    from lstm_strategy.experiment import Experiment
    from lstm_strategy.toml_file import read_toml

    bring_in(tmp_path / "catalog", PERPETUAL_BARS, PERPETUAL)
    (file := tmp_path / "brackets.json").write_text(json.dumps([{"symbol": "BTCUSDT", "brackets": BINANCE}]))
    (toml := tmp_path / "x.toml").write_text(
        'name = "x"\n[data]\ninstruments = ["BTCUSDT_PERP.BINANCE"]\ntimeframe = "1h"\n'
        "[split]\nfit_end = 2020-01-01\nstop_end = 2020-02-01\ncalibrate_end = 2020-03-01\n"
        '[backtest]\naccount = "margin"\n'
    )
    monkeypatch.setattr(
        cli_jobs, "model_of", lambda *_: SimpleNamespace(
            require_instrument=lambda _: None, manifest=SimpleNamespace(version="1"), trained_until=0, label="x"
        )
    )  # fmt: skip
    monkeypatch.setattr(cli_jobs, "model_folder", lambda *_: tmp_path)
    places = Places(tmp_path / "catalog", tmp_path, tmp_path)

    def maintenance() -> Any:
        return settings_of(read_toml(toml, Experiment), PERPETUAL.id, places)[0].maintenance

    def said() -> str:
        nbsp = "\N{NO-BREAK SPACE}"
        return margin_told(read_toml(toml, Experiment), tmp_path / "catalog", [PERPETUAL.id]).replace(nbsp, " ")

    assert maintenance() == 0.05
    told = "one maintenance rate, 5 % of a position's value (default; data tiers keeps a venue's own)"
    assert said() == f"margin account: {told}"
    words = ["data", "tiers", str(file), "--instrument", PERPETUAL.id, "--catalog", str(tmp_path / "catalog")]
    missing = CliRunner().invoke(app, words)
    assert missing.exit_code == 1
    assert isinstance(missing.exception, (SystemExit, LSTMStrategyError))
    done = CliRunner().invoke(app, [*words, "--symbol", "BTCUSDT", "--json"])
    assert done.exit_code == 0, done.output
    assert [tier.rate for tier in maintenance()] == [row["maintMarginRatio"] for row in BINANCE]
    tiers = "5 tiers, 0.4 % of a position's value at first, 2 % above 12,000,000"
    assert said() == f"margin account: {tiers} (the venue's, by data tiers)"
    toml.write_text(
        toml.read_text() + "maintenance = [{ above = 0, rate = 0.01 }, { above = 1_000_000, rate = 0.02 }]\n"
    )
    assert lines_of(maintenance()) == ((0.01, 0.0), (0.02, 10_000.0))
    assert said().endswith("2 tiers, 1 % of a position's value at first, 2 % above 1,000,000 (backtest.maintenance)")
    cash = read_toml(toml, Experiment)
    cash = msgspec.structs.replace(cash, backtest=msgspec.structs.replace(cash.backtest, account="cash"))
    assert margin_told(cash, tmp_path / "catalog", [PERPETUAL.id]).startswith("cash account: no loan")
    toml.write_text(toml.read_text().replace("rate = 0.02", "rate = 0.005"))
    with pytest.raises(LSTMStrategyError, match=r"x\.toml: .*maintenance: rate falls from 0\.01 to 0\.005"):
        maintenance()
