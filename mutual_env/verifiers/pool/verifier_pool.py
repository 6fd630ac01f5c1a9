"""Verification of many items at once, in processes that can be ended."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mutual_env.errors import DeadlineExceededError, InvalidInputError
from mutual_env.machine import cores
from mutual_env.types import JSON, Task, Verdict
from mutual_env.verifiers.pool import kernel
from mutual_env.verifiers.pool.confinement import Limits
from mutual_env.verifiers.pool.isolation import choose
from mutual_env.verifiers.pool.jobs import CallJob, Counters, Job
from mutual_env.verifiers.pool.server_session import Settings
from mutual_env.verifiers.pool.supervisor import Supervisor
from mutual_env.verifiers.pool.wire import check_task
from mutual_env.verifiers.pool.worker import judge
from mutual_env.verifiers.spec import (
    Outcome,
    ProgramVerifier,
    Verifier,
    VerifierSpec,
    as_spec,
    hook,
    load_function,
    make,
    reward_range_of,
)

Items: TypeAlias = Sequence[tuple[Task, str]]


class VerifierPool:
    """Long-lived worker processes, each of which can be killed, with a deadline for each item.

    workers           processes that verify at once; None: as many as this process has cores
    deadline          seconds an item may take
    batch             items per message to a worker
    remember          verdicts kept, so that a text that repeats is verified once; 0: none
    items_per_worker  items after which a worker is replaced by a fresh one
    memory_mb, file_mb, disk_mb, open_files, processes, network, readable: see `Limits`
    isolation         how far workers are kept from the machine: process, confined, namespaces or container (see
                      `isolation`); None: the strongest that this machine can do
    debuggable        False: with the first worker, this process shuts out debuggers and other tracers of its user, and
                      leaves no core dump: its environment and memory are read by nobody

    No process is started before the first item that needs one; inline verifiers never do. Verdicts depend on the items
    alone, not on the number of workers. Any number of verifiers and threads may use one pool. After a fork, the child's
    copy starts processes of its own. Close it, or use it as a context manager; the interpreter's exit closes it too.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        deadline: float = 5.0,
        batch: int = 16,
        remember: int = 65_536,
        items_per_worker: int = 10_000,
        memory_mb: int = 1024,
        file_mb: int = 8,
        disk_mb: int = 64,
        open_files: int = 64,
        processes: int = 0,
        network: bool = False,
        readable: Sequence[str] = (),
        isolation: str | None = None,
        debuggable: bool = False,
    ) -> None:
        workers = cores() if workers is None else workers
        for name, value in (("workers", workers), ("batch", batch), ("items_per_worker", items_per_worker)):
            if not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"VerifierPool.{name} must be a whole number of at least 1, got {value!r}")
        if not 0.01 <= deadline <= 3600:
            raise InvalidInputError(f"VerifierPool.deadline must lie between 0.01 and 3600 seconds, got {deadline!r}")
        if not isinstance(remember, int) or remember < 0:
            raise InvalidInputError(f"VerifierPool.remember must be a whole number of at least 0, got {remember!r}")
        self.workers, self.deadline, self.batch = workers, float(deadline), batch
        self.limits = Limits(memory_mb, file_mb, disk_mb, open_files, processes, network, tuple(readable))
        self._items_per_worker, self._remember, self._debuggable = items_per_worker, remember, debuggable
        self._level = None if isolation is None else choose(isolation)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """The state that belongs to one process: a fork must not share it."""
        self.counters = Counters()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._memory = Memory(self._remember)
        self._begun = Begun()
        self._verifiers: dict[VerifierSpec, Verifier] = {}
        self._supervisors: list[Supervisor] = []  # none before the first item, one after
        self._finalizer = weakref.finalize(self, _stop, self._supervisors, self._pid)

    @property
    def isolation(self) -> str:
        """The name of the level that workers are kept at."""
        return (choose() if self._level is None else self._level).name

    @property
    def restarts(self) -> int:
        """Worker processes that were ended, by the pool or by themselves, and replaced when needed."""
        return self.counters.restarts

    def verify(self, spec: VerifierSpec | str, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        """The verdicts, in the order of the items. Whatever an item does, it gets a verdict: see `Verdict.status`."""
        spec, verifier = self._verifier(spec)
        self.counters.items += len(items)
        if isinstance(verifier, ProgramVerifier):
            verdicts = self._verify_programs(verifier, items)
        elif verifier.inline:
            verdicts = [judge(verifier, task, text) for task, text in items]
        else:
            verdicts = self._verify_pooled(spec, items, exclusive=_runs_code(verifier))
        self.counters.errors += sum(verdict.status == "error" for verdict in verdicts)
        return verdicts

    def reward_range(self, spec: VerifierSpec | str) -> tuple[float, float] | None:
        """What this verifier says of its rewards, if it does."""
        return reward_range_of(self._verifier(spec)[1])

    def begin(self, spec: VerifierSpec | str, items: Sequence[tuple[Task, str]]) -> None:
        """Verify these from now on, while the caller goes on: a `verify` that names them waits for what is left, and
        says what it would have said. What is verified inline, or runs programs, is not begun."""
        spec, verifier = self._verifier(spec)
        if isinstance(verifier, ProgramVerifier) or verifier.inline:
            return
        keys = _keys(spec, items)
        known = self._memory.recall(keys)
        new = {k: item for k, item in zip(keys, items, strict=True) if k not in known and k not in self._begun}
        if new:
            job = Job(spec, list(new.values()), exclusive=_runs_code(verifier))
            self._submit(job)
            self._begun.update({key: (job, index) for index, key in enumerate(new)})

    def call(self, function: str, items: Sequence[JSON]) -> list[Outcome]:
        """Call `function`, "module:function", with each item, a JSON value, in a confined process of its own. It may
        run what a model wrote; what it returns must be JSON, at most 256 KiB of it. The outcomes are in the order of
        the items."""
        self._require_open()
        prepare = hook(load_function(function), "prepare")
        for item in items:
            _check_json(item)
        self.counters.items += len(items)
        if not items:
            return []
        return self._run(CallJob(VerifierSpec(function), items, file="" if prepare is None else prepare()))

    def close(self) -> None:
        """End all processes and remove their files. Safe to call twice, and from any thread."""
        self._closed = True
        if self._pid == os.getpid():
            self._finalizer()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._pid != os.getpid():
            self._begin()
        if self._closed:
            raise InvalidInputError("this VerifierPool is closed: make another one")

    def _verifier(self, spec: VerifierSpec | str) -> tuple[VerifierSpec, Verifier]:
        self._require_open()
        spec = as_spec(spec)
        return spec, self._verifiers.get(spec) or self._verifiers.setdefault(spec, make(spec))

    def _verify_programs(self, verifier: ProgramVerifier, items: Items) -> list[Verdict]:
        outcomes = self.call(verifier.program, [verifier.question(task, text) for task, text in items])
        return [
            judge(_Judging(verifier, outcome), task, text)
            for (task, text), outcome in zip(items, outcomes, strict=True)
        ]

    def _verify_pooled(self, spec: VerifierSpec, items: Items, *, exclusive: bool) -> list[Verdict]:
        keys = _keys(spec, items)
        known = self._memory.recall(keys)
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        self.counters.remembered += len(items) - len(new)
        if new:
            begun = self._begun.take(new)
            left = {key: item for key, item in new.items() if key not in begun}
            job = Job(spec, list(left.values()), exclusive=exclusive)
            if left:
                self._submit(job)
                begun.update({key: (job, index) for index, key in enumerate(left)})
            said = {id(job): self._result(job) for job in {id(job): job for job, _ in begun.values()}.values()}
            fresh: dict[bytes, Verdict] = {key: said[id(job)][index] for key, (job, index) in begun.items()}
            self._memory.store({k: v for k, v in fresh.items() if begun[k][1] not in begun[k][0].suspect})
            known |= fresh
        return [known[key] for key in keys]

    def _run(self, job: Job) -> list[Any]:
        self._submit(job)
        return self._result(job)

    def _submit(self, job: Job) -> None:
        with self._lock:
            if self._supervisors and not self._supervisors[0].running:
                self._supervisors.pop().stop()
            if not self._supervisors:
                if not self._debuggable:
                    kernel.hide_from_tracers()
                level = choose() if self._level is None else self._level
                own = self.workers, self.deadline, self.batch, self._items_per_worker, self.limits, level
                self._supervisors.append(Supervisor(Settings(*own), self.counters))
            self._supervisors[0].submit(job)

    def _result(self, job: Job) -> list[Any]:
        longest = 300.0 + 10.0 * self.deadline * len(job.items)
        try:
            return job.future.result(longest)
        except FutureTimeoutError as cause:
            raise DeadlineExceededError(f"{len(job.items)} items were not verified within {longest:.0f} s") from cause
        finally:
            job.future.cancel()  # an interrupt leaves nothing running for nobody


@dataclass(frozen=True, slots=True)
class _Judging:
    """The deciding part of a program verifier, with what came out of the other."""

    verifier: ProgramVerifier
    outcome: Outcome
    inline: bool = True

    @property
    def id(self) -> str:
        return self.verifier.id

    def verify(self, task: Task, text: str) -> Verdict:
        return self.verifier.judge(task, text, self.outcome)


class Begun:
    """Items whose verification was begun and that nobody has asked for yet: the job of each, and its place in it."""

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: OrderedDict[bytes, tuple[Job, int]] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._jobs

    def update(self, jobs: dict[bytes, tuple[Job, int]]) -> None:
        with self._lock:
            self._jobs.update(jobs)
            while len(self._jobs) > self._most:  # of a round that was given up
                self._jobs.popitem(last=False)

    def take(self, keys: Iterable[bytes]) -> dict[bytes, tuple[Job, int]]:
        """Of those that were begun. They are verified anew when they are named again, unless they are remembered."""
        with self._lock:
            return {key: self._jobs.pop(key) for key in keys if key in self._jobs}


class Memory:
    """Verdicts of late, the least recently used forgotten first. Only verdicts that were reached: a hang may have been
    bad luck."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, Verdict]:
        with self._lock:
            known = {key: self._verdicts[key] for key in keys if key in self._verdicts}
            for key in known:
                self._verdicts.move_to_end(key)
            return known

    def store(self, verdicts: dict[bytes, Verdict]) -> None:
        with self._lock:
            for key, verdict in verdicts.items():
                if verdict.reward is not None:
                    self._verdicts[key] = replace(verdict, elapsed=0.0)
                    self._verdicts.move_to_end(key)
            while len(self._verdicts) > self._size:
                self._verdicts.popitem(last=False)


def _keys(spec: VerifierSpec, items: Sequence[tuple[Task, str]]) -> list[bytes]:
    """What a verdict depends on, hashed: the verifier, the whole task, the text."""
    tasks: dict[int, bytes] = {}
    keys = []
    for task, text in items:
        if id(task) not in tasks:
            tasks[id(task)] = check_task(task).encode()
        parts = spec.id.encode(), tasks[id(task)], text.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        keys.append(digest.digest())
    return keys


def _runs_code(verifier: Verifier) -> bool:
    return getattr(verifier, "runs_code", None) is True


def _check_json(item: JSON) -> None:
    try:
        json.dumps(item, allow_nan=False)
    except (TypeError, ValueError) as cause:
        raise InvalidInputError(f"an item must be JSON to reach a worker process, got {item!r:.80}: {cause}") from cause


def _stop(supervisors: list[Supervisor], pid: int) -> None:
    if pid == os.getpid():
        for supervisor in supervisors:
            supervisor.stop()
