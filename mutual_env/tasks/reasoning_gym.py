"""`reasoning_gym/<dataset>-v0`: every data set of reasoning-gym, made from the seed and scored by its own scorer."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mutual_env.errors import DeadlineExceededError, InvalidInputError, MissingExtraError, UnknownNameError
from mutual_env.lean import LEAN
from mutual_env.seeding import derive_seed
from mutual_env.spec import EnvSpec
from mutual_env.tasks import reasoning_gym_items
from mutual_env.tasks.reasoning_gym_names import DATASET_NAMES
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import JSON, Task
from mutual_env.verifiers import VerifierSpec
from mutual_env.verifiers.pool.directories import remove_tree

_COMPOSITE_PARTS = [{"name": "chain_sum"}, {"name": "word_sorting"}, {"name": "knights_knaves"}]
_SCORES_ANY_TEXT = ("game_of_life_halting",)  # its scorer compares truth values, and every text is true
_CHUNKS = 40
_MOST_BYTES = 1 << 28
"""Of one reply of the process that makes items: thousands of the largest."""


class ReasoningGymTasks:
    """The items of one data set.

    dataset    its name in reasoning-gym
    split      "train" or "eval". A question belongs to exactly one of them (a quarter to "eval"), by a hash of its
               text: the two share no question, whatever the seeds and options.
    generator  the process that makes the items; None: one that all sources have in common that name none, started
               when first needed and ended when the last of them is closed
    options    the data set's own, such as `max_value=50`; unknown ones are refused with the nearest right one.
               `composite` is given its parts as `datasets=[{"name": "chain_sum", "weight": 1.0, "config": {}}, ...]`.

    The same seed gives the same items with the same version of reasoning-gym; `codeio`, which runs collected code, only
    as far as that code is deterministic. An item that its generator fails to make is left out. Where the data set has
    no answer of its own (five score any valid solution), `Task.answer` is "". The verifier is the data set's own
    scorer; only `game_of_life_halting`, whose scorer rewards any text, is checked by `exact`.
    """

    def __init__(
        self, *, dataset: str, split: str = "train", generator: ItemProcess | None = None, **options: JSON
    ) -> None:
        if dataset not in DATASET_NAMES:
            raise UnknownNameError.of("data set of reasoning-gym", dataset, DATASET_NAMES)
        if importlib.util.find_spec("reasoning_gym") is None:
            raise MissingExtraError.of(f"reasoning_gym/{dataset}-v0", "gym")
        self._dataset = dataset
        self._split = check_split(split)
        self._options = {"datasets": _COMPOSITE_PARTS, **options} if dataset == "composite" else options
        self._parts: Any = self._options.get("datasets", ())
        self.verifier = VerifierSpec("reasoning_gym")
        if dataset in _SCORES_ANY_TEXT:
            self.verifier = VerifierSpec("exact", {"ignore_case": True})
        self._owns_items = generator is None
        self._items = generator
        if options:
            self._process().make(
                dataset, self._options, seed=0, count=0
            )  # refuses a wrong option before the first round

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        what = f"reasoning_gym/{self._dataset}-v0 (split {self._split!r})"
        return take_distinct(self._candidates(seed, round, n), n, what)

    def close(self) -> None:
        if self._owns_items:
            self._items = None

    def _process(self) -> ItemProcess:
        if self._items is None:
            self._items = _in_common()
        return self._items

    def _candidates(self, seed: int, round: int, n: int) -> Iterator[Task]:
        for chunk in range(_CHUNKS):
            chunk_seed = derive_seed(seed, "reasoning_gym", self._dataset, self._split, round, chunk) % 2**31
            for entry in self._process().make(self._dataset, self._options, seed=chunk_seed, count=n):
                if entry is not None and split_of(entry["question"]) == self._split:
                    yield self._task(entry)

    def _task(self, entry: Mapping[str, Any]) -> Task:
        key = json.dumps([entry["question"], entry["answer"]])
        digest = hashlib.blake2b(key.encode(), digest_size=10).hexdigest()
        answer = entry["answer"] if entry["answer"] is not None else ""
        name, config = self._scored_by(entry)
        metadata: dict[str, JSON] = {"dataset": name, "config": config, "entry": entry}
        return Task(f"reasoning_gym/{self._dataset}-v0:{digest}", entry["question"], str(answer), metadata)

    def _scored_by(self, entry: Mapping[str, Any]) -> tuple[str, Mapping[str, JSON]]:
        """The data set, and its options, whose scorer knows this entry: a part of `composite` for its own."""
        if self._dataset != "composite":
            return self._dataset, self._options
        name = entry["metadata"]["source_dataset"]
        return name, next(dict(part.get("config", {})) for part in self._parts if part["name"] == name)


class ItemProcess:
    """A process that makes items on request; started when first asked, and again after it died."""

    def __init__(self, deadline: float = 300.0) -> None:
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: list[_Running] = []  # none or one

    def make(self, dataset: str, options: Mapping[str, JSON], *, seed: int, count: int) -> list[dict[str, Any] | None]:
        """Items 0 .. count - 1 of the data set with this seed, as JSON values; None where the generator failed."""
        request = {"dataset": dataset, "options": options, "seed": seed, "count": count}
        try:
            line = json.dumps(request)
        except TypeError as e:
            raise InvalidInputError(f"options of reasoning_gym/{dataset}-v0 must be JSON values: {e}") from e
        with self._lock:
            if self._running and self._running[0].has_ended():
                self._running.pop().end()
            if not self._running:
                self._running.append(_Running())
            try:
                reply = self._running[0].ask(line, self._deadline)
            except BaseException:  # the answer to this request may still be on its way: it must not meet the next one
                self._running.pop().end()
                raise
        if "unknown" in reply:
            known = [*reply["known"], "split", "pool", *(set(EnvSpec.__dataclass_fields__) - {"id", "task"})]
            raise UnknownNameError.of(f"option of reasoning_gym/{dataset}-v0", reply["unknown"], known)
        if "refused" in reply:
            raise InvalidInputError(f"options of reasoning_gym/{dataset}-v0 {dict(options)!r}: {reply['refused']}")
        entries: list[dict[str, Any] | None] = reply["entries"]
        if entries and not any(entries):
            raise InvalidInputError(f"reasoning_gym/{dataset}-v0 made none of {count} items: {reply['failure']}")
        return entries

    def close(self) -> None:
        with self._lock:
            while self._running:
                self._running.pop().end()


_COMMON: weakref.WeakValueDictionary[int, ItemProcess] = weakref.WeakValueDictionary()
"""By the id of the process that started it: a fork must not speak to its parent's. Nobody holds it but its users."""


def _in_common() -> ItemProcess:
    """Starting one takes two seconds of a core, and a run has tasks to train on and others that are held out."""
    return _COMMON.get(os.getpid()) or _COMMON.setdefault(os.getpid(), ItemProcess())


class _Running:
    """One started process and its two pipes; `end` ends it, as does letting go of this object."""

    def __init__(self) -> None:
        directory = tempfile.mkdtemp(prefix="mutual-env-items-")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", *LEAN, "-m", reasoning_gym_items.__name__],
            start_new_session=True,  # an interrupt at the terminal is the caller's to handle
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            env={
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "PATH": os.defpath,
                "HOME": directory,
                "TMPDIR": directory,
                "OMP_NUM_THREADS": "1",
                "PYTHONUTF8": "1",
            },
        )
        self.end = weakref.finalize(self, _end, self._process, directory)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, line: str, deadline: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        until = time.monotonic() + deadline
        buffer = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            with contextlib.suppress(BrokenPipeError):  # reading its output will say the same, with its exit status
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
            while not buffer.endswith(b"\n"):
                # the code that makes items may also write without an end: then there is always something to read
                late = not selector.select(max(0.0, until - time.monotonic())) or time.monotonic() > until
                if late:
                    raise DeadlineExceededError(f"the items of {line:.120} were not made within {deadline:g} s")
                part = os.read(self._process.stdout.fileno(), 1 << 20)
                if not part:
                    status = self._process.wait(10)
                    raise InvalidInputError(f"the process that makes items ended with status {status} at {line:.120}")
                buffer += part
                if len(buffer) > _MOST_BYTES:
                    raise InvalidInputError(f"the process that makes items wrote without an end at {line:.120}")
        return _reply(buffer, line)


def _reply(said: bytearray, line: str) -> dict[str, Any]:
    """What it answered, where nothing else wrote there."""
    with contextlib.suppress(ValueError, RecursionError):
        reply = json.loads(said)
        if isinstance(reply, dict) and {"entries", "unknown", "refused"} & reply.keys():
            return reply
    raise InvalidInputError(f"the process that makes items gave no answer to {line:.120}, but {bytes(said[:80])!r}")


def _end(process: subprocess.Popen[bytes], directory: str) -> None:
    process.kill()
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    remove_tree(Path(directory))
