"""Small policies from scratch, each of another family: built and warm-started in seconds, with nothing to download.

This file needs no torch: a configuration is checked without it, and `learners.torch.tiny` builds what it describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import mutual_env
from learners.protocol import Learner
from learners.registry import built_by, takes, tried_by
from learners.torch.make import require_torch
from learners.torch.options import TorchOptions
from mutual_env.catalogue import load
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.options import fields_of
from tokenizers_bridge import Tokenizer

ARCHITECTURES = ("llama", "gpt_neox")
_LARGEST = 65_536
_BUILDER = "learners.torch.tiny:build"


def try_tiny(
    *,
    tokenizer: Tokenizer,
    architecture: str = "llama",
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    warm_start: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """What can be said of the arguments without building the model."""
    require_torch("tiny")
    if architecture not in ARCHITECTURES:
        raise UnknownNameError.of("architecture", architecture, ARCHITECTURES)
    for name, value in (("width", width), ("layers", layers), ("heads", heads)):
        if not 1 <= value <= _LARGEST:
            raise InvalidInputError(f"{name} must lie between 1 and {_LARGEST}, got {value}")
    if width % (2 * heads):
        raise InvalidInputError(f"width must be a multiple of 2 * heads, got width={width} and heads={heads}")
    if warm_start is not None:
        with closing(fields_of("warm_start", WarmStart, warm_start).draws(seed=0)) as draws:
            draws.reset(seed=0, options={"round": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """Supervised steps before the first round. `knows` names a metadata key and the values that are taught, e.g.
    `{skill: [sort]}`: tasks with another value are answered with letters drawn at random from those of all answers."""

    env: str
    knows: Mapping[str, Sequence[str]]
    steps: int = 150
    prompts: int = 64
    learning_rate: float = 3e-3
    env_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.learning_rate >= 0:
            raise InvalidInputError(
                f"steps and learning_rate of warm_start must be at least 0, got {self.steps} and {self.learning_rate}"
            )

    def draws(self, seed: int) -> mutual_env.ReasoningEnv:
        """The tasks, to be drawn a step at a time."""
        options = self.env_options or {}
        return mutual_env.make(self.env, agents=1, group_size=1, prompts_per_round=self.prompts, seed=seed, **options)


@tried_by(try_tiny)
@built_by(_BUILDER)
@takes(TorchOptions)
def make_tiny(
    *,
    name: str,
    seed: int,
    tokenizer: Tokenizer,
    architecture: str = "llama",
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    warm_start: Mapping[str, Any] | None = None,
    **options: Any,
) -> Learner:
    """A torch learner around a new model; `options` are the torch learner's, `warm_start` is a `WarmStart`."""
    require_torch("tiny")
    build = load("the builder of tiny policies", _BUILDER)
    learner = build(
        name=name,
        seed=seed,
        tokenizer=tokenizer,
        architecture=architecture,
        width=width,
        layers=layers,
        heads=heads,
        warm_start=warm_start,
        options=options,
    )
    return cast(Learner, learner)
