"""Checkpoints of a run: what they hold is copied while the run stands still, and written while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from learners.protocol import Learner, save_aside
from learners.run.checkpoint import Checkpoints
from mutual_env.errors import WorkerLostError
from mutual_env.types import JSON


@dataclass(frozen=True, slots=True)
class Took:
    """How a checkpoint came about: for how many seconds the run stood still, and for how many more it was written.
    `lost`: why there is none after all ("": there is)."""

    round: int
    held: float
    aside: float
    lost: str = ""


class Saver:
    """One checkpoint at a time: the next waits until the one before is whole.

    A policy whose worker is lost while it writes costs that checkpoint, and not the run: the one before holds. What
    cannot be written ends the run, at its next checkpoint or its end.
    """

    def __init__(self, checkpoints: Checkpoints, *, background: bool, took: Callable[[Took], None]) -> None:
        """`took` is told of each, in the thread that saves."""
        self._checkpoints, self._background, self._took = checkpoints, background, took
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[float] | None = None
        self._began: tuple[int, float] = (0, 0.0)

    def save(
        self,
        round: int,
        state: Mapping[str, JSON],
        learners: Mapping[str, Learner],
        others: Mapping[str, Callable[[Path], None]],
        last: Sequence[Callable[[], object]],
    ) -> None:
        """`others` are written here and now; `last` is done before the checkpoint gets its name."""
        began = time.monotonic()
        self.settled()
        left: list[Callable[[], object]] = []
        if self._background:
            asides = {name: _then(learner, left) for name, learner in learners.items()}
            self._checkpoints.begin(round, {**asides, **others})
            self._pending = self._thread.submit(self._finish, round, state, [*left, *last])
            self._began = round, time.monotonic() - began
        else:
            self._checkpoints.begin(round, {**{n: learner.save for n, learner in learners.items()}, **others})
            self._checkpoints.finish(round, state, last)
            self._took(Took(round, time.monotonic() - began, 0.0))

    def settled(self) -> bool:
        """Until what was begun is a checkpoint; False where it came to none, because a worker was lost."""
        if self._pending is None:
            return True
        pending, self._pending = self._pending, None
        round, held = self._began
        try:
            self._took(Took(round, held, pending.result()))
        except WorkerLostError as error:
            self._took(Took(round, held, 0.0, lost=str(error)))
            return False
        return True

    def close(self) -> None:
        """What was begun is finished first; how that ends is said by `settled`."""
        self._thread.shutdown()

    def _finish(self, round: int, state: Mapping[str, JSON], last: Sequence[Callable[[], object]]) -> float:
        began = time.monotonic()
        self._checkpoints.finish(round, state, last)
        return time.monotonic() - began


def _then(learner: Learner, left: list[Callable[[], object]]) -> Callable[[Path], None]:
    def begin(directory: Path) -> None:
        left.append(save_aside(learner, directory))

    return begin
