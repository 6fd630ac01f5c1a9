"""The arguments of vLLM's engine: which there are, and of what type, as the installed version says itself."""

from __future__ import annotations

import importlib
import inspect
import os
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin

from mutual_env.errors import ConfigError, MissingExtraError, UnknownNameError
from mutual_env.options import check_value

_PLAIN = (bool, int, float, str, type(None))


def import_vllm() -> Any:
    """vLLM, with its usage reports to the internet off unless the environment says otherwise."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise MissingExtraError.of("the vLLM sampler", "vllm") from error


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise where vLLM has no such argument, or takes another type. Nothing is loaded for that but vLLM itself."""
    known = _known() if given else {}
    for name, value in given.items():
        if name not in known:
            raise UnknownNameError.of("argument of vLLM's engine", name, known)
        check_value(f"engine.{name}", value, known[name])


@contextmanager
def refused() -> Iterator[None]:
    """What vLLM, or pydantic for it, says of an argument that it does not take, without a traceback."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"vLLM refused what its engine was to be started with: {_said(error)}. Correct `engine`"
        ) from error
    except RuntimeError as error:  # of its engine process, which has written down why and ended
        raise ConfigError(
            f"vLLM's engine did not start ({error}): what it has logged above says why. Where that is memory, change "
            "gpu_memory_utilization, kv_cache_memory_bytes or max_model_len in `engine`"
        ) from error


def _known() -> dict[str, Any]:
    """Name -> type; Any where a configuration cannot hold all that it may be: then vLLM says what it takes."""
    vllm = import_vllm()
    signature = inspect.signature(vllm.LLM).parameters.values()
    known: dict[str, Any] = {one.name: Any for one in signature if one.kind is not one.VAR_KEYWORD}
    for field in fields(vllm.EngineArgs):
        hint = Union[field.type, None] if field.default is None else field.type  # noqa: UP007  (of a value)
        known[field.name] = hint if _is_plain(hint) else Any
    return known


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return all(map(_is_plain, get_args(hint)))
    return hint in _PLAIN or get_origin(hint) is Literal


def _said(error: Exception) -> str:
    """What is wrong with which argument, where pydantic lists it; else the error's own words."""
    listed = getattr(error, "errors", None)
    return "; ".join(map(_problem, listed())) if callable(listed) else str(error)


def _problem(found: Mapping[str, Any]) -> str:
    where, what = ".".join(map(str, found["loc"])), str(found["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}, got {found['input']!r}" if where else what
