"""Episodes of several turns become examples: what was written is trained on, what was answered is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

import learners
import mutual_env
import sharing
from learners.batch import build_batch
from learners.run.loop import Loop
from learners.tabular import TabularLearner
from mutual_env import Completion, Experience, Lesson, Task, Verdict
from mutual_env.types import AuthorPolicy, Context, CrossEntropy, Reply, TeacherMixture, Turn
from sharing.registry import make
from tokenizers_bridge import CharTokenizer, PairTokenizer, Tokenizer, TokenizerBridge, Translation

ALPHABET = "0123456789+=?"
TOKENIZERS = {"ann": CharTokenizer(ALPHABET), "bob": PairTokenizer(ALPHABET, ["12", "1+"])}
BRIDGE = TokenizerBridge(TOKENIZERS.values())


def policy(name: str, **options: Any) -> TabularLearner:
    made = learners.make(
        "tabular", name=name, tokenizer=TOKENIZERS[name], **{"alphabet": "0123456789", "max_new_tokens": 2, **options}
    )
    assert isinstance(made, TabularLearner)
    return made


def said(author: str, text: str) -> Completion:
    tokenizer = TOKENIZERS[author]
    ids = np.append(tokenizer.encode_batch([text])[0], np.int32(tokenizer.stop_id))
    logprobs = -0.25 * np.arange(1, ids.size + 1)
    return Completion(text, ids, logprobs, "stop", 0, tokenizer.fingerprint)


def lesson(author: str, **options: Any) -> Lesson:
    earlier = (Turn(said(author, "12"), Reply("?1")), Turn(said(author, "3"), Reply("?2")))
    experience = Experience(
        Task("t", "1+2=", "3"), author, said(author, "12"), Verdict.scored(1.0, correct=True), 0, earlier
    )
    return Lesson(experience, 1.0, **options)


def test_what_a_policy_wrote_in_all_turns_is_trained_on_with_the_ids_it_sampled() -> None:
    [example] = build_batch([lesson("ann")], policy("ann"), BRIDGE).examples
    stop = TOKENIZERS["ann"].stop_id
    assert TOKENIZERS["ann"].decode(example.response_ids) == "12?13?212"
    # 1 2 stop ? 1 3 stop ? 2 1 2 stop: the replies are "?1" and "?2"
    assert example.mask.tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [False] * 2 + [True] * 3
    assert [int(i) == stop for i in example.response_ids] == [i in (2, 6, 11) for i in range(12)]


@pytest.mark.parametrize("correction", [{}, {"correction": AuthorPolicy()}, {"loss": CrossEntropy()}])
def test_a_peers_conversation_is_read_in_the_readers_tokens_and_no_reply_is_trained_on(
    correction: dict[str, Any],
) -> None:
    [example] = build_batch([lesson("ann", **correction)], policy("bob"), BRIDGE).examples
    trained, read = example.response_ids[example.mask], example.response_ids[~example.mask]
    assert TOKENIZERS["bob"].decode(trained) == "12312"
    assert TOKENIZERS["bob"].decode(read) == "?1?2"
    if example.anchor is not None:  # what ann claimed of each turn, "12" being one token of bob's
        sums = [float(c.logprobs.sum()) for c in lesson("ann").experience.written]
        assert example.anchor[example.mask].sum() == pytest.approx(sum(sums))


def test_all_turns_of_all_conversations_are_translated_in_one_call() -> None:
    class Counting(TokenizerBridge):
        asked: ClassVar[list[int]] = []

        def translate(self, completions: Sequence[Completion], reader: Tokenizer) -> list[Translation]:
            self.asked.append(len(completions))
            return super().translate(completions, reader)

    lessons = [lesson("ann"), lesson("bob"), lesson("ann")]
    examples = build_batch(lessons, policy("bob"), Counting(TOKENIZERS.values(), cache_bytes=0)).examples
    assert Counting.asked == [6]
    assert [TOKENIZERS["bob"].decode(e.response_ids[e.mask]) for e in examples] == ["12312"] * 3


def test_a_teacher_is_asked_about_the_last_turn_in_the_conversation_as_it_went() -> None:
    asked: list[str] = []
    teacher = policy("bob")
    score = teacher.score

    def listening(prompt_ids: Any, response_ids: Any) -> Any:
        asked.extend(TOKENIZERS["bob"].decode(ids) for ids in (*prompt_ids, *response_ids))
        return score(prompt_ids, response_ids)

    teacher.score = listening  # type: ignore[method-assign]
    mixed = lesson("ann", correction=TeacherMixture("t", 0.5))
    [example] = build_batch([mixed], policy("ann"), BRIDGE, {"t": teacher}).examples
    assert asked == ["1+2=12?13?2", "12"]
    assert example.anchor is not None


@pytest.mark.parametrize("strategy", ["independent", "prp", "xgrpo", "sgt", "graft", "hacpo", "ftis", "luffy", "sapo"])
def test_every_strategy_learns_from_conversations(strategy: str) -> None:
    loops = [looped(strategy) for _ in range(2)]
    infos = [[loop.round(round) for round in range(3)] for loop in loops]
    assert [i["ann"]["metrics"] for i in infos[0]] == [i["ann"]["metrics"] for i in infos[1]]
    assert all(i["ann"]["metrics"]["turns/mean"] > 1.0 for i in infos[0])
    halves = looped(strategy)
    assert [halves.learn(halves.sample(round))["bob"]["metrics"] for round in range(3)] == [
        i["bob"]["metrics"] for i in infos[0]
    ]


def looped(strategy: str) -> Loop:
    options: dict[str, Any] = {"family": "mutual/arithmetic-v0", "digits": 1, "hint": "?"}
    env = mutual_env.make("mutual/retries-v0", agents=["ann", "bob"], group_size=4, prompts_per_round=3, **options)
    policies = {name: policy(name, alphabet="0123", max_new_tokens=1, learning_rate=5.0) for name in TOKENIZERS}
    return Loop(make(strategy, env), policies, 0, 4, BRIDGE)


def test_the_guessing_game_is_learnt() -> None:
    """A table that sees one character back learns what to say first, and after "higher" and after "lower"."""
    tokenizer = CharTokenizer("0123456789g:hl?")
    table = learners.make(
        "tabular", name="ann", tokenizer=tokenizer, alphabet="01234567", max_new_tokens=1, learning_rate=60
    )
    options: dict[str, Any] = {"limit": 8, "names": 1, "turns": 2, "template": "g{name}:"}
    env = mutual_env.make(
        "mutual/guess-v0", agents=["ann"], group_size=16, prompts_per_round=4, higher="h", lower="l", odd="?", **options
    )
    loop = Loop(sharing.Independent(env), {"ann": table}, 0, 16, TokenizerBridge([tokenizer]))
    rewards = [loop.round(round)["ann"]["metrics"]["reward/mean"] for round in range(60)]
    # Of eight numbers two guesses find a quarter at random.
    assert rewards[0] < 0.4
    assert sum(rewards[-20:]) / 20 > 0.5


def test_contexts_are_gone_on_from_whoever_else_is_asked() -> None:
    ann = policy("ann")
    contexts = [Context("1+2=", (Turn(said("ann", text), Reply("?")),)) for text in ("1", "2", "1")]
    together = ann.act(contexts, 1, seed=3)
    assert ann.act(contexts[:2], 1, seed=3) == together[:2]
    assert ann.act([Context("1+2=")], 2, seed=3) == ann.act(["1+2="], 2, seed=3)
