"""Learner `torch` from a configuration's plain values. Light: a configuration is checked without loading torch, which
takes most of ten seconds with transformers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from learners.model_directory import check_model_directory
from learners.protocol import Learner
from learners.registry import built_by, takes, tried_by
from learners.torch.options import TorchOptions
from mutual_env.catalogue import load
from mutual_env.errors import InvalidInputError, MissingExtraError
from tokenizers_bridge import Tokenizer

_BUILDER = "learners.torch.learner:build_torch"
_DEVICES = "learners.torch.devices:device_of"
_COMPILER = "learners.torch.compiler:require_compiler_for"
_ALWAYS_THERE = ("auto", "cpu")


def try_torch(path: str = "", *, model: Any = None, device: str = "auto", **others: Any) -> None:
    """What can be said of a learner's arguments without building it."""
    try_model(path, model=model, device=device)
    if others.get("compile"):
        load("torch.compile", _COMPILER)(device)
    options = TorchOptions()
    longest = others.get("max_new_tokens", options.max_new_tokens)
    room = others.get("micro_batch_tokens", options.micro_batch_tokens)
    if longest > room:  # of a prompt of one token
        raise InvalidInputError(
            f"a response of up to {longest} tokens (max_new_tokens) behind a prompt does not fit "
            f"micro_batch_tokens={room}: raise it above {longest}, or lower max_new_tokens"
        )


def try_model(path: str = "", *, model: Any = None, device: str = "auto", **others: Any) -> None:
    """The same of a learner whose forward takes rows of any length."""
    require_torch("torch")
    _check_source(path, model)
    if path:
        check_model_directory(Path(path))
    if device not in _ALWAYS_THERE:
        load("the devices of torch", _DEVICES)(device)


@tried_by(try_torch)
@built_by(_BUILDER)
@takes(TorchOptions)
def make_torch(
    path: str = "",
    *,
    name: str = "torch",
    model: Callable[..., Any] | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Learner:
    """A learner from a local model directory, or from a transformers model and a tokenizer built in code."""
    require_torch("torch")
    _check_source(path, model)
    build = load("the builder of torch policies", _BUILDER)
    return cast(Learner, build(path, name=name, model=model, tokenizer=tokenizer, options=options))


def require_torch(learner: str) -> None:
    """Raise with the line that installs it where it is missing."""
    for module in ("torch", "transformers"):
        if find_spec(module) is None:
            raise MissingExtraError.of(f"learner {learner!r} (no module {module!r})", "torch")


def _check_source(path: str, model: object) -> None:
    if bool(path) == (model is not None):
        raise InvalidInputError("give either path, a local model directory, or a model with its tokenizer, not both")
