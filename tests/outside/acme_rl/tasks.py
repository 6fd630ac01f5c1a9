"""A task family, and a verifier."""

from __future__ import annotations

from mutual_env import Task, Verdict, VerifierSpec
from mutual_env.seeding import generator


class Doubling:
    """`d7=` asks for 14."""

    verifier = VerifierSpec("numeric")

    def __init__(self, *, limit: int = 9) -> None:
        self.limit = limit

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        numbers = generator(seed, "doubling", round).permutation(self.limit)[:n]
        return [Task(id=f"doubling:{x}", prompt=f"d{x}=", answer=str(2 * x)) for x in numbers]


class Parity:
    """1 if the text is a number that is as even as the answer."""

    id = "acme-parity"
    inline = True

    def verify(self, task: Task, text: str) -> Verdict:
        if not (text.isascii() and text.isdigit()):
            return Verdict.wrong_format(detail="not a number")
        right = int(text[-1]) % 2 == int(task.answer) % 2
        return Verdict.scored(float(right), correct=right)
