"""Reasoning tasks with verifiers as a multi-agent environment: `env = mutual_env.make(id, agents=...)`."""

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from mutual_env.errors import MissingExtraError
from mutual_env.lean import is_lean
from mutual_env.types import AgentInfo, Completion, Experience, Group, Lesson, Message, Prompt, Task, Verdict

# A library that needs the types alone, such as the tokenizer bridge, works where these two are not installed.
_ENV_LIBRARIES = ("gymnasium", "pettingzoo")
_MISSING = [name for name in _ENV_LIBRARIES if find_spec(name) is None]
if not _MISSING and not is_lean():
    from mutual_env.envs import (
        Action,
        ClosableSource,
        EnvSpec,
        Observation,
        ReasoningEnv,
        TaskSource,
        VerifierPool,
        VerifierSpec,
        ids,
        make,
        make_from,
        register,
        register_env,
    )

__all__ = [
    "Action",
    "AgentInfo",
    "ClosableSource",
    "Completion",
    "EnvSpec",
    "Experience",
    "Group",
    "Lesson",
    "Message",
    "Observation",
    "Prompt",
    "ReasoningEnv",
    "Task",
    "TaskSource",
    "Verdict",
    "VerifierPool",
    "VerifierSpec",
    "ids",
    "make",
    "make_from",
    "register",
    "register_env",
]


def __getattr__(name: str) -> Any:
    """`__version__` is looked up when it is asked for, so that a checkout on the path needs no installation."""
    if name == "__version__":
        return metadata.version("mutual-env")
    if name in __all__ and _MISSING:
        raise MissingExtraError(f"mutual_env.{name} needs {' and '.join(_MISSING)}: pip install {' '.join(_MISSING)}")
    if name in __all__:
        return getattr(import_module("mutual_env.envs"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
