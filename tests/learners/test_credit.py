"""Credit finer than a completion: spans of text become advantages of tokens, in any tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import learners
from learners.batch import build_batch
from mutual_env import Completion, Experience, Lesson, Task, Verdict
from mutual_env.credit import Span
from mutual_env.errors import InvalidInputError
from mutual_env.types import AuthorPolicy, Reply, Turn
from sharing.advantages import group_advantages
from sharing.turn_credit import returns_of, scores_of, turn_spans
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge
from tokenizers_bridge.declaration import Boundary, Declaration
from tokenizers_bridge.protocol import Tokenizer

ALPHABET = "0123456789+=?"


class Thinking(CharTokenizer):
    """Its policy's prompts open a thought."""

    @property
    def declaration(self) -> Declaration:
        return Declaration(boundary=Boundary(opening="<think>\n", closing="\n</think>\n\n"))


TOKENIZERS: dict[str, Tokenizer] = {
    "ann": CharTokenizer(ALPHABET),
    "bob": PairTokenizer(ALPHABET, ["12", "23", "1+"]),
    "carl": CharTokenizer(ALPHABET + "a\u00e9"),
    "dora": Thinking(ALPHABET + "<think>/\n"),
    "emil": CharTokenizer(ALPHABET + "<think>/\n "),
}


def said(author: str, text: str) -> Completion:
    tokenizer = TOKENIZERS[author]
    ids = np.append(tokenizer.encode_batch([text])[0], np.int32(tokenizer.stop_id))
    return Completion(text, ids, np.full(ids.size, -0.5), "stop", 0, tokenizer.fingerprint)


def told(author: str, texts: list[str], rewards: list[float | None], reward: float = 1.0) -> Experience:
    earlier = tuple(Turn(said(author, t), Reply("?", reward=r)) for t, r in zip(texts, rewards, strict=False))
    last, verdict = said(author, texts[-1]), Verdict.scored(reward, correct=reward > 0)
    return Experience(Task("t", "1+2=", "3"), author, last, verdict, 0, earlier)


def advantages(reader: str, lesson: Lesson) -> list[tuple[str, float]]:
    """The tokens that the reader is trained on, each with what it is worth."""
    tokenizer = TOKENIZERS[reader]
    options: dict[str, Any] = {"alphabet": "0123456789", "tokenizer": tokenizer}
    policy = learners.make("tabular", name=reader, **options)
    [example] = build_batch([lesson], policy, TokenizerBridge(TOKENIZERS.values())).examples
    trained = zip(example.response_ids[example.mask], example.advantages[example.mask], strict=True)
    return [(tokenizer.decode([i]), float(a)) for i, a in trained]


SPANS = (Span(0, 2.0), Span(1, 3.0, start=1, end=3), Span(1, 4.0, start=3))


def test_a_policys_own_tokens_have_the_credit_of_their_spans() -> None:
    lesson = Lesson(told("ann", ["12", "1234"], [None]), -1.0, spans=SPANS)
    first = [("1", 2.0), ("2", 2.0), ("", 2.0)]
    # Of "1234" the first character is in no span, "23" is in one, and "4" and the stop token behind it in the last.
    assert advantages("ann", lesson) == [*first, ("1", -1.0), ("2", 3.0), ("3", 3.0), ("4", 4.0), ("", 4.0)]


def test_a_peers_credit_is_carried_onto_the_readers_tokens() -> None:
    lesson = Lesson(told("ann", ["12", "1234"], [None]), -1.0, correction=AuthorPolicy(), spans=SPANS)
    # bob reads "12" and "12" "3" "4": a token has the credit of the span in which it begins.
    first = [("12", 2.0), ("", 2.0)]
    assert advantages("bob", lesson) == [*first, ("12", -1.0), ("3", 3.0), ("4", 4.0), ("", 4.0)]


def test_spans_count_characters_and_tokens_bytes() -> None:
    lesson = Lesson(
        told("carl", ["\u00e9a\u00e9"], []), 0.0, spans=(Span(0, 1.0, start=1, end=2), Span(0, 2.0, start=2))
    )
    assert [a for _, a in advantages("carl", lesson)] == [0.0, 1.0, 2.0, 2.0]


def test_what_a_readers_row_says_in_front_moves_no_credit() -> None:
    """A prompt that has opened a thought already: the author's row begins behind it, or the reader's does."""
    spans = (Span(0, 2.0, start=1),)
    ours = advantages("emil", Lesson(told("dora", ["12"], []), 1.0, spans=spans))
    assert ours == [*((char, 1.0) for char in "<think>\n1"), ("2", 2.0), ("", 2.0)]
    spans = (Span(0, 2.0, start=9),)
    theirs = advantages("dora", Lesson(told("emil", ["<think>\n12"], []), 1.0, spans=spans))
    assert theirs == [("1", 1.0), ("2", 2.0), ("", 2.0)]


@pytest.mark.parametrize(
    ("span", "sentence"),
    [
        (Span(1, 1.0), "turn must be one of the 1"),
        (Span(0, 1.0, start=3, end=2), "start and end must lie in the text of 2 characters"),
        (Span(0, 1.0, start=0, end=3), "start and end must lie in the text of 2 characters"),
        (Span(0, float("nan")), "advantage must be finite"),
        ("0", "must hold Spans"),
    ],
)
def test_a_span_that_lies_nowhere_is_refused(span: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        Lesson(told("ann", ["12"], []), 1.0, spans=(span,))


def test_returns_are_discounted_sums_of_what_the_turns_changed() -> None:
    # States are worth .2, .2 (the world did not say), .5 and 1: the turns earn .2, 0, .3 and .5.
    experience = told("ann", ["1", "2", "3", "4"], [0.2, None, 0.5])
    assert scores_of(experience) == [0.2, 0.2, 0.5, 1.0]
    # With gamma = 1/2: .5; .3 + .25 = .55; 0 + .275 = .275; .2 + .1375 = .3375.
    assert returns_of(experience, 0.5) == pytest.approx([0.3375, 0.275, 0.55, 0.5])
    assert returns_of(experience, 0.0) == pytest.approx([0.2, 0.0, 0.3, 0.5])
    assert returns_of(experience, 1.0) == pytest.approx([1.0, 0.8, 0.8, 0.5])


def test_each_turn_is_measured_against_the_same_turn_of_the_others() -> None:
    group = (
        told("ann", ["1"], []),  # right at once
        told("ann", ["1", "2"], [0.0]),  # right at the second try
        told("ann", ["1", "2"], [0.0], reward=0.0),  # wrong twice
    )
    spans = turn_spans(group, gamma=0.5, std=True)
    # Returns of the first turn: 1, 0 + .5, 0: mean .5, variance 1/6. Of the second: 1 and 0, mean and deviation .5.
    a, b = 0.5 / (6**-0.5 + 1e-6), 0.5 / (0.5 + 1e-6)
    assert [[s.advantage for s in own] for own in spans] == [
        [pytest.approx(a)], [pytest.approx(0.0), pytest.approx(b)], [pytest.approx(-a), pytest.approx(-b)],
    ]  # fmt: skip
    undiscounted = turn_spans(group, gamma=1.0, std=True)
    assert [own[0].advantage for own in undiscounted] == group_advantages([1.0, 1.0, 0.0])


def test_groups_of_one_turn_are_grpos() -> None:
    group = (told("ann", ["1"], []), told("ann", ["2"], [], reward=0.0))
    assert turn_spans(group, gamma=0.5, std=True) == [(), ()]
