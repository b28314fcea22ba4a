"""FreqAI's walk-forward, in its own environment: ``python -m benchmarks.peers.freqai_peer FOLDER``.

The real freqtrade backtest on local candles. Only the exchange's list of markets is put in its place, since freqtrade
asks the venue for it even offline.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

from benchmarks.peers.peer import answer, load_task, one_thread, timed

_WINDOW = 30  # as in FreqAI's documentation of its windowed regressor
_MARKET = {
    "id": "BTCUSDT",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "baseId": "BTC",
    "quoteId": "USDT",
    "type": "spot",
    "spot": True,
    "margin": False,
    "swap": False,
    "future": False,
    "option": False,
    "contract": False,
    "active": True,
    "precision": {"price": 0.01, "amount": 0.00001},
    "limits": {"amount": {"min": 0.00001, "max": None}, "price": {}, "cost": {"min": 5.0, "max": None}},
    "maker": 0.001,
    "taker": 0.001,
    "info": {},
}


def main(folder: str) -> None:
    """Train four times and forecast the bars between; the clock runs in FreqAI alone, not in freqtrade's backtest."""
    one_thread()
    task, table = load_task(folder)

    import freqtrade
    import pandas as pd
    import torch
    from freqtrade.configuration import Configuration
    from freqtrade.enums import RunMode
    from freqtrade.exchange.exchange import Exchange
    from freqtrade.freqai.freqai_interface import IFreqaiModel
    from freqtrade.optimize.backtesting import Backtesting

    torch.set_num_threads(1)
    Exchange._load_async_markets = lambda self, reload=False: self._api_async.set_markets([_MARKET])

    user = (Path(folder) / "freqai").resolve()
    shutil.rmtree(user, ignore_errors=True)
    (user / "data").mkdir(parents=True)
    opened = pd.to_datetime(table["ts"], utc=True) - pd.Timedelta(hours=1)
    candles = table[["open", "high", "low", "close", "volume"]].assign(date=opened.astype("datetime64[ms, UTC]"))
    candles[["date", "open", "high", "low", "close", "volume"]].to_feather(user / "data" / "BTC_USDT-1h.feather")

    end = (opened.iloc[-1] + pd.Timedelta(hours=1)).floor("D")
    start = end - pd.Timedelta(hours=task.folds * task.test_bars)
    days = (task.fit_bars + task.hold_bars) // 24
    settings = {
        "dry_run": True,
        "stake_currency": "USDT",
        "stake_amount": 100,
        "dry_run_wallet": 1000,
        "max_open_trades": 1,
        "timeframe": "1h",
        "fee": 0.001,
        "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"], "pair_blacklist": []},
        "pairlists": [{"method": "StaticPairList"}],
        "entry_pricing": {"price_side": "same"},
        "exit_pricing": {"price_side": "same"},
        "dataformat_ohlcv": "feather",
        "timerange": f"{start:%Y%m%d}-{end:%Y%m%d}",
        "strategy": "PeerStrategy",
        "strategy_path": str(Path(__file__).parent / "freqai"),
        "freqaimodel": "PeerLSTMRegressor",
        "freqaimodel_path": str(Path(__file__).parent / "freqai"),
        "export": "none",
        "peer": {"table": str(Path(folder) / "table.parquet"), "features": task.features},
        "freqai": {
            "enabled": True,
            "identifier": "peer",
            "train_period_days": days,
            "backtest_period_days": task.test_bars // 24,
            "conv_width": _WINDOW,
            "purge_old_models": 2,
            "activate_tensorboard": False,
            "feature_parameters": {
                "include_timeframes": ["1h"],
                "include_corr_pairlist": [],
                "label_period_candles": 1,
                "include_shifted_candles": 0,
                "indicator_periods_candles": [1],
            },
            "data_split_parameters": {"test_size": task.hold_bars / (task.fit_bars + task.hold_bars), "shuffle": False},
            "model_training_parameters": {
                "trainer_kwargs": {"n_epochs": task.epochs},
                "model_kwargs": {"hidden": task.hidden},
            },
        },
    }
    (user / "config.json").write_text(json.dumps(settings))
    told = {"config": [str(user / "config.json")], "user_data_dir": str(user), "datadir": str(user / "data")}
    config = Configuration(told, RunMode.BACKTEST).get_config()

    found: dict[str, float] = {}
    rows: list[int] = []
    start_model = IFreqaiModel.start

    def clocked(self, dataframe, metadata, strategy):  # type: ignore[no-untyped-def]
        with timed() as spent:
            told = start_model(self, dataframe, metadata, strategy)
        found.update(spent)
        rows.append(int((told["&-next"].notna() & (told["date"] >= start)).sum()))
        return told

    IFreqaiModel.start = clocked
    logging.disable(logging.INFO)
    with timed() as whole:
        Backtesting(config).start()
    answer(
        {
            "name": f"freqtrade {freqtrade.__version__} FreqAI",
            "setting": f"windows of {_WINDOW}, {task.epochs} passes",
            "walk": {"rows": sum(rows), "folds": task.folds, **found},
            "whole": whole,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
