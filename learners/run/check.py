"""`--dry-run`: whether a configuration would run, found out without building what is slow to build."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from learners import registry
from learners.resources import Supply
from learners.run import trackers
from learners.run.build import learner_options
from learners.run.config import PolicyConfig, RunConfig, layers
from learners.run.envs import Envs
from learners.run.loop import TaskEnv
from learners.run.places import Places, read_places
from mutual_env.errors import InvalidInputError, MissingExtraError, UnknownNameError, WrongPathError
from mutual_env.types import Prompt
from mutual_env.verifiers.pool.isolation import choose, level_named
from sharing.exchange import InMemoryExchange
from sharing.exchange import registry as exchanges

_NAMED = (InvalidInputError, UnknownNameError, MissingExtraError)


def check(config: RunConfig, *, here: bool = True, supply: Supply | None = None) -> Places:
    """Raise a sentence where a part does not take what the configuration gives it. Where its policies would live.

    `here`: on this machine, so what it names (models, tokenizers, devices, packages, the place to write) must be there.
    `supply`: other machines than it names.
    """
    for kind, policies in (("policies", config.policies), ("teachers", config.teachers), ("seats", config.seats)):
        for name, policy in policies.items():
            with _said_of(f"{kind}.{name}"):
                _check_learner(name, policy, config.seed, here=here)
    _check_apart(config.policies)
    places = read_places(config, supply)
    _check_names(config)
    with _said_of("sharing.exchange_options"):
        exchanges.check_options(config.sharing.exchange, config.sharing.exchange_options)
    trackers.check(config.trackers)
    with _said_of("verifiers.isolation"):
        _check_isolation(config.verifiers.isolation, here=here)
    _check_envs(config, places)
    if here:
        check_place(Path(config.output) / config.name)
    return places


def check_place(path: Path, named: str = "output") -> None:
    """Whether a directory could be made there. Nothing stays. `named`: where the caller says it."""
    try:
        nearest = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
        with tempfile.TemporaryDirectory(prefix=".mutual-env-", dir=nearest):
            pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise WrongPathError(f"{named}: {path} cannot be written to ({why}): choose another") from error


def _check_learner(name: str, policy: PolicyConfig, seed: int, *, here: bool) -> None:
    if here:
        registry.check(policy.learner, learner_options(name, policy, seed))
    else:
        registry.check_options(policy.learner, {k: v for k, v in policy.options.items() if k != "tokenizer"})


def _check_isolation(level: str | None, *, here: bool) -> None:
    if level is not None:
        choose(level) if here else level_named(level)


def _check_apart(policies: Mapping[str, PolicyConfig]) -> None:
    """Policies that would write their weights over one another's."""
    owners: dict[str, str] = {}
    for name, policy in policies.items():
        for place in registry.overwritten(policy.learner, policy.options):
            owner = owners.setdefault(place, name)
            if owner != name:
                raise InvalidInputError(
                    f"policies.{owner} and policies.{name} both put their weights into {place}, and each would sample "
                    "with the other's: give each one of its own"
                )


def _check_names(config: RunConfig) -> None:
    """Policies that the strategy's options name."""
    everybody = (*config.policies, *config.teachers)
    for where, layer in layers(config.sharing):
        teacher, frozen = layer.options.get("teacher"), layer.options.get("agents")
        if isinstance(teacher, str) and teacher not in everybody:
            raise UnknownNameError.of(f"{where}.options.teacher", teacher, everybody)
        for name in frozen if isinstance(frozen, (list, tuple)) else ():
            _known(f"policy in {where}.options.agents", name, config)
        for name in _named_peers(layer.options.get("peers")):
            _known(f"policy in {where}.options.peers", name, config)


def _known(what: str, name: object, config: RunConfig) -> None:
    if not (isinstance(name, str) and name in config.policies):
        raise UnknownNameError.of(what, name, config.policies)


def _named_peers(peers: object) -> list[object]:
    """Readers and authors; what has another form is refused where the strategy is made. An exchange of another package
    may have further authors; in a run of its own there are none, and a name that is wrong would be heard by nobody."""
    if isinstance(peers, Mapping):
        return [*peers, *(name for names in peers.values() for name in _named_peers(names))]
    return list(peers) if isinstance(peers, (list, tuple)) else []


def _check_envs(config: RunConfig, places: Places) -> None:
    """Made, and asked for their first round: only that shows whether there are as many tasks as are asked for."""
    envs = Envs.of(config, apart=places.apart, seats=dict.fromkeys(config.seats, _silent))
    with ExitStack() as stack:
        with _said_of(""):
            shared = envs.shared(envs.together()[0], InMemoryExchange())
        stack.callback(shared.close)
        with _said_of("env"):
            _draw(shared, config.seed)
        with _said_of("evaluation"):
            held_out = envs.held_out(envs.policies)
        if held_out is not None:
            stack.callback(held_out.close)
            with _said_of(f"evaluation.prompts={config.evaluation.prompts}"):
                _draw(held_out, config.seed)


def _silent(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """Sits in a seat while nobody is asked."""
    return [""] * len(prompts)


def _draw(env: TaskEnv, seed: int) -> None:
    env.reset(seed=seed, options={"round": 0})


@contextmanager
def _said_of(where: str) -> Iterator[None]:
    """The key of the configuration before what its part says."""
    try:
        yield
    except _NAMED as error:
        if not where:
            raise
        raise type(error)(f"{where}: {error}") from error
