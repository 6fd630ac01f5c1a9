"""What a vLLM engine is to us, in this process or behind its server: ids in, ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from mutual_env.errors import InvalidInputError
from mutual_env.types import Floats, Ids

if TYPE_CHECKING:
    import torch

Weights: TypeAlias = "Iterable[tuple[str, torch.Tensor]]"


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that is sampled from, and how far. `top_k` 0: all tokens."""

    stop_id: int
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidInputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not self.temperature > 0.0:
            raise InvalidInputError(f"temperature must be above 0, got {self.temperature}: use top_k=1 for argmax")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidInputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise InvalidInputError(f"top_k must not be negative, got {self.top_k}")

    def parameters(self, seed: int) -> dict[str, object]:
        """What one request says, in the words that `SamplingParams` and the server's completions share.

        Only the policy's own stop token ends a sample: the model directory's idea of an end is ignored.
        """
        return {
            "seed": seed,
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k or -1,
            "stop_token_ids": [self.stop_id],
            "ignore_eos": True,
            "logprobs": 0,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The sampled ids, the stop token included, and their log-probabilities under the distribution sampled from."""

    token_ids: Ids
    logprobs: Floats


class SamplingEngine(Protocol):
    """A vLLM engine that holds some version of a policy's weights."""

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        """One sample for each prompt and its seed."""

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace every weight; what was cached under the old ones is forgotten."""

    def close(self) -> None:
        """Release the engine. Safe to call twice."""


class WeightSyncClient(Protocol):
    """vLLM's control plane for weight updates, as its in-process engine and its HTTP routes both have it."""

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None: ...

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: dict[str, object]) -> None: ...

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...


class Transport(Protocol):
    """How weights get to the engine: files in memory-backed storage, CUDA IPC, or NCCL."""

    @property
    def backend(self) -> str:
        """vLLM's name for it, which the engine must be started with."""

    def send(self, client: WeightSyncClient, weights: Weights, version: int) -> None: ...

    def close(self) -> None: ...
