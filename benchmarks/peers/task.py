"""What everyone is asked, the package and its peers alike: the same bars, inputs, labels and sizes."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import market
from lstm_strategy.bars import Bars, Timeframe, parse_ns
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import LEVELS, Spans
from lstm_strategy.instrument import Instrument
from lstm_strategy.research.labels import build_sample, span_mask
from lstm_strategy.sources.files import read_file
from lstm_strategy.sources.instruments import infer_instrument

__all__ = ["Task", "data_folder", "history", "make_task", "spans_of_task"]

INSTRUMENT = "BTCUSDT.BINANCE"
_BARS = 60_000  # simulated, where there is no real history


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task, as every peer's script reads it from ``task.json`` beside ``table.parquet``.

    Parameters
    ----------
    source : str
        Where the bars are from, in words.
    levels : tuple of float
    features : tuple of str
        Their columns in the table.
    hidden, window, seed : int
        Size of the one LSTM layer; bars of a window where a peer has no default; seed of the first run.
    longest, patience : float
        CPU seconds of training at most, and without a new best loss.
    history : int
        Bars whose forecasting is timed.
    fit_rows, stop_rows : int
        The table's first rows teach, its last are validated on; both in bars with features.
    test_bars, folds, fit_bars, hold_bars, epochs, warm_epochs : int
        Walk-forward: bars forecast by each of ``folds`` models, bars that fit and bars held out before them, passes,
        and passes of a training that goes on from the fold before.
    """

    source: str
    levels: tuple[float, ...]
    features: tuple[str, ...]
    hidden: int = 48
    window: int = 64
    seed: int = 1
    longest: float = 45.0
    patience: float = 20.0
    history: int = 20_000
    fit_rows: int = 0
    stop_rows: int = 0
    test_bars: int = 2_016
    folds: int = 4
    fit_bars: int = 6_480
    hold_bars: int = 2_160
    epochs: int = 10
    warm_epochs: int = 3


def data_folder() -> Path | None:
    """Return the folder of real market history: $LSTM_STRATEGY_TEST_DATA, else ../shared/data; None where absent."""
    named = os.environ.get("LSTM_STRATEGY_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return folder if (folder / "crypto").is_dir() else None


@cache
def history() -> tuple[Bars, Instrument, str]:
    """Return the bars before 2024, so that nothing here looks at a test span; simulated where there is no history."""
    folder = data_folder()
    if folder is None:
        bars, instrument = market(_BARS)
        return bars, instrument, f"{_BARS:,} simulated hourly bars"
    path = folder / "crypto" / "BTCUSDT-1h.parquet"
    bars = read_file(path, INSTRUMENT, Timeframe.parse("1h"), "open").between(None, parse_ns("2024-01-01"))
    return bars, infer_instrument(bars), f"BTCUSDT, {len(bars):,} hourly bars to 2023-12-31"


def spans_of_task(bars: Bars) -> Spans:
    """Fit to 2023-05-31, stop to 2023-12-31; of simulated bars the first 92 % fit.

    The package also wants bars to calibrate on: the last tenth of the stop span, which is validated on all the same.
    """
    last = int(bars.ts_close[-1])
    fit_end = parse_ns("2023-06-01") if data_folder() else int(bars.ts_close[int(0.92 * len(bars))])
    return {"fit": (None, fit_end), "stop": (fit_end, last), "calibrate": (last - (last - fit_end) // 10, last)}


def make_task(folder: Path, **chosen: object) -> Task:
    """Write ``table.parquet`` and ``task.json`` to the folder.

    One row per bar with features: ``ts`` (close, ns), ``open`` to ``volume``, ``past`` (the label that came true with
    this bar: its log return over the σ known a bar before), ``known`` (whether it is known; else 0 stands there), then
    the features, standardised by the fit span. Forecasting ``past`` one row ahead is the package's task at horizon 1.
    """
    bars, instrument, source = history()
    spans, features = spans_of_task(bars), FeaturesConfig()
    sample = build_sample(bars, instrument, features, (1,), spans)
    valid = sample.matrix.valid_T
    fit = span_mask(bars, spans["fit"], 1)[valid]
    x_TF = sample.matrix.x_TF[valid]
    x_TF = (x_TF - x_TF[fit].mean(axis=0)) / np.maximum(x_TF[fit].std(axis=0), 1e-6)
    past = np.concatenate([[np.nan], sample.y_TH[valid][:-1, 0]])
    columns: dict[str, object] = {
        "ts": bars.ts_close[valid],
        **{name: getattr(bars, name)[valid] for name in ("open", "high", "low", "close", "volume")},
        "past": np.nan_to_num(past).astype(np.float32),
        "known": ~np.isnan(past),
        **{name: np.ascontiguousarray(x_TF[:, i]) for i, name in enumerate(features.names)},
    }
    # A label of the stop span is past one bar later.
    stop_rows = int((bars.ts_close[valid] > (spans["stop"][0] or 0)).sum()) - 1
    task = Task(
        source=source,
        levels=LEVELS,
        features=features.names,
        fit_rows=int(valid.sum()) - stop_rows,
        stop_rows=stop_rows,
    )
    task = msgspec.structs.replace(task, **chosen)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "table.parquet")
    (folder / "task.json").write_bytes(msgspec.json.encode(task))
    return task
