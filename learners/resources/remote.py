"""A learner that lives in a worker, seen from the loop: restarted where it dies, and then given its last state back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from learners.aside import Aside
from learners.example import Example
from learners.protocol import Finished
from learners.resources.limits import Limits
from learners.resources.record import Incident
from learners.resources.worker import (
    Call,
    Done,
    Failed,
    Files,
    Hello,
    LearnerState,
    Reply,
    Stale,
    Told,
    read_files,
    write_files,
)
from mutual_env.errors import DeadlineExceededError, StorageError, WorkerLostError
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge.protocol import Tokenizer

LOOK_SECONDS = 0.02  # between two looks whether a state is written


class WorkerDiedError(Exception):
    """The worker is gone, and with it the answer."""


class WorkerHungError(Exception):
    """The worker did not answer within the limit, and was ended."""


Hear: TypeAlias = Callable[[Told], None]


class Host(Protocol):
    """Where a worker lives. Two methods, both bounded."""

    shares_files: bool
    """Whether the worker can read and write this machine's files."""

    def call(self, call: Call, limit: float, hear: Hear | None = None) -> Reply:
        """Raises WorkerDiedError or WorkerHungError; the worker is then gone. `hear`: told what it says before its
        reply, where such a worker says anything; it does not raise."""

    @property
    def alive(self) -> bool:
        """Whether the worker is there, as far as can be told without asking it."""

    def restart(self, limit: float) -> None:
        """A new worker, built by the same maker. Raises WorkerDiedError or WorkerHungError where it does not start."""

    def close(self) -> None: ...


class RemoteLearner:
    """The learner protocol over a host.

    The state to come back to is a base (what was last loaded or saved aside) and the updates since. It is brought up to
    date every `keep` updates, so that a restart costs at most that many to do again.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        note: Callable[[Incident, str, str], None],
        limits: Limits,
        *,
        keep: int = 10,
    ) -> None:
        self._host = host
        self._policy = name
        self._note = note
        self._limits = limits
        self._restarts = limits.patience.restarts
        self._keep = keep
        self._lock = threading.Lock()
        self._aside = Aside("mutual-env-state-")
        self._base: Path | Files | None = None
        self._updates: list[Sequence[Example]] = []
        self._version = 0
        self._failures = 0
        self._starts = 0  # of workers after the first
        self._marks = 0
        self._lost = ""
        self._memory: tuple[int, int] | None = None
        self.hello: Hello = self._ask("hello")

    @property
    def name(self) -> str:
        return self.hello.name

    @property
    def version(self) -> int:
        return self._version

    @property
    def tokenizer(self) -> Tokenizer:
        return self.hello.tokenizer

    @property
    def max_sequence(self) -> int | None:
        return self.hello.longest

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        groups: list[tuple[Completion, ...]] = self._ask("act", prompts, n, seed=seed)
        return groups

    def act_and_tell(
        self, prompts: Sequence[Prompt | Context], n: int, finished: Finished, *, seed: int
    ) -> list[tuple[Completion, ...]]:
        """The same; groups are told of where the host and the learner in it do that."""
        errors: list[Exception] = []

        def hear(told: Told) -> None:
            try:
                finished(told.place, told.group)
            except Exception as error:  # raised below: what the worker says is read to its end first
                errors.append(error)

        call = Call("act", self._version, (prompts, n), {"seed": seed}, tells=True)
        groups: list[tuple[Completion, ...]] = self._call(call, self._limit("act"), hear)
        if errors:
            raise errors[0]
        return groups

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        scores: list[Floats] = self._ask("score", prompt_ids, response_ids)
        return scores

    def update(self, examples: Sequence[Example]) -> Metrics:
        examples = tuple(examples)
        metrics: Metrics = self._ask("update", examples)
        self._updates.append(examples)
        if len(self._updates) >= self._keep:
            self._put_aside()
        return metrics

    def save(self, directory: Path) -> None:
        if self._host.shares_files:
            self._ask("save", directory)
        else:
            write_files(self._ask("files"), directory)

    def save_aside(self, directory: Path) -> Callable[[], None]:
        """The worker writes it; over a network the files come at once, and are written here."""
        if not self._host.shares_files:
            return partial(write_files, self._ask("files"), directory)
        self._marks += 1
        mark = self._aside.path / f"written_{self._marks}"
        self._ask("save_aside", directory, mark)
        return partial(self._until_written, mark, self._starts)

    def _until_written(self, mark: Path, starts: int) -> None:
        """In another thread than that of the calls."""
        ends = time.monotonic() + self._limit("save")
        while not mark.exists():
            lost = self._starts != starts or not self._host.alive
            if (lost and not mark.exists()) or time.monotonic() > ends:
                raise WorkerLostError(f"the worker of policy {self._policy!r} was lost while it wrote its state")
            time.sleep(LOOK_SECONDS)
        if said := mark.read_text():
            raise StorageError(said)
        mark.unlink()

    def load(self, directory: Path) -> None:
        self._base = directory if self._host.shares_files else read_files(directory)
        self._updates = []
        self._call(Call("recover", 0, (LearnerState(self._base, (), 0),)), self._limit("load"))
        self._put_aside()  # the caller may remove the directory

    def offload(self) -> None:
        """Nothing, where the learner in the worker cannot."""
        self._ask("offload")

    def restore(self) -> None:
        self._ask("restore")

    def memory(self) -> tuple[int, int] | None:
        """What the learner said with its last answer."""
        return self._memory

    def close(self) -> None:
        self._host.close()
        self._aside.close()

    def _put_aside(self) -> None:
        """Make the present state the one to come back to."""
        if self._host.shares_files:
            directory = self._aside.path / f"version_{self._version}"
            directory.mkdir(exist_ok=True)
            self._ask("save", directory)
            old, self._base = self._base, directory
            if isinstance(old, Path) and old.parent == directory.parent and old != directory:
                for path in sorted(old.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                old.rmdir()
        else:
            self._base = self._ask("files")
        self._updates = []

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._call(Call(method, self._version, args, kwargs), self._limit(method))

    def _limit(self, method: str) -> float:
        return self._limits.of(self._policy, method)

    def _call(self, call: Call, limit: float, hear: Hear | None = None) -> Any:
        """One call, done once, on however many workers it takes."""
        if self._lost:
            raise WorkerLostError(self._lost)
        if not self._lock.acquire(timeout=limit):
            raise DeadlineExceededError(
                f"policy {self._policy!r} was busy for {limit:.0f} s: {call.method} could not start"
            )
        try:
            for attempt in range(self._restarts + 1):
                began = time.monotonic()
                reply = self._attempt(call, limit, hear)
                if isinstance(reply, Done):
                    self._limits.observe(self._policy, call.method, time.monotonic() - began)
                    self._version, self._memory = reply.version, reply.memory
                    return reply.value
                if isinstance(reply, Failed):
                    reply.error.add_note(f"in the worker of policy {self._policy!r}:\n{reply.where}")
                    raise reply.error
                if attempt < self._restarts:
                    self._revive(reply)
        finally:
            self._lock.release()
        self._lost = (
            f"policy {self._policy!r} was given up: its worker failed {self._restarts + 1} times in "
            f"{call.method}. The record's events say how; its last state is in its last checkpoint"
        )
        raise WorkerLostError(self._lost)

    def _attempt(self, call: Call, limit: float, hear: Hear | None) -> Done | Failed | Stale | None:
        """None: there is no worker now."""
        try:
            return self._host.call(call, limit, hear)
        except WorkerDiedError as error:
            self._note("died", self._policy, f"{call.method}: {error}")
        except WorkerHungError as error:
            self._note("hung", self._policy, f"{call.method}: {error}")
        return None

    def _revive(self, reply: Stale | None) -> None:
        """A worker at the last state: a new one, unless there is one that only lacks the state."""
        try:
            if reply is None:
                self._starts += 1
                self._host.restart(self._limits.start(self._policy))
            state = LearnerState(self._base, tuple(self._updates), self._version)
            limit = self._limit("load") + len(self._updates) * self._limit("update")
            restored = self._host.call(Call("recover", 0, (state,)), limit)
        except (WorkerDiedError, WorkerHungError) as error:
            self._note("died", self._policy, f"while being restarted: {error}")
            return
        if isinstance(restored, Failed):
            restored.error.add_note(
                f"while the worker of policy {self._policy!r} was given its state back:\n{restored.where}"
            )
            raise restored.error
        self._note("restarted", self._policy, f"at version {self._version}")
