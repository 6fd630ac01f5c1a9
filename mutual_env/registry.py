"""`make`, `register` and `ids`, over PettingZoo's own registry: `pettingzoo.make("parallel", id)` finds every id too.

Third parties add theirs without a line of code here, by an entry point of their distribution:

    [project.entry-points."mutual_env.tasks"]
    "acme/riddles-v0" = "acme_riddles:RiddleTasks"       # a TaskSource class, made with the options given to `make`

    [project.entry-points."mutual_env.envs"]
    "acme/arena-v0" = "acme_arena:parallel_env"          # a whole ParallelEnv, made with all arguments of `make`
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeAlias, cast

import pettingzoo
from pettingzoo.env_registry.exceptions import PettingZooRegistryError

from mutual_env import interaction, verifiers
from mutual_env.catalogue import load, place_of
from mutual_env.env import ReasoningEnv
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.interaction import Speaker
from mutual_env.options import check_options, check_value
from mutual_env.spaces import MAX_CHARS
from mutual_env.spec import EnvSpec, agent_names
from mutual_env.tasks.arithmetic import ArithmeticTasks
from mutual_env.tasks.dataset_rows import DatasetTasks
from mutual_env.tasks.knights import KnightsKnavesTasks
from mutual_env.tasks.letters import LettersTasks
from mutual_env.tasks.math_rows import MathTasks
from mutual_env.tasks.reasoning_gym import ReasoningGymTasks
from mutual_env.tasks.reasoning_gym_names import DATASET_NAMES
from mutual_env.tasks.source import InteractiveSource, TaskSource
from mutual_env.turns import ConversationEnv
from mutual_env.types import JSON
from mutual_env.verifiers import UnscoredPolicy, VerifierPool, VerifierSpec
from mutual_env.verifiers.spec import as_spec

SourceFactory: TypeAlias = str | Callable[..., TaskSource]


def make(
    id: str,
    *,
    agents: int | Sequence[str] = 2,
    group_size: int = 8,
    prompts_per_round: int = 8,
    seed: int = 0,
    verifier: VerifierSpec | str | Mapping[str, Any] | None = None,
    pool: VerifierPool | None = None,
    on_unscored: UnscoredPolicy = "drop",
    unscored_limit: float = 0.05,
    max_chars: int = MAX_CHARS,
    max_turns: int | None = None,
    max_tokens: int | None = None,
    seats: Mapping[str, Speaker] | None = None,
    **task_kwargs: Any,
) -> ReasoningEnv:
    """An env of a registered task family.

    agents             how many (`policy_0`, `policy_1`, ...), or their names
    group_size         completions for each prompt
    prompts_per_round  tasks of one round
    seed               of the task stream: envs of the same seed draw the same tasks, whoever acts in them
    verifier           what checks the answers: a name, a spec, or `name` and `kwargs`; None: the family's own
    pool               the verifier processes to use; None: the env owns some, started when first needed
    on_unscored        what becomes of a completion without a verdict: "drop", "zero", "raise"
    unscored_limit     the share of a round that may go unscored before `step` raises
    max_chars          the longest completion that `step` accepts
    max_turns          where an episode has several turns: how often an agent writes, at most (None: the family's own)
    max_tokens         likewise: a conversation is cut once so many tokens were written in it
    seats              who sits in the seats of a family that has some (a judge, a user): see `learners.seated`
    task_kwargs        `prompt`, the fields of a `PromptShape`, and the family's own options, such as `split="eval"`
    """
    options = {
        "agents": agents, "group_size": group_size, "prompts_per_round": prompts_per_round, "seed": seed,
        "verifier": verifier, "pool": pool, "on_unscored": on_unscored, "unscored_limit": unscored_limit,
        "max_chars": max_chars, "max_turns": max_turns, "max_tokens": max_tokens,
        **({"seats": seats} if seats else {}),  # envs of other packages need not know of them
    }  # fmt: skip
    return cast(ReasoningEnv, pettingzoo.make("parallel", _registered(id), **options, **task_kwargs))


def _registered(id: str) -> Any:
    try:
        return pettingzoo.spec("parallel", id)
    except PettingZooRegistryError:
        raise UnknownNameError.of("env id", id, ids() or pettingzoo.parallel_registry) from None


def make_from(
    spec: EnvSpec, *, pool: VerifierPool | None = None, seats: Mapping[str, Speaker] | None = None
) -> ReasoningEnv:
    """The env that `spec` describes, e.g. one read back by `EnvSpec.from_json`."""
    options: dict[str, Any] = {n: getattr(spec, n) for n in spec.__dataclass_fields__ if n not in ("id", "task")}
    return make(spec.id, pool=pool, seats=seats, **options | dict(spec.task))


def register(id: str, source: SourceFactory, **defaults: JSON) -> None:
    """Make a task family known as `id`. `source` is a `TaskSource` class (or any callable that returns one), or
    "module:attribute" of it, imported when an env is made; `defaults` are options that it is made with."""
    _register(id, build, {**defaults, "env_id": id, "task_source": source})


def register_env(id: str, entry_point: str | Callable[..., Any], **defaults: JSON) -> None:
    """Make a whole env known as `id`: a callable that takes the arguments of `make` and returns a ParallelEnv."""
    _register(id, entry_point, dict(defaults))


def source_of(id: str, **task_kwargs: Any) -> TaskSource:
    """The tasks of a registered family alone, without an env."""
    try:
        registered = pettingzoo.spec("parallel", id).kwargs
    except PettingZooRegistryError:
        raise UnknownNameError.of("task family", id, ids()) from None
    if "task_source" not in registered:
        raise InvalidInputError(f"{id} is registered as a whole env: only a family of tasks can be asked for its tasks")
    defaults = {k: v for k, v in registered.items() if k not in ("env_id", "task_source")}
    factory = _factory(id, registered["task_source"], {**defaults, **task_kwargs})
    return factory(**{**defaults, **task_kwargs})


def target(id: str) -> str | Callable[..., Any]:
    """The task family behind an id, or whatever makes its env, not yet imported."""
    spec = _registered(id)
    found: str | Callable[..., Any] = spec.kwargs.get("task_source", spec.entry_point)
    return found


def ids() -> list[str]:
    """The ids of all registered task families and envs of ours and of installed plug-ins."""
    return sorted(pettingzoo.parallel_registry.keys() - _PETTINGZOO_IDS)


def build(
    *,
    env_id: str,
    task_source: SourceFactory,
    agents: int | Sequence[str] = 2,
    verifier: VerifierSpec | str | Mapping[str, Any] | None = None,
    pool: VerifierPool | None = None,
    group_size: int = 8,
    prompts_per_round: int = 8,
    seed: int = 0,
    on_unscored: UnscoredPolicy = "drop",
    unscored_limit: float = 0.05,
    max_chars: int = MAX_CHARS,
    max_turns: int | None = None,
    max_tokens: int | None = None,
    prompt: Mapping[str, JSON] | None = None,
    seats: Mapping[str, Speaker] | None = None,
    **task_kwargs: Any,
) -> ReasoningEnv:
    """What the registry calls to make an env of a task family."""
    factory = _factory(env_id, task_source, task_kwargs)
    source = factory(**task_kwargs)
    checked_by = source.verifier if verifier is None else _verifier_spec(verifier)
    verifiers.make(checked_by)  # a wrong name or option is refused here, not in the first round
    spec = EnvSpec(
        id=env_id,
        verifier=checked_by,
        agents=agent_names(agents),
        group_size=group_size,
        prompts_per_round=prompts_per_round,
        seed=seed,
        on_unscored=on_unscored,
        unscored_limit=unscored_limit,
        max_chars=max_chars,
        max_turns=max_turns,
        max_tokens=max_tokens,
        prompt=prompt or {},
        task=task_kwargs,
    )
    return _env(spec, source, pool, seats or {})


def _factory(id: str, source: SourceFactory, options: Mapping[str, Any]) -> Callable[..., TaskSource]:
    """What makes the family's tasks, once it is known to take these options."""
    factory = load(id, source) if isinstance(source, str) else source
    check_options(id, factory, options, also=inspect.signature(build).parameters.keys() - _BUILT_WITH, complete=True)
    return factory


def _env(spec: EnvSpec, source: TaskSource, pool: VerifierPool | None, seats: Mapping[str, Speaker]) -> ReasoningEnv:
    """Of several turns where the source has an interaction."""
    if isinstance(source, InteractiveSource):
        return ConversationEnv(spec, source, interaction.make(source.interaction), pool, seats)
    if seats:
        raise InvalidInputError(
            f"{spec.id} has no seats, got {sorted(seats)}: e.g. mutual/judged-v0 with family=... has"
        )
    for what in ("max_turns", "max_tokens"):
        if getattr(spec, what) is not None:
            raise InvalidInputError(
                f"{spec.id}: {what}={getattr(spec, what)} bounds conversations, and an episode of this family ends "
                "after one turn: leave it out, or wrap the family, e.g. mutual/retries-v0 with family=..."
            )
    return ReasoningEnv(spec, source, pool)


def _verifier_spec(given: VerifierSpec | str | Mapping[str, Any]) -> VerifierSpec:
    if isinstance(given, (str, VerifierSpec)):
        return as_spec(given)
    check_value("verifier", given, Mapping[str, Any])
    if "name" not in given or given.keys() - {"name", "kwargs"}:
        raise InvalidInputError(f"verifier must be a name, or have a 'name' and perhaps 'kwargs', got {dict(given)!r}")
    check_value("verifier.name", given["name"], str)
    check_value("verifier.kwargs", given.get("kwargs", {}), Mapping[str, Any])
    return VerifierSpec(given["name"], given.get("kwargs", {}))


def _register(id: str, entry_point: str | Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """The same can be registered again, as in a `Catalogue`: by an entry point and by its own tests, say."""
    held = pettingzoo.parallel_registry.get(id)
    if held is not None:
        if _as_registered(held.entry_point, held.kwargs) != _as_registered(entry_point, kwargs):
            raise InvalidInputError(f"the env id {id!r} is taken: choose another, or raise its version number")
        del pettingzoo.parallel_registry[id]
    try:
        pettingzoo.register("parallel", id, entry_point=entry_point, kwargs=kwargs)
    except PettingZooRegistryError as e:
        raise InvalidInputError(f"the env id {id!r} is malformed: write 'namespace/name-v0' ({e})") from e


def _as_registered(entry_point: Any, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What it is, and what it is made with; a thing by where it is defined."""
    task = {"task_source": place_of(kwargs["task_source"])} if "task_source" in kwargs else {}
    return place_of(entry_point), {**kwargs, **task}


def _register_all() -> None:
    register("mutual/arithmetic-v0", ArithmeticTasks)
    register("mutual/letters-v0", LettersTasks)
    register("math/jsonl-v0", MathTasks)
    register("dataset/jsonl-v0", DatasetTasks)
    register("logic/knights-knaves-v0", KnightsKnavesTasks)
    register("mutual/guess-v0", "mutual_env.tasks.guess:GuessTasks")
    register("mutual/undercut-v0", "mutual_env.tasks.undercut:UndercutTasks")
    register("mutual/retries-v0", "mutual_env.tasks.retries:RetryTasks")
    register("mutual/calculator-v0", "mutual_env.tasks.tools:CalculatorTasks")
    register("mutual/python-v0", "mutual_env.tasks.python_tool:PythonTasks")
    register("mutual/judged-v0", "mutual_env.tasks.seats:JudgedTasks")
    register("mutual/user-v0", "mutual_env.tasks.seats:UserTasks")
    register("mutual/curriculum-v0", "mutual_env.tasks.curriculum:CurriculumTasks")
    register("mutual/debate-v0", "mutual_env.tasks.debate:DebateTasks")
    for name in DATASET_NAMES:
        register(f"reasoning_gym/{name}-v0", ReasoningGymTasks, dataset=name)
    for group, add in (("mutual_env.tasks", register), ("mutual_env.envs", register_env)):
        for point in entry_points(group=group):
            try:
                add(point.name, point.value)
            except InvalidInputError as e:  # somebody else's mistake must not keep this package from being imported
                warnings.warn(f"entry point {point.name!r} of the group {group!r} is left out: {e}", stacklevel=2)


_BUILT_WITH = frozenset(("env_id", "task_source", "task_kwargs"))  # of `build`, and no options of `make`
_PETTINGZOO_IDS = frozenset(pettingzoo.parallel_registry)
_register_all()
