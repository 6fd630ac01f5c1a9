"""The options of a policy on a cluster. Importing this loads neither OpenRLHF nor torch."""

from __future__ import annotations

from dataclasses import dataclass

from mutual_env.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where a policy's actors run and how DeepSpeed cuts its state.

    `nodes` x `gpus_per_node` actors, data parallel. `zero_stage`: 1 cuts the optimizer's state, 2 the gradients too, 3
    the weights too. `offload_optimizer` keeps that state in the machine's memory. `timeout` bounds every call, in
    seconds.
    """

    nodes: int = 1
    gpus_per_node: int = 1
    zero_stage: int = 2
    offload_optimizer: bool = False
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus_per_node"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.zero_stage not in (1, 2, 3):
            raise InvalidInputError(f"zero_stage must be 1, 2 or 3, got {self.zero_stage}")
        if not self.timeout > 0.0:
            raise InvalidInputError(f"timeout must be above 0 seconds, got {self.timeout}")

    @property
    def actors(self) -> int:
        return self.nodes * self.gpus_per_node
