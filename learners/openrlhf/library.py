"""What we use of openrlhf in this process; `cluster_library` has what needs Ray. Nothing else imports openrlhf.

openrlhf imports flash-attn when it is imported, for packed samples and ring attention, and vLLM, for its own rollouts.
Where they are not installed, stand-ins take their place during the import alone, so that nothing else comes to believe
that they are there: functions of our own for packing, which needs no GPU, and a refusal for the rest.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import torch

from learners.openrlhf import padding
from learners.openrlhf.options import can_be_imported
from mutual_env.errors import InvalidInputError, MissingExtraError

FLASH_ATTENTION: dict[str, tuple[str, ...]] = {
    "flash_attn": (),
    "flash_attn.bert_padding": tuple(padding.__all__),
    "flash_attn.utils": (),
    "flash_attn.utils.distributed": ("all_gather",),
}
VLLM: dict[str, tuple[str, ...]] = {"vllm": (), "vllm.inputs": ("TokensPrompt",), "vllm.utils": ("random_uuid",)}


@contextmanager
def stand_ins(*packages: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Inside, `from module import name` works for these modules where their package is not installed, or was built
    without what it needs (flash-attn without a CUDA toolkit)."""
    missing = [package for package in packages if not can_be_imported(next(iter(package)))]
    modules = {name: functions for package in missing for name, functions in package.items()}
    for name, functions in modules.items():
        module = ModuleType(name)
        for function in functions:
            setattr(module, function, getattr(padding, function, _refuse))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise InvalidInputError("ring attention and OpenRLHF's own rollouts need flash-attn and vLLM installed")


def _prepare() -> None:
    if importlib.util.find_spec("openrlhf") is None:
        raise MissingExtraError.of("learner 'openrlhf'", "openrlhf")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # deepspeed looks for a GPU otherwise


_prepare()
import deepspeed  # noqa: E402, F401  (before the stand-ins: it and these two ask whether flash-attn is there)
import peft  # noqa: E402, F401
import transformers  # noqa: E402, F401

with stand_ins(FLASH_ATTENTION):
    from openrlhf.models import Actor
    from openrlhf.models.ring_attn_utils import all_gather
    from openrlhf.trainer.ppo_utils.experience import Experience, make_experience_batch

__all__ = [
    "FLASH_ATTENTION",
    "VLLM",
    "Actor",
    "Experience",
    "all_gather",
    "make_experience_batch",
    "stand_ins",
]
