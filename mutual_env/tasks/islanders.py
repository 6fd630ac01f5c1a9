"""Puzzles of knights, who always tell the truth, and knaves, who always lie: made at random, with one solution each.

A claim is a person being a knight or a knave, or `not`, `and`, `or`, `->`, `<=>` of such claims. Its truth in every
possible world is one whole number: bit w says whether it is true in world w, in which the persons of the set bits of w
are knights. All connectives are then bit operations, and a puzzle of eight is solved in microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError

NAMES = (
    "Ada", "Amir", "Anna", "Ben", "Carla", "Chen", "Clara", "David", "Dora", "Elena", "Emil", "Eva", "Felix", "Grace",
    "Hana", "Henry", "Ida", "Ivan", "Jack", "Jana", "Kai", "Karin", "Lena", "Leo", "Lily", "Luca", "Maria", "Max",
    "Mia", "Nadia", "Nina", "Noah", "Olga", "Omar", "Oscar", "Paula", "Peter", "Rosa", "Sam", "Sara", "Simon", "Sofia",
    "Tara", "Theo", "Tom", "Vera", "Victor", "Yara", "Zoe",
)  # fmt: skip
FEWEST, MOST = 2, 8
_CONNECTIVES = ("not", "and", "or", "->", "<=>")
_SAYS = (
    '{name} said, "{claim}."', '{name} told you, "{claim}."', '"{claim}," {name} claimed.', "{name} says that {claim}.",
    'In the words of {name}: "{claim}."', '{name} remarked, "{claim}."', 'According to {name}, "{claim}."',
)  # fmt: skip
_STORY = (
    "A very special island is inhabited only by knights and knaves. Knights always tell the truth, and knaves always "
    "lie. You meet {count} inhabitants: {names}. {said} So who is a knight and who is a knave?"
)
_ATTEMPTS = 10_000

Claim: TypeAlias = "tuple[str, int] | tuple[str, Claim] | tuple[str, Claim, Claim]"


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Who is there, what each claims, and the one world in which knights' claims are true and knaves' are false."""

    names: tuple[str, ...]
    claims: tuple[Claim, ...]
    knights: tuple[bool, ...]
    text: str

    @property
    def solution(self) -> str:
        """A line for each person: "(1) Zoe is a knight"."""
        return solution_text(self.names, self.knights)


def solution_text(names: Sequence[str], knights: Sequence[bool]) -> str:
    roles = ("knave", "knight")
    pairs = enumerate(zip(names, knights, strict=True), 1)
    return "\n".join(f"({i}) {name} is a {roles[knight]}" for i, (name, knight) in pairs)


def make_puzzle(rng: np.random.Generator, people: int, depth: int = 2) -> Puzzle:
    """Claims are drawn until they leave one world; `depth` 2 allows one connective in a claim, and so on."""
    if not FEWEST <= people <= MOST:
        raise InvalidInputError(f"people must lie in {FEWEST} .. {MOST}, got {people!r}")
    for _ in range(_ATTEMPTS):
        claims = tuple(_draw_claim(rng, people, depth) for _ in range(people))
        worlds = solutions(claims)
        if len(worlds) == 1:
            names = tuple(NAMES[i] for i in rng.permutation(len(NAMES))[:people])
            return Puzzle(names, claims, worlds[0], _told(rng, names, claims))
    raise InvalidInputError(f"no puzzle of {people} with one solution in {_ATTEMPTS} attempts at depth {depth}")


def solutions(claims: Sequence[Claim]) -> list[tuple[bool, ...]]:
    """Every world in which exactly the knights' claims are true."""
    people = len(claims)
    everywhere = (1 << (1 << people)) - 1
    possible = everywhere
    for person, claim in enumerate(claims):
        possible &= everywhere & ~(_knight(person, people) ^ _truth(claim, people))
    return [
        tuple(bool(world >> person & 1) for person in range(people))
        for world in range(1 << people)
        if possible >> world & 1
    ]


def _knight(person: int, people: int) -> int:
    """In which worlds this person is a knight."""
    return sum(1 << world for world in range(1 << people) if world >> person & 1)


def _truth(claim: Claim, people: int) -> int:
    """In which worlds the claim is true."""
    everywhere = (1 << (1 << people)) - 1
    word, *parts = claim
    if isinstance(parts[0], int):
        knight = _knight(parts[0], people)
        return knight if word == "knight" else everywhere & ~knight
    truths = [_truth(part, people) for part in parts if not isinstance(part, int)]
    first, last = truths[0], truths[-1]
    of = {
        "not": ~first,
        "and": first & last,
        "or": first | last,
        "->": ~first | last,
        "<=>": ~(first ^ last),
    }
    return everywhere & of[word]


def _draw_claim(rng: np.random.Generator, people: int, depth: int) -> Claim:
    """A plain claim one time in six, as in Logic-RL's puzzles, and where there is no depth left."""
    if depth <= 1 or rng.random() < 1 / 6:
        return ("knight" if rng.random() < 0.5 else "knave", int(rng.integers(people)))
    word = _CONNECTIVES[int(rng.integers(len(_CONNECTIVES)))]
    if word == "not":
        return word, _draw_claim(rng, people, depth - 1)
    return word, _draw_claim(rng, people, depth - 1), _draw_claim(rng, people, depth - 1)


def _told(rng: np.random.Generator, names: Sequence[str], claims: Sequence[Claim]) -> str:
    said = []
    for name, claim in zip(names, claims, strict=True):
        sentence = _SAYS[int(rng.integers(len(_SAYS)))]
        said.append(sentence.replace("{name}", name).replace("{claim}", _words(claim, names)))
    listed = ", ".join(names[:-1]) + (", and " if len(names) > 2 else " and ") + names[-1]
    return _STORY.format(count=len(names), names=listed, said=" ".join(said))


def _words(claim: Claim, names: Sequence[str], *, inside: bool = False) -> str:
    word, *parts = claim
    if isinstance(parts[0], int):
        return f"{names[parts[0]]} is a {word}"
    inner = [part for part in parts if not isinstance(part, int)]
    if word == "not" and isinstance(inner[0][1], int):
        return f"{names[inner[0][1]]} is not a {inner[0][0]}"
    said = [_words(part, names, inside=True) for part in inner]
    forms = {
        "not": "it is not the case that {0}",
        "and": "{0} and {1}",
        "or": "{0} or {1}",
        "->": "if {0} then {1}",
        "<=>": "{0} if and only if {1}",
    }
    text = forms[word].format(*said)
    return f"({text})" if inside else text
