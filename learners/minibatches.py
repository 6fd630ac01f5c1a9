"""Which examples meet in an optimizer step.

Minibatches are cut by prompt: a prompt's own samples, what peers wrote on it and its rescue fall into one step. What is
imitated follows the samples that have credit and takes no part in the cut, so a rescue changes no own sample's company.
Nor does it add a step: where a prompt's own samples teach nothing, and their step holds nothing else that does, their
rescue joins the next step that is taken anyway. An optimizer with momentum moves in every step, however little there is
to learn in it, so a rescue in a step of its own would not vanish with its weight.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias, TypeVar

from learners.example import Example
from learners.losses import needs_of
from mutual_env.errors import InvalidInputError
from mutual_env.seeding import generator

By: TypeAlias = Literal["prompts", "samples"]
T = TypeVar("T")


def minibatches(
    examples: Sequence[Example],
    count: int,
    *,
    by: By = "prompts",
    epochs: int = 1,
    shuffle: bool = False,
    teaches: Callable[[Example], bool] = lambda _: True,
) -> list[list[Example]]:
    """The examples of each optimizer step: every epoch has all of them, in `count` minibatches or fewer. Steps in which
    nothing `teaches` are not going to be taken.

    Prompts, or samples, are cut evenly in the order in which they came, those of a higher `order` last; `shuffle` draws
    another order for each epoch, seeded by what is trained on, and within it a higher `order` still comes last.
    """
    if count < 1:
        raise InvalidInputError(f"minibatches must be at least 1, got {count}")
    leading = [example for example in examples if _leads(example)] or list(examples)
    leads = {id(example) for example in leading}
    following = [example for example in examples if id(example) not in leads]
    groups = _by_prompt(leading) if by == "prompts" else [[example] for example in leading]
    plan: list[list[Example]] = []
    for epoch in range(epochs):
        ordered = sorted(_shuffled(groups, epoch) if shuffle else groups, key=_order)
        parts = [[e for group in part for e in group] for part in _cut(ordered, count)]
        plan += _with_followers(parts, following, [any(map(teaches, part)) for part in parts])
    _say_what_is_inert(plan)
    return plan


def _leads(example: Example) -> bool:
    """Whether it has a share in the step's credit. What is imitated follows."""
    return needs_of(example.loss).denominator == "policy_gradient"


def _by_prompt(examples: Sequence[Example]) -> list[list[Example]]:
    groups: dict[bytes, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt_ids.tobytes(), []).append(example)
    return list(groups.values())


def _order(group: Sequence[Example]) -> int:
    """A prompt with samples of several orders stands where the furthest from 0 belongs."""
    return max((example.order for example in group), key=abs)


def _shuffled(groups: Sequence[list[Example]], epoch: int) -> list[list[Example]]:
    """Seeded by content: the same samples fall the same way, on every machine and after every restart."""
    digest = hashlib.blake2b(digest_size=8)
    for group in groups:
        for example in group:
            digest.update(example.prompt_ids.tobytes() + b"|" + example.response_ids.tobytes() + b"|")
    draw = generator("minibatches", digest.hexdigest(), epoch)
    return [groups[i] for i in draw.permutation(len(groups))]


def _cut(items: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    """In even parts; none that is empty."""
    borders = [round(i * len(items) / count) for i in range(count + 1)]
    return (items[start:end] for start, end in pairwise(borders) if end > start)


def _with_followers(
    parts: Sequence[list[Example]], following: Sequence[Example], taken: Sequence[bool]
) -> list[list[Example]]:
    """What follows joins the step of its prompt's last sample; of prompts that are not there, each step gets as many
    as the others. Where some steps are `taken` anyway it is the next of these, or the last."""
    open_to = [at for at, is_taken in enumerate(taken) if is_taken] or list(range(len(parts)))
    step_of = {example.prompt_ids.tobytes(): at for at, part in enumerate(parts) for example in part}
    joined = [list(part) for part in parts]
    strangers = [example for example in following if example.prompt_ids.tobytes() not in step_of]
    for example in following:
        if example.prompt_ids.tobytes() in step_of:
            own = step_of[example.prompt_ids.tobytes()]
            joined[next((at for at in open_to if at >= own), open_to[-1])].append(example)
    for index, example in enumerate(strangers):
        joined[open_to[index * len(open_to) // len(strangers)]].append(example)
    return joined


def _say_what_is_inert(plan: Sequence[Sequence[Example]]) -> None:
    if len(plan) != 1:
        return
    if len({example.order for example in plan[0]}) > 1:
        warnings.warn(
            "a strategy asks that some samples are trained on after others (GRAFT's peers last), and one optimizer "
            "step holds them all: minibatches above 1 makes the order count",
            stacklevel=2,
        )
    if any(needs_of(example.loss).minibatch for example in plan[0]):
        warnings.warn(
            "a strategy's loss changes from minibatch to minibatch (HACPO's floor), and there is one only: "
            "minibatches above 1 makes it count",
            stacklevel=2,
        )
