"""The floors and the two wings, read off the source; and that a node which forecasts needs no torch."""

from __future__ import annotations

import ast
import subprocess
import symtable
import sys
from pathlib import Path

import pytest

import lstm_strategy

ROOT = Path(lstm_strategy.__file__).parent
LONGEST = 310  # lines; aim at 300
LONGER = {"nautilus.desk": 340}

# A room is a folder, or a module of the top level. It imports itself and rooms on lower floors (design, section 3); a
# floor's rooms stand in the order in which they may use each other. A new room is given its place here.
FLOORS = {
    "__init__": (0, 0),  # names only, loaded on first use
    "errors": (0, 1),
    "compiled": (1, 0),
    "formatting": (1, 0),
    "atomic": (1, 1),
    "toml_file": (1, 1),
    "bars": (1, 1),
    "instrument": (1, 1),
    "margin": (1, 1),
    "features_kernel": (1, 1),
    "features_config": (1, 2),
    "forecast": (1, 2),
    "forecast_kernel": (1, 1),
    "lstm_kernel": (1, 1),
    "hyperparameters": (1, 2),
    "measures": (1, 3),
    "overfitting": (1, 4),
    "network_parts": (1, 2),
    "network": (1, 3),
    "features": (2, 0),
    "conformal": (2, 0),
    "tune_config": (1, 3),
    "search_space": (2, 1),
    "reasons": (2, 0),
    "sizing": (2, 0),
    "exits": (2, 1),
    "execution": (2, 1),
    "limits": (2, 1),
    "risk": (2, 2),
    "state_file": (2, 3),
    "halt_files": (2, 3),
    "state_folder": (2, 4),
    "resume": (2, 4),
    "ordered": (2, 0),
    "run_events": (1, 0),
    "decision": (2, 3),
    "halts": (2, 3),
    "covariance": (2, 0),
    "portfolio": (2, 2),
    "portfolio_solvers": (1, 3),
    "joint_limits": (2, 4),
    "panel": (2, 5),
    "policy_grid": (2, 4),
    "alerts_config": (1, 1),
    "live_config": (2, 0),
    "headroom": (2, 4),
    "coverage": (2, 4),
    "status": (2, 5),
    "board": (2, 6),
    "watch": (4, 0),
    "decision_log_format": (2, 4),
    "decision_log": (2, 5),
    "decision_log_reader": (2, 6),
    "decision_again": (2, 7),
    "sources": (2, 0),
    "replay": (3, 0),
    "artefact": (3, 0),
    "registry": (3, 1),
    "fold_index": (3, 1),
    "lstm_step": (3, 1),
    "network_step": (3, 2),
    "forecaster": (3, 3),
    "parity_comparison": (3, 1),
    "parity": (3, 4),
    "schedule": (3, 4),
    "speakers": (3, 5),
    "research": (4, 0),
    "nautilus": (4, 0),
    "report": (4, 0),
    "experiment": (5, 0),
    "console": (6, 0),
    "cli": (6, 1),
}
WINGS = {"research", "nautilus", "report"}


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name, less the package's own."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    room = module.partition(".")[0]
    return "cli" if room.startswith("cli_") or room == "__main__" else room


def imported(name: str, *, at_load: bool = False) -> set[str]:
    """Dotted names that a module imports anywhere; those of this package without its name, as modules.

    ``at_load``: only what is imported as the module is, not inside functions nor for types alone.
    """
    found: set[str] = set()
    waiting: list[ast.AST] = [TREES[name]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively in line {node.lineno}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole.removeprefix("lstm_strategy.") in MODULES else str(node.module))
        skipped = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        if not (at_load and skipped):
            waiting += ast.iter_child_nodes(node)
    return {module.removeprefix("lstm_strategy.") for module in found}


def ours(names: set[str]) -> set[str]:
    return {"__init__" if name == "lstm_strategy" else name for name in names if name in {*MODULES, "lstm_strategy"}}


EACH = pytest.mark.parametrize("module", sorted(MODULES))


def test_the_source_is_read() -> None:
    assert len(MODULES) > 30
    assert "torch" in imported("network")
    assert "nautilus.strategy" not in imported("__init__", at_load=True)
    assert "nautilus.strategy" in imported("__init__")
    assert {"artefact", "decision", "network", "research.train"} <= ours(imported("research.fit"))


@EACH
def test_rooms_import_only_from_lower_floors(module: str) -> None:
    room = room_of(module)
    assert room in FLOORS, f"give the room {room} a floor in tests/test_imports.py"
    if module == "__init__":
        assert ours(imported(module, at_load=True)) == set()
        return
    for other in {room_of(name) for name in ours(imported(module))} - {room}:
        assert FLOORS[other] < FLOORS[room], f"{module} must not import {other}"


@EACH
def test_wings_never_meet(module: str) -> None:
    met = {room_of(name) for name in ours(imported(module))} & WINGS
    if room_of(module) in WINGS:
        assert met <= {room_of(module)}
    elif module != "__init__":
        assert met == set() or room_of(module) == "cli"


@EACH
def test_only_their_wings_import_the_engine_and_torch(module: str) -> None:
    packages = {name.partition(".")[0] for name in imported(module)}
    if room_of(module) != "nautilus":
        assert "nautilus_trader" not in packages
    if module not in ("network", "network_parts") and room_of(module) != "research":
        assert not packages & {"torch", "onnx", "onnxscript", "statsmodels", "scipy"}


def test_only_research_imports_the_network() -> None:
    users = {room_of(name) for name in MODULES if {"network", "network_parts"} & ours(imported(name))}
    assert users == {"research", "network"}


def test_no_module_imports_itself_in_a_circle() -> None:
    waits_for = {name: ours(imported(name, at_load=True)) - {name} for name in MODULES}
    loaded: set[str] = set()
    while ready := {name for name, needs in waits_for.items() if needs <= loaded} - loaded:
        loaded |= ready
    assert loaded == set(MODULES)


@EACH
def test_modules_open_with_their_duty_and_their_names(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert source.count("\n") <= LONGER.get(module, LONGEST)
    if not source:  # a folder's __init__
        return
    tree = TREES[module]
    duty = ast.get_docstring(tree)
    assert duty, f"{module} has no docstring"
    assert duty.partition("\n")[0].endswith(".")
    assigned = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert len(assigned) == 1
    names = ast.literal_eval(assigned[0].value)
    assert len(set(names)) == len(names)
    if module != "__init__":
        table = symtable.symtable(source, module, "exec")
        for name in names:
            assert table.lookup(name).is_assigned() or table.lookup(name).is_imported()


def test_public_names_resolve() -> None:
    for name in lstm_strategy.__all__:
        assert getattr(lstm_strategy, name).__name__ == {"load_artefact": "load"}.get(name, name)
    assert set(lstm_strategy.__all__) == set(lstm_strategy._HOMES)
    with pytest.raises(AttributeError, match="has no attribute 'nobody'"):
        lstm_strategy.nobody  # noqa: B018


ON_A_NODE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxscript", "scipy", "statsmodels"}:
            raise ImportError(f"{name} belongs to training")

sys.meta_path.insert(0, Refuse())
import lstm_strategy
from lstm_strategy.sources.simulate import SimulationConfig, simulate

assert "nautilus_trader" not in sys.modules, "importing the package alone must cost nothing"
lstm_strategy.LSTMStrategy
bars = simulate(SimulationConfig(instrument_id="BTCUSDT.BINANCE", bars=600))
from pathlib import Path
forecaster = lstm_strategy.Forecaster(lstm_strategy.load_artefact(Path(sys.argv[1])), "BTCUSDT.BINANCE")
forecaster.warm_up(bars[:599])
forecast = forecaster.update(next(iter(bars[599:])))
assert forecast.horizons == (1, 4)
assert not {"torch", "onnx", "onnxscript", "scipy", "statsmodels"} & set(sys.modules)
print(forecast.quantiles_HQ.tobytes().hex())
"""


def test_a_node_forecasts_without_torch(tiny_artefact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_NODE, str(tiny_artefact)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    from lstm_strategy.sources.simulate import SimulationConfig, simulate

    bars = simulate(SimulationConfig(instrument_id="BTCUSDT.BINANCE", bars=600))
    forecasts = lstm_strategy.Forecaster(lstm_strategy.load_artefact(tiny_artefact), "BTCUSDT.BINANCE").run(bars)
    assert done.stdout.strip() == forecasts.quantiles_THQ[-1].tobytes().hex()
