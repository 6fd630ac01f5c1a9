"""The one seam of this package: what the loop, the batch builder and the resource wrapper ask of a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from learners.example import Example
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge.protocol import Tokenizer


class Acts(Protocol):
    """Of a policy, what an evaluation asks of it."""

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        """As `Learner.act`."""


@runtime_checkable
class Learner(Protocol):
    """One policy: its weights, its tokenizer, its objective, its sampler.

    A learner sees its own tokens only. It knows no strategy, no peer and no foreign vocabulary.
    """

    @property
    def name(self) -> str:
        """Which policy this is, e.g. "policy_0"."""

    @property
    def version(self) -> int:
        """How many updates have been applied."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        """A group of n completions for each prompt, or of next turns for each context. The seed of each sample is
        derived from (seed, name, prompt or context, its occurrence among them, index), so a sample does not depend on
        what else is in the call."""

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π(response | prompt) for each response token, at the temperature of `act`."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        """Learn from these examples in one update: `version` rises by one, even where nothing was to be learnt."""

    def save(self, directory: Path) -> None:
        """Everything a later `load` needs to go on exactly as if nothing had happened: safetensors and JSON."""

    def load(self, directory: Path) -> None: ...

    def close(self) -> None:
        """Release what is held. Safe to call twice."""


@runtime_checkable
class Bounded(Protocol):
    """What a learner may say beside: how much it can train on at once."""

    @property
    def max_sequence(self) -> int | None:
        """Prompt and response tokens of the longest sequence that `score` and `update` take; None: any."""


Finished: TypeAlias = Callable[[int, tuple[Completion, ...]], None]
"""Told of a group: its prompt's place, and what was written."""


@runtime_checkable
class HandsOn(Protocol):
    """What a learner may do beside: hand groups on while it still samples others."""

    def act_and_tell(
        self, prompts: Sequence[Prompt | Context], n: int, finished: Finished, *, seed: int
    ) -> list[tuple[Completion, ...]]:
        """What `act` returns. `finished` is told of groups when their last sample has ended: of all, some or none, of
        one perhaps twice, and in any order."""


@runtime_checkable
class Movable(Protocol):
    """What a learner may do beside: make room for another on its device."""

    def offload(self) -> None:
        """All that it holds on its device, into the machine's memory. What needs it there brings it back by itself."""

    def restore(self) -> None:
        """Back on the device, where it is not there."""


@runtime_checkable
class Measured(Protocol):
    """What a learner may say beside: what it holds on its device."""

    def memory(self) -> tuple[int, int] | None:
        """Bytes held now, and the most since it was last asked; None: there is nothing to measure."""


@runtime_checkable
class SavesAside(Protocol):
    """What a learner may do beside: have its state written while it goes on."""

    def save_aside(self, directory: Path) -> Callable[[], None]:
        """Copy all that `save` writes. What is returned writes the copy into the directory, or waits until it is
        there; it is called once, from any thread, whatever the learner does meanwhile."""


def save_aside(learner: Learner, directory: Path) -> Callable[[], None]:
    """The same of any learner: one that cannot is saved here and now."""
    if isinstance(learner, SavesAside):
        return learner.save_aside(directory)
    learner.save(directory)
    return nothing_left


def nothing_left() -> None:
    """All is written."""


def longest_sequence(learner: Learner) -> int | None:
    """What a learner says of that; None where it says nothing."""
    return learner.max_sequence if isinstance(learner, Bounded) else None
