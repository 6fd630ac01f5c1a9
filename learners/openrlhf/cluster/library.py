"""What we use of openrlhf on a Ray cluster. Nothing else imports it."""

from __future__ import annotations

from typing import Any

from learners.openrlhf.library import FLASH_ATTENTION, VLLM, stand_ins

with stand_ins(FLASH_ATTENTION, VLLM):
    from openrlhf.trainer.ray.launcher import RayActorGroup
    from openrlhf.trainer.ray.ppo_actor import PolicyModelActor as _RemotePolicyModelActor
    from openrlhf.utils.deepspeed import DeepspeedStrategy

PolicyModelActor: Any = _RemotePolicyModelActor.__ray_metadata__.modified_class
"""OpenRLHF's class itself: what it exports is the Ray handle of it, which cannot be inherited from."""

__all__ = ["DeepspeedStrategy", "PolicyModelActor", "RayActorGroup"]
