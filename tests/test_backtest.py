"""Backtests: where and when orders fill, what they cost, what is written, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_support import (
    HOUR,
    LOOSE,
    PERPETUAL,
    SIGN,
    SPOT,
    make_bars,
    random_bars,
    run,
    tell,
)

from lstm_strategy import artefact
from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import BacktestConfig
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.backtest import BacktestRun, BacktestSettings, run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.strategy import LSTMStrategy, LSTMStrategyConfig
from lstm_strategy.sources.store import RawStore

LONG_SHORT = LimitsConfig(side="long_short", daily_loss=1.0, max_drawdown=1.0, max_step=2.0, drift_tolerance=10.0)


def stamps(run_: BacktestRun, table: str, column: str) -> np.ndarray:
    return run_.tables[table][column].cast("int64").to_numpy()


def gapped_bars(n: int) -> Bars:
    """Opens that are never the close before, and holes of one to three bars."""
    opens = 1000.0 + 10.0 * np.arange(n)
    keep = np.ones(n, bool)
    keep[[20, 21, 22, 30, 31, 37, 44, 45, 46]] = False
    return make_bars(opens, opens + 3.0, keep=keep)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_decision_fills_at_the_open_of_its_next_bar_or_n_bars_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: int
) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts // HOUR.ns % 4 < 2 else -0.001)
    bars = gapped_bars(60)
    finished = run(tmp_path, bars, delay=delay)
    opened_at = dict(zip((bars.ts_close - HOUR.ns).tolist(), bars.open.tolist(), strict=True))
    sent = dict(
        zip(finished.tables["orders"]["order_id"].to_pylist(), stamps(finished, "orders", "ts_sent"), strict=True)
    )
    fills = finished.tables["fills"].to_pylist()
    assert len(fills) >= 8
    crossed = 0
    for fill, ts_filled in zip(fills, stamps(finished, "fills", "ts_filled"), strict=True):
        due = sent[fill["order_id"]] + delay * HOUR.ns
        while due not in opened_at:  # the hole: the order waits for the next open
            due += HOUR.ns
            crossed += 1
        assert fill["price"] == opened_at[due]
        assert ts_filled == due + 2
    assert crossed > 0


def test_spread_slippage_and_fees_are_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts < 10 * HOUR.ns else -0.001)
    bars = random_bars(20)
    costs = Costs(fee=0.002, spread=0.001, slippage=0.0005)
    finished = run(tmp_path, bars, costs=costs)
    fills = finished.tables["fills"].to_pylist()
    bought, sold = fills[0], next(fill for fill in fills if fill["side"] == "sell")
    assert bought["price"] == pytest.approx(bars.open[1] * 1.001, abs=0.0101)
    assert bought["price"] >= bars.open[1] * 1.001
    assert sold["price"] == pytest.approx(bars.open[10] * 0.999, abs=0.0101)
    assert sold["price"] <= bars.open[10] * 0.999
    cash = 100_000.0
    for fill in fills:
        assert fill["fee"] == pytest.approx(0.002 * fill["price"] * fill["quantity"], abs=1e-8)
        cash -= fill["fee"] + fill["price"] * fill["quantity"] * (1 if fill["side"] == "buy" else -1)
    assert finished.record.equities[-1] == pytest.approx(cash, abs=1e-6)
    assert finished.summary["fees"] == pytest.approx(sum(fill["fee"] for fill in fills))


def test_an_order_larger_than_the_offered_volume_fills_one_tick_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(5)
    thin = Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, bars.high, bars.low, bars.close, np.full(5, 40.0))
    first, rest = run(tmp_path, thin).tables["fills"].to_pylist()[:2]
    assert first["quantity"] == 10.0
    assert first["price"] == bars.open[1]
    assert rest["price"] == pytest.approx(bars.open[1] + 0.01)


def test_equity_is_marked_to_each_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(30)
    finished = run(tmp_path, bars)
    bought = finished.tables["fills"].to_pylist()[0]
    assert finished.record.equities[0] == 100_000.0
    marked = 100_000 + (bars.close[1] - bought["price"]) * bought["quantity"]
    assert finished.record.equities[1] == pytest.approx(marked, abs=1e-6)
    assert finished.summary["net_return"] == pytest.approx(finished.record.equities[-1] / 100_000 - 1)


@pytest.mark.parametrize(
    ("instrument", "account", "limits"), [(SPOT, "cash", LOOSE), (PERPETUAL, "margin", LONG_SHORT)]
)
def test_a_one_bar_edge_is_earned_at_once_and_gone_a_bar_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instrument: object, account: str, limits: LimitsConfig
) -> None:
    bars = random_bars(400, instrument, seed=3)
    foresight = dict(zip(bars.ts_close[:-1].tolist(), np.diff(np.log(bars.close)).tolist(), strict=True))
    tell(monkeypatch, lambda ts: foresight.get(ts, 0.0))
    prompt = run(tmp_path, bars, instrument, limits=limits, account=account)
    late = run(tmp_path, bars, instrument, limits=limits, account=account, delay=1)
    caught = np.diff(np.log(bars.close[1:]))
    best = np.abs(caught).sum() if account == "margin" else np.maximum(caught, 0.0).sum()
    assert np.log1p(prompt.summary["net_return"]) > 0.9 * best
    assert abs(np.log1p(late.summary["net_return"])) < 0.25 * best


def test_a_fill_three_bars_late_never_doubles_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    signs = dict(zip((np.arange(300) * HOUR.ns).tolist(), rng.choice([-0.001, 0.001], 300).tolist(), strict=True))
    tell(monkeypatch, lambda ts: signs[ts])
    finished = run(tmp_path, random_bars(200, PERPETUAL), PERPETUAL, limits=LONG_SHORT, account="margin", delay=3)
    sent, last = stamps(finished, "orders", "ts_sent"), stamps(finished, "orders", "ts_last")
    assert len(sent) > 30
    assert (sent[1:] >= last[:-1]).all()
    assert {"awaiting_order", "sent"} <= set(finished.tables["decisions"]["action"].to_pylist())
    assert np.abs(finished.tables["decisions"]["exposure"].to_numpy()).max() < 1.2


def test_spot_never_sells_what_it_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    tell(monkeypatch, lambda _: float(rng.choice([-0.001, 0.001])))
    finished = run(tmp_path, random_bars(300), costs=Costs(fee=0.001))
    held = np.cumsum(
        [
            fill["quantity"] if fill["side"] == "buy" else -fill["quantity"]
            for fill in finished.tables["fills"].to_pylist()
        ]
    )
    assert held.min() > -1e-9
    assert len(held) > 50
    # Every sale closed the position to the last lot.
    assert min(abs(held)) < 1e-9
    with pytest.raises(LSTMStrategyError, match="cannot short"):
        run(tmp_path, random_bars(30), limits=LONG_SHORT)


def test_orders_below_the_venues_minimum_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    finished = run(tmp_path, random_bars(10), cash=9.0)
    assert finished.summary["orders"] == 0
    assert set(finished.tables["decisions"]["action"].to_pylist()) == {"below_minimum"}


def test_a_drawdown_halt_flattens_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    closes = np.round(1000.0 * 0.99 ** np.arange(60), 2)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    finished = run(tmp_path, bars, limits=LimitsConfig(daily_loss=1.0, max_drawdown=0.1, drift_tolerance=1.0))
    rows = finished.tables["decisions"].to_pylist()
    assert rows[-1]["reason"] == "halt_drawdown"
    assert rows[-1]["exposure"] == 0.0
    assert finished.summary["days_halted"] == 3
    # The breaching close, and one open after it.
    assert 0.1 < finished.summary["max_drawdown"] < 0.125


def test_start_and_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda _: 0.001, warmup_bars=20)
    bars = random_bars(60)
    finished = run(tmp_path, bars, start=int(bars.ts_close[29]), end=int(bars.ts_close[49]))
    assert finished.summary["bars"] == finished.summary["decisions"] == 20
    assert made[0].seen == bars.ts_close[:50].tolist()  # history and run, each bar once
    assert finished.tables["decisions"]["action"][0].as_py() == "sent"


def test_nothing_is_traded_before_the_warm_up_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001, warmup_bars=20)
    actions = run(tmp_path, random_bars(40)).tables["decisions"]["action"].to_pylist()
    assert actions[:19] == ["not_ready"] * 19
    assert actions[19] == "sent"


def test_an_exception_in_a_handler_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(ts: int) -> float:
        if ts == 12 * HOUR.ns:
            raise ZeroDivisionError("planted")
        return 0.001

    tell(monkeypatch, mean)
    with pytest.raises(ZeroDivisionError, match="planted"):
        run(tmp_path, random_bars(40), run_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts // HOUR.ns % 5 else -0.001)
    finished = run(tmp_path, random_bars(100), run_folder=tmp_path / "run", tearsheet=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    tables = {"orders", "fills", "positions", "equity", "decisions", "forecasts"}
    assert names == {f"{name}.parquet" for name in tables} | {"summary.json", "tearsheet.html"}
    for name in tables:
        columns = finished.tables[name].column_names  # the decision log has more of them
        assert pq.read_table(tmp_path / "run" / f"{name}.parquet", columns=columns).equals(finished.tables[name])
    assert not (tmp_path / "run.decisions").exists()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    expected = {"bars", "orders", "fees", "net_return", "sharpe", "max_drawdown", "pinball", "pinball_baseline"}
    expected |= {"coverage_80", "coverage_98", "decisions", "days_halted", "seconds", "run_path", "buy_and_hold"}
    assert expected <= set(summary)
    assert summary["orders"] == len(finished.tables["orders"])
    assert summary["tearsheet"] == "tearsheet.html"
    assert not summary["ruined"]
    assert finished.tables["positions"].num_rows > 5
    with pytest.raises(LSTMStrategyError, match="exists already"):
        run(tmp_path, random_bars(100), run_folder=tmp_path / "run")


def test_without_orders_there_is_still_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: -0.001)
    finished = run(tmp_path, random_bars(50), run_folder=tmp_path / "run", tearsheet=True)
    assert finished.summary["orders"] == 0
    assert (tmp_path / "run" / "tearsheet.html").exists()


def test_the_same_run_twice_gives_the_same_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts // HOUR.ns % 5 else -0.001)
    first, second = (run(tmp_path, random_bars(100), sizing=SIGN) for _ in range(2))
    assert first.tables["orders"].equals(second.tables["orders"])
    assert first.tables["equity"].equals(second.tables["equity"])


def test_a_ruined_account_is_flat_and_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    closes = np.concatenate([np.full(30, 1000.0), np.full(30, 900.0), np.full(30, 890.0)])
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes, PERPETUAL)
    bold = LimitsConfig(
        side="long_short",
        max_exposure=20.0,
        max_step=40.0,
        daily_loss=1.0,
        max_drawdown=1.0,
        drift_tolerance=10.0,
        initial_margin=0.04,
    )
    finished = run(
        tmp_path,
        bars,
        PERPETUAL,
        limits=bold,
        account="margin",
        maintenance=0.0,
        run_folder=tmp_path / "run",
        tearsheet=True,
    )
    summary = finished.summary
    assert summary["ruined"]
    assert math.isnan(summary["sharpe"])
    assert summary["max_drawdown"] == 1.0
    assert summary["lowest_cash"] < 0.0
    rows = finished.tables["decisions"].to_pylist()[30:]
    assert (rows[0]["reason"], rows[0]["action"]) in {("halt_drawdown", "sent"), ("halt_no_equity", "sent")}
    assert {row["exposure"] for row in rows[2:]} == {0.0}
    assert [note.split(":")[0] for note in summary["notes"]] == ["Funding is not included"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["notes"] == summary["notes"]


def test_no_equity_flattens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    monkeypatch.setattr("lstm_strategy.nautilus.strategy.advance", lambda risk, *_: risk)  # no other halt in the way
    closes = np.repeat([1000.0, 900.0], 30)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes, PERPETUAL)
    bold = LimitsConfig(side="long_short", max_exposure=20.0, max_step=40.0, drift_tolerance=10.0, initial_margin=0.04)
    finished = run(tmp_path, bars, PERPETUAL, limits=bold, account="margin", maintenance=0.0)
    rows = finished.tables["decisions"].to_pylist()[30:]
    assert (rows[0]["reason"], rows[0]["action"]) == ("halt_no_equity", "sent")
    assert {row["exposure"] for row in rows[1:]} == {0.0}
    assert finished.summary["ruined"]


def test_the_lowest_cash_is_told_and_a_delay_keeps_a_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    closes = np.round(1000.0 * 1.01 ** np.arange(20), 2)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    gaps = make_bars(np.round(np.concatenate([[1000.0], closes[:-1]]) * 1.02, 2), np.round(closes * 1.02, 2))
    late = run(tmp_path / "late", bars, delay=2).summary
    assert late["lowest_cash"] >= 0.0
    assert late["notes"] == []
    prompt = run(tmp_path / "gaps", make_bars(gaps.open, np.minimum(closes, gaps.open))).summary
    assert prompt["lowest_cash"] < 0.0  # opened two per cent above the close that it was decided at
    fills = run(tmp_path / "same", bars).tables["fills"].to_pylist()
    path = 100_000.0 - np.cumsum([f["price"] * f["quantity"] * (1 if f["side"] == "buy" else -1) for f in fills])
    assert run(tmp_path / "again", bars).summary["lowest_cash"] == pytest.approx(path.min(), abs=1e-6)


def test_asking_for_holes_that_the_data_has_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda ts: 0.001 if ts // HOUR.ns % 4 < 2 else -0.001, warmup_bars=5)
    bars = gapped_bars(60)
    plain = run(tmp_path, bars)
    asked: list[int] = []
    request = LSTMStrategy.request_bars

    def counted(self: LSTMStrategy, *args: Any, **kwargs: Any) -> Any:
        asked.append(self.clock.timestamp_ns())
        return request(self, *args, **kwargs)

    class Asking(LSTMStrategy):
        request_bars = counted

        def __init__(self, config: LSTMStrategyConfig) -> None:
            super().__init__(config)
            self.settings = msgspec.structs.replace(config, refill_holes=True)

    monkeypatch.setattr("lstm_strategy.nautilus.strategy.LSTMStrategy", Asking)
    asking = run(tmp_path, bars)
    assert len(asked) == 1 + 4  # at the start, and once a hole
    for name in ("equity", "decisions", "forecasts", "fills"):
        one, other = (
            done.tables[name].drop_columns(["order_id"] if name == "fills" else []) for done in (plain, asking)
        )
        assert one.equals(other)
    assert made[0].seen == made[1].seen == bars.ts_close.tolist()


def test_a_catalog_that_is_not_the_raw_bars_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(60)
    store = RawStore(tmp_path / "catalog")
    store.write_instrument(SPOT)
    store.merge(bars)
    run(tmp_path, bars)
    with pytest.raises(
        LSTMStrategyError, match=r"holds 50 bars, the raw files 60; write it anew with 'lstm-strategy d"
    ):
        run(tmp_path, bars[:50])
    closes = bars.close.copy()
    closes[7] += 0.01
    altered = Bars(
        SPOT.id, HOUR, bars.ts_close, bars.open, np.maximum(bars.high, closes), bars.low, closes, bars.volume
    )
    with pytest.raises(LSTMStrategyError, match=r"differs from the raw files in 1 bars, first at 1970-01-01T08:00:00Z"):
        run(tmp_path, altered)
    run(tmp_path, Bars(SPOT.id, HOUR, bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume + 4e-6))


def test_a_run_folder_that_exists_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda _: 0.001)
    (tmp_path / "run").mkdir()
    with pytest.raises(LSTMStrategyError, match="exists already"):
        run(tmp_path, random_bars(30), run_folder=tmp_path / "run")
    assert made == []


def test_without_plotly_the_run_is_kept_without_a_tearsheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)

    def missing(*_: object, **__: object) -> None:
        raise ImportError("plotly is required")

    monkeypatch.setattr("nautilus_trader.analysis.tearsheet.create_tearsheet_from_stats", missing)
    finished = run(tmp_path, random_bars(30), run_folder=tmp_path / "run", tearsheet=True)
    assert finished.summary["tearsheet"] is None
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["tearsheet"] is None
    assert not (tmp_path / "run" / "tearsheet.html").exists()


def test_missing_things_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    bars = random_bars(30)
    with pytest.raises(LSTMStrategyError, match="0 bars in the backtest's span; it holds 1970-01-01T01:00:00Z"):
        run(tmp_path, bars, start=int(bars.ts_close[-1]))
    with pytest.raises(LSTMStrategyError, match=r"backtest\.cash is 0"):
        run(tmp_path, bars, cash=0.0)
    with pytest.raises(LSTMStrategyError, match=r"backtest\.delay is -1"):
        run(tmp_path, bars, delay=-1)


@pytest.mark.parametrize("name", ["plain", "my bärs @ 100% #1"])
def test_the_engine_forecasts_exactly_as_the_history_does(tmp_path: Path, tiny_artefact: Path, name: str) -> None:
    bars, tmp_path = random_bars(900), tmp_path / name
    write_catalog(tmp_path / "catalog", bars, SPOT)
    finished = run_backtest(
        BacktestSettings(
            catalog=tmp_path / "catalog",
            instrument_id=SPOT.id,
            timeframe="1h",
            model=tiny_artefact,
            sizing=SizingConfig(horizon=4, no_trade_band=0.0),
            start=int(bars.ts_close[599]),
            run_folder=tmp_path / "run",
            tearsheet=False,
        )
    )
    offline = Forecaster(artefact.load(tiny_artefact), SPOT.id).run(bars)
    np.testing.assert_array_equal(finished.forecasts.quantiles_THQ, offline.quantiles_THQ[600:])
    np.testing.assert_array_equal(finished.forecasts.scale_T, offline.scale_T[600:])
    assert len(finished.forecasts) == finished.summary["bars"] == 300
    assert finished.summary["orders"] > 0
    table = pq.read_table(tmp_path / "run" / "forecasts.parquet")
    assert table.num_rows == 2 * 300
    assert table["model_version"].unique().to_pylist() == ["tiny/1"]


@pytest.mark.parametrize("name", ["what?", "star*", "a[1]"])
def test_a_catalog_whose_path_is_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LSTMStrategyError, match="keep it in another folder"):
        write_catalog(tmp_path / name, random_bars(5), SPOT)
    assert not (tmp_path / name).exists()


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, tiny_artefact: Path) -> None:
    bars = random_bars(900, PERPETUAL)
    write_catalog(tmp_path / "catalog", bars, PERPETUAL)
    settings = BacktestSettings(
        catalog=tmp_path / "catalog", instrument_id=PERPETUAL.id, timeframe="1h", model=tiny_artefact
    )
    with pytest.raises(LSTMStrategyError, match="is a perpetual; it needs"):
        run_backtest(settings)
    with pytest.raises(LSTMStrategyError, match="was not trained on BTCUSDT_PERP"):
        run_backtest(msgspec.structs.replace(settings, account="margin"))
    write_catalog(tmp_path / "catalog", random_bars(900), SPOT)
    other_horizon = msgspec.structs.replace(settings, instrument_id=SPOT.id, sizing=SizingConfig(horizon=3))
    with pytest.raises(LSTMStrategyError, match=r"sizing\.horizon is 3"):
        run_backtest(other_horizon)
    with pytest.raises(LSTMStrategyError, match="no bars BTCUSDT"):
        run_backtest(msgspec.structs.replace(settings, instrument_id=SPOT.id, timeframe="5m"))


def test_what_was_tried_before_counts_against_the_sharpe_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    bars = random_bars(24 * 30, seed=2)
    alone = run(tmp_path, bars).summary["overfitting"]
    of_ten = run(tmp_path, bars, tried=10).summary["overfitting"]
    assert (alone["trials"], of_ten["trials"]) == (1, 10)
    assert of_ten["probabilistic_sharpe"] == alone["probabilistic_sharpe"] == alone["deflated_sharpe"]
    assert of_ten["deflated_sharpe"] < alone["deflated_sharpe"]
    with pytest.raises(LSTMStrategyError, match=r"backtest\.tried is 0; it must be 1"):
        run(tmp_path, bars, tried=0)
    with pytest.raises(LSTMStrategyError, match=r"backtest\.tried is 0; it must be 1"):
        BacktestConfig(tried=0)
