"""Reasoning tasks with verifiers as a multi-agent environment: `env = mutual_env.make(id, agents=...)`."""

from importlib import metadata
from importlib.util import find_spec

from mutual_env.errors import MissingExtraError
from mutual_env.types import AgentInfo, Completion, Experience, Group, Lesson, Message, Prompt, Task, Verdict

# A library that needs the types alone, such as the tokenizer bridge, works where these two are not installed.
_ENV_LIBRARIES = ("gymnasium", "pettingzoo")
_MISSING = [name for name in _ENV_LIBRARIES if find_spec(name) is None]
if not _MISSING:
    from mutual_env.env import Action, Observation, ReasoningEnv
    from mutual_env.registry import ids, make, make_from, register, register_env
    from mutual_env.spec import EnvSpec
    from mutual_env.tasks.source import ClosableSource, TaskSource
    from mutual_env.verifiers import VerifierPool, VerifierSpec

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


def __getattr__(name: str) -> str:
    """`__version__` is looked up when it is asked for, so that a checkout on the path needs no installation."""
    if name == "__version__":
        return metadata.version("mutual-env")
    if name in __all__:
        raise MissingExtraError(f"mutual_env.{name} needs {' and '.join(_MISSING)}: pip install {' '.join(_MISSING)}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
