"""Trackers of experiments: `trackers: [tensorboard, wandb, mlflow, trackio]`. Each is imported when it is chosen, keeps
what it is told below the run's directory or where its own environment variables say, and reaches the network only where
those ask it to. Every policy has an axis of its own: the rounds that it has done.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from mutual_env.types import Metrics

_ALLOWED = re.compile(r"[^A-Za-z0-9_./ -]")


def finite(metrics: Mapping[str, Metrics]) -> dict[str, dict[str, float]]:
    """Policy -> what can be drawn: NaN and infinity are left out, and characters that some tracker refuses."""
    return {
        policy: {_ALLOWED.sub("_", name): value for name, value in values.items() if math.isfinite(value)}
        for policy, values in metrics.items()
    }
