"""`mutual/letters-v0`: reverse, sort or rotate a few letters. Skills that a policy can have singly; no download."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.seeding import generator
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import Task
from mutual_env.verifiers import VerifierSpec

_SKILLS: dict[str, Callable[[str], str]] = {
    "reverse": lambda letters: letters[::-1],
    "sort": lambda letters: "".join(sorted(letters)),
    "rotate": lambda letters: letters[1:] + letters[:1],
}

_AT_ONCE = 64  # candidates drawn by one call of the generator


class LettersTasks:
    """`r:dbca=` asks for `acbd`, `s:dbca=` for `abcd`: the skill by its first letter, then the letters.

    skill     "reverse", "sort" or "rotate", or several of them: the tasks of a round take them in turn
    length    how many letters
    alphabet  the letters to draw from, each independently
    split     "train" or "eval". A string of letters belongs to exactly one of them (a quarter to "eval"), by a hash of
              itself and its skill: the two share no prompt, whatever the seeds.
    """

    verifier = VerifierSpec("exact")

    def __init__(
        self,
        *,
        skill: str | Sequence[str] = ("reverse", "sort"),
        length: int = 4,
        alphabet: str = "abcdefgh",
        split: str = "train",
    ) -> None:
        names = (skill,) if isinstance(skill, str) else tuple(skill)
        if not names:
            raise InvalidInputError(f"skill is empty: name at least one of {', '.join(_SKILLS)}")
        for name in names:
            if name not in _SKILLS:
                raise UnknownNameError.of("skill", name, _SKILLS)
        if not (isinstance(length, int) and length >= 1):
            raise InvalidInputError(f"length must be a whole number of at least 1, got {length!r}")
        if len(set(alphabet)) != len(alphabet) or len(alphabet) < 2:
            raise InvalidInputError(f"alphabet must be two or more different letters, got {alphabet!r}")
        self._skills = names
        self._length = length
        self._alphabet = alphabet
        self._split = check_split(split)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        what = f"mutual/letters-v0 (length {self._length}, {len(self._alphabet)} letters, split {self._split!r})"
        return take_distinct(self._candidates(seed, round, attempts=1000 + 200 * n), n, what)

    def _candidates(self, seed: int, round: int, attempts: int) -> Iterator[Task]:
        rng = generator(seed, "mutual/letters-v0", self._split, round)
        seen: set[str] = set()
        for attempt in range(attempts):
            if attempt % _AT_ONCE == 0:  # the same numbers as one at a time, and a call for all of them
                drawn = rng.integers(len(self._alphabet), size=(_AT_ONCE, self._length)).tolist()
            skill = self._skills[len(seen) % len(self._skills)]
            letters = "".join([self._alphabet[i] for i in drawn[attempt % _AT_ONCE]])
            prompt = f"{skill[0]}:{letters}="
            if prompt not in seen and split_of(prompt) == self._split:
                seen.add(prompt)
                yield Task(f"mutual/letters-v0:{prompt}", prompt, _SKILLS[skill](letters), {"skill": skill})
