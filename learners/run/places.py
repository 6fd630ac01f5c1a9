"""A run's `resources` section as what the resource wrapper understands: demands, supply, patience, an executor."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from learners.resources import (
    Demand,
    Executor,
    Needs,
    Patience,
    ProcessExecutor,
    RayExecutor,
    Record,
    SerialExecutor,
    Span,
    Supply,
    ThreadExecutor,
)
from learners.resources.demand import even_share
from learners.resources.plan import parse_devices
from learners.run.config import RunConfig
from mutual_env.errors import ConfigError, InvalidInputError, UnknownNameError

T = TypeVar("T")

_EXECUTORS: dict[str, Callable[..., Executor]] = {
    "serial": SerialExecutor,
    "threads": ThreadExecutor,
    "processes": ProcessExecutor,
    "ray": RayExecutor,
}


def make_executor(config: RunConfig) -> Executor:
    """The executor that a run names, told what each policy takes and what there is."""
    resources = config.resources
    check_resources(config)
    if resources.executor == "serial":
        return SerialExecutor()
    shared: dict[str, Any] = {"demands": demands(config), "patience": _make(Patience, resources.patience, "patience")}
    if resources.executor != "ray":  # a cluster knows its own machines
        shared["supply"] = supply(config)
    return _EXECUTORS[resources.executor](**shared, **resources.options)


def check_resources(config: RunConfig) -> None:
    """Whether the section makes sense, before anything is started."""
    resources = config.resources
    if resources.executor not in _EXECUTORS:
        raise UnknownNameError.of("resources.executor", resources.executor, _EXECUTORS)
    known = inspect.signature(_EXECUTORS[resources.executor]).parameters
    for option in resources.options:
        if option not in known or option in ("demands", "supply", "patience", "clock"):
            raise UnknownNameError.of(f"option of executor {resources.executor!r}", option, known)
    for policy in resources.demands:
        if policy not in config.policies:
            raise UnknownNameError.of("policy in resources.demands", policy, config.policies)
    demands(config)
    _make(Patience, resources.patience, "patience")
    staleness(config)
    if config.sharing.exchange == "ray" and resources.executor != "ray":
        raise ConfigError(
            f"sharing.exchange=ray needs resources.executor=ray, got {resources.executor!r}: it lives on that cluster"
        )


def staleness(config: RunConfig) -> int:
    """By how many rounds policies may be apart: 0 in synchronous rounds, else the `max_staleness` of the strategy."""
    if config.resources.mode == "synchronous":
        return 0
    options, strategy = config.sharing.options, config.sharing.strategy
    bound = options.get("max_staleness")
    if not isinstance(bound, int) or bound < 1:
        given = f"{bound!r}" if "max_staleness" in options else "none"
        raise ConfigError(
            f"resources.mode=asynchronous takes its bound from the strategy, and {strategy!r} is given {given}: set "
            "sharing.options.max_staleness to how many rounds old what is learnt from may be (1 or more), or "
            "resources.mode=synchronous"
        )
    for option in ("teacher", "reference"):
        if options.get(option) in config.policies:
            raise ConfigError(
                f"sharing.options.{option}={options[option]} is a policy in training, whose weights at a given moment "
                "nobody can say in asynchronous rounds: name one of `teachers`, or set resources.mode=synchronous"
            )
    return bound


def stall_limit(config: RunConfig) -> float:
    """Seconds after which a half round cannot be going on any more: its two leases, waited for and held to the last."""
    patience = _make(Patience, config.resources.patience, "patience")
    longest = max(needs.limit for demand in demands(config) for needs in demand.phases.values())
    held = (patience.restarts + 1) * longest + patience.restarts * patience.restart_limit
    return 2 * (patience.limit + held)


def supply(config: RunConfig) -> Supply:
    return parse_devices(config.resources.devices) if config.resources.devices else Supply.local()


def demands(config: RunConfig) -> list[Demand]:
    """One for each policy; a policy that is not described gets an even share."""
    described = config.resources.demands
    rest = [name for name in config.policies if name not in described]
    return [_demand(name, described[name]) for name in described] + even_share(rest, supply(config))


def as_measured(demands: Iterable[Demand], spans: Iterable[Span]) -> list[Demand]:
    """The demands with the seconds that each phase took in a run, and without phases that it never leased. A policy
    that was not in that run stays as it is."""
    record = Record()
    for span in spans:
        record.add(span)
    measured = record.phase_seconds()
    return [_measured(demand, measured) for demand in demands]


def unsaid(config: RunConfig, planned: Iterable[Demand], spans: Iterable[Span] = ()) -> list[str]:
    """The phases of which neither the configuration nor a run says how long they take, as "policy/phase"."""
    described = config.resources.demands
    said = {(span.policy, span.phase) for span in spans} | {
        (policy, phase)
        for policy, spec in described.items()
        for phase, needs in spec.get("phases", {}).items()
        if "seconds" in needs
    }
    return [f"{d.policy}/{phase}" for d in planned for phase in d.phases if (d.policy, phase) not in said]


def _measured(demand: Demand, measured: Mapping[tuple[str, str], float]) -> Demand:
    phases = {phase: needs for phase, needs in demand.phases.items() if (demand.policy, phase) in measured}
    return dataclasses.replace(demand, phases=phases or demand.phases).with_seconds(measured)


def _demand(policy: str, spec: Mapping[str, Any]) -> Demand:
    where = f"demands.{policy}"
    settings = dict(spec)
    phases = {
        phase: _make(Needs, needs, f"{where}.phases.{phase}") for phase, needs in settings.pop("phases", {}).items()
    }
    return _make(Demand, {"policy": policy, "phases": phases, **_whole(settings, "weights")}, where)


def _make(cls: type[T], settings: Mapping[str, Any], where: str) -> T:
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in settings:
        if key not in known:
            raise UnknownNameError.of(f"key in resources.{where}", key, known)
    try:
        return cls(**_whole(settings, "memory"))
    except (TypeError, InvalidInputError) as error:
        raise ConfigError(f"resources.{where}: {error}") from error


def _whole(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """YAML reads 2.0e9 as a float; bytes are whole."""
    return {**settings, **({key: int(settings[key])} if key in settings else {})}
