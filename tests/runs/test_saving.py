"""Checkpoints that are written while the run goes on: the state of one moment, whole or not there, whatever dies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from learners import sealed
from learners.protocol import save_aside
from learners.resources.demand import Demand, Needs, Node, Patience, Supply
from learners.resources.processes import ProcessExecutor
from learners.resources.testing import examples_of, makers
from learners.run.checkpoint import Checkpoints
from learners.run.config import load_run
from learners.run.lines import read_lines
from learners.run.saving import Saver, Took
from learners.run.training import resume, train
from learners.tabular import TabularLearner
from mutual_env.errors import StorageError, WorkerLostError
from tests.runs.test_run import CONFIG, whole

WAIT = 30.0


class Slow(TabularLearner):
    """Its state is written when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(name="slow")
        self.may_write, self._error = threading.Event(), error

    def save_aside(self, directory: Path) -> Callable[[], None]:
        version = self.version

        def write() -> None:
            assert self.may_write.wait(WAIT)
            if self._error is not None:
                raise self._error
            (directory / "version").write_text(str(version))

        return write


def saver(directory: Path, took: list[Took], *, background: bool = True) -> Saver:
    return Saver(Checkpoints(directory), background=background, took=took.append)


def test_the_run_goes_on_while_a_checkpoint_is_written_and_the_next_waits_for_it(tmp_path: Path) -> None:
    learner, took = Slow(), list[Took]()
    saving = saver(tmp_path, took)
    saving.save(1, {}, {"slow": learner}, {}, [])
    learner.update([])
    assert Checkpoints(tmp_path).latest() == (None, [])
    threading.Timer(0.05, learner.may_write.set).start()
    saving.save(2, {}, {"slow": learner}, {}, [])
    first, _ = Checkpoints(tmp_path).latest()
    assert first is not None
    assert (first.round, (first.part("slow") / "version").read_text()) == (1, "0")
    assert saving.settled()
    assert [(t.round, t.lost) for t in took] == [(1, ""), (2, "")]
    assert (tmp_path / "round_00000002" / "slow" / "version").read_text() == "1"
    saving.close()


def test_a_worker_that_is_lost_while_it_writes_costs_that_checkpoint_alone(tmp_path: Path) -> None:
    learner, took = Slow(WorkerLostError("gone")), list[Took]()
    learner.may_write.set()
    saving = saver(tmp_path, took)
    saving.save(1, {}, {"slow": learner}, {}, [])
    assert not saving.settled()
    assert [t.lost for t in took] == ["gone"]
    assert Checkpoints(tmp_path).latest() == (None, [])
    learner._error = None
    saving.save(2, {}, {"slow": learner}, {}, [])
    assert saving.settled()
    assert [p.name for p in tmp_path.iterdir()] == ["round_00000002"]
    saving.close()


def test_what_cannot_be_written_is_raised_at_the_next_checkpoint(tmp_path: Path) -> None:
    learner = Slow(OSError(28, "No space left on device"))
    learner.may_write.set()
    saving = saver(tmp_path, [])
    saving.save(1, {}, {"slow": learner}, {}, [])
    with pytest.raises(StorageError, match=r"round_00000001 could not be written .*No space left"):
        saving.save(2, {}, {"slow": learner}, {}, [])
    assert list(tmp_path.iterdir()) == []
    saving.close()


def test_in_the_foreground_it_is_there_when_the_call_returns(tmp_path: Path) -> None:
    took = list[Took]()
    saving = saver(tmp_path, took, background=False)
    saving.save(1, {}, {"slow": Slow()}, {}, [])
    assert [(t.round, t.aside, t.lost) for t in took] == [(1, 0.0, "")]
    assert (tmp_path / "round_00000001" / "manifest.json").is_file()
    saving.close()


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_model_writes_later_is_the_state_of_the_moment_of_the_copy(tmp_path: Path, dtype: str) -> None:
    from tests.learners.tiny_policies import learner, llama

    policy = learner(llama(), dtype=dtype)
    prompts = ["1+2=", "12+34=", "abc"]
    policy.update(examples_of(policy.act(prompts, 4, seed=0), policy))
    policy.save(tmp_path / "now")
    (tmp_path / "later").mkdir()
    write = save_aside(policy, tmp_path / "later")
    policy.update(examples_of(policy.act(prompts, 4, seed=1), policy))
    write()
    assert files(tmp_path / "later") == files(tmp_path / "now")
    policy.save(tmp_path / "after")
    assert files(tmp_path / "after") != files(tmp_path / "now")


def test_a_worker_process_writes_while_it_is_asked_for_more_and_its_loss_is_noticed(tmp_path: Path) -> None:
    needs = Needs(seconds=0.1, limit=60.0)
    executor = ProcessExecutor([Demand("a", {"act": needs})], Supply((Node("local", 2.0),)), Patience(restarts=1))
    try:
        policy = executor.host({"a": partial(SlowInAProcess, str(tmp_path / "go"))})["a"]
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
        write = save_aside(policy, tmp_path / "first")
        policy.update([])
        assert files(tmp_path / "first") == {}
        (tmp_path / "go").touch()
        write()
        assert files(tmp_path / "first") == {"version": b"0"}
        (tmp_path / "go").unlink()
        write = save_aside(policy, tmp_path / "second")
        executor.hosts["a"].kill()
        with pytest.raises(WorkerLostError, match="lost while it wrote"):
            write()
        assert policy.version == 1
    finally:
        executor.close()


class SlowInAProcess(TabularLearner):
    def __init__(self, go: str) -> None:
        super().__init__(name="a")
        self._go = Path(go)

    def save_aside(self, directory: Path) -> Callable[[], None]:
        version = self.version

        def write() -> None:
            while not self._go.exists():
                threading.Event().wait(0.005)
            (directory / "version").write_text(str(version))

        return write


def test_a_learner_that_cannot_is_saved_at_once(tmp_path: Path) -> None:
    make = makers("a")["a"]
    write = save_aside(make(), tmp_path)
    before = files(tmp_path)
    assert before
    write()
    assert files(tmp_path) == before


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(f"{CONFIG}output: {tmp_path}\n")
    return path


def test_background_and_foreground_leave_the_same_bytes_and_say_how_long_the_run_stood_still(
    config_file: Path,
) -> None:
    found = [
        train(load_run(config_file, [f"name={way}", f"checkpoint.background={way}"])).directory
        for way in ("true", "false")
    ]
    assert whole(found[0]) == whole(found[1])
    for directory, aside in zip(found, (True, False), strict=True):
        lines = [line for line in read_lines(directory / "timings.jsonl") if line["type"] == "checkpoint"]
        assert [line["round"] for line in lines] == [2, 4, 6]
        assert all((line["aside"] > 0) == aside and line["held"] > 0 and not line["lost"] for line in lines)


ACTS_BEFORE = 6  # two policies: the evaluation before the first round, and two rounds


def dies_at(config_file: Path, calls: int) -> None:
    """In a child of this process: while the checkpoint of round 2 is being hashed, and stays so, the process is killed
    at one of the calls to sample that follow."""
    hashing, seen = threading.Event(), [0]
    act = TabularLearner.act

    def never_done(*_: object, **__: object) -> None:
        hashing.set()
        threading.Event().wait(WAIT)

    def counted(*args: object, **kwargs: object) -> object:
        seen[0] += 1
        if seen[0] > ACTS_BEFORE:
            assert hashing.wait(WAIT)
        if seen[0] > ACTS_BEFORE + calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*args, **kwargs)  # type: ignore[arg-type]

    sealed.seal = never_done
    TabularLearner.act = counted  # type: ignore[method-assign, assignment]
    train(load_run(config_file, ["name=killed"]))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("expected")
    (directory / "run.yaml").write_text(f"{CONFIG}output: {directory}\n")
    return whole(train(load_run(directory / "run.yaml")).directory)


@pytest.mark.parametrize("calls", range(5))
def test_a_run_killed_while_a_checkpoint_is_written_beside_it_goes_on_to_the_same_bytes(
    config_file: Path, tmp_path: Path, expected: dict[str, bytes], calls: int
) -> None:
    child = os.fork()
    if child == 0:
        try:
            dies_at(config_file, calls)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert (tmp_path / "killed" / "checkpoints" / ".writing-round_00000002").is_dir()
    assert resume(tmp_path / "killed").rounds == 6
    assert whole(tmp_path / "killed") == expected
