"""A LoRA policy's adapter, handed to the engine in the place of whole weights: megabytes instead of gigabytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from learners.aside import Aside
from learners.vllm.transport import roomy
from mutual_env.errors import InvalidInputError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM makes room for."""

SPARE = 1 << 30
"""Bytes that memory-backed storage must have free: more than any adapter takes."""

Write: TypeAlias = Callable[[Path], None]


@runtime_checkable
class ExportsAdapter(Protocol):
    """A learner that writes its adapter alone, in peft's form."""

    def save_pretrained(self, directory: Path, *, adapter: bool = False) -> None: ...


@runtime_checkable
class SwapsAdapters(Protocol):
    """An engine that samples with the adapter that it was given last."""

    def load_adapter(self, write: Write, version: int) -> None:
        """`write` puts it into a folder that is gone afterwards. The one before is removed."""


def check_rank(options: Mapping[str, Any], engine: Mapping[str, Any]) -> None:
    """Raise where there is no adapter to send, or vLLM has no room for it."""
    rank = options.get("lora_rank", 0)
    if not rank:
        raise InvalidInputError(
            "transport 'adapter' sends a LoRA adapter, and lora_rank is 0: set lora_rank, or use transport 'file'"
        )
    if isinstance(rank, int) and rank > RANKS[-1]:
        raise InvalidInputError(
            f"lora_rank {rank} is above {RANKS[-1]}, the largest adapter that vLLM takes: use transport 'file'"
        )
    room = engine.get("max_lora_rank", rank)
    if isinstance(rank, int) and isinstance(room, int) and room < rank:
        raise InvalidInputError(f"engine.max_lora_rank {room} is below lora_rank {rank}: leave it out")
    if not engine.get("enable_lora", True):
        raise InvalidInputError("engine.enable_lora is false, and transport 'adapter' sends an adapter: leave it out")


def settings(rank: int) -> dict[str, object]:
    """The engine's arguments: room for one adapter of this rank."""
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(size for size in RANKS if size >= rank)}


def exporter_of(learner: object) -> ExportsAdapter:
    if not isinstance(learner, ExportsAdapter):
        raise InvalidInputError(
            f"learner {type(learner).__name__} cannot write its adapter alone: use transport 'file', or trainer 'torch'"
        )
    return learner


@contextmanager
def written(write: Write) -> Iterator[Path]:
    """The adapter in a folder of its own, in memory-backed storage where that has room."""
    with Aside("mutual-env-adapter-", roomy(SPARE)) as folder:
        write(folder)
        yield folder
