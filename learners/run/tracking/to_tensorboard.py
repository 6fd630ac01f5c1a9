"""TensorBoard: `tensorboard --logdir RUN/tensorboard`, a folder a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learners.run.trackers import TrackedRun
from learners.run.tracking import finite
from mutual_env.errors import MissingExtraError
from mutual_env.types import Metrics


class TensorBoard:
    """Event files, written without TensorFlow and without torch."""

    def started(self, run: TrackedRun) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise MissingExtraError.of("tracker 'tensorboard'", "tensorboard") from error
        home = run.directory / "tensorboard"
        self._writers: dict[str, Any] = {policy: Writer(str(home / policy)) for policy in run.policies}

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        for policy, values in finite(metrics).items():
            for name, value in values.items():
                self._writers[policy].add_scalar(name, value, done)

    def finished(self, status: str) -> None:
        for writer in self._writers.values():
            writer.close()
