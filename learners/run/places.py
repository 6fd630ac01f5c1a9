"""A run's `resources` section, read once: who runs on what, how long anybody waits, how far apart policies may be."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from learners import registry
from learners.resources import (
    Demand,
    Executor,
    Needs,
    Patience,
    ProcessExecutor,
    RayExecutor,
    SerialExecutor,
    Span,
    Supply,
    ThreadExecutor,
    UsageRecord,
)
from learners.resources.cards import cards
from learners.resources.demand import even_share
from learners.resources.estimate import Estimate
from learners.resources.limits import Limits
from learners.resources.plan import parse_devices
from learners.run.config import PolicyConfig, ResourcesConfig, RunConfig, SharingConfig, layers
from learners.run.estimates import can_use_gpus, check_assumptions, estimated, gpus_of
from mutual_env.errors import ConfigError, InvalidInputError, UnknownNameError
from mutual_env.options import check_options, check_value

T = TypeVar("T")

_EXECUTORS: dict[str, Callable[..., Executor]] = {
    "serial": SerialExecutor,
    "threads": ThreadExecutor,
    "processes": ProcessExecutor,
    "ray": RayExecutor,
}
_ASIDE = ("threads", "processes")  # executors under which a policy may have a twin
_MOST = 4096
_SETTLED = frozenset({"policy", "spreads"})  # of a demand, what its place and its policy's learner say
_GIVEN = ("demands", "supply", "patience", "clock")  # what an executor takes that is no option of the configuration


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run's policies live.

    `options` are the executor's own. `demands`: one for each policy. `staleness`: by how many rounds policies may be
    apart; 0 in synchronous rounds. `timed`: the (policy, phase) of which it is known how long they take; `estimates`
    where that follows from a model's size. `declared`: whether the configuration says what machines there are. `twins`:
    what those take beside, who evaluate in the background or sample while their policy learns.
    """

    executor: str
    options: Mapping[str, Any]
    supply: Supply
    demands: tuple[Demand, ...]
    patience: Patience
    staleness: int
    timed: frozenset[tuple[str, str]]
    estimates: Mapping[str, Estimate]
    declared: bool = False
    twins: tuple[Demand, ...] = ()

    @property
    def apart(self) -> bool:
        """Whether each policy has a loop and an env of its own, as in asynchronous rounds."""
        return self.staleness > 0

    @property
    def overlaps(self) -> bool:
        """Whether synchronous rounds may overlap: policies compute side by side."""
        return not self.apart and self.executor != "serial"

    @property
    def stall_limit(self) -> float:
        """Seconds after which a half round cannot be going on any more: its two leases, waited for and held to the
        last."""
        limits = Limits({demand.policy: demand for demand in self.demands}, self.patience)
        return 2 * (self.patience.limit + limits.longest_lease(self.demands))

    def start(self) -> Executor:
        """The executor, told what each policy takes and what there is."""
        if self.executor == "serial":
            return SerialExecutor()
        shared: dict[str, Any] = {"demands": (*self.demands, *self.twins), "patience": self.patience}
        if self.executor != "ray":  # a cluster knows its own machines
            self._require_gpus()
            shared["supply"] = self.supply
        return _EXECUTORS[self.executor](**shared, **self.options)

    def _require_gpus(self) -> None:
        there = len(cards())
        if self.declared and self.supply.gpus > there:
            raise ConfigError(
                f"resources.devices names {self.supply.gpus} GPUs, and this machine shows {there}: leave it empty for "
                "what there is, or use `mutual-env plan` to lay the run out without running it"
            )

    def as_measured(self, spans: Iterable[Span]) -> Places:
        """With the seconds that each phase took in a run, and without phases that it never leased. A policy that was
        not in that run stays as it is."""
        record = UsageRecord()
        for span in spans:
            record.add(span)
        measured = record.phase_seconds()
        return dataclasses.replace(
            self,
            demands=tuple(_measured(demand, measured) for demand in self.demands),
            timed=self.timed | measured.keys(),
            estimates={} if measured else self.estimates,
        )

    def misfits(self) -> list[str]:
        """What is estimated to need more than a GPU has, where the configuration does not say what it needs."""
        told = [
            found.misfit(d.policy, [p for p in found.peaks if p in d.phases and d.phases[p].memory == found.memory[p]])
            for d in self.demands
            if (found := self.estimates.get(d.policy)) is not None
        ]
        return [sentence for sentence in told if sentence]

    def untimed(self) -> list[str]:
        """The phases of which neither the configuration nor a run says how long they take, as "policy/phase"."""
        return [
            f"{d.policy}/{phase}" for d in self.demands for phase in d.phases if (d.policy, phase) not in self.timed
        ]


def read_places(config: RunConfig, supply: Supply | None = None) -> Places:
    """The section as a value; what makes no sense is refused before anything is started. `supply`: other machines than
    it names."""
    resources, policies = config.resources, list(config.policies)
    _check_executor(resources)
    _check_background(config)
    _check_demands(resources.demands, policies)
    check_assumptions(resources.assumptions)
    supply = supply or (parse_devices(resources.devices) if resources.devices else Supply.local())
    estimates = {
        name: found
        for name, policy in config.policies.items()
        if (found := estimated(policy, config.env, supply, resources.assumptions)) is not None
    }
    demands = tuple(_demands(config, supply, estimates))
    places = Places(
        executor=resources.executor,
        options=resources.options,
        supply=supply,
        demands=demands,
        patience=_make(Patience, resources.patience, "patience"),
        staleness=_staleness(config.sharing, policies) if resources.mode == "asynchronous" else 0,
        timed=frozenset(_timed(resources.demands, estimates)),
        estimates=estimates,
        declared=bool(resources.devices),
        twins=tuple(_twin(demand, called) for called in twins(config) for demand in demands),
    )
    if config.sharing.exchange == "ray" and resources.executor != "ray":
        raise ConfigError(
            f"sharing.exchange=ray needs resources.executor=ray, got {resources.executor!r}: it lives on that cluster"
        )
    return places


def _check_executor(resources: ResourcesConfig) -> None:
    if resources.executor not in _EXECUTORS:
        raise UnknownNameError.of("resources.executor", resources.executor, _EXECUTORS)
    what, factory = f"executor {resources.executor!r}", _EXECUTORS[resources.executor]
    for option in resources.options:
        if option in _GIVEN or option not in inspect.signature(factory).parameters:
            raise UnknownNameError.of(
                f"option of {what}", option, inspect.signature(factory).parameters.keys() - set(_GIVEN)
            )
    check_options(what, factory, resources.options)
    for option in ("threads", "keep"):
        value = resources.options.get(option, 1)
        if not 1 <= value <= _MOST:
            raise ConfigError(f"resources.options.{option} must lie between 1 and {_MOST}, got {value}")


def evaluates_aside(config: RunConfig) -> bool:
    """Whether evaluations are made by twins of the policies while the run goes on."""
    return config.evaluation.background and config.evaluation.every > 0


def twin_of(policy: str) -> str:
    """What the executor calls who evaluates for the policy; no policy is called so."""
    return f"{policy} (evaluation)"


def sampler_of(policy: str) -> str:
    """What the executor calls who samples for the policy while that learns; no policy is called so."""
    return f"{policy} (sampler)"


def twins(config: RunConfig) -> list[Callable[[str], str]]:
    """What those are called that each policy has beside."""
    there = ((twin_of, evaluates_aside(config)), (sampler_of, config.resources.own_sampler))
    return [called for called, is_there in there if is_there]


def _twin(demand: Demand, called: Callable[[str], str]) -> Demand:
    """It samples, and does nothing else."""
    needs = demand.phases.get("act") or next(iter(demand.phases.values()))
    return dataclasses.replace(demand, policy=called(demand.policy), phases={"act": needs})


def _check_background(config: RunConfig) -> None:
    if evaluates_aside(config) and config.resources.executor not in _ASIDE:
        raise ConfigError(
            f"evaluation.background needs resources.executor={' or '.join(_ASIDE)}, got "
            f"{config.resources.executor!r}: set one of them, or leave evaluation.background out"
        )
    resources = config.resources
    if resources.own_sampler and (resources.executor not in _ASIDE or resources.mode != "asynchronous"):
        raise ConfigError(
            f"resources.own_sampler needs resources.mode=asynchronous and resources.executor={' or '.join(_ASIDE)}, "
            f"got {resources.mode!r} and {resources.executor!r}: set them, or leave it out"
        )
    for key in [key for key, is_asked in _copies(config).items() if is_asked]:
        for name, policy in config.policies.items():
            _check_copied(key, name, policy)


def _copies(config: RunConfig) -> dict[str, bool]:
    """By the key that asks for copies of the policies: whether it does."""
    return {"evaluation.background": evaluates_aside(config), "resources.own_sampler": config.resources.own_sampler}


def _check_copied(key: str, name: str, policy: PolicyConfig) -> None:
    option = registry.shared(policy.learner, policy.options)
    if option is not None:
        raise ConfigError(
            f"{key}: a copy of {name} would sample with {option} {policy.options[option]!r} too, where {name} puts its "
            f"own weights meanwhile. Leave {option} out, so that each has an engine of its own, or leave {key} out"
        )


def _check_demands(demands: Mapping[Any, Any], policies: Collection[str]) -> None:
    for policy, spec in demands.items():
        if policy not in policies:
            raise UnknownNameError.of("policy in resources.demands", policy, policies)
        check_value(f"resources.demands.{policy}", spec, Mapping[str, Any])
        check_value(f"resources.demands.{policy}.phases", spec.get("phases", {}), Mapping[str, Mapping[str, Any]])


def _staleness(sharing: SharingConfig, policies: Collection[str]) -> int:
    """The bound of asynchronous rounds: the `max_staleness` of the strategy."""
    options = sharing.options
    bound = options.get("max_staleness")
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
        given = f"{bound!r}" if "max_staleness" in options else "none"
        raise ConfigError(
            f"resources.mode=asynchronous takes its bound from the strategy, and {sharing.strategy!r} is given {given}"
            ": set sharing.options.max_staleness to how many rounds old what is learnt from may be (1 or more), or "
            "resources.mode=synchronous"
        )
    for where, layer in layers(sharing):
        if (teacher := layer.options.get("teacher")) in policies:
            raise ConfigError(
                f"{where}.options.teacher={teacher} is a policy in training, whose weights at a given moment nobody "
                "can say in asynchronous rounds: name one of `teachers`, or set resources.mode=synchronous"
            )
        if layer.options.get("max_staleness", bound) != bound:
            raise ConfigError(
                f"{where}.options.max_staleness is another than that of sharing.options ({bound}): asynchronous rounds "
                "have one delay, leave it out"
            )
    return bound


def _demands(config: RunConfig, supply: Supply, estimates: Mapping[str, Estimate]) -> list[Demand]:
    """One for each policy. One that is not described gets what is estimated for it, or an even share: of the GPUs, if
    it can use one."""
    described = config.resources.demands
    demands = [_demand(name, described[name], estimates.get(name)) for name in described]
    rest = {name: policy for name, policy in config.policies.items() if name not in described}
    demands += [estimates[name].demand(name, gpus_of(policy)) for name, policy in rest.items() if name in estimates]
    unknown = {name: policy for name, policy in rest.items() if name not in estimates}
    on_gpu = [name for name, policy in unknown.items() if supply.gpus and can_use_gpus(policy)]
    # Which learners spread is in their code, which loads torch: it is asked where something can come of it.
    ask = config.resources.executor == "ray" or any(n.gpus for d in demands for n in d.phases.values()) or on_gpu
    demands += even_share(unknown, supply, on_gpu)
    return [_spread(d, config.policies[d.policy]) for d in demands] if ask else demands


def _spread(demand: Demand, policy: PolicyConfig) -> Demand:
    """Of a learner whose own actors take the GPUs: one for each, in every phase on GPUs that nobody described."""
    if not registry.spreads(policy.learner, policy.options):
        return demand
    actors = gpus_of(policy)
    phases = {
        phase: dataclasses.replace(needs, gang=actors) if needs.gpus and needs.gang == 1 else needs
        for phase, needs in demand.phases.items()
    }
    return dataclasses.replace(demand, phases=phases, spreads=True)


def _timed(described: Mapping[str, Any], estimates: Mapping[str, Estimate]) -> Iterable[tuple[str, str]]:
    for policy, spec in described.items():
        for phase, needs in spec.get("phases", {}).items():
            if "seconds" in needs:
                yield policy, phase
    for policy, found in estimates.items():
        yield from ((policy, phase) for phase in found.seconds)


def _measured(demand: Demand, measured: Mapping[tuple[str, str], float]) -> Demand:
    phases = {phase: needs for phase, needs in demand.phases.items() if (demand.policy, phase) in measured}
    return dataclasses.replace(demand, phases=phases or demand.phases).with_seconds(measured)


def _demand(policy: str, spec: Mapping[str, Any], found: Estimate | None) -> Demand:
    """As described; what the description leaves out of a phase on GPUs is as estimated."""
    where = f"demands.{policy}"
    settings = dict(spec)
    for key in _SETTLED & settings.keys():
        known = {f.name for f in dataclasses.fields(Demand)} - _SETTLED
        raise UnknownNameError.of(f"option of resources.{where}", key, known)
    phases = {
        phase: _make(Needs, {**_guess(found, phase, needs), **needs}, f"{where}.phases.{phase}")
        for phase, needs in settings.pop("phases", {}).items()
    }
    if found is not None and any(needs.gpus for needs in phases.values()):
        settings = {"weights": found.weights, "offload_seconds": found.offload_seconds, **settings}
    return _make(Demand, {"policy": policy, "phases": phases, **_whole(settings, "weights")}, where)


def _guess(found: Estimate | None, phase: str, needs: Mapping[str, Any]) -> dict[str, Any]:
    if found is None or phase not in found.seconds:
        return {}
    memory = {"memory": found.memory[phase]} if needs.get("gpus") and phase in found.memory else {}
    return {"seconds": found.seconds[phase], **memory}


def _make(cls: type[T], settings: Mapping[str, Any], where: str) -> T:
    fields = _whole(settings, "memory")
    check_options(f"resources.{where}", cls, fields, complete=True)
    try:
        return cls(**fields)
    except InvalidInputError as error:
        raise ConfigError(f"resources.{where}: {error}") from error


def _whole(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """YAML reads 2.0e9 as a float; bytes are whole."""
    value = settings.get(key)
    return {**settings, **({key: int(value)} if isinstance(value, float) and value.is_integer() else {})}
