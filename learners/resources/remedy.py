"""Why a demand does not fit, and the nearest change with which it would."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from learners.resources.demand import GIB, Demand, Needs, Node
from learners.resources.machines import Machines


def remedy(policy: str, phase: str, demand: Demand, nodes: Sequence[Node], machines: Machines) -> str:
    """One sentence. `machines` is the supply with nobody running, and is left as it was."""
    needs = demand.phases[phase]
    problem = (
        f"policy {policy!r}, phase {phase!r} can never be served: it needs {describe(needs, demand.kind)}, "
        f"and the supply is {describe_nodes(nodes)}"
    )
    for change, changed, kind in _changes(needs, demand.kind, nodes):
        if _fits(policy, changed, kind, machines):
            return f"{problem}. It would fit with {change}"
    if not demand.movable and _fits(policy, needs, demand.kind, Machines(nodes)):
        return f"{problem}, part of which is kept by policies that cannot be moved. It would fit if they could offload"
    return f"{problem}. It would fit with {_more_nodes(policy, needs, demand.kind, nodes)}"


def describe(needs: Needs, kind: str = "") -> str:
    """A gang in words: "4 x (1 CPU, 1 GPU with 40 GiB) in one node"."""
    parts = [f"{needs.cpus:g} CPU"] if needs.cpus else []
    memory = f" with {_bytes(needs.memory)}" if needs.memory else ""
    parts += [f"{needs.gpus:g} GPU{memory}"] if needs.gpus else []
    if needs.memory and not needs.gpus:
        parts.append(_bytes(needs.memory))
    text = f"{needs.gang} x ({', '.join(parts)})"
    return text + (" in one node" if needs.together and needs.gang > 1 else "") + (f" of kind {kind!r}" if kind else "")


def describe_nodes(nodes: Sequence[Node]) -> str:
    """The supply in words, equal nodes counted."""
    kinds: dict[str, int] = {}
    for node in nodes:
        gpus = (
            f", {node.gpus} GPU" + (f" with {_bytes(node.gpu_memory)}" if node.gpu_memory else "") if node.gpus else ""
        )
        memory = f", {_bytes(node.memory)}" if node.memory else ""
        text = f"({node.cpus:g} CPU{memory}{gpus}{f', kind {node.kind!r}' if node.kind else ''})"
        kinds[text] = kinds.get(text, 0) + 1
    return " + ".join(f"{count} x {text}" for text, count in kinds.items()) or "empty: no node is left"


def _changes(needs: Needs, kind: str, nodes: Sequence[Node]) -> Iterator[tuple[str, Needs, str]]:
    """Changes of one thing, the mildest first."""
    if kind:
        yield f"kind '' instead of {kind!r}", needs, ""
    if needs.together and needs.gang > 1:
        yield "together=false", dataclasses.replace(needs, together=False), kind
    most_cpus = max((node.cpus for node in nodes), default=0.0)
    if 0 < most_cpus < needs.cpus:
        yield f"cpus={most_cpus:g} instead of {needs.cpus:g}", dataclasses.replace(needs, cpus=most_cpus), kind
    sizes = [node.gpu_memory if needs.gpus else node.memory for node in nodes if node.gpus or not needs.gpus]
    most_memory = max((size for size in sizes if size), default=0)
    if 0 < most_memory < needs.memory:
        change = f"memory={_bytes(most_memory)} instead of {_bytes(needs.memory)}"
        yield change, dataclasses.replace(needs, memory=most_memory), kind
    most_gpus = max((node.gpus for node in nodes), default=0)
    if 0 < most_gpus < needs.gpus:
        yield f"gpus={most_gpus} instead of {needs.gpus:g}", dataclasses.replace(needs, gpus=float(most_gpus)), kind
    for gang in range(needs.gang - 1, 0, -1):
        yield f"gang={gang} instead of {needs.gang}", dataclasses.replace(needs, gang=gang), kind
    if needs.gpus and not most_gpus:
        yield "gpus=0 (there is no GPU)", dataclasses.replace(needs, gpus=0.0, memory=0), kind


def _fits(policy: str, needs: Needs, kind: str, machines: Machines) -> bool:
    slots = machines.claim(policy, needs, kind=kind)
    if slots is None:
        return False
    machines.give_back(policy, needs, slots)
    return True


def _more_nodes(policy: str, needs: Needs, kind: str, nodes: Sequence[Node]) -> str:
    """How many more nodes like the largest there is; else what a node would have to have."""
    if nodes:
        largest = max(nodes, key=lambda node: (node.gpus, node.gpu_memory, node.cpus))
        for extra in range(1, needs.gang + 1):
            more = [dataclasses.replace(largest, name=f"extra{index}") for index in range(extra)]
            if _fits(policy, needs, kind, Machines([*nodes, *more])):
                return f"{extra} more node{'s' if extra > 1 else ''} like {describe_nodes([largest])[4:]}"
    members = needs.gang if needs.together else 1
    return f"a node that has at least {describe(dataclasses.replace(needs, gang=members), kind)}"


def _bytes(count: int) -> str:
    return f"{count / GIB:.3g} GiB"
