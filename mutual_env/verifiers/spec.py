"""What a verifier is, and how it is named.

A verifier is named by a `VerifierSpec`, plain data that crosses process boundaries, and built from it where it runs.
The name is a registered one ("numeric"), one of an installed package's entry point in the group `mutual_env.verifiers`,
or "module:attribute".
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from mutual_env.catalogue import Catalogue, load
from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.options import check_options
from mutual_env.types import JSON, Task, Verdict

MAX_CHARS = 16_384
"""Built-in verifiers read the last 16,384 characters of a completion, or the first where the first line is the answer:
an answer stands at an end, and parsers are not linear."""


@runtime_checkable
class Verifier(Protocol):
    """Says whether a text answers a task.

    `verify` returns a `Verdict`; an exception is recorded as a verdict of status `error`. It must not depend on
    anything but its arguments: the pool remembers verdicts. A verifier may also have `warm()`, called once in the
    process that workers are forked from: the place for slow imports. Where rewards may lie outside [0, 1] it says
    `reward_range`, the least and the most that it gives: what peers claim of theirs is held against it.

    It may also say `runs_code`. True: every item has a process of its own, and nothing that is said of it is
    remembered. False: no text makes it run code, its author vouches for that. Where it says nothing, Python itself is
    watched, and the first item that runs code is the last in its process. One that must run code, and decide about what
    came out, is a `ProgramVerifier`: what runs cannot reach what decides.
    """

    @property
    def id(self) -> str:
        """Equal ids mean equal verdicts: name and options."""

    @property
    def inline(self) -> bool:
        """True where `verify` is so cheap and safe on hostile text that no worker process is needed."""

    def verify(self, task: Task, text: str) -> Verdict: ...


@runtime_checkable
class ProgramVerifier(Verifier, Protocol):
    """A verifier in two parts: a function that runs what a model wrote, and a judge that it cannot reach.

    For each item, `question` says in the pool's process what is to be run; `program`, "module:function", is called with
    that in a process of its own, confined; `judge` decides in the pool's process about what came back: a JSON value, or
    that there is none. `verify` is not used by a pool; it may raise.
    """

    @property
    def program(self) -> str: ...

    def question(self, task: Task, text: str) -> JSON: ...

    def judge(self, task: Task, text: str, outcome: Outcome) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a confined function made of one item: its value where `status` is "ok", else None, and why in `detail`."""

    status: Literal["ok", "timeout", "crash", "error"]
    value: JSON = None
    elapsed: float = field(default=0.0, compare=False)
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class VerifierSpec:
    """A verifier as data: a name and options. `id` tells specs apart, in every process."""

    name: str
    kwargs: Mapping[str, JSON] = field(default_factory=dict)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kwargs", dict(self.kwargs))
        object.__setattr__(self, "id", spec_id(self.name, self.kwargs))

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, VerifierSpec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


def spec_id(name: str, kwargs: Mapping[str, JSON]) -> str:
    """`name` alone, or `name{"option":value}` with the options in alphabetical order."""
    try:
        options = json.dumps(kwargs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as cause:
        raise InvalidInputError(f"VerifierSpec.kwargs of {name!r} must be JSON, got {kwargs!r}: {cause}") from cause
    return name if options == "{}" else name + options


_CATALOGUE: Catalogue[str] = Catalogue(
    "verifier",
    "mutual_env.verifiers",
    {
        "exact": "mutual_env.verifiers.exact:Exact",
        "numeric": "mutual_env.verifiers.numeric:Numeric",
        "knights_knaves": "mutual_env.verifiers.islanders:KnightsKnaves",
        "math_verify": "mutual_env.verifiers.mathematics:MathVerify",
        "reasoning_gym": "mutual_env.verifiers.gym_scorer:ReasoningGymScorer",
    },
)


def register(name: str, target: str) -> None:
    """Name a verifier: `target` is the "module:attribute" of a class or function that returns one, because the worker
    processes import it too. A second target for a name is refused."""
    if ":" in name:
        raise InvalidInputError(f"register: the name of a verifier must hold no colon, got {name!r}")
    _CATALOGUE.register(name, target)


def names() -> list[str]:
    """Every registered name, those of installed packages included."""
    return _CATALOGUE.names()


def make(spec: VerifierSpec | str, **kwargs: JSON) -> Verifier:
    """Build the verifier that `spec` names; keyword arguments are its options."""
    wanted = as_spec(spec, **kwargs)
    return build(wanted, target_of(wanted.name))


def as_spec(spec: VerifierSpec | str, **kwargs: JSON) -> VerifierSpec:
    if isinstance(spec, str):
        return VerifierSpec(spec, kwargs)
    return VerifierSpec(spec.name, {**spec.kwargs, **kwargs}) if kwargs else spec


def target_of(name: str) -> str:
    """The "module:attribute" behind a name."""
    return name if ":" in name else _CATALOGUE.target(name)


def build(spec: VerifierSpec, target: str) -> Verifier:
    """The verifier behind `target`, with the spec's options."""
    what = f"verifier {spec.name!r}"
    factory = load(what, target)
    if not callable(factory):
        raise InvalidInputError(
            f"{what}: {target} must be a class or function that returns a verifier, got {factory!r}"
        )
    check_options(what, factory, spec.kwargs, complete=True)
    verifier = factory(**spec.kwargs)
    if not isinstance(verifier, Verifier):
        raise InvalidInputError(
            f"{what}: {target} returned a {type(verifier).__name__}, "
            "which is no verifier: that has `id`, `inline` and `verify`"
        )
    return verifier


def load_function(target: str) -> Callable[[Any], JSON]:
    """The function behind "module:function", to be called in workers with a JSON value."""
    if target.count(":") != 1:
        raise InvalidInputError(f"a function for workers must read 'module:function', got {target!r}")
    function = load(f"function {target!r}", target)
    if not callable(function):
        raise InvalidInputError(f"{target} must be a function of one JSON value, got {function!r:.80}")
    found: Callable[[Any], JSON] = function
    return found


def reward_range_of(verifier: Verifier) -> tuple[float, float] | None:
    """The least and the most that a verifier says that it gives; None: it says nothing."""
    said = getattr(verifier, "reward_range", None)
    if said is None:
        return None
    low, high = map(float, said)
    if not -math.inf < low <= high < math.inf:
        raise InvalidInputError(f"{verifier.id}: reward_range must be two finite numbers, least first, got {said!r}")
    return low, high


def hook(tool: object, name: str) -> Callable[..., Any] | None:
    """What a verifier or a function, or the class that the function is a method of, has of this name to be called."""
    for owner in (tool, getattr(tool, "__self__", None)):
        found: Callable[..., Any] | None = getattr(owner, name, None)
        if found is not None:
            return found
    return None


def require(module: str, what: str, extra: str) -> None:
    """Refuse at once, where the verifier is built, what a worker would otherwise fail on for every item."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError.of(what, extra)
