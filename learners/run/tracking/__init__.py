"""Trackers of experiments: `trackers: [tensorboard, wandb, mlflow, trackio]`. Each is imported when it is chosen, keeps
what it is told below the run's directory or where its own environment variables say, and reaches the network only where
those ask it to. Every policy has an axis of its own: the rounds that it has done.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from mutual_env.types import Metrics

TRACED = 8
"""Completions of a policy's round that a tracker keeps beside the figures."""

_ALLOWED = re.compile(r"[^A-Za-z0-9_./ -]")


def finite(metrics: Mapping[str, Metrics]) -> dict[str, dict[str, float]]:
    """Policy -> what can be drawn: NaN and infinity are left out, and characters that some tracker refuses."""
    return {
        policy: {_ALLOWED.sub("_", name): value for name, value in values.items() if math.isfinite(value)}
        for policy, values in metrics.items()
    }


def conversations(samples: Mapping[str, Any]) -> list[tuple[list[dict[str, str]], dict[str, Any]]]:
    """The first completions of a line of samples.jsonl, each as chat messages and what is known of it."""
    return list(islice(_conversations(samples), TRACED))


def _conversations(samples: Mapping[str, Any]) -> Iterator[tuple[list[dict[str, str]], dict[str, Any]]]:
    for group in samples["groups"]:
        prompt = group["prompt"]
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        for text, *judged in group["completions"]:
            facts = dict(zip(("reward", "status", "correct", "tokens", "detail", "advantage"), judged, strict=True))
            known = {"task": group["task"], "answer": group["answer"], **facts}
            yield [*asked, {"role": "assistant", "content": text}], known
