"""Walk-forward: folds of purged spans that follow each other, each judged on bars later than all it learned from."""

from __future__ import annotations

from dataclasses import dataclass

from lstm_strategy.bars import Bars, Timeframe, format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import Spans, SplitConfig, TargetConfig, WalkForwardConfig

__all__ = ["Fold", "folds", "require_bars"]


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold: its number from 0, and the spans fit, stop, calibrate and test as (start, end] stamps."""

    number: int
    spans: Spans

    @property
    def label(self) -> str:
        """The fold for messages, with its test span."""
        start, end = self.spans["test"]
        return f"fold {self.number} (test {_told(start, 'the beginning')} to {_told(end, 'the end')})"


def folds(
    config: WalkForwardConfig, split: SplitConfig, target: TargetConfig, timeframe: Timeframe, first: int, last: int
) -> list[Fold]:
    """Return the folds over bars that close from ``first`` to ``last``.

    A training drops, from the end of each span, the forecasts whose longest label would reach over it; where the purge
    is longer than that, the spans stand the difference apart. The embargo comes on top before the test.

    Raises
    ------
    LSTMStrategyError
        Where the purge is shorter than the longest horizon, or the data too short for one fold.
    """
    apart = (config.purge_of(target) - target.horizons[-1]) * timeframe.ns
    embargo = config.embargo * timeframe.ns
    end = parse_ns(split.test_end) if split.test_end else last
    begin = max(first - timeframe.ns, parse_ns(split.start)) if split.start else first - timeframe.ns
    if config.test_bars is None:
        later = {"fit": 0, "stop": apart, "calibrate": apart, "test": apart + embargo}
        spans = {
            name: (None if start is None else start + later[name], end if name == "test" else stop)
            for name, (start, stop) in split.spans().items()
        }
        found = [Fold(0, spans)]
    else:
        length = config.test_bars * timeframe.ns
        found = []
        for number, start in enumerate(_test_starts(config, timeframe, length, end)):
            calibrate_end = start - embargo - apart
            stop_end = calibrate_end - config.calibrate_bars * timeframe.ns - apart
            fit_end = stop_end - config.stop_bars * timeframe.ns - apart
            fit_start = begin if config.fit_bars is None else fit_end - config.fit_bars * timeframe.ns
            spans = {
                "fit": (max(fit_start, begin), fit_end),
                "stop": (fit_end + apart, stop_end),
                "calibrate": (stop_end + apart, calibrate_end),
                "test": (start, start + length),
            }
            found.append(Fold(number, spans))
            if fit_start < begin or fit_end <= begin:
                raise LSTMStrategyError(
                    f"{found[-1].label} has too little data: its fit span would begin at {format_ns(fit_start)} and end"
                    f" at {format_ns(fit_end)}, but the bars begin at {format_ns(first)}; ask for fewer folds or"
                    " shorter spans, or import more history"
                )
    for fold in found:
        _require_order(fold)
    return found


def require_bars(fold: Fold, bars: Bars, warmup: int, horizons: tuple[int, ...]) -> None:
    """Refuse a fold in which an instrument has no bars for one of the spans, or too few to warm up before the first."""
    for name, span in fold.spans.items():
        held = bars.between(*span)
        least = (warmup if name == "fit" else 0) + horizons[-1] + 1
        if len(held) < least:
            start, end = _told(span[0], "the beginning"), _told(span[1], "the end")
            problem = f"is missing in {fold.label}: its" if len(held) == 0 else f"has too few bars in {fold.label}: its"
            raise LSTMStrategyError(
                f"{bars.instrument_id} {problem} {name} span, {start} to {end}, holds {len(held)} bars of the {least}"
                " needed at least; leave the instrument out, move the folds, or import more history"
            )


def _test_starts(config: WalkForwardConfig, timeframe: Timeframe, length: int, end: int) -> list[int]:
    if config.first_test is None:
        count = config.folds or 1
        return [end - (count - number) * length for number in range(count)]
    first = parse_ns(config.first_test)
    fitting = (end - first) // length
    count = fitting if config.folds is None else config.folds
    if not 1 <= count <= fitting:
        raise LSTMStrategyError(
            f"too little data for {'one fold' if count < 1 else f'{count} folds'}: from walk_forward.first_test,"
            f" {config.first_test}, to {format_ns(end)} there are {max((end - first) // timeframe.ns, 0)} bars, and a"
            f" test span takes {config.test_bars}"
        )
    return [first + number * length for number in range(count)]


def _require_order(fold: Fold) -> None:
    before = None
    for name, (start, end) in fold.spans.items():
        if (before is not None and (start is None or start < before)) or (
            start is not None and end is not None and end <= start
        ):
            raise LSTMStrategyError(
                f"{fold.label}: its {name} span, {_told(start, 'the beginning')} to {_told(end, 'the end')}, is empty"
                " or begins before the one before it ends; lengthen the spans, shorten purge and embargo, or import"
                " more history"
            )
        before = end


def _told(ts: int | None, otherwise: str) -> str:
    return otherwise if ts is None else format_ns(ts)
