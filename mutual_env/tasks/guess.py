"""`mutual/guess-v0`: find a number by being told higher or lower. Several turns, no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.seeding import generator
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import JSON, Reply, Task
from mutual_env.verifiers import VerifierSpec


@dataclass(frozen=True, slots=True)
class HigherLower:
    """Says whether the number is higher or lower than the guess, until it is found. What is no number is `odd`."""

    max_turns: int = 4
    higher: str = "higher"
    lower: str = "lower"
    odd: str = "a number, please"
    inline: bool = True
    joint: bool = False

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(int(task.answer), c.text.strip()) for c in conversations]

    def _answer(self, number: int, text: str) -> Answer:
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            return Reply(self.odd, reward=0.0)
        guess = int(text)
        return Over() if guess == number else Reply(self.higher if guess < number else self.lower, reward=0.0)


class GuessTasks:
    """`guess 0-15#3:` asks for a number from 0 to 15; #3 names the game, and says nothing of its number.

    limit     how many numbers there are
    names     how many names of games; a name comes with any number
    turns     how many guesses
    template  the prompt; {limit} stands for the largest number and {name} for what tells one task from another
    higher, lower, odd  what is answered; short words for small models
    split     "train" or "eval", by a hash of the game's name and number
    """

    verifier = VerifierSpec("exact")

    def __init__(
        self,
        *,
        limit: int = 16,
        names: int = 10**6,
        turns: int = 4,
        template: str = "guess 0-{limit}#{name}:",
        higher: str = "higher\n",
        lower: str = "lower\n",
        odd: str = "a number, please\n",
        split: str = "train",
    ) -> None:
        for name, value, least in (("limit", limit, 2), ("names", names, 1), ("turns", turns, 1)):
            if not (isinstance(value, int) and value >= least):
                raise InvalidInputError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if "{name}" not in template:
            raise InvalidInputError(f"template must contain {{name}}, which tells tasks apart, got {template!r}")
        self._limit, self._names, self._template, self._split = limit, names, template, check_split(split)
        kwargs: dict[str, JSON] = {"max_turns": turns, "higher": higher, "lower": lower, "odd": odd}
        self.interaction = InteractionSpec("guess", kwargs)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        rng = generator(seed, "mutual/guess-v0", self._split, round)
        drawn = (self._task(*map(int, rng.integers((self._names, self._limit)))) for _ in range(1000 + 200 * n))
        return take_distinct((t for t in drawn if split_of(t.id) == self._split), n, "mutual/guess-v0")

    def _task(self, name: int, number: int) -> Task:
        prompt = self._template.replace("{limit}", str(self._limit - 1)).replace("{name}", str(name))
        return Task(f"mutual/guess-v0:{prompt}{number}", prompt, str(number))
