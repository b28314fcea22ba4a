"""The examples run as they stand, on a tiny model, simulated bars and the local exchange, without a network."""

from __future__ import annotations

import asyncio
import re
import runpy
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_support import SPOT, random_bars
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from lstm_strategy import artefact
from lstm_strategy.bars import format_ns
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.forecast_data import ForecastData
from lstm_strategy.replay.recordings import simulated_market
from lstm_strategy.replay.server import ReplayConfig, serve
from lstm_strategy.sources.simulate import SimulationConfig

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BARS = random_bars(900)
START = format_ns(int(BARS.ts_close[699]) + 10**9)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    write_catalog(folder, BARS, SPOT)
    return folder


def run(name: str, *arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's own use of pandas
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_listed_and_run() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert all(name.removesuffix(".py") in Path(__file__).read_text(encoding="utf-8") for name in names)


def test_backtest_node(catalog: Path, tiny_artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run("backtest_node", tiny_artefact, catalog, "--start", START, "--horizon", 4, capsys=capsys)
    bars, forecasts, orders = map(int, re.findall(r"\d+", told))
    assert bars == forecasts == 200  # warmed up from the first bar on
    assert orders > 0


def test_the_bars_are_those_of_the_model(
    tiny_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the demo: another instrument than the help names, at another venue, and no --bar-type."""
    name = "DEMOUSDT.SIM"
    spot = msgspec.structs.replace(SPOT, id=name)
    write_catalog(tmp_path / "catalog", random_bars(900, spot), spot)
    loaded = artefact.load(tiny_artefact)
    graph, weights = ((tiny_artefact / part).read_bytes() for part in ("model.onnx", "weights.safetensors"))
    manifest = msgspec.structs.replace(loaded.manifest, instruments={name: loaded.manifest.instruments[SPOT.id]})
    model = artefact.save(tmp_path / "models", manifest, graph, weights)
    told = run("backtest_node", model, tmp_path / "catalog", "--start", START, "--horizon", 4, capsys=capsys)
    assert told.startswith("200 bars, 200 forecasts, ")


def test_beside_another(catalog: Path, tiny_artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run("beside_another", tiny_artefact, catalog, "--horizon", 4, capsys=capsys)
    told = dict(re.findall(r"(\S+): (\d+) orders", out))
    assert set(told) == {"LSTMStrategy-LSTM", "EMACross-CROSS"}
    assert all(int(orders) > 0 for orders in told.values())


def test_forecasts_alone(catalog: Path, tiny_artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run("forecasts_alone", tiny_artefact, catalog, "--start", START, "--keep", capsys=capsys)
    published, heard, orders = map(int, re.findall(r"\d+", told))
    assert published == heard == 200
    assert orders > 2
    wanted = Forecaster(artefact.load(tiny_artefact), SPOT.id).run(BARS)
    kept = [getattr(data, "data", data) for data in ParquetDataCatalog(str(catalog)).custom_data(ForecastData)]
    assert [data.ts_event for data in kept] == BARS.ts_close[700:].tolist()
    found = np.array([data.forecast.quantiles_HQ for data in kept])
    np.testing.assert_array_equal(found, wanted.quantiles_THQ[700:])


def test_a_catalog_without_bars_is_no_success(
    tiny_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_catalog(tmp_path, random_bars(20, SPOT), SPOT)
    with pytest.raises(SystemExit, match=f"{tmp_path} has no bars of BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL that a f"):
        run("forecasts_alone", tiny_artefact, tmp_path, capsys=capsys)


def test_existing_node(tiny_artefact: Path, tmp_path: Path) -> None:
    """On the local exchange, in real time, with one bar a second: history, warm-up, then decisions on live bars."""
    loaded = artefact.load(tiny_artefact)
    graph, weights = ((tiny_artefact / name).read_bytes() for name in ("model.onnx", "weights.safetensors"))
    fit = msgspec.structs.replace(loaded.manifest.instruments[SPOT.id], bars_per_year=365.0 * 86_400)
    manifest = msgspec.structs.replace(loaded.manifest, timeframe="1s", instruments={SPOT.id: fit})
    model = artefact.save(tmp_path, manifest, graph, weights)
    since = format_ns((int(time.time()) - 1_002) * 10**9)
    market = simulated_market(SimulationConfig(instrument_id=SPOT.id, timeframe="1s", bars=1_300, seed=1, start=since))
    log = tmp_path / "decisions"

    async def work() -> str:
        async with serve(ReplayConfig(markets=(market,), start="1000", speed=1.0)) as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(EXAMPLES / "existing_node.py"),
                str(model),
                *("--bar-type", f"{SPOT.id}-1-SECOND-LAST-EXTERNAL", "--decisions", str(log)),
                *("--http", server.http_url, "--ws", server.ws_url),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            told = ""
            try:
                assert process.stdout is not None
                while not re.search(r"LSTMStrategy\S* RUNNING", told):
                    line = await asyncio.wait_for(process.stdout.readline(), 60.0)
                    assert line, told
                    told += line.decode()
                    print(line.decode(), end="")
                await asyncio.sleep(4.0)
                process.send_signal(signal.SIGINT)
                out, _ = await asyncio.wait_for(process.communicate(), 60.0)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return told + out.decode()

    told = asyncio.run(work())
    rows: list[dict[str, Any]] = [row for part in sorted(log.glob("*")) for row in pq.read_table(part).to_pylist()]
    assert len(rows) >= 2, told
    assert {row["model"] for row in rows} == {"tiny/1"}
    assert all(row["quantiles"] for row in rows[1:]), told
    assert "Stopped by an exception" not in told
