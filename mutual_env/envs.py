"""The half of the package that needs gymnasium and pettingzoo. Importing it registers every env with PettingZoo."""

from __future__ import annotations

from mutual_env.env import Action, Observation, ReasoningEnv
from mutual_env.registry import ids, make, make_from, register, register_env
from mutual_env.spec import EnvSpec
from mutual_env.tasks.source import ClosableSource, TaskSource
from mutual_env.verifiers import VerifierPool, VerifierSpec

__all__ = [
    "Action",
    "ClosableSource",
    "EnvSpec",
    "Observation",
    "ReasoningEnv",
    "TaskSource",
    "VerifierPool",
    "VerifierSpec",
    "ids",
    "make",
    "make_from",
    "register",
    "register_env",
]
