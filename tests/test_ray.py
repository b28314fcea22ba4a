"""Ray: two nodes, one of which dies in the middle, give the table of one process; nothing is left running."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.research.evaluate import evaluate
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.parallel import Job, WorkerLostError, open_pool, run_all
from lstm_strategy.research.tune import tune
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.tune_config import TuneConfig

pytest.importorskip("ray", reason="needs lstm-strategy[ray]")
pytestmark = pytest.mark.filterwarnings(
    "ignore:subprocess .* is still running:ResourceWarning",  # Ray's own way with the processes it starts
    "ignore:unclosed file .*:ResourceWarning",
    "ignore:unclosed <socket:ResourceWarning",
)

SPLIT = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
WALK = WalkForwardConfig(test_bars=200, folds=2, stop_bars=300, calibrate_bars=300)
MARKET = SimulationConfig(instrument_id="A.SIM", bars=2_400)


def plan_of(folder: Path) -> Plan:
    return Plan(
        name="one",
        history=((simulate(MARKET), simulated_instrument(MARKET)),),
        features=FeaturesConfig(),
        target=TargetConfig(horizons=(1,)),
        network=NetworkConfig(hidden=4),
        train=TrainConfig(epochs=1, batch=4, chunk=128, burn_in=32),
        models=folder / "models",
        parts=folder / "parts",
    )


def processes_with(word: str) -> list[str]:
    """Command lines of running processes that name ``word``, or hold it in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in told:
            found.append(f"{process.name} {told[:100]!r}")
    return found


class Nodes:
    """A head that keeps the objects and does no work, and workers with temporary folders of their own."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from ray.cluster_utils import Cluster

        self.root = Path(tempfile.mkdtemp(prefix="lsr", dir="/tmp"))  # short: Ray's sockets lie in it
        patch.setenv("LSTM_TEST_MARK", str(self.root))  # by which all of its processes are known
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.client = f"ray://127.0.0.1:{free.getsockname()[1]}"
        head = {
            "num_cpus": 0,
            "temp_dir": str(self.root / "r"),
            "ray_client_server_port": int(self.client.rpartition(":")[2]),
        }
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes, self.folders = [], []
        for number in range(2):
            folder = self.root / f"node{number}"
            folder.mkdir()
            self.folders.append(folder)
            self.nodes.append(self.cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(folder)}))

    def kill_when_busy(self, number: int, killed: list[float]) -> None:
        """Kill a node as soon as a job has its folder there."""
        while not list(self.folders[number].glob("lstm-strategy-*")):
            time.sleep(0.05)
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        killed.append(time.monotonic())


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patch:
        made = Nodes(patch)
        yield made
        made.cluster.shutdown()
    deadline = time.monotonic() + 60
    while (left := processes_with(str(made.root))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def test_a_node_that_dies_in_the_middle_changes_nothing(nodes, tmp_path, capfd):
    alone = evaluate(plan_of(tmp_path / "alone"), SPLIT, WALK, tmp_path / "alone", {})
    killed: list[float] = []
    threading.Thread(target=nodes.kill_when_busy, args=(1, killed), daemon=True).start()
    told = []
    capfd.readouterr()
    away = evaluate(
        plan_of(tmp_path / "away"),
        SPLIT,
        WALK,
        tmp_path / "away",
        {},
        ray=nodes.cluster.address,
        on_pool=lambda pool: told.append((pool.size, pool.where)),
    )
    ended = time.monotonic()
    assert killed
    assert killed[0] < ended
    assert told == [(2, f"the Ray cluster at {nodes.cluster.address}")]
    assert away.forecasts.equals(alone.forecasts)
    assert away.forecasts_path.read_bytes() == alone.forecasts_path.read_bytes()
    assert [path.name for path in away.artefacts] == [path.name for path in alone.artefacts]
    assert all(path.is_relative_to(tmp_path / "away" / "models") for path in away.artefacts)
    assert capfd.readouterr() == ("", "")  # Ray tells of dead nodes on standard output, where JSON belongs


def work(bench, number, settings):
    return 0.2 + abs(settings.network.hidden - 7) / 100 + number / 50


def die(shared, marker: Path, times: int) -> int:
    """Kill the worker as long as there are fewer marks than ``times``."""
    marks = len(list(marker.parent.glob(f"{marker.name}*")))
    if marks < times:
        marker.with_name(f"{marker.name}{marks}").touch()
        os._exit(1)
    return marks


def test_a_client_far_away_gets_the_same_trials_and_lost_workers_are_replaced(nodes, tmp_path, monkeypatch):
    from ray import cloudpickle

    from lstm_strategy.research import ray_pool

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes have the package, not its tests
    config = TuneConfig(space={"network.hidden": {"low": 4, "high": 64}}, folds=2, test_bars=100)
    settings = (SPLIT, WALK, config)
    alone = tune(plan_of(tmp_path), *settings, tmp_path / "alone", trials=3, work=work)
    away = tune(plan_of(tmp_path), *settings, tmp_path / "away", trials=3, work=work, workers=1, ray=nodes.client)
    assert [trial.params for trial in away.trials] == [trial.params for trial in alone.trials]
    assert away.best == alone.best

    monkeypatch.setattr(ray_pool, "_RETRIES", 2)
    with open_pool(None, 1, nodes.cluster.address) as pool:
        assert run_all(pool, [Job("dies twice", die, (tmp_path / "twice", 2))]) == [2]
        with pytest.raises(WorkerLostError, match=r"^the Ray workers that had a job died .* after 2 tries more"):
            run_all(pool, [Job("dies always", die, (tmp_path / "always", 99))])
    assert len(list(tmp_path.glob("always*"))) == 3


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://127.0.0.1:1", "no Ray cluster answers at ray://127.0.0.1:1 (Connection refused); start it with"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        ("ray://127.0.0.1", "--ray 'ray://127.0.0.1' is no address; write auto, local, ray://host:10001 or host:6379"),
        ("http://127.0.0.1:8265", "--ray 'http://127.0.0.1:8265' is no address"),
    ],
)
def test_an_address_without_a_cluster_is_one_line(tmp_path, address, told):
    with pytest.raises(LSTMStrategyError) as caught:
        evaluate(plan_of(tmp_path), SPLIT, WALK, tmp_path, {}, ray=address)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_without_ray_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "lstm_strategy.research.ray_pool", raising=False)
    with pytest.raises(LSTMStrategyError, match=r"^--ray needs ray; install lstm-strategy\[ray\]$"):
        evaluate(plan_of(tmp_path), SPLIT, WALK, tmp_path, {}, ray="auto")


LOCAL = """
import os, sys
from pathlib import Path
from lstm_strategy.research.parallel import Job, open_pool, run_all

def listening(shared):
    import ray
    own = {process.name for process in Path("/proc").glob("[0-9]*") if process.name.isdigit() and ours(process)}
    sockets = set()
    for process in own:
        for handle in Path(f"/proc/{process}/fd").glob("*"):
            try:
                sockets.add(os.readlink(handle).strip("socket:[]"))
            except OSError:
                pass
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return sorted({row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets})

def ours(process):
    try:
        return os.environ["LSTM_TEST_MARK"].encode() in (process / "environ").read_bytes()
    except OSError:
        return False

with open_pool(None, 1, "local") as pool:
    found = run_all(pool, [Job("ports", listening)])[0]
    print(pool.where, pool.size, *found, sep="|")
"""


def test_local_starts_a_cluster_that_nobody_else_can_reach(tmp_path):
    folder = tempfile.mkdtemp(prefix="lsr", dir="/tmp")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOCAL],
        env=environment | {"RAY_TMPDIR": folder, "LSTM_TEST_MARK": folder, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, size, *addresses = done.stdout.strip().split("|")
    assert where == "a Ray cluster of this machine alone, started for this command, with 1 CPUs"
    assert size == "1"
    assert addresses
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as IPv4 and as IPv6
    assert done.stderr == ""
    assert processes_with(folder) == []
