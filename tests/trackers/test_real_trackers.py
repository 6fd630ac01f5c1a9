"""What the real packages hold after a run, with the network cut (make test-trackers)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from learners.run.config import changed, load_run
from learners.run.results import read_run
from learners.run.shipped import shipped
from learners.run.tracking import TRACED, conversations
from learners.run.training import train

pytestmark = [pytest.mark.trackers, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine can be reached."""
    original = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"):
            return original(self, address)
        raise AssertionError(f"a tracker asked for the network: {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    overrides = [f"output={tmp_path}", "rounds=4", f"trackers=[{request.param}]", "checkpoint.every=2"]
    return train(changed(load_run(shipped()["arithmetic"]), overrides)).directory


def rewards(run: Path, policy: str) -> list[float]:
    """As the run's own record has them, after 1, 2, 3 and 4 rounds."""
    return [value for _, value in read_run(run).metrics[policy]["reward/mean"]]


@pytest.mark.parametrize("run", ["tensorboard"], indirect=True)
def test_tensorboard_has_a_folder_a_policy_with_its_own_steps(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for policy in ("ada", "bob"):
        events = EventAccumulator(str(run / "tensorboard" / policy))
        events.Reload()
        tag = "reward/mean"
        found = events.Tensors(tag)
        assert [event.step for event in found] == [1, 2, 3, 4]
        from tensorboard.util import tensor_util

        values = [float(tensor_util.make_ndarray(event.tensor_proto)) for event in found]
        assert values == pytest.approx(rewards(run, policy), abs=1e-6)


@pytest.mark.parametrize("run", ["wandb"], indirect=True)
def test_wandb_writes_an_offline_run(run: Path) -> None:
    (offline,) = (run / "wandb").glob("offline-run-*")
    (written,) = offline.glob("run-*.wandb")
    content = written.read_bytes()
    for word in (b"ada/reward/mean", b"bob/round"):
        assert word in content
    tables = sorted((offline / "files" / "media" / "table").rglob("samples_*.table.json"))
    assert len(tables) == 8  # a policy's round each
    table = json.loads(tables[0].read_text())
    assert len(table["data"]) == TRACED
    assert {"conversation", "task", "reward", "correct", "advantage"} <= set(table["columns"])


@pytest.mark.parametrize("run", ["mlflow"], indirect=True)
def test_mlflow_has_every_step_of_every_policy(run: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient((run / "mlflow").as_uri())
    id_ = (run / "mlflow.id").read_text()
    history = client.get_metric_history(id_, "bob/reward/mean")
    assert [(m.step, m.value) for m in history] == list(enumerate(rewards(run, "bob"), start=1))
    assert client.get_run(id_).info.status == "FINISHED"


@pytest.mark.parametrize("run", ["trackio"], indirect=True)
def test_trackio_has_a_run_a_policy(run: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    names = SQLiteStorage.get_runs("mutual-env")
    assert {"arithmetic/ada", "arithmetic/bob"} <= {name if isinstance(name, str) else name["name"] for name in names}
    logs = SQLiteStorage.get_logs("mutual-env", "arithmetic/ada")
    assert [log["reward/mean"] for log in logs if "reward/mean" in log] == pytest.approx(rewards(run, "ada"))
    first = json.loads((run / "samples.jsonl").read_text().splitlines()[0])
    expected = [(messages, {**known, "round": 1}) for messages, known in conversations(first)]
    traces = SQLiteStorage.get_traces("mutual-env", run="arithmetic/ada", sort="step_asc")
    assert [trace["step"] for trace in traces] == [step for step in (1, 2, 3, 4) for _ in range(TRACED)]
    found = [(trace["messages"], trace["metadata"]) for trace in traces[:TRACED]]
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert list((run / "trackio").glob("*.db"))  # at home, not in the user's cache
