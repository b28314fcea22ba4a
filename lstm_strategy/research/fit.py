"""From samples to an artefact: train, export, prove the export, calibrate, measure the warm-up, save."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from lstm_strategy import __version__
from lstm_strategy.artefact import Artefact, FeatureRange, Manifest
from lstm_strategy.artefact import save as save_artefact
from lstm_strategy.bars import Bars, Stamps, format_ns
from lstm_strategy.decision import Shrinkage
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecast import mean_of
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, Spans, SplitConfig, TargetConfig, TrainConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.network import Streaming
from lstm_strategy.registry import promote
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.export import export
from lstm_strategy.research.labels import Sample, build_sample
from lstm_strategy.research.losses import pinball
from lstm_strategy.research.members import checkpoints
from lstm_strategy.research.positions import judge_positions
from lstm_strategy.research.train import RUN_IN, Trained, forecast_sequences, judged_rows, train
from lstm_strategy.tune_config import NOT_TUNED, TuneConfig

__all__ = ["FitResult", "data_hash", "fit_model", "fit_spans", "measure_warmup", "shrinkage"]

_TOLERANCE = 1e-3  # cold start against long run, in unit quantiles
_SIGNIFICANCE = 0.01  # of directional skill at any horizon, so each gets its share (Bonferroni)


@dataclass(frozen=True, slots=True)
class FitResult:
    """The saved artefact, and the figures of its making."""

    path: Path
    manifest: Manifest
    trained: Trained
    filtered_bars: int
    bars: int


def fit_model(
    name: str,
    history: list[tuple[Bars, Instrument]],
    features: FeaturesConfig,
    target: TargetConfig,
    split: SplitConfig,
    network_config: NetworkConfig,
    config: TrainConfig,
    models: Path,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, best: None,
    tuned: TuneConfig = NOT_TUNED,
) -> FitResult:
    """Train on a panel and save ``models/<name>/<version>/``, which becomes the model's current version.

    Raises
    ------
    LSTMStrategyError
        Too little data, or a network that cannot be exported faithfully or never agrees with its own long run.
    """
    spans = split.spans()
    fitted = fit_spans(
        name,
        None,
        history,
        features,
        target,
        spans,
        network_config,
        config,
        models,
        on_epoch=on_epoch,
        tuned=tuned,
    )
    promote(models, name, fitted.manifest.version)
    return fitted


def fit_spans(
    name: str,
    version: str | None,
    history: list[tuple[Bars, Instrument]],
    features: FeaturesConfig,
    target: TargetConfig,
    spans: Spans,
    network_config: NetworkConfig,
    config: TrainConfig,
    models: Path,
    *,
    start: dict[str, torch.Tensor] | None = None,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, best: None,
    tuned: TuneConfig = NOT_TUNED,
) -> FitResult:
    """Train on given spans and save ``models/<name>/<version>-<hash of the weights>/``; what is current stays so.

    Without a ``version`` the time stands in its place.
    ``start`` are weights to go on from, of a network of the same shape; the scaler is this training's own. ``tuned``
    says how many trials the settings were chosen from.
    """
    samples = [build_sample(bars, instrument, features, target.horizons, spans) for bars, instrument in history]
    data = {
        sample.bars.instrument_id: data_hash(sample.bars.between(None, spans["calibrate"][1])) for sample in samples
    }
    fits = [sample.fit for sample in samples]
    origin = save(start) if start else b""
    settings = msgspec.json.encode([features, target, spans, network_config, config, data, fits, __version__])
    checkpoint = models / name / f".checkpoint-{hashlib.sha256(settings + origin).hexdigest()[:16]}.safetensors"
    trained = train(samples, spans, target, network_config, config, checkpoint, on_epoch, start)

    calibration_HQ, shrinkages, scores = _calibrate(trained, samples, spans, target)
    positions = judge_positions(trained.network, samples, spans, target, config) if config.objective == "sharpe" else {}
    weights = save({key: tensor.contiguous() for key, tensor in trained.network.state_dict().items()})
    scores |= positions | {"pinball_stop": trained.pinball, "pinball_baseline_stop": trained.pinball_baseline}
    if config.members > 1 or network_config.head != "quantiles" or config.objective == "sharpe":
        kind = network_config.head.replace("quantiles", "pinball")  # what each was chosen by
        kind = "objective" if config.objective == "sharpe" else kind
        scores |= {f"{kind}_stop_member_{number}": loss for number, loss in enumerate(trained.losses)}
    fit_rows = torch.cat([sequence.x_TF for sequence in sequences(samples, spans["fit"], target.horizons[-1])])
    manifest = Manifest(
        name=name,
        version=(version or datetime.now(UTC).strftime("%Y%m%dT%H%M%S"))
        + "-"
        + hashlib.sha256(weights).hexdigest()[:8],
        package_version=__version__,
        timeframe=str(history[0][0].timeframe),
        instruments={sample.bars.instrument_id: sample.fit for sample in samples},
        features=features,
        feature_ranges=_ranges(features, trained.network, fit_rows),
        horizons=target.horizons,
        levels=target.levels,
        network=network_config,
        training=config,
        spans={key: _dates(samples, span) for key, span in spans.items() if key != "test"},
        data_sha256=data,
        baseline=trained.baseline_HQ.double().numpy().round(7).tolist(),
        calibration=calibration_HQ.tolist(),
        shrinkage=shrinkages,
        warmup_bars=features.warmup,
        scores=scores,
        trials=max(1, tuned.trials_run),
        study=tuned.study,
        trials_pinball_std=tuned.pinball_std,
    )
    artefact = Artefact(manifest, export(trained.network), weights)
    warmup = max(measure_warmup(artefact, sample.bars.between(None, spans["calibrate"][1])) for sample in samples)
    manifest = msgspec.structs.replace(manifest, warmup_bars=warmup)
    path = save_artefact(models, manifest, artefact.graph, weights)
    for progress in checkpoints(checkpoint, config.members):
        progress.unlink(missing_ok=True)
    filtered = sum(sample.matrix.filtered for sample in samples)
    return FitResult(path, manifest, trained, filtered, sum(len(sample.bars) for sample in samples))


def _calibrate(
    trained: Trained, samples: list[Sample], spans: Spans, target: TargetConfig
) -> tuple[npt.NDArray[np.float32], list[Shrinkage], dict[str, float]]:
    """Split-conformal shift of each quantile, and the shrinkage of the means, both from the calibration span.

    A quantile that lies beyond all its outcomes is no quantile: the outermost level p needs 1/p − 1 of them.
    """
    found = sequences(samples, spans["calibrate"], target.horizons[-1], RUN_IN)
    labels = torch.cat([sequence.y_TH for sequence in found]) if found else torch.full((1, 1), torch.nan)
    known, outermost = int((~torch.isnan(labels)).sum(dim=0).min()), min(target.levels[0], 1.0 - target.levels[-1])
    least = math.ceil(1.0 / outermost - 1e-9) - 1
    if known < least:
        raise LSTMStrategyError(
            f"the calibrate span holds {known} labels for a horizon, and the outermost quantile needs {least}; move"
            " split.calibrate_end, give walk_forward.calibrate_bars more, or leave the outermost of target.levels out"
        )
    q_NHQ, y_NH = forecast_sequences(trained.network, found)
    scores = {
        "pinball_calibrate": float(pinball(q_NHQ, y_NH, torch.tensor(target.levels))),
        "pinball_baseline_calibrate": float(
            pinball(trained.baseline_HQ.expand_as(q_NHQ), y_NH, torch.tensor(target.levels))
        ),
    }
    q, y = q_NHQ.double().numpy(), y_NH.double().numpy()
    shift_HQ = np.zeros(q.shape[1:])
    for column, level in enumerate(target.levels):
        shift_HQ[:, column] = np.nanquantile(y - q[:, :, column], level, axis=0)
    means_NH = mean_of(np.maximum.accumulate(q + shift_HQ, axis=-1), target.levels)
    significance = _SIGNIFICANCE / len(target.horizons)
    ts_N = np.concatenate([sequence.ts_close[judged_rows(sequence).numpy()] for sequence in found])
    shrinkages = [shrinkage(means_NH[:, i], y[:, i], ts_N, h, significance) for i, h in enumerate(target.horizons)]
    return shift_HQ.astype(np.float32), shrinkages, scores


def shrinkage(
    mean_N: npt.NDArray[np.float64],
    y_N: npt.NDArray[np.float64],
    ts_N: Stamps,
    horizon: int,
    significance: float,
) -> Shrinkage:
    """Return how much of a forecast mean came true, both in units of σ√h.

    Slope of the outcome on the mean by least squares, clipped to 0..1. Its one-sided p-value has Driscoll and Kraay's
    errors (1998): instruments at one close move together and count as one observation, and Newey and West's lags,
    max(horizon - 1, T^(1/4)) of T closes, allow for overlapping horizons. The slope is 0 where p does not reach
    ``significance``.

    Parameters
    ----------
    ts_N : int64 [N]
        Closes that the means were made at.
    """
    known = ~np.isnan(y_N)
    mean, y = mean_N[known], y_N[known]
    closes, time = np.unique(ts_N[known], return_inverse=True)
    if len(closes) < 30 + 2 * horizon or float(np.std(mean)) < 1e-9:
        return Shrinkage()
    lag = max(horizon - 1, int(len(closes) ** 0.25))
    kernel = {"time": time, "maxlags": lag, "use_correction": False}
    fitted = OLS(y, add_constant(mean)).fit(cov_type="nw-groupsum", cov_kwds=kernel)
    slope, p = float(fitted.params[1]), float(fitted.pvalues[1]) / 2
    p = p if slope > 0 else 1.0 - p
    if not (math.isfinite(slope) and math.isfinite(p)):  # outcomes that never vary
        return Shrinkage()
    return Shrinkage(min(max(slope, 0.0), 1.0) if p < significance else 0.0, float(mean.mean()), p)


def measure_warmup(artefact: Artefact, bars: Bars, samples: int = 24) -> int:
    """Return the bars after which a cold start agrees with the long run within 1e-3 of a unit quantile or position.

    Cold starts at ``samples`` places spread over the history, one for each candidate length; the shortest length from
    which on all of them agree. Refuses a model that never does.
    """
    instrument_id = bars.instrument_id
    unit = np.sqrt(np.array(artefact.manifest.horizons))[:, None]
    forecaster = Forecaster(artefact, instrument_id)
    rest = forecaster.state()
    long_run = forecaster.run(bars)
    least = artefact.manifest.features.warmup
    judged = np.flatnonzero(~np.isnan(long_run.quantiles_THQ[:, 0, 0]))
    candidates = [least + extra for extra in (0, 16, 32, 64, 128, 256, 512, 1024, 2048)]
    candidates = [length for length in candidates if len(judged) and 2 * length < judged[-1] - judged[0]]
    for length in candidates:
        ends = judged[judged >= judged[0] + 2 * length]
        places = ends[np.linspace(0, len(ends) - 1, min(samples, len(ends))).astype(int)]
        worst = 0.0
        for end in places:
            forecaster.restore(rest)
            cold = forecaster.run(bars[end + 1 - length : end + 1])
            if not np.isnan(cold.quantiles_THQ[-1, 0, 0]):  # a long gap inside restarts both alike
                gap = np.abs(cold.quantiles_THQ[-1] - long_run.quantiles_THQ[end]) / (long_run.scale_T[end] * unit)
                worst = max(worst, float(gap.max()))
                if cold.position_T is not None and long_run.position_T is not None:
                    worst = max(worst, abs(float(cold.position_T[-1] - long_run.position_T[end])))
            if worst > _TOLERANCE:
                break
        if worst <= _TOLERANCE:
            return length
    reached = f"{candidates[-1]} bars" if candidates else f"the {len(bars)} bars at hand"
    raise LSTMStrategyError(
        f"{instrument_id}: a cold start does not agree with the long run within {_TOLERANCE} after {reached};"
        " the model cannot be warmed up and is not saved: train longer, or with more history"
    )


def _ranges(features: FeaturesConfig, network: Streaming, x_NF: torch.Tensor) -> list[FeatureRange]:
    mean, std = network.feature_mean.tolist(), network.feature_std.tolist()
    lowest, highest = x_NF.min(dim=0).values.tolist(), x_NF.max(dim=0).values.tolist()
    return [FeatureRange(*row) for row in zip(features.names, mean, std, lowest, highest, strict=True)]


def _dates(samples: list[Sample], span: tuple[int | None, int | None]) -> tuple[str, str]:
    held = [sample.bars.between(*span).ts_close for sample in samples]
    stamps = [ts for ts in held if len(ts)]
    return (format_ns(min(ts[0] for ts in stamps)), format_ns(max(ts[-1] for ts in stamps))) if stamps else ("", "")


def data_hash(bars: Bars) -> str:
    """Return the sha256 of the bars' columns."""
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
