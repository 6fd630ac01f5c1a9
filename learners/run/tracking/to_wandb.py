"""Weights & Biases: offline below the run's directory, unless WANDB_MODE asks for the network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from learners.run.trackers import TrackedRun
from learners.run.tracking import conversations, finite
from mutual_env.errors import MissingExtraError
from mutual_env.types import Metrics


class WeightsAndBiases:
    """One run for all policies; `wandb sync RUN/wandb/offline-*` sends it later. A resumed run goes on under its id."""

    def started(self, run: TrackedRun) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError.of("tracker 'wandb'", "wandb") from error
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mutual-env"),
            name=run.name,
            id=hashlib.sha256(str(run.directory.resolve()).encode()).hexdigest()[:12],
            dir=run.directory,
            config=dict(run.config),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
        )
        for policy in run.policies:
            self._run.define_metric(f"{policy}/round")
            self._run.define_metric(f"{policy}/*", step_metric=f"{policy}/round")

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        values = {f"{policy}/{k}": v for policy, of in finite(metrics).items() for k, v in of.items()}
        self._run.log({**values, **{f"{policy}/round": done for policy in metrics}})

    def wrote(self, done: int, policy: str, samples: Mapping[str, Any]) -> None:
        import wandb

        rows = [{"conversation": json.dumps(messages), **known} for messages, known in conversations(samples)]
        if rows:
            table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
            self._run.log({f"{policy}/samples": table, f"{policy}/round": done})

    def finished(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "finished" else 1)
