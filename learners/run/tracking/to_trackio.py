"""trackio: a local database below the run's directory, unless TRACKIO_DIR names another; `trackio show` reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from learners.run.trackers import TrackedRun
from learners.run.tracking import conversations, finite
from mutual_env.errors import MissingExtraError
from mutual_env.types import Metrics


class Trackio:
    """A run of the project for each policy, so that each has its own steps."""

    def started(self, run: TrackedRun) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((run.directory / "trackio").resolve()))  # read when it is imported
        try:
            import trackio
        except ImportError as error:
            raise MissingExtraError.of("tracker 'trackio'", "trackio") from error
        project = os.environ.get("TRACKIO_PROJECT", "mutual-env")
        self._runs: dict[str, Any] = {
            policy: trackio.init(
                project=project,
                name=f"{run.name}/{policy}",
                group=run.name,
                config=dict(run.config),
                resume="allow",
                embed=False,
            )
            for policy in run.policies
        }

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        for policy, values in finite(metrics).items():
            self._runs[policy].log(values, step=done)

    def wrote(self, done: int, policy: str, samples: Mapping[str, Any]) -> None:
        import trackio

        traces = [
            trackio.Trace(messages=messages, metadata={**known, "round": done})
            for messages, known in conversations(samples)
        ]
        self._runs[policy].log({"samples": traces}, step=done)

    def finished(self, status: str) -> None:
        for run in self._runs.values():
            run.finish()
