"""Checks that nothing a fold learned from, or forecast with, came from later than it may; each has a name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors

from lstm_strategy.artefact import Artefact
from lstm_strategy.bars import Bars, Float, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecasts
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import Spans
from lstm_strategy.instrument import Instrument
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.labels import Sample, build_sample

__all__ = ["CHECKS", "LeakError", "require_future_unseen", "require_labels", "require_purge", "require_scaler"]

CHECKS = ("labels", "purge", "scaler", "future_unseen")


class LeakError(LSTMStrategyError):
    """A fold that saw what it is judged by; ``check`` is the name of the check that noticed."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"check {check}: {message}; nothing of this fold is kept")
        self.check = check


def require_labels(sample: Sample, horizons: tuple[int, ...]) -> None:
    """Check ``labels``: each is the move from its own bar's close to the close so many bars later."""
    bars = sample.bars
    known_at = np.log(bars.close)
    columns = [(1, sample.next_T), *zip(horizons, sample.y_TH.T, strict=True)]
    for horizon, label_T in columns:
        rows = np.flatnonzero(~np.isnan(label_T))
        landing = np.minimum(rows + horizon, len(bars) - 1)
        lasted = bars.ts_close[landing] - bars.ts_close[rows]
        moved = (known_at[landing] - known_at[rows]) / (sample.matrix.scale_T[rows] * math.sqrt(horizon))
        wrong = ~(np.abs(moved - label_T[rows]) <= 1e-4 * (1.0 + np.abs(moved)))
        wrong |= lasted < horizon * bars.timeframe.ns
        if wrong.any():
            first = int(wrong.argmax())
            raise LeakError(
                "labels",
                f"{bars.instrument_id}: the label of {format_ns(bars.ts_close[rows[first]])} at {horizon} bars is"
                f" {label_T[rows[first]]:.4f}, but the move it names was {moved[first]:.4f}"
                f" ({int(wrong.sum())} of {len(rows)} differ)",
            )


def require_purge(samples: list[Sample], spans: Spans, horizons: tuple[int, ...]) -> None:
    """Check ``purge``: of the rows that training uses in a span, no label lands after its end, nor in the next one."""
    following = dict(zip(("fit", "stop", "calibrate"), ("stop", "calibrate", "test"), strict=True))
    for sample in samples:
        bar, origin = sample.bars.timeframe.ns, int(sample.bars.ts_close[0])
        steps_T = (sample.bars.ts_close - origin) // bar
        rows = np.arange(len(steps_T))[:, None] + np.array(horizons)
        lands_TH = steps_T[np.minimum(rows, len(steps_T) - 1)].astype(np.float32)  # whole numbers below 2^24 stay exact
        landing = replace(sample, y_TH=np.where(np.isnan(sample.y_TH), np.float32(np.nan), lands_TH))
        for name, after in following.items():
            end, begin = spans[name][1], spans[after][0]
            used = [sequence.y_TH for sequence in sequences([landing], spans[name], horizons[-1])]
            if not used or end is None or begin is None:
                continue
            last = origin + int(np.nanmax(torch.cat(used).numpy())) * bar
            if last > min(end, begin):
                raise LeakError(
                    "purge",
                    f"{sample.bars.instrument_id}: a label of the {name} span lands at {format_ns(last)}, after"
                    f" {format_ns(min(end, begin))}, where the {after} span begins",
                )


def require_scaler(folder: Path, artefact: Artefact, history: list[tuple[Bars, Instrument]], spans: Spans) -> None:
    """Check ``scaler``: mean, deviation and floor of the saved model are those of bars cut off where fit ends."""
    manifest = artefact.manifest
    inputs = []
    for bars, instrument in history:
        known = bars.between(None, spans["fit"][1])
        cut = build_sample(known, instrument, manifest.features, manifest.horizons, spans)
        fit = manifest.instruments[bars.instrument_id]
        if fit != cut.fit:
            raise LeakError(
                "scaler",
                f"{bars.instrument_id}: the floor of σ is {fit.scale_floor:.6g}, but bars up to the fit span's end give"
                f" {cut.fit.scale_floor:.6g}",
            )
        inputs += [sequence.x_TF for sequence in sequences([cut], spans["fit"], manifest.horizons[-1])]
    x_NF = torch.cat(inputs)
    std = x_NF.std(dim=0)
    wanted = {"feature_mean": x_NF.mean(dim=0), "feature_std": torch.where(std > 1e-6, std, torch.ones_like(std))}
    saved = load_tensors((folder / "weights.safetensors").read_bytes())
    for name, values in wanted.items():
        found = {key: tensor for key, tensor in saved.items() if key.rpartition(".")[2] == name}
        if len(found) != manifest.training.members:
            raise LeakError("scaler", f"{len(found)} of {manifest.training.members} members have a {name}")
        for tensor in found.values():
            gap = (tensor - values).abs() / wanted["feature_std"]
            if not float(gap.max()) <= 1e-4:
                column = int(gap.argmax())
                raise LeakError(
                    "scaler",
                    f"{name} of {manifest.features.names[column]} is {float(tensor[column]):.6g}, but bars up to the"
                    f" fit span's end give {float(values[column]):.6g}: it was fitted on other bars",
                )


def require_future_unseen(artefact: Artefact, bars: Bars, forecasts: Forecasts, cut: int) -> None:
    """Check ``future_unseen``: with the bars after ``cut`` gone, every forecast up to there is the same."""
    alone = Forecaster(artefact, bars.instrument_id).run(bars.between(None, cut))
    whole = forecasts.quantiles_THQ[: len(alone)]
    tolerance = 0.0 if artefact.manifest.network.kind == "lstm" else 1e-5
    gap = np.abs(whole - alone.quantiles_THQ) / _unit(alone)
    differs: npt.NDArray[np.bool_] = (np.isnan(whole) != np.isnan(alone.quantiles_THQ)) | (gap > tolerance)
    differs_T = differs.any(axis=(1, 2))
    if forecasts.position_T is not None and alone.position_T is not None:
        differs_T |= np.abs(forecasts.position_T[: len(alone)] - alone.position_T) > tolerance
    if differs_T.any():
        row = int(differs_T.argmax())
        raise LeakError(
            "future_unseen",
            f"{bars.instrument_id}: the forecast at {format_ns(alone.ts_close[row])} changes when bars after"
            f" {format_ns(cut)} are taken away",
        )


def _unit(forecasts: Forecasts) -> Float:
    return np.asarray(forecasts.scale_T[:, None, None] * np.sqrt(np.array(forecasts.horizons))[:, None])
