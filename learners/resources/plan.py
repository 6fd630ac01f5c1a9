"""What a run would do on given machines, without running anything."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from learners.resources.allocate import Allocator
from learners.resources.demand import GIB, Demand, Needs, Node, Patience, Refusal, Rounds, Supply
from learners.resources.gantt import as_svg, as_text, seconds
from learners.resources.record import Record, Span
from learners.resources.remedy import describe, describe_nodes
from learners.resources.simulate import Meeting, Simulation, simulate
from mutual_env.errors import InvalidInputError

SHOWN = 16  # devices or policies listed in full


@dataclass(frozen=True, slots=True)
class Plan:
    """The prediction: what fits, as a simulation; and what does not, each with a sentence that says what would."""

    supply: Supply
    demands: tuple[Demand, ...]
    rounds: Rounds
    simulation: Simulation | None
    misfits: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.misfits


def make_plan(
    demands: Sequence[Demand],
    supply: Supply,
    rounds: Rounds | None = None,
    patience: Patience | None = None,
    *,
    meeting: Meeting = "phase",
) -> Plan:
    """Simulate the policies that fit. `meeting`: "phase" is what the training loop does."""
    rounds = rounds or Rounds()
    allocator = Allocator(demands, supply, patience)
    misfits: dict[str, str] = {}
    for demand in demands:
        for phase in demand.phases:
            answer = allocator.request(demand.policy, phase, 0.0)
            if isinstance(answer, Refusal):
                misfits.setdefault(demand.policy, answer.reason)
            allocator.withdraw(demand.policy)
    fitting = [demand for demand in demands if demand.policy not in misfits]
    simulation = simulate(fitting, supply, rounds, patience, meeting=meeting) if fitting else None
    return Plan(supply, tuple(demands), rounds, simulation, tuple(misfits.values()))


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


def compare(predicted: Simulation, actual: Record) -> str:
    """Predicted and actual, for the report of a run: seconds of each phase, and what policies waited."""
    lines = ["policy/phase: predicted, actual seconds a lease; actual wait"]
    foreseen, waits = predicted.record.phase_seconds(), actual.policies()
    for (policy, phase), measured in sorted(actual.phase_seconds().items()):
        expected = foreseen.get((policy, phase))
        shown = f"{expected:.3g}" if expected is not None else "-"
        lines.append(f"{policy}/{phase}: {shown}, {measured:.3g}; {waits[policy].waiting:.3g} in all")
    lines.append(f"utilisation: {predicted.record.utilisation():.0%}, {actual.utilisation():.0%}")
    return "\n".join(lines)


def as_picture(plan: Plan, actual: Sequence[Span] = ()) -> str:
    """SVG: the predicted timeline, and the actual one under it where there is one."""
    panels = [("predicted", plan.simulation.spans if plan.simulation else ())]
    return as_svg([*panels, ("actual", actual)] if actual else panels)


def parse_devices(text: str) -> Supply:
    """Machines in short: "2x8:80,1x0@16" is two nodes of 8 GPUs with 80 GiB each, and one of no GPU and 16 CPUs.

    Each part is NODES x GPUS, then ":" GiB of each GPU, then "@" CPUs of each node (16 for each GPU where not said).
    """
    nodes: list[Node] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)(?::(\d+(?:\.\d+)?))?(?:@(\d+))?", part.strip())
        if match is None:
            raise InvalidInputError(
                f"--devices {part.strip()!r} must read NODESxGPUS[:GIB][@CPUS], e.g. 2x8:80 for two nodes of eight "
                "GPUs with 80 GiB, or 1x0@16 for one of 16 CPUs"
            )
        count, gpus = int(match[1]), int(match[2])
        memory, cpus = int(float(match[3] or 0) * GIB), float(match[4] or 16 * max(1, gpus))
        nodes += [Node(f"node{len(nodes) + index}", cpus, gpus, memory) for index in range(count)]
    return Supply(tuple(nodes))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `plan` takes beside the configuration."""
    parser.add_argument(
        "--devices",
        type=parse_devices,
        default=None,
        help="e.g. 2x8:80 (default: the configuration's)",
    )
    parser.add_argument("--rounds", type=int, default=2, help="how many rounds to lay out (default: 2)")
    parser.add_argument("--picture", type=Path, default=None, help="write the timeline to this SVG file")


def run(
    arguments: argparse.Namespace, demands: Sequence[Demand], staleness: int = 0, assumed: Sequence[str] = ()
) -> int:
    """Print the plan; 0 where everything fits, 1 where something does not. `assumed`: phases of unknown duration."""
    supply = arguments.devices or Supply.local()
    plan = make_plan(demands, supply, Rounds(arguments.rounds, staleness))
    if assumed:
        print(
            f"assumed    {Needs().seconds:g} s for each of {_some(assumed)}: times below are in proportion only. Say "
            "`seconds` in resources.demands, or take them from a run: --like RUN"
        )
    print(as_report(plan))
    if arguments.picture is not None:
        arguments.picture.write_text(as_picture(plan), encoding="utf-8")
        print(f"picture    {arguments.picture}")
    return 0 if plan.fits else 1


def _placement(plan: Plan, result: Simulation) -> list[str]:
    where: dict[str, dict[str, None]] = {}
    for span in result.spans:
        where.setdefault(span.policy, {}).update(dict.fromkeys(span.devices))
    lines = [
        f"{demand.policy}: {_needs(demand)} on {_some(where[demand.policy])}"
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
    sizes = {node.gpu_name(i): node.gpu_memory for node in supply.nodes for i in range(node.gpus)}
    sizes |= {node.cpu_name: node.memory for node in supply.nodes}
    peak, size = result.peak_memory.get(name, 0), sizes.get(name, 0)
    memory = f", peak memory {peak / GIB:.3g}" + (f" of {size / GIB:.3g} GiB" if size else " GiB") if peak else ""
    return f"{name}: used {busy / result.makespan if result.makespan else 0.0:.0%}{memory}"


def _needs(demand: Demand) -> str:
    widest = max(demand.phases.values(), key=lambda needs: (needs.gang * needs.gpus, needs.cpus))
    return describe(widest, demand.kind) + ("" if demand.movable else ", cannot be moved")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
