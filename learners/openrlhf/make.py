"""Policies of OpenRLHF from a configuration's plain values. What they are made of is imported when one is made, so that
a configuration can be checked, and a plan made of it, where OpenRLHF is not installed."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from learners.openrlhf.options import INSTEAD, INSTEAD_ON_RAY, ActorOptions, ClusterOptions
from learners.protocol import Learner
from learners.registry import on_a_cluster, replaces, takes, tried_by
from learners.torch.learner import TorchLearner
from learners.torch.make import try_model
from learners.torch.model import load_pretrained
from learners.torch.options import TorchOptions
from mutual_env import catalogue
from mutual_env.errors import InvalidInputError, MissingExtraError
from tokenizers_bridge import Tokenizer
from tokenizers_bridge.kinds.loading import load as load_tokenizer


def try_openrlhf(**options: Any) -> None:
    """What can be said of the arguments without building anything."""
    _require("openrlhf")
    _computed(dict(options))
    try_model(**options)


def try_openrlhf_ray(**options: Any) -> None:
    """The same, of a policy on a cluster."""
    _require("openrlhf", "ray")
    given = dict(options)
    _cluster(given, _computed(given))
    try_model(**options)


@tried_by(try_openrlhf)
@replaces(INSTEAD)
@takes(ActorOptions)
@takes(TorchOptions)
def make_openrlhf(
    path: str = "",
    *,
    name: str = "openrlhf",
    model: PreTrainedModel | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Learner:
    """As learner 'torch', trained by OpenRLHF's classes."""
    if bool(path) == (model is not None):
        raise InvalidInputError("give either path, a local model directory, or a model with its tokenizer, not both")
    _require("openrlhf")
    trainer = catalogue.load("learner 'openrlhf'", "learners.openrlhf.in_process:InProcessTrainer")
    computed = _computed(options)
    if model is None:
        model = load_pretrained(Path(path))
        tokenizer = tokenizer or load_tokenizer(Path(path))
    if tokenizer is None:
        raise InvalidInputError("tokenizer is missing: a model built in code comes with its tokenizer")
    return TorchLearner(
        model, tokenizer, name=name, options=TorchOptions.of(options), trainer=partial(trainer, computed=computed)
    )


@on_a_cluster
@tried_by(try_openrlhf_ray)
@replaces(INSTEAD_ON_RAY)
@takes(ClusterOptions)
@takes(ActorOptions)
@takes(TorchOptions)
def make_openrlhf_ray(
    path: str, *, name: str = "openrlhf", tokenizer: Tokenizer | None = None, **options: Any
) -> Learner:
    """OpenRLHF's actor groups and DeepSpeed on a Ray cluster; `options` are the torch learner's, `ActorOptions`' and
    `ClusterOptions`' together."""
    _require("openrlhf", "ray")
    computed = _computed(options)
    cluster = _cluster(options, computed)
    make = catalogue.load("learner 'openrlhf_ray'", "learners.openrlhf.cluster.learner:RayOpenRlhfLearner")
    learner: Learner = make(
        path,
        tokenizer or load_tokenizer(Path(path)),
        name=name,
        options=TorchOptions.of(options),
        cluster=cluster,
        computed=computed,
    )
    return learner


def _computed(options: dict[str, Any]) -> ActorOptions:
    """Taken out of `options`."""
    dtype = options.get("dtype", TorchOptions().dtype)
    found = ActorOptions(**{key: options.pop(key) for key in list(options) if key in ActorOptions.__dataclass_fields__})
    found.require(dtype)
    return found


def _cluster(options: dict[str, Any], computed: ActorOptions) -> ClusterOptions:
    """The same."""
    fields = ClusterOptions.__dataclass_fields__
    found = ClusterOptions(**{key: options.pop(key) for key in list(options) if key in fields})
    found.require(computed)
    return found


def _require(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(f"OpenRLHF's learners (no module {package!r})", "openrlhf")
