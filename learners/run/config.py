"""The configuration of a run and of a suite: structured, so that a mistyped key is an error with a remedy.

A file is YAML; `key.path=value` arguments override it; what a file does not say has the default that stands here. The
`options` of an env, a strategy or a learner are theirs to define, and are checked by the part that takes them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from learners.numerics import INSTRUCTIONS, PINNED
from learners.run.names import check_name, check_path
from learners.run.overrides import check_names, forget_options, parsed, update
from learners.run.shipped import nearest
from mutual_env.errors import ConfigError
from mutual_env.options import check_value
from sharing.exchange import registry as exchanges


@dataclass
class EnvConfig:
    """Which tasks, and how many of them a round. `max_turns` and `max_tokens` bound the conversations of a family of
    several turns (null: the family's own bound, no bound), in training and in evaluation. Dynamic sampling, in
    training alone: groups without spread of reward are sampled again up to `refills` times, and then one of so many
    `spare_prompts` is taken for each that is left (`mutual_env.waves`)."""

    id: str = "mutual/arithmetic-v0"
    group_size: int = 8
    prompts_per_round: int = 8
    max_turns: int | None = None
    max_tokens: int | None = None
    refills: int = 0
    spare_prompts: int = 0
    on_unscored: str = "drop"
    unscored_limit: float = 0.05
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LayerConfig:
    """A strategy that another one stands on."""

    strategy: str = "independent"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class SharingConfig:
    """What the policies exchange. `exchange`: sqlite (durable, in the run directory), memory, ray (an actor that other
    processes of the cluster find too, over the same file), or that of another package; `exchange_options` are its own.
    `below`: the strategies that `strategy` stands on, the nearest first, each with its options.
    """

    strategy: str = "independent"
    exchange: str = "sqlite"
    exchange_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    below: list[LayerConfig] = field(default_factory=list)


@dataclass
class PolicyConfig:
    """One learner by its registered name, and its own options."""

    learner: str = "tabular"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationConfig:
    """Held-out accuracy, every so many rounds (0: never), overall and by the task's metadata key `part`. `background`:
    by a twin of each policy, which takes its memory once more, while the run goes on; the same numbers."""

    every: int = 0
    prompts: int = 64
    samples: int = 1
    part: str = ""
    background: bool = False
    options: dict[str, Any] = field(default_factory=lambda: {"split": "eval"})


@dataclass
class CheckpointConfig:
    """A checkpoint every so many rounds (0: only at the end), the last `keep` of them kept. `background`: it is written
    while the run goes on, from a copy of the policies' states in memory."""

    every: int = 10
    keep: int = 2
    background: bool = True


@dataclass
class VerifiersConfig:
    """How far the processes that verify are kept from the machine: process, confined, namespaces or container (null:
    the strongest that this machine can do)."""

    isolation: str | None = None


@dataclass
class RecordConfig:
    """What is kept for reading, at most so many megabytes in a run: half for what was written, half for lessons."""

    megabytes: float = 64.0


@dataclass
class ResourcesConfig:
    """Which executor runs the phases: serial, threads, processes or ray; `options` are its own.

    `mode`: synchronous, or asynchronous, where policies may be as many rounds apart as the strategy's `max_staleness`.
    `devices` says what there is, e.g. "1x2:80" for a node of two GPUs with 80 GiB (empty: this machine). `demands` says
    what a policy takes: {ada: {weights: 2.0e9, offload_seconds: 3, phases: {act: {gpus: 1, seconds: 20}}}}; what it
    leaves out on GPUs is estimated from the model's size, `assumptions` being how long prompts and responses are:
    {prompt_tokens: 200, response_tokens: 2000}.
    `overlap`: in synchronous rounds a policy that has learnt samples the next one while others still learn: the same
    numbers, sooner.
    `own_sampler`: in asynchronous rounds a second copy of each policy samples while that learns: the same numbers.
    `instructions`: avx2, the same digits on all x86-64 of one maker, or native, the widest of this processor.
    `threads`: of the numerical libraries (0: as the environment says). Both are settled as `mutual-env` begins.
    """

    executor: str = "serial"
    mode: str = "synchronous"
    devices: str = ""
    demands: dict[str, Any] = field(default_factory=dict)
    assumptions: dict[str, Any] = field(default_factory=dict)
    patience: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    overlap: bool = True
    own_sampler: bool = False
    instructions: str = PINNED
    threads: int = 0


@dataclass
class RunConfig:
    """One run: a set of policies, a task, a strategy, a seed. `seats`: policies that are not trained, in the seats of a
    family that has some (a judge, a user). `trackers`: who else is told how it goes, by name."""

    name: str = "run"
    seed: int = 0
    rounds: int = 100
    output: str = "runs"
    env: EnvConfig = field(default_factory=EnvConfig)
    sharing: SharingConfig = field(default_factory=SharingConfig)
    policies: dict[str, PolicyConfig] = field(default_factory=dict)
    teachers: dict[str, PolicyConfig] = field(default_factory=dict)
    seats: dict[str, PolicyConfig] = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    verifiers: VerifiersConfig = field(default_factory=VerifiersConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    trackers: list[str] = field(default_factory=list)


@dataclass
class SuiteConfig:
    """The same run in several arms (dotted overrides of `base`), each over the same seeds.

    `processes`: how many runs at a time (0: one for each core). `gpus`: how many GPUs each run takes and sees, where a
    machine has some: a fraction of one, or whole ones; 0: all runs see all; null: 1, or 0 where every policy is
    a table. `totals`: metrics summed over the rounds for the table.
    """

    name: str = "suite"
    output: str = "runs"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    processes: int = 0
    gpus: float | None = None
    totals: list[str] = field(default_factory=list)
    base: RunConfig = field(default_factory=RunConfig)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)


def layers(sharing: SharingConfig) -> list[tuple[str, LayerConfig]]:
    """The strategies of a stack, the outermost first, each with the key at which it stands."""
    below = [(f"sharing.below.{at}", layer) for at, layer in enumerate(sharing.below)]
    return [("sharing", LayerConfig(sharing.strategy, sharing.options)), *below]


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a file and its overrides describe, checked."""
    config = _load(RunConfig, path, overrides)
    assert isinstance(config, RunConfig)
    check_run(config)
    return config


def load_suite(path: Path, overrides: Sequence[str] = ()) -> SuiteConfig:
    """The suite that a file and its overrides describe, every arm of it checked."""
    config = _load(SuiteConfig, path, overrides)
    assert isinstance(config, SuiteConfig)
    if not config.arms or not config.seeds:
        missing = "arms" if not config.arms else "seeds"
        raise ConfigError(f"{path}: `{missing}` is empty: a suite compares at least one arm over at least one seed")
    check_path("name", config.name)
    check_value("seeds", config.seeds, Sequence[int])
    check_value("totals", config.totals, Sequence[str])
    if config.processes < 0 or not 0 <= (config.gpus or 0) <= 64:
        raise ConfigError(
            f"processes must be at least 0 and gpus lie between 0 and 64, got {config.processes} and {config.gpus}"
        )
    twice = [seed for seed in config.seeds if config.seeds.count(seed) > 1]
    if twice:
        raise ConfigError(f"{path}: seed {twice[0]} stands twice in `seeds`: its runs would be one and the same")
    base = OmegaConf.structured(config.base)  # its copies take a sixth of the time
    for arm in config.arms:
        check_name("the arm", str(arm))
        check_run(_arm_config(config, arm, config.seeds[0], deepcopy(base)))
    return config


def arm_config(suite: SuiteConfig, arm: str, seed: int) -> RunConfig:
    """The run of one arm under one seed."""
    return _arm_config(suite, arm, seed, OmegaConf.structured(suite.base))


def _arm_config(suite: SuiteConfig, arm: str, seed: int, config: DictConfig) -> RunConfig:
    """`config`: the suite's base, which becomes the arm's."""
    name = f"{suite.name}/{arm}/seed_{seed}"
    overrides = {**suite.arms[arm], "name": name, "seed": seed, "output": suite.output}
    for key, value in overrides.items():
        update(config, key, value, where=f"arms.{arm}")
    run = _to_object(config)
    assert isinstance(run, RunConfig)
    return run


def changed(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The same run with dotted overrides, checked."""
    structured = OmegaConf.structured(config)
    _override(structured, overrides)
    run = _to_object(structured)
    assert isinstance(run, RunConfig)
    check_run(run)
    return run


def to_yaml(config: RunConfig | SuiteConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(as_mapping(config)))


def as_mapping(config: RunConfig | SuiteConfig) -> dict[str, Any]:
    """The resolved configuration as plain values. A configuration that was read has the types that it declares, and
    OmegaConf takes a hundred times as long to find that out again."""
    return asdict(config)


def is_suite(path: Path) -> bool:
    """Whether a file describes a suite: only a suite has arms."""
    return "arms" in _read(path)


_MANY = 1_000_000
_BOUNDS: dict[str, tuple[float, float]] = {
    "rounds": (0, math.inf),
    "env.group_size": (1, _MANY),
    "env.prompts_per_round": (1, _MANY),
    "env.refills": (0, _MANY),
    "env.spare_prompts": (0, _MANY),
    "env.max_turns": (1, _MANY),
    "env.max_tokens": (1, math.inf),
    "evaluation.every": (0, math.inf),
    "evaluation.prompts": (1, _MANY),
    "evaluation.samples": (1, _MANY),
    "checkpoint.every": (0, math.inf),
    "checkpoint.keep": (1, math.inf),
    "record.megabytes": (0, math.inf),
    "resources.threads": (0, _MANY),
}
"""Least and most of each number; what a round or an evaluation holds at once is bounded, or a slip of the finger would
have the machine work for hours before it says no."""


def check_run(config: RunConfig) -> None:
    """What types alone cannot say."""
    if not config.policies:
        raise ConfigError("policies is empty: name at least one, e.g. policies.policy_0.learner=tabular")
    check_path("name", config.name)
    check_value("trackers", config.trackers, Sequence[str])  # what stands in a list is not checked where it is merged
    for kind, names in (("the policy", config.policies), ("the teacher", config.teachers), ("the seat", config.seats)):
        for name in names:
            check_name(kind, str(name))
    if "\0" in config.output:
        raise ConfigError(f"output {config.output!r} holds a NUL character: no path does")
    for name, (least, most) in _BOUNDS.items():
        value = operator.attrgetter(name)(config)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
        if value is not None and value > most:
            raise ConfigError(f"{name} must be at most {most:,}, got {value:,}: no machine holds more at once")
    for name, choice, allowed in (
        ("sharing.exchange", config.sharing.exchange, exchanges.names()),
        ("resources.mode", config.resources.mode, ("synchronous", "asynchronous")),
        ("resources.instructions", config.resources.instructions, INSTRUCTIONS),
        ("env.on_unscored", config.env.on_unscored, ("drop", "zero", "raise")),
    ):
        if choice not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {choice!r}")
    both = sorted(set(config.policies) & set(config.teachers))
    if both:
        raise ConfigError(f"teachers.{both[0]} is also a policy: a policy teaches by its own name, with no entry here")


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        near = nearest(path)
        raise ConfigError(f"no configuration file {path}{f': did you mean {near}?' if near else ''}")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # a boundary: whatever the YAML parser says, the person wants the file and the place
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path} must hold a mapping of keys to values, got a list")
    return loaded


def _load(schema: type[Any], path: Path, overrides: Sequence[str]) -> Any:
    config = OmegaConf.structured(schema)
    content = OmegaConf.to_container(_read(path))
    assert isinstance(content, dict)
    for key, value in content.items():
        update(config, str(key), value, where=str(path))
    _override(config, overrides)
    return _to_object(config)


def _override(config: DictConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        key, value = parsed(override)
        if isinstance(value, dict):
            forget_options(config, key)
        check_names(config, key)
        update(config, key, value, where="the command line")


def _to_object(config: DictConfig) -> Any:
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
