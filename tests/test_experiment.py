"""Experiments: what is shipped loads, and every mistake is one line that names the file and the key."""

from __future__ import annotations

import math
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.features import FeatureConfig
from lstm_strategy.instrument import Instrument

SHIPPED = sorted((Path(__file__).parents[1] / "backtests").glob("*.toml"))
MINIMAL = """
name = "mine"
[data]
instruments = ["BTCUSDT.BINANCE"]
timeframe = "1h"
[split]
fit_end = 2023-05-31
stop_end = 2023-09-30
calibrate_end = 2023-12-31
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> str:
    """The one line that a refused experiment is told in, less the file's name before it."""
    with pytest.raises(LSTMStrategyError) as refused:
        load_experiment(path)
    told = str(refused.value)
    assert told.startswith(f"{path}: ")
    assert told.isprintable()
    return told.removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_what_is_shipped_loads(path: Path) -> None:
    assert load_experiment(path).name == path.stem


def test_two_experiments_are_shipped_at_least() -> None:
    assert {"btcusdt_1h", "demo"} <= {path.stem for path in SHIPPED}


def test_a_minimal_experiment_takes_the_defaults(tmp_path: Path) -> None:
    experiment = load_experiment(written(tmp_path, MINIMAL))
    assert experiment.target.horizons == (1, 4, 24)
    assert len(experiment.features.features) == 24
    assert (experiment.sizing.mode, experiment.limits.side) == ("volatility_target", "long_only")
    assert (experiment.backtest.delay, experiment.backtest.start, experiment.costs.fee) == (0, None, None)


def test_values_reach_their_sections(tmp_path: Path) -> None:
    text = MINIMAL + (
        '[features]\nfeatures = [{ kind = "rsi", span = 7 }, { kind = "macd", span = 3, slow = 9, signal = 2 }]\n'
        '[backtest]\ncash = 5_000\nstart = 2024-02-01\nend = "2024-03-01T12:00"\n'
        "[costs]\nfee = 0.0005\nspread = 0\n"
    )
    experiment = load_experiment(written(tmp_path, text))
    assert experiment.features.features == (FeatureConfig("rsi", 7), FeatureConfig("macd", 3, 9, 2))
    assert (experiment.backtest.start, experiment.backtest.end) == ("2024-02-01", "2024-03-01T12:00")
    assert experiment.backtest.cash == 5000.0
    market = Instrument(id="A.B", kind="spot", base="A", quote="B", tick="0.01", lot="1", taker_fee=0.002)
    assert experiment.costs.of(market).fee == 0.0005
    assert load_experiment(written(tmp_path, MINIMAL)).costs.of(market).fee == 0.002


@pytest.mark.parametrize(
    "date",
    ["2023-05-31", '"2023-05-31"', '"2023-05-31T00:00:00Z"', "2023-05-31T00:00:00", "2023-05-31T02:00:00+02:00"],
)
def test_dates_may_be_dates_or_text(tmp_path: Path, date: str) -> None:
    experiment = load_experiment(written(tmp_path, MINIMAL.replace("2023-05-31", date)))
    assert experiment.split.spans()["fit"] == (None, 1685491200_000_000_000)
    assert experiment.split.spans()["stop"][0] == 1685491200_000_000_000


def test_sections_are_frozen() -> None:
    experiment = load_experiment(SHIPPED[0])
    for struct in (experiment, *(getattr(experiment, name) for name in experiment.__struct_fields__)):
        if isinstance(struct, msgspec.Struct):
            with pytest.raises(AttributeError, match="immutable"):
                setattr(struct, struct.__struct_fields__[0], None)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[sizing]\nhorizn = 1", "unknown key sizing.horizn; did you mean sizing.horizon?"),
        ("[szing]\nhorizon = 1", "unknown key szing; did you mean sizing?"),
        (
            "[costs]\nzzz = 1",
            "unknown key costs.zzz; allowed here: fee, slippage, spread",
        ),
        ('"a\\nb" = 1', r"unknown key split.'a\nb'; allowed here: calibrate_end, fit_end, "),
        ("[network]\n[network.x]\ny = 1", "unknown key network.x; allowed here: convolutions, dropout, embedding, "),
        (
            '[features]\nfeatures = [{ kind = "rsi", spam = 1 }]',
            "features.features[0]: object contains unknown field `spam`",
        ),
        ('[features]\nfeatures = [{ kind = "rsj" }]', "features.features[0].kind: invalid enum value 'rsj'"),
        ('[network]\nhidden = "48"', "network.hidden: expected `int`, got `str`"),
        ("[network]\nhidden = 48.0", "network.hidden: expected `int`, got `float`"),
        ("[network]\nhidden = true", "network.hidden: expected `int`, got `bool`"),
        ("[target]\nhorizons = 4", "target.horizons: expected `array`, got `int`"),
        ('[live.keep]\nETH = "1"\nBTC = 0.5', 'live.keep.BTC: expected `str`, got `float`; write BTC = "0.5"'),
        ("[live.keep]\nETH = true", "live.keep.ETH: expected `str`, got `bool`"),
        ("[[limits]]\nside = 1", "limits: expected `object`, got `array`"),
        ('[limits]\nside = "lo\\nng"', r"limits.side: invalid enum value 'lo\nng'"),
        ("[sizing]\nhorizon = 2", "sizing.horizon is 2; it must be one of target.horizons [1, 4, 24]"),
        (
            '[limits]\nside = "long_short"',
            'limits.side is "long_short", but a cash account cannot short; use backtest.account = "margin"',
        ),
        ("[limits]\nmax_exposure = 0", "limits.max_exposure is 0.0; it must be above 0"),
        ("[costs]\nfee = nan", "costs.fee is nan; it must be a fraction such as 0.001"),
        ("[costs]\nspread = 5", "costs.spread is 5.0; it must be a fraction such as 0.001"),
        ("[features]\nhampel_threshold = nan", "features.hampel_threshold is nan; it must be above 0"),
        ("[target]\nhorizons = [4, 1]", "target.horizons is [4, 1]; it must rise"),
        ("[target]\nhorizons = [1, 100_000]", "target.horizons is [1, 100000]; it must rise, inside 1 to 10000"),
        ("[target]\nlevels = [0.1, nan, 0.9]", "target.levels is [0.1, nan, 0.9]; it must rise inside (0, 1)"),
        ("[target]\nlevels = [0.1, 0.9]", "target.levels is [0.1, 0.9]; it must rise inside (0, 1), three at least"),
        ("[train]\nseed = -1", "train.seed is -1; it must be 0 to 2^63 - 1"),
        ("[train]\nepochs = 0", "train.epochs is 0; it must be 1 to 1000000"),
        ("[train]\nbatch = 5_000_000_000", "train.batch is 5000000000; it must be 1 to 1000000"),
        ("[train]\nthreads = 100_000", "train.threads is 100000; it must be 1 to 256"),
        ("[train]\nweight_decay = inf", "train.weight_decay is inf; it must be 0 to 100"),
        ("[train]\nweight_decay = 1e308", "train.weight_decay is 1e+308; it must be 0 to 100"),
        ("[train]\nclip_norm = inf", "train.clip_norm is inf; it must be above 0, at most 1e6"),
        ("[features]\nhampel_threshold = inf", "features.hampel_threshold is inf; it must be above 0, at most 1e6"),
        ("[walk_forward]\npurge = 1_000_000_000", "walk_forward.purge is 1000000000; it must be 0 to 100000000"),
        ("[walk_forward]\nembargo = -1", "walk_forward.embargo is -1; it must be 0 to 100000000"),
        ("[train]\nchunk = 64", "train.burn_in is 64, train.chunk 64; burn_in must be smaller"),
        ("[train]\nlearning_rate = nan", "train.learning_rate is nan; it must be above 0 and below 1"),
        (
            '[sizing]\nmode = "kelly"',
            "sizing.mode: invalid enum value 'kelly'; it must be one of volatility_target, mean_variance",
        ),
        ("[network]\nlayers = 0", "network.layers is 0; it must be 1 to 16"),
        ("[network]\ndropout = 1.0", "network.dropout is 1.0; it must be at least 0 and below 1"),
        ("[backtest]\ncash = 0", "backtest.cash is 0.0; it must be above 0, at most 1e12"),
        ("[backtest]\ncash = 1" + "0" * 400, "backtest.cash: number out of range"),
        ("[backtest]\ndelay = -1", "backtest.delay is -1; it must be 0 to 1000"),
        (
            '[backtest]\nstart = "soon"',
            "backtest.start: 'soon' is not a date; write it as 2024-01-31 or 2024-01-31T12:00",
        ),
        (
            "[backtest]\nstart = 2024-02-01\nend = 2024-02-01",
            "backtest.start is 2024-02-01; it must be earlier than backtest.end, 2024-02-01",
        ),
        ("start = 2023-05-31", "split: start 2023-05-31, fit_end 2023-05-31, "),
        ('start = ""', "split.start: '' is not a date"),
        ("start = 07:32:00", "split.start: '07:32:00' is not a date"),
        ("start = 0001-01-01T00:00:00+05:00", "split.start: '0001-01-01T00:00:00+05:00' is not a date"),
        ("test_end = 9999-12-31", "split.test_end: '9999-12-31' does not fit into a stamp in nanoseconds"),
        ("start = [", "not valid TOML: "),
        ("start = 1\nstart = 2", "not valid TOML: Cannot overwrite a value"),
        ("start = 2023-02-30", "not valid TOML: "),
        ("start = " + "9" * 5000, "not valid TOML: "),
        ("start = " + "[" * 5000, "not valid TOML: nested too deeply"),
        ("[features]\nfeatures" + ".a" * 5000 + " = 1", "nested too deeply"),
    ],
    ids=lambda text: text[:50],
)
def test_a_mistake_is_one_line_naming_file_and_key(tmp_path: Path, line: str, told: str) -> None:
    assert refusal(written(tmp_path, MINIMAL + line)).startswith(told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "mine"', "", "the file: object missing required field `name`"),
        ('name = "mine"', 'name = "../mine"', "name is '../mine'; use letters, digits, '_' and '-'"),
        ('name = "mine"', 'name = ""', "name is ''; use letters"),
        ('timeframe = "1h"', "", "data: object missing required field `timeframe`"),
        ('timeframe = "1h"', 'timeframe = "1w"', "timeframe '1w' is not known; write a number and s, m, h or d"),
        ('["BTCUSDT.BINANCE"]', "[]", "data.instruments is []; name at least one, each once"),
        ('["BTCUSDT.BINANCE"]', '["A.B", "A.B"]', "data.instruments is ['A.B', 'A.B']; name at least one, each once"),
        ('["BTCUSDT.BINANCE"]', '["BTCUSDT"]', "instrument 'BTCUSDT' is not SYMBOL.VENUE, such as BTCUSDT.BINANCE"),
        ('["BTCUSDT.BINANCE"]', '["../../x.y"]', "instrument '../../x.y' is not SYMBOL.VENUE"),
        ("2023-05-31", "2023-10-01", "split: fit_end 2023-10-01, stop_end 2023-09-30, calibrate_end 2023-12-31 do not"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert refusal(written(tmp_path, MINIMAL.replace(old, new))).startswith(told)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    without_split = MINIMAL[: MINIMAL.index("[split]")]
    assert refusal(written(tmp_path, without_split)) == "the file: object missing required field `split`"
    assert refusal(written(tmp_path, "")) == "the file: object missing required field `name`"


def test_a_missing_file_names_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(tmp_path / "other.toml") == "no such file"
    path = written(tmp_path, MINIMAL)
    assert refusal(tmp_path / "other.toml") == f"no such file; there are {path}"
    assert refusal(tmp_path / "no" / "other.toml") == "no such file"
    path.rename((tmp_path / "backtests").mkdir() or tmp_path / "backtests" / "one.toml")
    assert refusal(Path("backtests/other.toml")) == "no such file; there are backtests/one.toml"
    assert refusal(tmp_path) == "cannot be read (Is a directory)"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, b'name = "\xff"')).startswith("not valid TOML: 'utf-8' codec can't decode")
    assert refusal(written(tmp_path, "a = 1\x00")).startswith("not valid TOML: ")
    assert refusal(written(tmp_path, b" " * (2**20 + 1))) == "larger than 1048576 bytes; nothing here needs that"


# Whatever stands in the file, it loads or is refused in one line

keys = st.sampled_from(
    [
        "name",
        *Experiment.__struct_fields__,
        *("instruments", "timeframe", "fit_end", "stop_end", "features", "kind", "span", "horizons", "levels", "seed"),
        *("horizon", "side", "max_step", "fee", "start", "end", "cash", "delay", "", "ä\n", "a.b"),
    ]
)
scalars = (
    st.integers(-(2**70), 2**70).map(str)
    | st.floats().map(lambda x: repr(x) if math.isfinite(x) else str(x))
    | st.sampled_from(["true", "07:32:00", "1979-05-27T07:32:00-08:00", "0001-01-01T00:00:00+23:59", "9999-12-31"])
    | st.text(max_size=8).map(lambda text: '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"')
)


def quoted(key: str) -> str:
    return '"' + key.replace("\n", "\\n") + '"'


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(keys, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{quoted(key)} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=6,
)


def loads_or_is_refused_in_one_line(text: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), text)
        try:
            load_experiment(path)
        except LSTMStrategyError as error:
            told = str(error)
            assert told.startswith(f"{path}: ")
            assert len(told.splitlines()) == 1


@given(st.dictionaries(keys, values, max_size=5), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_document_loads_or_is_refused_in_one_line(table: dict[str, str], on_top: bool) -> None:
    lines = "\n".join(f"{quoted(key)} = {value}" for key, value in table.items())
    loads_or_is_refused_in_one_line(lines + MINIMAL if on_top else lines)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_any_changed_value_loads_or_is_refused_in_one_line(data: st.DataObject) -> None:
    document = SHIPPED_TEXT[data.draw(st.sampled_from(sorted(SHIPPED_TEXT)))]
    assignments = list(re.finditer(r"^\w+ = (.+?)(?= #|$)", document, re.MULTILINE))
    spot = data.draw(st.sampled_from(assignments))
    loads_or_is_refused_in_one_line(document[: spot.start(1)] + data.draw(values) + document[spot.end(1) :])


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_damage_loads_or_is_refused_in_one_line(data: st.DataObject) -> None:
    content = bytearray(MINIMAL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    loads_or_is_refused_in_one_line(bytes(content))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=50)
def test_any_bytes_load_or_are_refused_in_one_line(content: bytes) -> None:
    loads_or_is_refused_in_one_line(content)


SHIPPED_TEXT = {path.stem: path.read_text(encoding="utf-8") for path in SHIPPED}


def test_every_key_misspelt_is_refused(tmp_path: Path) -> None:
    document: dict[str, Any] = tomllib.loads(SHIPPED_TEXT["btcusdt_1h"])
    for section, table in document.items():
        for key in table if isinstance(table, dict) else [section]:
            text = re.sub(rf"^{key} =", f"{key}_ =", SHIPPED_TEXT["btcusdt_1h"], count=1, flags=re.MULTILINE)
            assert f"{key}_; did you mean " in refusal(written(tmp_path, text))
