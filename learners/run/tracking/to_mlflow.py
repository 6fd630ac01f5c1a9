"""MLflow: files below the run's directory, unless MLFLOW_TRACKING_URI names a server."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from learners.run.trackers import TrackedRun
from learners.run.tracking import finite
from mutual_env.errors import MissingExtraError
from mutual_env.types import Metrics

LONGEST_PARAMETER = 500
MOST_AT_ONCE = 1000
"""Metrics in one request, as MLflow's interface bounds it. One by one, each has the run's own file read again."""


class MLflow:
    """`mlflow ui --backend-store-uri RUN/mlflow`. A resumed run goes on under its id."""

    def started(self, run: TrackedRun) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MissingExtraError.of("tracker 'mlflow'", "mlflow") from error
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it asks for a database, or for this
        home = run.directory / "mlflow"
        self._client: Any = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", home.resolve().as_uri()))
        kept = run.directory / "mlflow.id"
        if kept.is_file():
            self._id = kept.read_text()
        else:
            experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "mutual-env"))
            self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
            kept.write_text(self._id)
            for key, value in run.config.items():
                self._client.log_param(self._id, key, str(value)[:LONGEST_PARAMETER])

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        told = [
            Metric(f"{policy}/{name}", value, now, done)
            for policy, values in finite(metrics).items()
            for name, value in values.items()
        ]
        for start in range(0, len(told), MOST_AT_ONCE):
            self._client.log_batch(self._id, metrics=told[start : start + MOST_AT_ONCE])

    def finished(self, status: str) -> None:
        self._client.set_terminated(self._id, "FINISHED" if status == "finished" else "KILLED")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))
