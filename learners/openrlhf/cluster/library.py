"""What we use of openrlhf on a Ray cluster. Nothing else imports it."""

from __future__ import annotations

from learners.openrlhf.library import FLASH_ATTENTION, VLLM, stand_ins

with stand_ins(FLASH_ATTENTION, VLLM):
    from openrlhf.trainer.ray.launcher import BaseModelActor, RayActorGroup
    from openrlhf.utils.deepspeed import DeepspeedStrategy
    from openrlhf.utils.deepspeed.deepspeed_utils import offload_deepspeed_states, reload_deepspeed_states

__all__ = [
    "BaseModelActor",
    "DeepspeedStrategy",
    "RayActorGroup",
    "offload_deepspeed_states",
    "reload_deepspeed_states",
]
