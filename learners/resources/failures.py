"""What goes wrong in a simulated run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """A node disappears at `at`, and is back `back_after` seconds later (None: never)."""

    at: float
    node: str
    back_after: float | None = None


@dataclass(frozen=True, slots=True)
class Failures:
    """What goes wrong: each attempt's chance that the worker dies or hangs, policies whose worker always dies, nodes
    that are lost. `notice` seconds pass before a death is seen, `restart` until the worker has its last state again."""

    death: float = 0.0
    hang: float = 0.0
    broken: frozenset[str] = frozenset()
    nodes: tuple[NodeLoss, ...] = ()
    notice: float = 0.5
    restart: float = 5.0
    seed: int = 0
