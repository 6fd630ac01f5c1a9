"""On a real Ray cluster of several nodes (`make test-ray`): the numbers of one process, whatever is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from learners.resources.demand import Demand, Needs, Patience
from learners.resources.executor import SerialExecutor
from learners.resources.on_ray import RayExecutor
from learners.resources.testing import check_executor
from learners.run.config import RunConfig, load_run
from learners.run.training import train
from mutual_env.errors import ConfigError, StorageError
from sharing import RayExchange, SQLiteExchange
from sharing.codec import encode
from tests.resources.toy import Bulky, Fragile, makers, run_rounds
from tests.sharing.toys import success

KILLS = int(os.environ.get("RAY_KILLS", "6"))  # `make test-ray-kills` tries 30
LONGEST = 600.0 + 60.0 * KILLS
STORE = 1 << 30  # bytes of a node's object store: what these tests put into it, so that nothing goes to the disk

pytestmark = [pytest.mark.ray, pytest.mark.timeout(LONGEST)]

PATIENT = Patience(reserve=30.0, limit=300.0, restarts=10, restart_limit=120.0)


class Ours:
    """A cluster whose nodes can be killed and added while it runs. The head holds no policy, so that it stays."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._ray = ray
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        self.grow()
        self.grow()
        ray.init(address=self.cluster.address, namespace="mutual-env", log_to_driver=False)

    def grow(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=2, object_store_memory=STORE))

    def lose_node(self) -> None:
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)

    def close(self) -> None:
        self._ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    cluster = Ours()
    yield cluster
    cluster.close()


def demands(*policies: str, limit: float = 60.0) -> list[Demand]:
    needs = Needs(seconds=0.1, limit=limit)
    return [Demand(policy, {"act": needs, "update": needs}) for policy in policies]


def test_the_executor_of_a_cluster_keeps_the_shipped_contract(ours: Ours) -> None:
    check_executor(lambda policies: RayExecutor(demands(*policies), PATIENT, address=ours.cluster.address))


def test_a_cluster_gives_the_numbers_of_one_process_bit_for_bit(ours: Ours) -> None:
    executor = RayExecutor(demands("a", "b", "c"), PATIENT, address=ours.cluster.address)
    assert run_rounds(executor, makers("a", "b", "c"), 4) == run_rounds(SerialExecutor(), makers("a", "b", "c"), 4)
    assert executor.record.policies()["a"].leases == 8


def test_more_policies_than_cores_take_turns(ours: Ours) -> None:
    names = tuple("abcdefg")  # seven that want a core each, and there are four
    executor = RayExecutor(demands(*names), PATIENT, address=ours.cluster.address)
    assert run_rounds(executor, makers(*names), 2) == run_rounds(SerialExecutor(), makers(*names), 2)


@pytest.mark.parametrize("how", ["dies after", "hangs"])
def test_an_actor_that_dies_or_hangs_is_restarted_with_its_state(ours: Ours, how: str, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    fuse.touch()
    executor = RayExecutor(demands("a", "b", limit=8.0), PATIENT, address=ours.cluster.address, keep=3)
    policies = {"a": partial(Fragile, "a", how, 4, str(fuse)), **makers("b")}
    expected = run_rounds(SerialExecutor(), {"a": partial(Fragile, "a", how, -1), **makers("b")}, 6)
    assert run_rounds(executor, policies, 6) == expected
    assert not fuse.exists()


def own_memory() -> int:
    """Of this process, without what it shares with Ray's store."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this kernel does not say RssAnon")


def test_a_state_stays_in_the_store_and_out_of_the_drivers_memory(ours: Ours, tmp_path: Path) -> None:
    """Put aside at every update, written as a checkpoint, read again, given back to an actor that died."""
    size = 200 << 20
    fuse = tmp_path / "fuse"
    executor = RayExecutor(demands("a"), PATIENT, address=ours.cluster.address, keep=1)
    policy = executor.host({"a": partial(Bulky, "a", size, str(fuse))})["a"]
    before, highest = own_memory(), 0
    try:
        for round_index in range(5):
            if round_index == 3:
                fuse.touch()
            policy.update([])
            policy.save(tmp_path / f"saved_{round_index}")
            highest = max(highest, own_memory() - before)
        policy.load(tmp_path / "saved_2")
        highest = max(highest, own_memory() - before)
        assert policy.version == 3
    finally:
        executor.close()
    assert not fuse.exists()
    assert (tmp_path / "saved_4" / "bulk").stat().st_size == size
    print(f"the driver's own memory grew by {highest / 2**20:.0f} MiB at most")
    assert highest < size // 4


def test_a_demand_that_no_node_can_serve_is_a_sentence(ours: Ours) -> None:
    with pytest.raises(ConfigError, match="cpus=2 instead of 64"):
        RayExecutor([Demand("a", {"act": Needs(cpus=64)})], PATIENT, address=ours.cluster.address)


CONFIG = """
name: uninterrupted
env: {id: mutual/arithmetic-v0, group_size: 8, prompts_per_round: 6, options: {digits: 1}}
sharing: {strategy: prp}
policies:
  ada: {options: {max_new_tokens: 2, tokenizer: {kind: char, alphabet: "0123456789+="}}}
  bob: {options: {max_new_tokens: 2, tokenizer: {kind: pair, alphabet: "0123456789+=", merges: ["01"]}}}
  eve: {options: {max_new_tokens: 3, tokenizer: {kind: char, alphabet: "0123456789+="}}}
checkpoint: {every: 50}
"""
ON_RAY = ["name=killed", "sharing.exchange=ray", "resources.executor=ray"]


def processes(title: str) -> list[int]:
    """Ray names an actor's process after its class."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"ray::{title}".encode()):
                found.append(int(path.parent.name))
    return sorted(found)


def kill(ours: Ours, victim: str, dice: random.Random) -> None:
    """With signal 9, from outside: nobody is told."""
    if victim == "node":
        ours.grow()  # the new one first, so that there is always a place
        ours.lose_node()
        return
    deadline = time.monotonic() + 60.0  # the last one killed may still be starting again
    while not (found := processes("_Host" if victim == "exchange" else "_Actor")):
        assert time.monotonic() < deadline, f"no process of {victim} is left"
        time.sleep(0.1)
    os.kill(dice.choice(found), signal.SIGKILL)


def records_of(directory: Path) -> set[bytes]:
    exchange = SQLiteExchange(directory / "exchange.sqlite", readonly=True)
    try:
        return {encode(record) for record in exchange.scan()}
    finally:
        exchange.close()


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_workers_exchange_and_nodes_killed_at_random_moments_change_no_number(
    ours: Ours, mode: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG + f"output: {tmp_path}\n")
    more = [f"rounds={25 * KILLS}", f"resources.mode={mode}", "sharing.options.max_staleness=2"]
    expected = train(load_run(file, more)).directory
    restarts = f"resources.patience={{reserve: 30, limit: 600, restarts: {10 + KILLS}}}"
    address = f"resources.options={{address: '{ours.cluster.address}', keep: 4}}"
    config = load_run(file, [*more, *ON_RAY, restarts, address])
    dice = random.Random(int(os.environ.get("RAY_SEED", "0")))
    victims = [("worker", "exchange", "node")[turn % 3] for turn in range(KILLS)]
    dice.shuffle(victims)
    ends: list[object] = []
    run = threading.Thread(target=lambda: ends.append(outcome(train, config)), name="run", daemon=True)
    run.start()
    started, killed = time.monotonic(), []
    while not (tmp_path / "killed" / "metrics.jsonl").exists() and run.is_alive():
        time.sleep(0.1)
    for victim in victims:
        time.sleep(dice.uniform(0.05, 1.0))
        if not run.is_alive():
            break
        kill(ours, victim, dice)
        killed.append(victim)
    run.join(timeout=LONGEST)
    print(f"{mode}: killed {killed} in {25 * KILLS} rounds, {time.monotonic() - started:.0f} s")
    directory = tmp_path / "killed"
    assert [getattr(end, "directory", end) for end in ends] == [directory]
    assert (directory / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert records_of(directory) == records_of(expected)
    assert killed == victims, "the run ended before all were killed: give it more rounds"


def outcome(call: Callable[[RunConfig], object], config: RunConfig) -> object:
    """What it returns or raises: an error in a thread would be lost."""
    try:
        return call(config)
    except Exception as error:
        return error


def test_nothing_acknowledged_is_lost_when_the_actor_of_the_exchange_is_killed(ours: Ours, tmp_path: Path) -> None:
    import ray

    name = f"exchange-{tmp_path.name}"
    exchange = RayExchange(name, path=tmp_path / "exchange.sqlite", timeout=60.0)
    dice, acknowledged = random.Random(1), []
    for kill in range(max(3, KILLS // 3)):
        for number in range(dice.randrange(1, 12)):
            task = f"task-{kill}-{number}"
            if number == 3:
                ray.kill(ray.get_actor(name, namespace="mutual-env"), no_restart=False)
            try:
                exchange.publish([success(task)])
                acknowledged.append(task)
            except StorageError:  # not acknowledged: the publisher knows
                time.sleep(0.2)
    deadline = time.monotonic() + 60.0
    kept: set[str] = set()
    while not kept and time.monotonic() < deadline:
        try:
            kept = {record.origin.task_id for record in exchange.scan()}
        except StorageError:
            time.sleep(0.2)
    exchange.stop()
    assert set(acknowledged) <= kept
    assert len(acknowledged) >= 3
