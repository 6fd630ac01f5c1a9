"""TextArena's games as a task family: `pip install textarena`.

    name = "mutual_env.adapters.textarena:TextArenaTasks"
    mutual_env.register("textarena/guess-v0", name, game="GuessTheNumber-v0")
    mutual_env.register("textarena/nim-v0", name, game="Nim-v0", players=2, opponent="acme.players:careful")
    mutual_env.register("textarena/nim-match-v0", name, game="Nim-v0", players=2)    # the env's two agents play

A game keeps its state in an object and draws from Python's global generator. Here each turn plays it again from its
seed, in a confined worker process: the same texts get the same answers, whatever else runs, and a game that hangs ends
one conversation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import textarena

from mutual_env.catalogue import load
from mutual_env.confined import Confined
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over, Wait
from mutual_env.seeding import generator
from mutual_env.spec import whole_number
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import JSON, Reply, Task, Verdict
from mutual_env.verifiers import VerifierSpec

GAME = -1
LONGEST = 1000
"""Moves of opponents between two of the player's own: more is taken for a game that forgets whose turn it is."""

Opponent: TypeAlias = Callable[[str, int], str]
"""From what it has heard since its last move, and the game's seed, to its move. It depends on these alone."""


@dataclass(frozen=True)
class Game(Confined):
    """Plays what was written so far and says what the game says to `player`: its messages, or what it was worth, at its
    end. A game that is won, with a reward of at least 1, is right. The other players' moves are the opponent's."""

    runs_code = False

    game: str
    max_turns: int = 20
    players: int = 1
    player: int = 0
    opponent: str = ""

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(int(str(task.metadata["game_seed"])), c) for c in conversations]

    def _answer(self, seed: int, conversation: Conversation) -> Answer:
        table = Table(self.game, seed, self.players, self.player, self.opponent)
        said = ""
        for text in (*(written for written, _ in conversation.earlier), conversation.text):
            if table.is_over:
                break
            said = table.move(text)
        if not table.is_over:
            return Reply(said)
        reward = table.reward()
        return Over(Verdict.scored(reward, correct=reward >= 1.0))


@dataclass(frozen=True)
class Match(Confined):
    """A game of the env's own agents: each sample on a task is one, played again from what everybody wrote so far. The
    agents take the places in the order of their names, from another place on in each game. Whoever is to move hears
    what was said since its last move, the others wait; when the game ends everybody is told what it was worth."""

    runs_code = False
    joint = takes_turns = True

    game: str
    players: int
    max_turns: int = 20

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        seed = int(str(task.metadata["game_seed"]))
        answers: dict[tuple[str, int], Answer] = {}
        for sample in sorted({c.sample for c in conversations}):
            of_sample = sorted((c for c in conversations if c.sample == sample), key=lambda c: c.author)
            shift = seed % self.players
            seated = [*of_sample[shift:], *of_sample[:shift]]
            answers |= zip([(c.author, sample) for c in seated], self._answers(seed, seated), strict=True)
        return [answers[c.author, c.sample] for c in conversations]

    def _answers(self, seed: int, seated: Sequence[Conversation]) -> list[Answer]:
        """To each player in the order of their places."""
        moves = [iter(_moves(c)) for c in seated]
        arena = Arena(self.game, seed, self.players)
        while not arena.is_over:
            asked, heard = arena.asked()
            move = next(moves[asked], None)
            if move is None:
                over = seated[asked].is_over  # it was cut, and never moves
                return [Over() if over else Reply(heard) if p == asked else Wait() for p in range(self.players)]
            arena.move(move)
        rewards = arena.rewards()
        won = [float(rewards.get(player, 0.0)) for player in range(self.players)]
        return [Over(Verdict.scored(reward, correct=reward >= 1.0)) for reward in won]


def _moves(conversation: Conversation) -> list[str]:
    """What was written, behind the silence that a game begins with."""
    return [*(written for written, _ in conversation.earlier), conversation.text][1:]


class Arena:
    """A game of TextArena from its seed."""

    def __init__(self, game: str, seed: int, players: int) -> None:
        self._env = textarena.make(f"{game}-raw")
        try:
            self._env.reset(num_players=players, seed=seed)
        except (AssertionError, ValueError) as cause:
            raise InvalidInputError(f"{game} is no game for {counted(players)}: {cause}") from cause
        self.is_over = False

    def asked(self) -> tuple[int, str]:
        """Who is to move, and what that player has heard since its last move."""
        player, messages = self._env.get_observation()
        return int(player), _text(messages, player)

    def move(self, text: str) -> None:
        self.is_over, _ = self._env.step(text)

    def rewards(self) -> dict[int, float]:
        """What the game came to for each player."""
        rewards, _ = self._env.close()
        return rewards or {}


class Table:
    """A game up to where `player` moves: `heard` is what that player reads first."""

    def __init__(self, game: str, seed: int, players: int, player: int, opponent: str) -> None:
        self._arena = Arena(game, seed, players)
        self._seed, self._player = seed, player
        self._opponent: Opponent | None = load("opponent", opponent) if opponent else None
        self.heard = self._until_asked()

    @property
    def is_over(self) -> bool:
        return self._arena.is_over

    def move(self, text: str) -> str:
        """What the player hears after its move, when it is asked again."""
        self._arena.move(text)
        return self._until_asked()

    def reward(self) -> float:
        """What the game came to for the player."""
        return float(self._arena.rewards().get(self._player, 0.0))

    def _until_asked(self) -> str:
        """Let the others move until it is the player's turn."""
        for _ in range(LONGEST):
            if self.is_over:
                return ""
            asked, said = self._arena.asked()
            if asked == self._player:
                return said
            if self._opponent is None:
                raise InvalidInputError("a game of several players needs an opponent, a 'module:function'")
            self._arena.move(self._opponent(said, self._seed))
        raise InvalidInputError(f"{LONGEST} moves of opponents in a row: is {self._player} a player of this game?")


class TextArenaTasks:
    """`game` is one of TextArena's ids, such as "GuessTheNumber-v0"; each task is a game of its own. `turns` bounds how
    often a policy writes; `split`: "train" or "eval", by a hash of the game's seed.

    In a game of several `players` the env's agents play each other, as many as there are players. Where an `opponent`
    is given each agent plays a game of its own: it is the player numbered `player`, and the "module:function"
    `opponent` moves for all others: see `Opponent`. It runs in the confined worker, where the game does: one of an
    installed package, or of a directory that the pool's `readable` names.
    """

    verifier = VerifierSpec("exact")  # never asked where the game ends by itself: what is cut was not won

    def __init__(
        self,
        *,
        game: str,
        turns: int = 20,
        players: int = 1,
        player: int = 0,
        opponent: str = "",
        split: str = "train",
    ) -> None:
        known = {name.removesuffix("-raw") for name in textarena.envs.registration.ENV_REGISTRY}
        if game not in known:
            raise UnknownNameError.of("game of TextArena", game, known)
        if not 0 <= player < whole_number("players", players, 1):
            raise InvalidInputError(f"player must be one of the {players} players, counted from 0, got {player!r}")
        if opponent and players == 1:
            raise InvalidInputError("opponent moves for the other players, and this game has none: leave it out")
        if player and not opponent:
            raise InvalidInputError(f"player={player} says which one plays the opponent: give one, or leave it out")
        self._game, self._split = game, check_split(split)
        self._is_match = players > 1 and not opponent
        self._places: dict[str, Any] = {"players": players, "player": player, "opponent": opponent}
        kwargs: dict[str, JSON] = {"game": game, "max_turns": whole_number("turns", turns, 1), "players": players}
        if self._is_match:
            self.interaction = InteractionSpec(f"{__name__}:Match", kwargs)
        else:
            self.interaction = InteractionSpec(f"{__name__}:Game", {**kwargs, **self._places})

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        rng = generator(seed, "textarena", self._game, self._split, round)
        seeds = (int(rng.integers(2**31)) for _ in range(1000 + 200 * n))
        mine = (s for s in seeds if split_of(f"{self._game}:{s}") == self._split)
        return take_distinct((self._task(s) for s in mine), n, f"textarena/{self._game}")

    def _task(self, seed: int) -> Task:
        name = f"textarena/{self._game}:{seed}"
        state = random.getstate()
        try:
            prompt = self._prompt(seed)
        finally:
            random.setstate(state)  # a game draws from Python's global generator, and an env must leave it as it was
        return Task(name, prompt, "(won)", {"game_seed": seed})

    def _prompt(self, seed: int) -> str:
        """What a lone player reads first; in a match each is told the rules when it is first asked to move."""
        if not self._is_match:
            return Table(self._game, seed, **self._places).heard
        players = int(self._places["players"])
        Arena(self._game, seed, players)  # which knows whether so many can play it
        return f"A game of {self._game} for {players} players.\n"


def counted(players: int) -> str:
    return "one player" if players == 1 else f"{players} players"


def _text(messages: Sequence[tuple[Any, ...]], reader: int) -> str:
    """What was said since the reader last read; what it wrote itself is left out."""
    said = [(author, text) for author, text, *_ in messages if author != reader]
    return "\n".join(text if author == GAME else f"[Player {author}] {text}" for author, text in said) + "\n"
