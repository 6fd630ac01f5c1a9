"""A game in turns: from a pile of five each takes one or two; who takes the last wins, and so does who is left when
another writes anything else."""

from __future__ import annotations

from collections.abc import Sequence

from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over, Wait
from mutual_env.types import Reply, Task, Verdict
from mutual_env.verifiers import VerifierSpec

ID = "test/pile-v0"
TARGET = "tests.mutual_env.turns.pile:PileTasks"


class Pile:
    inline = joint = takes_turns = True

    def __init__(self, players: int = 2, max_turns: int = 4) -> None:
        self.players, self.max_turns = players, max_turns

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        samples = {c.sample for c in conversations}
        found: dict[tuple[str, int], Answer] = {}
        for sample in samples:
            seated = [c for c in conversations if c.sample == sample]
            first = int(task.answer) % len(seated)
            found |= self._table([*seated[first:], *seated[:first]])
        return [found[c.author, c.sample] for c in conversations]

    def _table(self, seated: Sequence[Conversation]) -> dict[tuple[str, int], Answer]:
        left, number, heard = 5, 0, ["5?"] + ["?"] * (len(seated) - 1)
        scripts = [[*(text for text, _ in c.earlier), c.text][1:] for c in seated]
        while number // len(seated) < len(scripts[number % len(seated)]):
            mover = number % len(seated)
            taken = scripts[mover][number // len(seated)]
            left -= int(taken) if taken in ("1", "2") else 99
            if left <= 0:
                winners = [mover] if left > -50 else [i for i in range(len(seated)) if i != mover]
                return {
                    (c.author, c.sample): Over(Verdict.scored(float(i in winners), correct=i in winners))
                    for i, c in enumerate(seated)
                }
            number += 1
            heard = [f"{left}?"] * len(seated)
        mover = number % len(seated)
        return {(c.author, c.sample): Reply(heard[i]) if i == mover else Wait() for i, c in enumerate(seated)}


class PileTasks:
    """The player who begins changes from task to task."""

    verifier = VerifierSpec("exact")

    def __init__(self, *, players: int = 2, turns: int = 4, split: str = "train") -> None:
        self._split = split
        self.interaction = InteractionSpec("tests.mutual_env.turns.pile:Pile", {"players": players, "max_turns": turns})

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"pile:{self._split}:{seed}:{round}:{i}", f"{i}+=", str(i)) for i in range(n)]
