"""What a vLLM engine is to us, in this process or behind its server: ids in, ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from learners.sampling import Sample, Sampling
from mutual_env.errors import TrainingError
from mutual_env.types import Ids

if TYPE_CHECKING:
    import torch

Weights: TypeAlias = "Iterable[tuple[str, torch.Tensor]]"

Ended: TypeAlias = Callable[[int, Sample], None]
"""Told of a sample that has ended: its place, and the sample."""


def request(sampling: Sampling, seed: int) -> dict[str, object]:
    """What one request says, in the words that `SamplingParams` and the server's completions share.

    Only the policy's own stop tokens end a sample, and a token that holds a stop string by itself; the model
    directory's idea of an end is ignored. What is sampled behind a stop string of several tokens is cut off afterwards.
    """
    return {
        "seed": seed,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "stop_token_ids": [*sampling.stops, *(sampling.endings.tokens if sampling.endings else ())],
        "ignore_eos": True,
        "logprobs": 0,
    }


class EngineDiedError(TrainingError):
    """The engine's process is gone. The trainer's weights are intact."""


@runtime_checkable
class Revivable(Protocol):
    """An engine that can be started anew."""

    def revive(self) -> None:
        """It then knows the weights of the model directory only."""


class SamplingEngine(Protocol):
    """A vLLM engine that holds some version of a policy's weights."""

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        """One sample for each prompt and its seed."""

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace every weight; what was cached under the old ones is forgotten."""

    def close(self) -> None:
        """Release the engine. Safe to call twice."""


@runtime_checkable
class Streams(Protocol):
    """An engine that hands samples on while it writes others."""

    def sample_and_tell(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ended: Ended
    ) -> list[Sample]:
        """What `sample` returns. `ended` is told of each sample when it ends, by the thread that calls this."""


@runtime_checkable
class Sleeps(Protocol):
    """An engine that can give its device's memory back."""

    @property
    def can_sleep(self) -> bool:
        """Whether it was started so that it can."""

    def sleep(self, level: int) -> None:
        """1: weights go to the machine's memory, 2: they are forgotten; the cache is forgotten in both."""

    def wake_up(self, tags: Sequence[str]) -> None:
        """Memory for "weights", for the "kv_cache", or for both."""


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
