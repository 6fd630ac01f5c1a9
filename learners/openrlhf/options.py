"""The options that OpenRLHF's learners add to the torch learner's. Importing this loads neither OpenRLHF nor torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from mutual_env.errors import InvalidInputError

ATTENTION = {"": "", "eager": "", "sdpa": "", "flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"}
"""transformers' implementations, and the module that each needs ("": none)."""

_EVERY_LOGIT = "OpenRLHF's Actor computes every logit of every row: lower micro_batch_tokens"
_ON_RAY = "that is DeepSpeed's: use learner openrlhf_ray"
_IN_A_RING = "a ring is of several GPUs: use learner openrlhf_ray"

INSTEAD: Mapping[str, str] = {
    "logits_chunk_mib": _EVERY_LOGIT,
    "share_prompts": _EVERY_LOGIT,
    "compile": "OpenRLHF's Actor calls the model as a whole: leave it out, or use learner torch",
    "packing_samples": "say packing",
    "attn_implementation": "say attention",
    "adam_offload": f"{_ON_RAY} with offload_optimizer",
    "param_dtype": "say dtype",
    "is_correction_level": "say behaviour: token is TIS, icepop ICEPOP, mask leaves out whole sequences",
    "is_correction_mode": "behaviour says level and mode in one: token clips, icepop and mask leave out",
    "is_correction_threshold": "say behaviour_floor and behaviour_cap",
    "is_correction_gating": "own samples are weighed by their ratio alone: say behaviour",
    "ring_attn_size": _IN_A_RING,
    "ring_attn_head_stride": _IN_A_RING,
    "tensor_parallel_size": f"tensor parallelism is not wired up: {_ON_RAY} with zero_stage 3 and more GPUs",
    "use_liger_kernel": "Liger's kernels are not wired up: lower micro_batch_tokens where logits take the memory",
}
"""Options of the torch learner's own forward, and OpenRLHF's own names of flags, with what to say here."""

INSTEAD_ON_RAY: Mapping[str, str] = {
    **{name: instead for name, instead in INSTEAD.items() if instead is not _IN_A_RING},
    "conversation_mb": "its actors keep nothing from turn to turn: use learner vllm with this trainer for long talks",
    "adam_offload": "say offload_optimizer",
    "tensor_parallel_size": "tensor parallelism is not wired up: say zero_stage 3 and more gpus_per_node",
    "num_nodes": "say nodes",
    "num_gpus_per_node": "say gpus_per_node",
}
"""The same of a policy on a cluster."""


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """How OpenRLHF's `Actor` computes a forward.

    `attention`: transformers' name of the implementation ("": its own choice). `packing`: the sequences of a
    micro-batch lie one after the other, without padding; flash attention then skips what lies between them, the others
    mask it.
    """

    attention: str = ""
    packing: bool = False

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            names = ", ".join(name for name in ATTENTION if name)
            raise InvalidInputError(
                f"attention must be one of {names} (or '', transformers' choice), got {self.attention!r}"
            )

    def require(self, dtype: str) -> None:
        """Raise where what is asked for is not installed, or cannot compute in this dtype."""
        module = ATTENTION[self.attention]
        if module and not can_be_imported(module):
            raise InvalidInputError(
                f"attention {self.attention!r} needs the module {module!r}, which is not installed, or without its "
                "kernels: install flash-attn (pip install --no-build-isolation flash-attn), or use attention 'sdpa'"
            )
        if module and dtype == "float32":
            raise InvalidInputError(f"attention {self.attention!r} does not compute in float32: use dtype 'bfloat16'")


def can_be_imported(module: str) -> bool:
    """Not only found: a package that was built without its kernels is there, and fails when it is imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where a policy's actors run and how DeepSpeed cuts its state.

    `nodes` x `gpus_per_node` actors, data parallel. `zero_stage`: 1 cuts the optimizer's state, 2 the gradients too, 3
    the weights too. `offload_optimizer` keeps that state in the machine's memory. `ring_attn_size` actors share every
    micro-batch, each of them a stretch of its tokens, and `ring_attn_head_stride` key-value heads travel at once.
    `timeout` bounds every call, in seconds.
    """

    nodes: int = 1
    gpus_per_node: int = 1
    zero_stage: int = 2
    offload_optimizer: bool = False
    ring_attn_size: int = 1
    ring_attn_head_stride: int = 1
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus_per_node", "ring_attn_size", "ring_attn_head_stride"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.actors % self.ring_attn_size:
            raise InvalidInputError(
                f"ring_attn_size {self.ring_attn_size} does not divide nodes x gpus_per_node, {self.actors}: every "
                "actor belongs to one ring"
            )
        if self.ring_attn_head_stride > 1 and self.ring_attn_size == 1:
            raise InvalidInputError(
                f"ring_attn_head_stride is {self.ring_attn_head_stride}, and there is no ring: say ring_attn_size too"
            )
        if self.zero_stage not in (1, 2, 3):
            raise InvalidInputError(f"zero_stage must be 1, 2 or 3, got {self.zero_stage}")
        if not self.timeout > 0.0:
            raise InvalidInputError(f"timeout must be above 0 seconds, got {self.timeout}")

    @property
    def actors(self) -> int:
        return self.nodes * self.gpus_per_node

    def require(self, computed: ActorOptions) -> None:
        """Raise where a ring is asked for that OpenRLHF could not compute."""
        if self.ring_attn_size == 1:
            return
        if not computed.packing or computed.attention != "flash_attention_2":
            raise InvalidInputError(
                f"ring_attn_size {self.ring_attn_size} cuts packed rows for flash attention: say packing: true and "
                f"attention: flash_attention_2, got {computed.packing} and {computed.attention!r}"
            )
        if not can_be_imported("ring_flash_attn"):
            raise InvalidInputError(
                f"ring_attn_size {self.ring_attn_size} needs the module 'ring_flash_attn', which cannot be imported "
                "here: pip install ring-flash-attn, or use ring_attn_size 1"
            )
