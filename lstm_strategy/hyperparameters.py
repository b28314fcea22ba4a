"""What training is told: targets, spans, network, optimiser; without torch, so that a node can read an experiment."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["LEVELS", "NetworkConfig", "Spans", "SplitConfig", "TargetConfig", "TrainConfig", "WalkForwardConfig"]
__all__ += ["date_of"]

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class TargetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is forecast: quantiles at ``levels`` of the log return over each of ``horizons`` bars."""

    horizons: tuple[int, ...] = (1, 4, 24)
    levels: tuple[float, ...] = LEVELS

    def __post_init__(self) -> None:
        rising = list(self.horizons) == sorted(set(self.horizons))
        if not self.horizons or not rising or self.horizons[0] < 1 or self.horizons[-1] > 10_000:
            raise LSTMStrategyError(
                f"target.horizons is {list(self.horizons)}; it must rise, inside 1 to 10000, such as [1, 4]"
            )
        rising = all(low < high for low, high in pairwise(self.levels))  # NaN never rises
        if len(self.levels) < 3 or not rising or not (self.levels[0] > 0 and self.levels[-1] < 1):
            raise LSTMStrategyError(f"target.levels is {list(self.levels)}; it must rise inside (0, 1), three at least")


def date_of(key: str, text: str | None) -> int | None:
    """Return a setting's date as a stamp in nanoseconds; a mistake names the key."""
    try:
        return None if text is None else parse_ns(text)
    except LSTMStrategyError as error:
        raise LSTMStrategyError(f"{key}: {error}") from None


Spans = dict[str, tuple[int | None, int | None]]


class SplitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ends of the spans that follow each other: fit, stop, calibrate; the rest is the test.

    Dates are UTC and mean their 00:00: a span that is to hold all of 2023 ends at 2024-01-01.

    ``fit`` teaches the weights and the scaler, ``stop`` ends the training and chooses, ``calibrate`` shifts the
    quantiles and shrinks the means. Labels that would reach over an end are left out (purge = the longest horizon).
    """

    start: str | None = None
    fit_end: str
    stop_end: str
    calibrate_end: str
    test_end: str | None = None

    def __post_init__(self) -> None:
        names = ("start", "fit_end", "stop_end", "calibrate_end", "test_end")
        dates = [date_of(f"split.{name}", getattr(self, name)) for name in names]
        ends = [date for date in dates if date is not None]
        if ends != sorted(set(ends)):
            told = ", ".join(f"{name} {getattr(self, name)}" for name in names if getattr(self, name) is not None)
            raise LSTMStrategyError(f"split: {told} do not follow each other in this order")

    def spans(self) -> Spans:
        """Return the spans as (start, end] stamps in nanoseconds; None is open."""
        edges = [parse_ns(end) for end in (self.fit_end, self.stop_end, self.calibrate_end)]
        first = parse_ns(self.start) if self.start else None
        last = parse_ns(self.test_end) if self.test_end else None
        return {
            "fit": (first, edges[0]),
            "stop": (edges[0], edges[1]),
            "calibrate": (edges[1], edges[2]),
            "test": (edges[2], last),
        }


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network's kind, size and head.

    Parameters
    ----------
    kind : "lstm", "cnn_lstm" or "attention_lstm"
        An LSTM; one behind causal convolutions; one before attention over its last hidden states.
    hidden, layers, dropout : int, int, float
        The LSTM's width and depth, and the share of values dropped while it learns.
    layer_norm : bool
        Whether the LSTM's inputs and outputs are normalised over their width.
    embedding : int
        Numbers learned for each instrument of a panel, which shift the LSTM's inputs and outputs; 0 is none.
    head : "quantiles", "mae" or "mse"
        What is learned: all quantiles by pinball loss, or one number per horizon by mean absolute or mean squared
        error, around which the residual quantiles of the fit span stand (the same distance at every bar, in units of
        σ√h). The number is a median for "mae", a mean for "mse"; the mean that `Forecast` takes of the quantiles
        differs from it by a constant, which calibration may move and the centre of the shrinkage takes out.
    kernel, convolutions : int
        Bars that a convolution of a "cnn_lstm" sees, and how many convolutions follow each other.
    window : int
        Hidden states that an "attention_lstm" looks at, the present one included.
    """

    kind: Literal["lstm", "cnn_lstm", "attention_lstm"] = "lstm"
    hidden: int = 48
    layers: int = 1
    dropout: float = 0.1
    layer_norm: bool = False
    embedding: int = 0
    head: Literal["quantiles", "mae", "mse"] = "quantiles"
    kernel: int = 4
    convolutions: int = 1
    window: int = 32

    def __post_init__(self) -> None:
        bounds = {"hidden": (1, 4096), "layers": (1, 16), "embedding": (0, 256)}
        bounds |= {"kernel": (2, 256), "convolutions": (1, 16), "window": (2, 1024)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise LSTMStrategyError(f"network.{name} is {getattr(self, name)}; it must be {low} to {high}")
        if not 0.0 <= self.dropout < 1.0:
            raise LSTMStrategyError(f"network.dropout is {self.dropout}; it must be at least 0 and below 1")
        for name, kind in (("kernel", "cnn_lstm"), ("convolutions", "cnn_lstm"), ("window", "attention_lstm")):
            default = {field.name: field.default for field in msgspec.structs.fields(self)}[name]
            if self.kind != kind and getattr(self, name) != default:
                raise LSTMStrategyError(
                    f'network.{name} is {getattr(self, name)}, but network.kind "{self.kind}" has no {name}; leave it'
                    f' out, or use kind = "{kind}"'
                )


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the network is trained.

    Parameters
    ----------
    objective : "quantiles" or "sharpe"
        What the network learns: its quantiles alone, or besides them a position between −1 and 1 whose net Sharpe ratio
        is to be high (docs/objectives.md).
    turnover_cost : float, optional
        What trading one unit of exposure costs in that ratio; the dearest instrument's cost a side where not given.
    quantile_weight : float
        Weight of the quantiles' loss beside the ratio, of which a bar's is taken.
    seed : int
        Same seed, same weights on a CPU.
    epochs, patience : int
        At most this many passes; stop when the validation loss has not improved for ``patience`` of them.
    chunk, burn_in : int
        Bars in a training sequence, and how many of its first bars only fill the state.
    batch : int
        Sequences a step.
    learning_rate, weight_decay, clip_norm : float
        AdamW's rate at the start of a cosine to zero, its decay, the bound on the gradient's norm.
    threads : int
        CPU threads of torch; other counts may round differently.
    members : int
        Networks in one model, each trained from a seed of its own (the first from ``seed`` itself); the forecast is
        the mean of their quantiles.
    ema : float
        Decay of the average of the weights over the steps, which is what is judged and kept; 0 keeps the last weights.
        The average follows faster at first: at step n the decay is min(ema, (1 + n) / (10 + n)).
    range_weight : float
        Weight of a second task that shares the network while it learns: the next bar's log range, by squared error in
        units of its variance. A range tells far more of volatility than a return does, so that the quantiles' scale is
        learned from less noise. 0 leaves it out; the forecast never contains it.
    mirror : float
        Share of the chunks that are learned from upside down: the features that follow the returns' sign, and the
        returns to forecast, change theirs. 0.5 makes up and down alike, 0 leaves everything as it was.
    precision, compile : "float32" or "bfloat16", bool
        Mixed precision and `torch.compile`; for CUDA alone, refused without it.
    """

    objective: Literal["quantiles", "sharpe"] = "quantiles"
    turnover_cost: float | None = None
    quantile_weight: float = 1.0
    seed: int = 0
    epochs: int = 60
    patience: int = 12
    chunk: int = 256
    burn_in: int = 64
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    threads: int = 1
    members: int = 1
    ema: float = 0.0
    range_weight: float = 0.0
    mirror: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        most = {"epochs": 1_000_000, "patience": 1_000_000, "batch": 1_000_000, "chunk": 100_000_000, "members": 64}
        most["threads"] = 256  # more than a machine can start end it without a word
        bounds: dict[str, tuple[int, float]] = {name: (1, high) for name, high in most.items()}
        bounds |= {"weight_decay": (0, 100), "ema": (0, 0.9999), "range_weight": (0, 100), "mirror": (0, 0.5)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise LSTMStrategyError(f"train.{name} is {getattr(self, name)}; it must be {low} to {high}")
        if not 0 <= self.seed < 2**63:
            raise LSTMStrategyError(f"train.seed is {self.seed}; it must be 0 to 2^63 - 1")
        if not 0 <= self.burn_in < self.chunk:
            raise LSTMStrategyError(
                f"train.burn_in is {self.burn_in}, train.chunk {self.chunk}; burn_in must be smaller"
            )
        if not 0 < self.learning_rate < 1:
            raise LSTMStrategyError(f"train.learning_rate is {self.learning_rate}; it must be above 0 and below 1")
        if not 0 < self.clip_norm <= 1e6:
            raise LSTMStrategyError(f"train.clip_norm is {self.clip_norm}; it must be above 0, at most 1e6")
        if not 0.0 <= (self.turnover_cost or 0.0) < 1.0:
            raise LSTMStrategyError(f"train.turnover_cost is {self.turnover_cost}; it must be a fraction such as 0.001")
        if not 0.0 < self.quantile_weight <= 1000.0:
            raise LSTMStrategyError(
                f"train.quantile_weight is {self.quantile_weight}; it must be above 0, at most 1000"
            )
        if self.objective != "sharpe" and (self.turnover_cost is not None or self.quantile_weight != 1.0):
            name = "quantile_weight" if self.turnover_cost is None else "turnover_cost"
            raise LSTMStrategyError(f'train.{name} belongs to objective = "sharpe"; give both or neither')


class WalkForwardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `evaluate` walks forward. Lengths are in bars, but counted as time: a hole in the data moves no edge.

    Parameters
    ----------
    test_bars : int, optional
        Length of each test span. Where it is not given there is one fold, the spans of ``[split]``; where it is, the
        split gives only ``start`` and ``test_end``.
    folds : int, optional
        How many; without ``first_test`` the last of them ends with the data (1 where not given), with it as many as
        there is data for.
    first_test : str, optional
        Date at which the first test span begins.
    train : "expanding" or "rolling"
        Whether fit spans begin with the data or are ``fit_bars`` long.
    stop_bars, calibrate_bars : int
        Lengths of the spans between fit and test.
    purge : int, optional
        Bars between the last forecast that a span is judged by and the next span; the longest horizon where not given.
    embargo : int
        Bars beyond the purge that lie unused before each test span.
    seeds : tuple of int
        Every fold is trained with each; ``train.seed`` where there is none.
    warm_start : bool
        Whether a fold's training goes on from the weights of the fold before.
    warm_epochs : int, optional
        At most so many passes for a training that goes on from another; ``train.epochs`` where not given.
    """

    test_bars: int | None = None
    folds: int | None = None
    first_test: str | None = None
    train: Literal["expanding", "rolling"] = "expanding"
    fit_bars: int | None = None
    stop_bars: int = 1_500
    calibrate_bars: int = 1_500
    purge: int | None = None
    embargo: int = 0
    seeds: tuple[int, ...] = ()
    warm_start: bool = False
    warm_epochs: int | None = None

    def __post_init__(self) -> None:
        date_of("walk_forward.first_test", self.first_test)
        for name in ("test_bars", "folds", "fit_bars", "stop_bars", "calibrate_bars", "warm_epochs"):
            value = getattr(self, name)
            most = 10_000 if name in ("folds", "warm_epochs") else 100_000_000
            if value is not None and not 1 <= value <= most:
                raise LSTMStrategyError(f"walk_forward.{name} is {value}; it must be 1 to {most}")
        if (self.train == "rolling") != (self.fit_bars is not None):
            raise LSTMStrategyError('walk_forward.fit_bars belongs to train = "rolling"; give both or neither')
        if self.test_bars is None and (self.folds or self.first_test or self.fit_bars):
            raise LSTMStrategyError(
                "walk_forward.test_bars is missing; without it the spans of [split] are the one fold"
            )
        if self.warm_epochs is not None and not self.warm_start:
            raise LSTMStrategyError("walk_forward.warm_epochs belongs to warm_start = true; give both or neither")
        for name in ("embargo", "purge"):
            if not 0 <= (getattr(self, name) or 0) <= 100_000_000:
                raise LSTMStrategyError(f"walk_forward.{name} is {getattr(self, name)}; it must be 0 to 100000000")
        if len(set(self.seeds)) != len(self.seeds) or any(not 0 <= seed < 2**63 for seed in self.seeds):
            raise LSTMStrategyError(f"walk_forward.seeds is {list(self.seeds)}; name each once, from 0 to 2^63 - 1")

    def purge_of(self, target: TargetConfig) -> int:
        """Return the purge in bars; refuse one over which labels would reach."""
        longest = target.horizons[-1]
        if self.purge is not None and self.purge < longest:
            raise LSTMStrategyError(
                f"walk_forward.purge is {self.purge}, shorter than the longest of target.horizons, {longest}: labels"
                f" would reach into the next span; make it {longest} or more"
            )
        return longest if self.purge is None else self.purge
