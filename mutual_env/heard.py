"""What is heard about what was just written, before the world answers: the verifier, and the policy in a seat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mutual_env.confined import Asked
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.interaction import Conversation, Interaction, Seated, Speaker
from mutual_env.seeding import derive_seed
from mutual_env.types import Prompt, Task, Verdict


def check_seats(what: str, interaction: Interaction, seats: Mapping[str, Speaker]) -> None:
    """Everybody who is given has a seat, and no seat is empty."""
    wanted = (interaction.seat,) if isinstance(interaction, Seated) else ()
    for name in seats:
        if name not in wanted:
            if not wanted:
                raise InvalidInputError(
                    f"{what} has no seats, got {name!r}: leave `seats` out, or choose a family with one"
                )
            raise UnknownNameError.of(f"seat of {what}", name, wanted)
    for name in wanted:
        if name not in seats:
            raise InvalidInputError(
                f"{what} has a seat that is empty: give seats={{{name!r}: speaker}}, e.g. learners.seated(learner), or "
                f"`seats.{name}` in a run's configuration"
            )


def judged(asked: Asked, verify: Callable[[Sequence[tuple[Task, str]]], Sequence[Verdict]]) -> Asked:
    """The same conversations, with what the verifier says of what was just written."""
    written = [(task, c.text) for task, conversations in asked for c in conversations if not c.is_over]
    verdicts = iter(verify(written))
    return [
        (task, [c if c.is_over else replace(c, verdict=next(verdicts)) for c in conversations])
        for task, conversations in asked
    ]


def spoken_to(asked: Asked, interaction: Seated, speaker: Speaker, seed: int) -> Asked:
    """The same conversations, with what the one in the seat says to each that it is asked about.

    It is asked author by author, each with a seed of its own, so that nobody's answer depends on who else is there.
    """
    prompts: dict[str, list[Prompt]] = {}
    for task, conversation in _open(asked):
        prompt = interaction.asks(task, conversation)
        if prompt is not None:
            prompts.setdefault(conversation.author, []).append(prompt)
    said = {
        author: iter(_said(speaker, p, derive_seed(seed, author), interaction.seat)) for author, p in prompts.items()
    }

    def heard(task: Task, c: Conversation) -> Conversation:
        return c if c.is_over or interaction.asks(task, c) is None else replace(c, said=next(said[c.author]))

    return [(task, [heard(task, c) for c in conversations]) for task, conversations in asked]


def _open(asked: Asked) -> list[tuple[Task, Conversation]]:
    return [(task, c) for task, conversations in asked for c in conversations if not c.is_over]


def _said(speaker: Speaker, prompts: Sequence[Prompt], seed: int, seat: str) -> list[str]:
    said = list(speaker(prompts, seed))
    if len(said) != len(prompts) or not all(isinstance(text, str) for text in said):
        raise InvalidInputError(f"the speaker in the seat {seat!r} must say a text to each of {len(prompts)} prompts")
    return said
