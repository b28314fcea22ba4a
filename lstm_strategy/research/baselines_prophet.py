"""The Prophet baseline: seasonal means by day and week, and the interval around them."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
from scipy.stats import norm

from lstm_strategy.forecast import Float32
from lstm_strategy.hyperparameters import Spans, TargetConfig
from lstm_strategy.research.baselines_base import MissingLibraryError, taught_TH
from lstm_strategy.research.labels import Sample

__all__ = ["ProphetQuantiles"]

_LAST_ROWS = 5_000  # what a fit sees: more rows cost time and, with no trend to find, bring little


class ProphetQuantiles:
    """Prophet (optional extra ``[prophet]``), refitted each fold for each instrument and horizon.

    It is fitted to the scaled returns of the last 5,000 taught bars with a flat trend, since returns have none; its
    interval is then the fitted normal noise around the season, and its quantiles are exact, not drawn.
    """

    name = "prophet"

    def __init__(self) -> None:
        try:
            import prophet  # noqa: F401
            from cmdstanpy.utils import get_logger
        except ImportError as error:
            raise MissingLibraryError(
                "baseline prophet is left out: the library is not installed; pip install 'lstm-strategy[prophet]'"
            ) from error
        get_logger()  # the first call sets the log's level, so before `forecast` lowers it

    def forecast(self, samples: list[Sample], spans: Spans, target: TargetConfig) -> list[Float32]:
        """Return the season's mean and the noise's quantiles at every bar past the warm-up."""
        return [self._one(sample, spans, target) for sample in samples]

    def _one(self, sample: Sample, spans: Spans, target: TargetConfig) -> Float32:
        from prophet import Prophet

        ts_T = sample.bars.ts_close.view("datetime64[ns]").astype("datetime64[us]")
        taught = taught_TH(sample, spans, target)
        noise_Q = norm.ppf(np.array(target.levels))
        q_THQ = np.full((*sample.y_TH.shape, len(target.levels)), np.nan, np.float32)
        valid = sample.matrix.valid_T
        loud = logging.getLogger("cmdstanpy").level
        logging.getLogger("cmdstanpy").setLevel(logging.ERROR)
        try:
            for column in range(len(target.horizons)):
                rows = np.flatnonzero(taught[:, column])[-_LAST_ROWS:]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = Prophet(growth="flat", yearly_seasonality=False, uncertainty_samples=0)
                    y_N = sample.y_TH[rows, column].astype(np.float64)
                    model.fit(pd.DataFrame({"ds": ts_T[rows], "y": y_N}), seed=0)
                    mean_N = model.predict(pd.DataFrame({"ds": ts_T[valid]}))["yhat"].to_numpy()
                deviation = float(np.mean(model.params["sigma_obs"])) * float(model.y_scale or 1.0)
                q_THQ[valid, column] = mean_N[:, None] + deviation * noise_Q
        finally:
            logging.getLogger("cmdstanpy").setLevel(loud)
        return q_THQ
