"""An OpenEnv server's episodes as a task family: `pip install openenv`.

    mutual_env.register("openenv/echo-v0", "mutual_env.adapters.openenv:OpenEnvTasks", url="http://127.0.0.1:8000")

A server keeps an episode's state in a session. Here each turn opens a session of its own, seeds it and plays again what
was written so far: nothing has to be kept between turns, a round can be killed and resumed, and one session at a time
is enough. A server that does not answer the same texts alike under one seed is found out, and its conversation ends
unscored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openenv.core.generic_client as generic

from mutual_env.catalogue import load
from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.seeding import generator
from mutual_env.spec import whole_number
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import JSON, Reply, Task, Verdict
from mutual_env.verifiers import VerifierSpec

GENERIC = f"{generic.__name__}:{generic.GenericEnvClient.__name__}"


@dataclass(frozen=True)
class Session:
    """How a server is spoken to: its address, OpenEnv's client class for it, and what stands between texts and its
    actions and observations."""

    url: str
    client: str = GENERIC
    act: str = "message"
    hear: str = ""
    timeout: float = 30.0

    def play(self, seed: int, texts: Sequence[str]) -> list[tuple[str, float, bool]]:
        """What is heard after the beginning and after each text, the sum of rewards so far, and whether it is over.
        Texts behind the end of the episode are not said."""
        made = load("client of OpenEnv", self.client)(
            base_url=self.url, connect_timeout_s=self.timeout, message_timeout_s=self.timeout
        )
        with made.sync() as client:
            heard = [self._heard(client.reset(seed=seed), 0.0)]
            for text in texts:
                if heard[-1][2]:
                    break
                heard.append(self._heard(client.step(self._action(text)), heard[-1][1]))
            return heard

    def _heard(self, result: Any, before: float) -> tuple[str, float, bool]:
        return self._text(result.observation), before + float(result.reward or 0.0), bool(result.done)

    @cached_property
    def _action(self) -> Callable[[str], Any]:
        if ":" in self.act:
            found: Callable[[str], Any] = load("act", self.act)
            return found
        return lambda text: {self.act: text}

    @cached_property
    def _text(self) -> Callable[[Any], str]:
        if ":" in self.hear:
            found: Callable[[Any], str] = load("hear", self.hear)
            return found
        return self._field

    def _field(self, observation: Any) -> str:
        """The field `hear`; without a name the only one that is a text."""
        fields = observation if isinstance(observation, dict) else observation.model_dump()
        texts = {name: value for name, value in fields.items() if isinstance(value, str)}
        if self.hear not in texts and (self.hear or len(texts) != 1):
            raise InvalidInputError(
                f"hear must name the text of an observation, one of {sorted(texts)}, or a 'module:function' from "
                f"observations to texts, got {self.hear!r}"
            )
        return texts[self.hear or next(iter(texts))]


@dataclass(frozen=True)
class Episode:
    """Says what the server says. What a turn was worth is the sum of the server's rewards so far; the conversation came
    to the last one, and is right from `success` on.

    It answers in this process: what was written is run by the server, if by anybody, and each wait for the server has a
    bound. A server that fails or is silent ends the conversation with a status.
    """

    url: str
    client: str = GENERIC
    act: str = "message"
    hear: str = ""
    timeout: float = 30.0
    success: float = 1.0
    max_turns: int = 8
    inline: bool = True
    joint: bool = False

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(int(str(task.metadata["episode_seed"])), c) for c in conversations]

    def _answer(self, seed: int, c: Conversation) -> Answer:
        session = Session(self.url, self.client, self.act, self.hear, self.timeout)
        try:
            heard = session.play(seed, [*(written for written, _ in c.earlier), c.text])
        except TimeoutError as error:  # a boundary: whatever a server does, it does to one conversation
            return Over(Verdict.unscored("timeout", detail=f"the OpenEnv server was silent: {error}"), failed=True)
        except Exception as error:
            detail = f"the OpenEnv server failed: {type(error).__name__}: {error}"
            return Over(Verdict.unscored("error", detail=detail[:500]), failed=True)
        if [text for text, _, _ in heard[1 : len(c.earlier) + 1]] != [reply for _, reply in c.earlier]:
            detail = "the OpenEnv server answered otherwise the second time: its reset must honour `seed`"
            return Over(Verdict.unscored("error", detail=detail), failed=True)
        text, worth, done = heard[-1]
        if done or len(c.earlier) + 1 >= self.max_turns:
            return Over(Verdict.scored(worth, correct=worth >= self.success))
        return Reply(text, reward=worth)


class OpenEnvTasks:
    """Each task is an episode of its own seed, and its prompt what the server says at the beginning.

    url      where the server listens
    client   OpenEnv's client for it, "module:Class"; the generic one, which installs nothing of the env's
    act      the field of an action that takes what was written, or a "module:function" from texts to actions
    hear     the field of an observation that is read, or a "module:function"; not needed where only one is a text
    turns    how often a policy writes; an episode that the server does not end comes to its rewards until then
    success  the sum of rewards that counts as right
    timeout  seconds that each answer of the server may take
    prompt   what is asked; {heard} is what the server says at the beginning
    split    "train" or "eval", by a hash of the episode's seed
    """

    verifier = VerifierSpec("exact")  # asked where `env.max_turns` cuts an episode short: that was not right

    def __init__(
        self,
        *,
        url: str,
        client: str = GENERIC,
        act: str = "message",
        hear: str = "",
        turns: int = 8,
        success: float = 1.0,
        timeout: float = 30.0,
        prompt: str = "{heard}",
        split: str = "train",
    ) -> None:
        self._session = Session(url, client, act, hear, timeout)
        self._name, self._prompt, self._split = f"openenv/{url}", prompt, check_split(split)
        kwargs: dict[str, JSON] = {"url": url, "client": client, "act": act, "hear": hear, "timeout": timeout}
        kwargs |= {"success": success, "max_turns": whole_number("turns", turns, 1)}
        self.interaction = InteractionSpec(f"{__name__}:Episode", kwargs)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        rng = generator(seed, "openenv", self._split, round)
        seeds = (int(rng.integers(2**31)) for _ in range(1000 + 200 * n))
        mine = (s for s in seeds if split_of(f"openenv:{s}") == self._split)
        return take_distinct((self._task(s) for s in mine), n, self._name)

    def _task(self, seed: int) -> Task:
        try:
            [(heard, _, _)] = self._session.play(seed, [])
        except (OSError, RuntimeError, TimeoutError) as cause:
            what = f"{type(cause).__name__}: {cause}"
            raise InvalidInputError(
                f"url must be where an OpenEnv server listens, and {self._session.url} began no episode: {what}"
            ) from cause
        return Task(f"{self._name}:{seed}", self._prompt.replace("{heard}", heard), "(done)", {"episode_seed": seed})
