from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mutual_env.errors import InvalidInputError, UnknownNameError, VerificationError
from mutual_env.types import Task, Verdict
from mutual_env.verifiers import VerifierPool, VerifierSpec
from mutual_env.verifiers.pool.server_session import ServerSession

MakePool = Callable[..., VerifierPool]
Processes = Callable[[float], list[int]]
HOSTILE = "hostile:Hostile"


def numbers(task: Task, n: int) -> list[tuple[Task, str]]:
    return [(task, f"number:{i}") for i in range(n)]


def test_no_process_is_started_before_an_item_needs_one(pool: MakePool, task: Task, processes: Processes) -> None:
    verifiers = pool()
    assert verifiers.verify("numeric", [(task, "7")])[0].correct
    assert verifiers.verify(HOSTILE, []) == []
    assert verifiers.counters.started == 0
    assert processes(0) == []
    verifiers.verify(HOSTILE, [(task, "number:7")])
    assert verifiers.counters.started == 1


@pytest.mark.parametrize("batch", [1, 16])
def test_verdicts_come_in_the_order_of_the_items(pool: MakePool, task: Task, batch: int) -> None:
    verdicts = pool(3, batch=batch).verify(HOSTILE, numbers(task, 100))
    assert [v.reward for v in verdicts] == list(range(100))
    assert [i for i, v in enumerate(verdicts) if v.correct] == [7]


def test_verdicts_do_not_depend_on_the_number_of_workers(pool: MakePool, task: Task) -> None:
    deeds = ["raise", "exit_at_once", "number:7", "recurse", "return_nan", "allocate", "segfault", "exit_politely"]
    items = [(task, deed) for deed in deeds for _ in range(3)]
    one, three = (pool(n, memory_mb=128).verify(HOSTILE, items) for n in (1, 3))
    assert one == three
    assert [v.status for v in one[::3]] == ["error", "crash", "ok", "error", "error", "error", "crash", "error"]


def test_several_verifiers_share_a_pool(pool: MakePool, task: Task) -> None:
    verifiers = pool(1)
    assert verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct
    assert verifiers.verify("math_verify", [(task, "\\boxed{7}")])[0].correct
    assert verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct
    assert verifiers.verify(VerifierSpec("numeric", {"abs_tol": 1}), [(task, "8")])[0].correct


def test_threads_share_a_pool(pool: MakePool, task: Task) -> None:
    verifiers = pool(2)
    found: dict[int, list[Verdict]] = {}

    def verify(base: int) -> None:
        found[base] = verifiers.verify(HOSTILE, [(task, f"number:{base + i}") for i in range(40)])

    threads = [threading.Thread(target=verify, args=(1000 * i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {base: [v.reward for v in verdicts] for base, verdicts in found.items()} == {
        1000 * i: list(range(1000 * i, 1000 * i + 40)) for i in range(6)
    }


def test_what_was_begun_is_waited_for_and_verified_once(pool: MakePool, task: Task) -> None:
    begun, plain = pool(2, deadline=0.3), pool(2, deadline=0.3)
    items = [*numbers(task, 12), (task, "sleep"), (task, "number:3"), (task, "raise")]
    begun.begin(HOSTILE, items[:8])
    begun.begin(HOSTILE, items[4:])
    found, expected = begun.verify(HOSTILE, items), plain.verify(HOSTILE, items)
    assert [(v.reward, v.status) for v in found] == [(v.reward, v.status) for v in expected]
    assert begun.counters.items == plain.counters.items == len(items)
    assert begun.counters.timeouts == plain.counters.timeouts == 1
    assert begun.counters.remembered == plain.counters.remembered
    assert begun.verify(HOSTILE, items[-1:])[0].status == "error"  # it was not remembered, and is verified anew


def test_what_is_inline_is_not_begun(pool: MakePool, task: Task) -> None:
    verifiers = pool(1)
    verifiers.begin("numeric", [(task, "7")])
    assert verifiers.counters.started == 0
    assert verifiers.verify("numeric", [(task, "7")])[0].correct


def test_a_repeated_item_is_verified_once_and_forgotten_in_its_turn(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, remember=2)
    verdicts = verifiers.verify(HOSTILE, [(task, "number:1")] * 5)
    assert [v.reward for v in verdicts] == [1.0] * 5
    assert verifiers.counters.remembered == 4  # within one call
    verifiers.verify(HOSTILE, [(task, "number:1"), (task, "number:2"), (task, "number:3")])
    assert verifiers.counters.remembered == 5  # number:1 is known; now 2 and 3 are the latest
    verifiers.verify(HOSTILE, [(task, "number:1")])
    assert verifiers.counters.remembered == 5


def test_what_a_verdict_depends_on_is_not_mixed_up_by_the_memory(pool: MakePool) -> None:
    verifiers = pool(1, remember=100)
    seven, eight = Task("t", "p", "7"), Task("t", "p", "8")
    other = Task("t", "p", "7", {"unit": "m"})
    assert verifiers.verify(HOSTILE, [(seven, "number:7"), (eight, "number:7")])[1].correct is False
    verifiers.verify(HOSTILE, [(other, "number:7")])
    assert verifiers.verify("math_verify", [(seven, "number:7")])[0].status == "wrong_format"
    assert verifiers.counters.remembered == 0


def test_a_hang_is_not_remembered(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, deadline=0.2, remember=100)
    for _ in range(2):
        assert verifiers.verify(HOSTILE, [(task, "sleep")])[0].status == "timeout"
    assert verifiers.counters.timeouts == 2


def test_a_hang_holds_up_nobody_behind_it(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, deadline=2.0)
    verifiers.verify(HOSTILE, numbers(task, 20))
    found: list[float] = []
    thread = threading.Thread(target=lambda: verifiers.verify(HOSTILE, [(task, "sleep"), *numbers(task, 20)]))
    thread.start()
    time.sleep(0.3)
    start = time.monotonic()
    verifiers.verify(HOSTILE, numbers(task, 20))
    found.append(time.monotonic() - start)
    thread.join(10)
    assert verifiers.counters.started == 2  # one worker sleeps, another was started beside it
    assert found[0] < 1.7  # else the second call would have waited for the deadline of 2 s


def test_a_slow_item_that_was_paused_gets_its_verdict(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, deadline=3.0)
    items = numbers(task, 60)
    items[20] = (task, "work:0.5")
    verdicts = verifiers.verify(HOSTILE, items)
    assert verdicts[20].detail == "worked"
    assert verifiers.counters.paused == 1
    assert verifiers.counters.timeouts == 0


def test_what_is_answered_before_the_pause_arrives_counts(
    pool: MakePool, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(session: ServerSession, pid: int) -> None:
        time.sleep(0.5)  # on a busy machine the fork server hears of it later still
        in_time(session, pid)

    in_time = ServerSession.pause
    monkeypatch.setattr(ServerSession, "pause", late)
    verifiers = pool(1, deadline=3.0)
    items = numbers(task, 60)
    items[20] = (task, "work:0.1")
    assert verifiers.verify(HOSTILE, items)[20].detail == "worked"
    assert (verifiers.counters.paused, verifiers.counters.retries, verifiers.counters.crashes) == (1, 0, 0)


def test_a_round_of_slow_items_loses_none(pool: MakePool, task: Task) -> None:
    # each needs 0.1 s of a core: on eight processes they take longer than the deadline where there are fewer cores
    verdicts = pool(8, deadline=0.2).verify(HOSTILE, [(task, f"work:0.{10 + i}") for i in range(8)])
    assert [v.status for v in verdicts] == ["ok"] * 8


@pytest.mark.parametrize("text", ["number:7\x00", "\ud800", "\N{GRINNING FACE}", "", "x" * 1_000_000, "\r\n\x1b[2J"])
def test_any_text_reaches_the_verifier_unchanged(pool: MakePool, text: str) -> None:
    verdict = pool(1).verify("echo:Echo", [(Task("t", ({"role": "user", "content": "p"},), text), text)])[0]
    assert verdict.correct, verdict


def test_metadata_that_is_no_json_is_refused_by_name(pool: MakePool) -> None:
    with pytest.raises(InvalidInputError, match="task 'odd': its metadata must be JSON"):
        pool(1).verify(HOSTILE, [(Task("odd", "", "", {"x": {1, 2}}), "number:1")])  # type: ignore[dict-item]


def test_a_wrong_name_is_refused_before_any_process_starts(pool: MakePool, task: Task) -> None:
    verifiers = pool()
    with pytest.raises(UnknownNameError, match="'math_verify'"):
        verifiers.verify("maths_verify", [(task, "7")])
    assert verifiers.counters.started == 0


def test_a_verifier_that_cannot_be_built_in_a_worker_says_so_and_spoils_nothing(pool: MakePool, task: Task) -> None:
    verifiers = pool(1)
    for _ in range(2):
        with pytest.raises(VerificationError, match="the library it needs is broken"):
            verifiers.verify("hostile:Unloadable", [(task, "x")])
    assert verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("workers", 0, "workers must be a whole number of at least 1, got 0"),
        ("deadline", 0, "deadline must lie between 0.01 and 3600 seconds, got 0"),
        ("deadline", float("nan"), "deadline must lie"),
        ("batch", -1, "batch must be"),
        ("remember", -1, "remember must be"),
        ("memory_mb", 1, "memory_mb must be a whole number of at least 64, got 1"),
    ],
)
def test_wrong_settings_are_refused_by_name(option: str, value: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        VerifierPool(**{option: value})  # type: ignore[arg-type]


def test_closing_twice_is_fine_and_a_closed_pool_says_so(pool: MakePool, task: Task, processes: Processes) -> None:
    with pool(2) as verifiers:
        verifiers.verify(HOSTILE, [(task, "number:7")])
    verifiers.close()
    assert processes(3) == []
    with pytest.raises(InvalidInputError, match="closed"):
        verifiers.verify(HOSTILE, [(task, "number:7")])


def test_closing_ends_a_call_in_another_thread(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, deadline=60.0)
    caught: list[BaseException] = []

    def verify() -> None:
        try:
            verifiers.verify(HOSTILE, [(task, "sleep")])
        except VerificationError as cause:
            caught.append(cause)

    thread = threading.Thread(target=verify)
    thread.start()
    time.sleep(0.5)
    verifiers.close()
    thread.join(5)
    assert "closed while items were being verified" in str(caught[0])


@pytest.mark.parametrize("victim", ["worker", "fork server"])
def test_processes_killed_from_outside_are_replaced(
    pool: MakePool, task: Task, processes: Processes, victim: str
) -> None:
    verifiers = pool(1)
    verifiers.verify(HOSTILE, [(task, "number:7")])
    *_, server, worker = sorted(processes(0))
    os.kill(worker if victim == "worker" else server, signal.SIGKILL)
    assert [v.reward for v in verifiers.verify(HOSTILE, numbers(task, 20))] == list(range(20))


def test_a_forked_child_gets_processes_of_its_own(pool: MakePool, task: Task) -> None:
    verifiers = pool(1)
    verifiers.verify(HOSTILE, [(task, "number:7")])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct else 2
            verifiers.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert verifiers.verify(HOSTILE, [(task, "number:8")])[0].reward == 8.0
    assert verifiers.restarts == 0


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_is_left_when_the_interpreter_ends_without_closing(
    tmp_path: Path, end: str, processes: Processes
) -> None:
    program = (
        "from mutual_env.types import Task; from mutual_env.verifiers import VerifierPool\n"
        "pool = VerifierPool(2)\n"
        f"pool.verify('hostile:Hostile', [(Task('t', '', '7'), 'number:7')])\n{end}"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False)
    assert processes(3) == []
    assert list(tmp_path.iterdir()) == []


def test_a_worker_is_replaced_after_its_share_of_items(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, items_per_worker=10, batch=10)
    verifiers.verify(HOSTILE, numbers(task, 60))
    assert verifiers.counters.started >= 4


def test_by_default_there_is_a_worker_for_each_core_of_this_process() -> None:
    assert VerifierPool().workers == len(os.sched_getaffinity(0))


def test_a_pool_that_cannot_start_says_so_and_works_once_it_can(
    pool: MakePool, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifiers = pool(1)
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        with pytest.raises(VerificationError, match="fork server of the verifier pool ended unexpectedly"):
            verifiers.verify(HOSTILE, [(task, "number:7")])
    assert verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct


WITHOUT = """
import sys
from mutual_env.types import Task; from mutual_env.verifiers import VerifierPool
with VerifierPool(1, isolation="process") as pool:
    print([v.reward for v in pool.verify("hostile:Hostile", [(Task("t", "", "7"), "number:7")])])
"""


def test_a_machine_without_proc_is_told_so_in_a_sentence(tmp_path: Path) -> None:
    hidden = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none /proc && exec "$@"',
        "-",
    ]
    command = [*hidden, sys.executable, "-c", WITHOUT]
    if shutil.which("unshare") is None or subprocess.run([*hidden, "true"], capture_output=True, timeout=10).returncode:
        pytest.skip("no namespaces here in which /proc can be hidden")
    environment = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "VerificationError: the verifier pool cannot watch its workers: there is no /proc here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pool_that_may_start_no_process_says_so_in_a_sentence(
    pool: MakePool, task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*arguments: object, **how: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    verifiers = pool(1)
    with monkeypatch.context() as crowded:
        crowded.setattr(subprocess, "Popen", refused)  # of root the kernel holds no number of processes
        with pytest.raises(
            VerificationError, match=r"cannot start a process: .*this user has as many .* \(ulimit -u\)"
        ):
            verifiers.verify(HOSTILE, [(task, "number:7")])
    assert list(tmp_path.glob("mutual-env-verifiers-*")) == []
    assert verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Control-C interrupts, also where the suite was started in the background by a shell that ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_leaves_the_pool_usable(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, deadline=20.0)
    timer = threading.Timer(0.7, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        verifiers.verify(HOSTILE, [(task, "sleep")])
    timer.join()
    assert verifiers.verify(HOSTILE, [(task, "number:7")])[0].correct
