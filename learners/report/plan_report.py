"""A plan for a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from learners.report.gantt import as_svg, as_text, seconds
from learners.resources.demand import GIB, Demand, Supply
from learners.resources.device import Device
from learners.resources.estimate import Estimate
from learners.resources.plan import Plan
from learners.resources.record import Span, UsageRecord
from learners.resources.remedy import describe, describe_nodes
from learners.resources.simulate import Simulation
from mutual_env.types import JSON

SHOWN = 16  # devices or policies listed in full


def as_report(plan: Plan, width: int = 72) -> str:
    """The plan for a terminal."""
    mode = f"staleness {plan.rounds.staleness}" if plan.rounds.staleness else "synchronous"
    lines = [
        f"supply     {describe_nodes(plan.supply.nodes)}",
        f"policies   {len(plan.demands)}, {plan.rounds.count} rounds, {mode}",
    ]
    lines += [f"misfit     {reason}" for reason in plan.misfits]
    result = plan.simulation
    if result is None:
        return "\n".join([*lines, "nothing fits: there is no timeline"])
    speedup = result.serial / result.makespan if result.makespan else 1.0
    lines += [
        f"makespan   {seconds(result.makespan)}; no schedule takes less than {seconds(result.bound)}",
        f"serial     {seconds(result.serial)} one policy at a time: {speedup:.2f} times as long",
        f"used       {result.record.utilisation():.0%} of the {'GPUs' if plan.supply.gpus else 'CPUs'}",
        f"waits      at most {seconds(result.longest_wait)} (bound {seconds(result.wait_bound)})",
        "",
        *_placement(plan, result),
        "",
        as_text(result.spans, width),
    ]
    return "\n".join(lines)


def as_json(plan: Plan, assumed: Sequence[str] = ()) -> dict[str, JSON]:
    """The plan as data. `assumed`: phases of unknown duration; seconds are in proportion only where there are some."""
    said: dict[str, JSON] = {"fits": plan.fits, "misfits": list(plan.misfits), "assumed": list(assumed)}
    result = plan.simulation
    if result is not None:
        said |= {
            "makespan": result.makespan,
            "bound": result.bound,
            "serial": result.serial,
            "utilisation": result.record.utilisation(),
            "longest_wait": result.longest_wait,
            "leases": [asdict(span) for span in result.spans],
        }
    return said


def bound_share(result: Simulation, supply: Supply, estimates: Mapping[str, Estimate]) -> float:
    """The share of the GPUs' time in which the GPU itself is the bottleneck of what runs on it."""
    bound = 0.0
    for span in result.spans:
        found = estimates.get(span.policy)
        if found is not None and span.phase in found.bound:
            bound += found.bound[span.phase] * min(span.ran, found.seconds[span.phase]) * span.share * len(span.devices)
    return bound / (result.makespan * supply.gpus) if result.makespan and supply.gpus else 0.0


def compare(predicted: Simulation, actual: UsageRecord) -> str:
    """Predicted and actual, for the report of a run: seconds of each phase, and what policies waited."""
    lines = ["policy/phase: predicted, actual seconds a lease; actual wait"]
    foreseen, waits = predicted.record.phase_seconds(), actual.policies()
    for (policy, phase), measured in sorted(actual.phase_seconds().items()):
        expected = foreseen.get((policy, phase))
        shown = f"{expected:.3g}" if expected is not None else "-"
        lines.append(f"{policy}/{phase}: {shown}, {measured:.3g}; {waits[policy].waiting:.3g} in all")
    lines.append(f"utilisation: {predicted.record.utilisation():.0%}, {actual.utilisation():.0%}")
    return "\n".join(lines)


def as_picture(plan: Plan, actual: Sequence[Span] = (), *, alone: bool = True) -> str:
    """SVG: the predicted timeline, and the actual one under it where there is one. `alone`: a file of its own."""
    panels = [("predicted", plan.simulation.spans if plan.simulation else ())]
    return as_svg([*panels, ("actual", actual)] if actual else panels, alone=alone)


def _placement(plan: Plan, result: Simulation) -> list[str]:
    where: dict[str, dict[str, None]] = {}
    for span in result.spans:
        where.setdefault(span.policy, {}).update(dict.fromkeys(span.devices))
    lines = [
        f"{demand.policy}: {_needs(demand)} on {some(where[demand.policy])}"
        for demand in plan.demands[:SHOWN]
        if demand.policy in where
    ]
    if len(where) > SHOWN:
        lines.append(f"and {len(where) - SHOWN} more policies")
    usage = result.record.device_usage()
    busiest = sorted(usage, key=lambda name: -usage[name].busy)[:SHOWN]
    lines += [_device(name, usage[name].busy, result, plan.supply) for name in busiest if usage[name].leases]
    if len(usage) > SHOWN:
        lines.append(f"and {len(usage) - SHOWN} more devices, less used than these")
    return lines


def _device(name: str, busy: float, result: Simulation, supply: Supply) -> str:
    device = Device.read(name)
    node = next(node for node in supply.nodes if node.name == device.node)
    peak, size = result.peak_memory.get(device, 0), node.memory if device.gpu is None else node.gpu_memory
    memory = f", peak memory {peak / GIB:.3g}" + (f" of {size / GIB:.3g} GiB" if size else " GiB") if peak else ""
    return f"{name}: used {busy / result.makespan if result.makespan else 0.0:.0%}{memory}"


def _needs(demand: Demand) -> str:
    widest = max(demand.phases.values(), key=lambda needs: (needs.gang * needs.gpus, needs.cpus))
    return describe(widest, demand.kind) + ("" if demand.movable else ", cannot be moved")


def some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
