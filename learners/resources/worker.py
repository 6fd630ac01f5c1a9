"""A learner in a process of its own, and what is said to it: the side of the worker.

Every call names the version it is meant for. A worker that was started again is at an older one and says so (`Stale`),
so that its state is restored first. An update that was applied but whose answer was lost is answered again, not applied
again.
"""

from __future__ import annotations

import copy
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from learners.aside import Aside
from learners.example import Example
from learners.placement import visible
from learners.protocol import HandsOn, Learner, Measured, Movable, longest_sequence, nothing_left, save_aside
from mutual_env.types import Completion, Metrics
from tokenizers_bridge.protocol import Tokenizer

Files: TypeAlias = Mapping[str, npt.NDArray[np.uint8]]
"""What is in a directory, by relative path. As arrays, because those go into Ray's object store and are looked at there
without a copy in the memory of whoever asked."""


@dataclass(frozen=True, slots=True)
class LearnerState:
    """All that a new worker needs to go on: what to load (None: nothing, it is as it was built), and the updates since.

    `base` is a directory both sides can read, or the files themselves.
    """

    base: Path | Files | None
    updates: tuple[Sequence[Example], ...]
    version: int


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    version: int
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    tells: bool = False
    """Whether something may be said before the reply."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker says while it serves a call: the place of a group, and the group."""

    place: int
    group: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says of its learner and of itself. `visible`: the GPUs that its process is shown (None: all);
    `device`: what the learner says it computes on."""

    name: str
    tokenizer: Tokenizer
    longest: int | None
    visible: tuple[str, ...] | None
    device: str


@dataclass(frozen=True, slots=True)
class Done:
    """`memory`: what the learner says that it holds on its device."""

    value: Any
    version: int
    memory: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Stale:
    """The worker is not at the version the call is meant for."""

    version: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The learner raised: an error of its own, not of the worker."""

    error: Exception
    where: str


Reply: TypeAlias = Done | Stale | Failed


class LearnerWorker:
    """Serves calls on the learner it builds."""

    def __init__(self, make: Callable[[], Learner]) -> None:
        self._learner = make()
        self._answered: tuple[int, Metrics] | None = None

    def close(self) -> None:
        self._learner.close()

    def serve(self, call: Call, tell: Callable[[Told], None] | None = None) -> Reply:
        """`tell`: what is said before the reply goes there."""
        try:
            return self._serve(call, tell)
        except Exception as error:  # a boundary: it is raised again on the other side
            return Failed(portable(error), traceback.format_exc())

    def _serve(self, call: Call, tell: Callable[[Told], None] | None) -> Reply:
        if call.method == "recover":
            return self._recover(call.args[0])
        again = call.method == "update" and self._learner.version == call.version + 1
        if again and self._answered is not None and self._answered[0] == call.version:
            return Done(self._answered[1], self._learner.version)
        if call.method == "hello":
            memory = self._learner.memory() if isinstance(self._learner, Measured) else None
            return Done(_hello(self._learner), self._learner.version, memory)
        if self._learner.version != call.version:
            return Stale(self._learner.version)
        if call.method == "files":
            return Done(_saved(self._learner), self._learner.version)
        if call.method == "save_aside":
            self._write_aside(*call.args)
            return Done(None, self._learner.version)
        if call.method in ("offload", "restore") and not isinstance(self._learner, Movable):
            return Done(None, self._learner.version)
        value = self._act(call, tell) if call.method == "act" else self._done(call)
        if call.method == "update":
            self._answered = (call.version, value)
        memory = self._learner.memory() if isinstance(self._learner, Measured) else None
        return Done(value, self._learner.version, memory)

    def _done(self, call: Call) -> Any:
        return getattr(self._learner, call.method)(*call.args, **(call.kwargs or {}))

    def _act(self, call: Call, tell: Callable[[Told], None] | None) -> Any:
        if tell is None or not isinstance(self._learner, HandsOn):
            return self._done(call)
        prompts, n = call.args
        return self._learner.act_and_tell(prompts, n, lambda *told: tell(Told(*told)), **(call.kwargs or {}))

    def _write_aside(self, directory: Path, mark: Path) -> None:
        """The state as it is now into `directory`, while further calls are served; `mark` is there when that is done,
        and says what went wrong."""
        write = save_aside(self._learner, directory)
        if write is nothing_left:
            mark.touch()
        else:
            threading.Thread(target=_write, args=(write, mark), daemon=True).start()

    def _recover(self, state: LearnerState) -> Reply:
        self._answered = None
        if isinstance(state.base, Path):
            self._learner.load(state.base)
        elif state.base is not None:
            with Aside("mutual-env-worker-") as directory:
                write_files(state.base, directory / "state")
                self._learner.load(directory / "state")
        for examples in state.updates:
            self._learner.update(examples)
        return Done(None, self._learner.version)


def _write(write: Callable[[], None], mark: Path) -> None:
    said = ""
    try:
        write()
    except Exception as error:  # a boundary: it is raised again on the other side
        said = str(error) or type(error).__name__
    aside = mark.with_suffix(".new")
    aside.write_text(said)
    aside.rename(mark)


def _hello(learner: Learner) -> Hello:
    device = str(getattr(learner, "device", ""))
    return Hello(learner.name, learner.tokenizer, longest_sequence(learner), visible(), device)


def portable(error: Exception) -> Exception:
    """The error itself where it can be built again from its arguments, as it must be on the other side."""
    try:
        copy.copy(error)
    except Exception:  # a boundary: other people's exception classes
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _saved(learner: Learner) -> Files:
    with Aside("mutual-env-worker-") as directory:
        state = directory / "state"
        state.mkdir()
        learner.save(state)
        return read_files(state)


def read_files(directory: Path) -> Files:
    """What is in a directory, mapped: it stays readable when the directory is gone, and takes no memory of its own."""
    return {str(p.relative_to(directory)): _mapped(p) for p in sorted(directory.rglob("*")) if p.is_file()}


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    if not path.stat().st_size:  # nothing cannot be mapped
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, mode="r").view(np.ndarray)


def write_files(files: Files, directory: Path) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.data)
