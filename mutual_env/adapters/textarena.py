"""TextArena's games of one player as a task family: `pip install textarena`.

    mutual_env.register("textarena/guess-v0", "mutual_env.adapters.textarena:TextArenaTasks", game="GuessTheNumber-v0")

A game keeps its state in an object and draws from Python's global generator. Here each turn plays it again from its
seed, in a confined worker process: the same texts get the same answers, whatever else runs, and a game that hangs ends
one conversation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import textarena

from mutual_env.confined import Confined
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.seeding import generator
from mutual_env.spec import whole_number
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import JSON, Reply, Task, Verdict
from mutual_env.verifiers import VerifierSpec

GAME, ONE_PLAYER = -1, 0


@dataclass(frozen=True)
class Game(Confined):
    """Plays what was written so far and says what the game says: its messages, or what it was worth, at its end. A game
    that is won, with a reward of at least 1, is right."""

    runs_code = False

    game: str
    max_turns: int = 20

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(int(str(task.metadata["game_seed"])), c) for c in conversations]

    def _answer(self, seed: int, conversation: Conversation) -> Answer:
        env, _ = begun(self.game, seed)
        done, said = False, ""
        for text in (*(written for written, _ in conversation.earlier), conversation.text):
            done, _ = env.step(text)
            if done:
                break
            said = _heard(env)
        if not done:
            return Reply(said)
        rewards, _ = env.close()
        reward = float((rewards or {}).get(ONE_PLAYER, 0.0))
        return Over(Verdict.scored(reward, correct=reward >= 1.0))


class TextArenaTasks:
    """`game` is one of TextArena's ids, such as "GuessTheNumber-v0", of a game for one player; each task is a game of
    its own. `turns` bounds how often a policy writes; `split`: "train" or "eval", by a hash of the game's seed."""

    verifier = VerifierSpec("exact")  # never asked where the game ends by itself: what is cut was not won

    def __init__(self, *, game: str, turns: int = 20, split: str = "train") -> None:
        known = {name.removesuffix("-raw") for name in textarena.envs.registration.ENV_REGISTRY}
        if game not in known:
            raise UnknownNameError.of("game of TextArena", game, known)
        self._game, self._split = game, check_split(split)
        kwargs: dict[str, JSON] = {"game": game, "max_turns": whole_number("turns", turns, 1)}
        self.interaction = InteractionSpec(f"{__name__}:Game", kwargs)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        rng = generator(seed, "textarena", self._game, self._split, round)
        seeds = (int(rng.integers(2**31)) for _ in range(1000 + 200 * n))
        mine = (s for s in seeds if split_of(f"{self._game}:{s}") == self._split)
        return take_distinct((self._task(s) for s in mine), n, f"textarena/{self._game}")

    def _task(self, seed: int) -> Task:
        state = random.getstate()
        try:
            _, prompt = begun(self._game, seed)
        finally:
            random.setstate(state)  # a game draws from Python's global generator, and an env must leave it as it was
        return Task(f"textarena/{self._game}:{seed}", prompt, "(won)", {"game_seed": seed})


def begun(game: str, seed: int) -> tuple[Any, str]:
    """The game at its beginning, and what its player reads."""
    env = textarena.make(f"{game}-raw")
    try:
        env.reset(num_players=1, seed=seed)
    except (AssertionError, ValueError) as cause:
        raise InvalidInputError(f"{game} is no game for one player: {cause}") from cause
    return env, _heard(env)


def _heard(env: Any) -> str:
    """What the game has said since the player last read; what the player wrote itself is left out."""
    _, messages = env.get_observation()
    return "\n".join(text for author, text, *_ in messages if author == GAME) + "\n"
