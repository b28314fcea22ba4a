"""A strategy that gives FreqAI the task's features and label; it never trades."""

from __future__ import annotations

import pandas as pd
from freqtrade.strategy import IStrategy


class PeerStrategy(IStrategy):
    """The features come ready from a file, so that FreqAI is not charged for making them."""

    timeframe = "1h"
    minimal_roi = {"0": 100.0}  # noqa: RUF012
    stoploss = -0.99
    process_only_new_candles = True
    startup_candle_count = 1

    def feature_engineering_standard(self, dataframe, metadata, **kwargs):  # type: ignore[no-untyped-def]
        table = pd.read_parquet(self.config["peer"]["table"])
        names = self.config["peer"]["features"]
        table["date"] = pd.to_datetime(table["ts"], utc=True) - pd.Timedelta(hours=1)
        table["date"] = table["date"].astype(dataframe["date"].dtype)
        table = table[["date", "past", *names]].rename(columns={name: f"%-{name}" for name in names})
        return dataframe.merge(table, on="date", how="left")

    def set_freqai_targets(self, dataframe, metadata, **kwargs):  # type: ignore[no-untyped-def]
        dataframe["&-next"] = dataframe["past"].shift(-1)
        return dataframe

    def populate_indicators(self, dataframe, metadata):  # type: ignore[no-untyped-def]
        return self.freqai.start(dataframe, metadata, self)

    def populate_entry_trend(self, dataframe, metadata):  # type: ignore[no-untyped-def]
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):  # type: ignore[no-untyped-def]
        return dataframe
