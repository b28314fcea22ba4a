"""Turn an evaluation's summary into one self-contained HTML page, the verdict first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.formatting import BETTER, NO_VALUE, fixed, p_value, percent, whole
from lstm_strategy.report.evaluation_charts import draw_all
from lstm_strategy.report.evaluation_fan import INSTRUMENTS, draw_fans
from lstm_strategy.report.html import extra_missing, script_safe, write_html
from lstm_strategy.report.words import minute_of

__all__ = ["write_evaluation_page"]

Table = list[tuple[str, ...]]


def write_evaluation_page(folder: Path) -> Path:
    """Read ``folder/summary.json`` as ``lstm-strategy evaluate`` writes it, and write ``folder/report.html``.

    Raises
    ------
    LSTMStrategyError
        Where plotly or jinja2 is not installed, or the folder holds no evaluation. An old page stays as it was.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise extra_missing(error) from error
    path = folder / "summary.json"
    try:
        summary: dict[str, Any] = json.loads(path.read_bytes())
        contents = _contents(folder, summary)
    except OSError as error:
        raise LSTMStrategyError(f"{path} cannot be read ({error.strerror}); it is no finished evaluation") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        told = f"{path} is no summary of an evaluation ({type(error).__name__}: {error}); evaluate again"
        raise LSTMStrategyError(told) from error
    return write_html(folder / "report.html", "evaluation.html.j2", contents | {"plotly_js": get_plotlyjs()})


def _contents(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Everything the template shows; text is escaped there."""
    figures = draw_all(summary)
    fans = draw_fans(folder / "forecasts.parquet", summary)
    if fans:
        figures |= {f"fan-{name}": fan for name, fan in next(iter(fans.values())).items()}
    groups = {"Pooled": summary} | summary["by_instrument"]
    tests = [row["spans"]["test"] for row in summary["by_fold"]]
    return {
        "title": summary["name"],
        "run_name": folder.resolve().name,
        "subtitle": [
            ", ".join(summary["instruments"]),
            f"{summary['timeframe']} bars",
            f"tested {_day(tests[0][0])} to {_day(tests[-1][1])}",
            _count(summary["folds"], "fold") + ", " + _count(len(summary["seeds"]), "seed"),
        ],
        "verdict": summary["verdict"],
        "honesty": _honesty(summary),
        "pinball_table": _pinball_table(groups, list(summary["baselines"])),
        "figures_table": _figures_table(groups),
        "fold_table": _fold_table(summary["by_fold"]),
        "skill_table": _skill_table(summary["by_fold"], list(summary["baselines"])),
        "drift_table": _drift_table(summary["drift"]["rows"]),
        "importance": [
            (row["feature"], percent(row["share"], 2, signed=True), fixed(row["increase"], 5, signed=True),
             fixed(row["spread"], 5), *(fixed(value, 5, signed=True) for value in row["by_fold"]))
            for row in summary["importance"]
        ],
        "importance_head": ("Feature", "Rise of the loss", "in σ√h", "Spread",
                            *(f"Fold {row['fold']}" for row in summary["by_fold"])),
        "repeats": _count(summary["importance_repeats"], "shuffling"),
        "misses": [
            (minute_of(miss["ts"]), miss["instrument"], str(miss["horizon"]),
             percent(miss["log_return"], 2, signed=True),
             f"{fixed(miss['y'], 1, signed=True)} σ")
            for miss in summary["largest_misses"]
        ],
        "var_table": [_var(row) for row in summary["var"]],
        "seeds": [(seed, fixed(loss, 5)) for seed, loss in summary["seed_pinball"].items()],
        "seeds_told": _seeds(summary),
        "figures": list(figures),
        "fans_json": script_safe(fans),
        "fan_instruments": summary["instruments"][:INSTRUMENTS],
        "fan_horizons": summary["horizons"],
        "figures_json": script_safe(figures),
    }  # fmt: skip


def _honesty(summary: dict[str, Any]) -> list[str]:
    own, plain = summary["coverage"], summary["coverage_uncalibrated"]
    said = [
        f"The {percent(float(share), 0)} interval held {percent(own[share])} of outcomes"
        f" ({percent(plain.get(share))} before calibration)."
        for share in own
        if own[share] is not None and share in plain
    ]
    checks = ", ".join(name.replace("_", " ") for name in summary["checks"])
    said.append(f"Every fold passed its checks for leaks: {checks}.")
    said += summary["drift"]["told"]
    said.append(f"{whole(summary['rows'])} forecasts were judged, {whole(summary['left_out'])} left out.")
    return said


def _pinball_table(groups: dict[str, Any], names: list[str]) -> Table:
    def row(told: str, value: Any) -> tuple[str, ...]:
        return (told, *(value(group) for group in groups.values()))

    return [
        ("", *groups),
        row("network", lambda group: fixed(group["pinball"], 5)),
        *(row(name, lambda group, name=name: fixed(group["baselines"][name], 5)) for name in names),
        row("best baseline", lambda group: group["best_baseline"] or NO_VALUE),
        row(f"{BETTER} than that", lambda group: percent(group["skill_over_best"], 2, signed=True)),
        row("p, Diebold–Mariano", lambda group: p_value(group["dm_p"])),
    ]


def _figures_table(groups: dict[str, Any]) -> Table:
    table: Table = [("", *groups)]

    def add(told: str, name: str, write: Callable[[float | None], str], key: str | None = None) -> None:
        def part(group: Any, what: str) -> Any:
            return group[what] if key is None else group[what].get(key)

        table.append((told, *(write(part(group, name)) for group in groups.values())))
        table.append(("95 % interval", *(_interval(part(group, f"{name}_ci"), write) for group in groups.values())))

    def share(value: float | None) -> str:
        return percent(value, 2)

    def four(value: float | None) -> str:
        return fixed(value, 4)

    add("pinball, σ√h", "pinball", four)
    add("CRPS, σ√h", "crps", four)
    add("mean absolute error, σ√h", "mae", four)
    add("root mean square error, σ√h", "rmse", four)
    add("mean absolute error, log return", "mae_raw", share)
    add("root mean square error, log return", "rmse_raw", share)
    add("rank IC of the mean", "rank_ic", four)
    add("direction right", "direction", share)
    add("beyond what chance gives", "direction_above_chance", share)
    for key in next(iter(groups.values()))["coverage"]:
        add(f"inside {percent(float(key), 0)}", "coverage", share, key)
        add(f"width of {percent(float(key), 0)}, σ√h", "width", four, key)
    return table


def _skill_table(rows: list[dict[str, Any]], names: list[str]) -> Table:
    table: Table = [(f"Network {BETTER} than", *(f"Fold {row['fold']}" for row in rows))]
    for name in names:
        cells = (
            f"{percent(row['skill'][name], 2, signed=True)} ({_interval(row['skill_ci'][name], _signed)})"
            for row in rows
        )
        table.append((name, *cells))
    return table


def _drift_table(rows: list[dict[str, Any]]) -> Table:
    """Features by their largest drift."""
    table: Table = [("PSI", *(f"{row['earlier']} → {row['later']}" for row in rows))]
    names = rows[0]["psi"] if rows else {}
    largest = {name: max(_or_zero(row["psi"][name]) for row in rows) for name in names}
    for name in sorted(names, key=lambda name: -largest[name]):
        table.append((name, *(fixed(row["psi"][name], 3) for row in rows)))
    return table


def _seeds(summary: dict[str, Any]) -> str:
    if summary["seed_pinball_sd"] is None:
        return ""
    return (
        f"Standard deviation from seed to seed: {fixed(summary['seed_pinball_sd'], 5)} of the loss,"
        f" {fixed(summary['seed_forecast_sd'], 4)} σ√h of a quantile."
    )


def _fold_table(rows: list[dict[str, Any]]) -> Table:
    table: Table = [
        ("Fold", "Fit to", "Stop to", "Calibrate to", "Test", "Pinball", "Best baseline", BETTER.capitalize())
    ]
    for row in rows:
        spans, names = row["spans"], row["baselines"]
        best = min(names, key=names.__getitem__, default=None)
        ends = (_day(spans[name][1]) for name in ("fit", "stop", "calibrate"))
        test = f"{_day(spans['test'][0])} to {_day(spans['test'][1])}"
        better = NO_VALUE if best is None else percent(row["skill"][best], 2, signed=True)
        table.append((str(row["fold"]), *ends, test, fixed(row["pinball"], 5), best or NO_VALUE, better))
    return table


def _var(row: dict[str, Any]) -> tuple[str, ...]:
    tests = (p_value(row[name]) for name in ("p_kupiec", "p_independence", "p_conditional"))
    shortfalls = (fixed(row[name], 2) for name in ("shortfall_forecast", "shortfall_realised"))
    depth = p_value(row["p_shortfall"])
    level, share = percent(row["level"], 0), f"{percent(row['rate'], 2)} of {whole(row['rows'])}"
    return (row["instrument"], str(row["horizon"]), level, share, *tests, *shortfalls, depth)


def _interval(ends: list[float] | None, write: Callable[[float | None], str]) -> str:
    return NO_VALUE if ends is None else f"{write(ends[0])} to {write(ends[1])}"


def _signed(value: float | None) -> str:
    return percent(value, 2, signed=True)


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


def _day(stamp: str | None) -> str:
    return NO_VALUE if stamp is None else stamp[:10]


def _count(number: int, noun: str) -> str:
    return f"{whole(number)} {noun}{'s' * (number != 1)}"
