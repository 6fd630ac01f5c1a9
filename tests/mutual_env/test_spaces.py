from __future__ import annotations

import pickle

import pytest

from mutual_env.spaces import GroupSpace, PromptSpace, PromptsSpace, TextSpace, round_space
from mutual_env.types import Completion

SPACES = [TextSpace(), TextSpace(3), PromptSpace(), PromptsSpace(3), GroupSpace(2, 3), round_space(2)]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_a_space_samples_lies_in_it_and_has_a_utf8_form(space: TextSpace) -> None:
    space.seed(0)
    samples = [space.sample() for _ in range(200)]
    assert all(sample in space for sample in samples)
    str(samples).encode()  # a lone surrogate would raise
    assert len({str(s) for s in samples}) > 50


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_seed_decides_the_samples_and_a_pickle_keeps_the_place(space: TextSpace) -> None:
    space.seed(5)
    first = [space.sample() for _ in range(5)]
    copy = pickle.loads(pickle.dumps(space))
    assert copy == space
    assert copy.sample() == space.sample()
    space.seed(5)
    assert [space.sample() for _ in range(5)] == first
    assert len(pickle.dumps(space)) < 10_000


def test_spaces_of_different_shape_differ() -> None:
    assert TextSpace(3) != TextSpace(4)
    assert GroupSpace(2, 3) != GroupSpace(3, 2)
    assert PromptsSpace(2) != PromptsSpace(3)
    assert hash(GroupSpace(2, 3)) == hash(GroupSpace(2, 3))


@pytest.mark.parametrize(
    "text", ["", "plain text, with a space", "tab\tand\r\nline", "日本語", "🙂\u0301", "\0", "\U0010ffff"]
)
def test_ordinary_text_of_any_script_is_text(text: str) -> None:
    assert text in TextSpace()


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", b"bytes", None, 3, ["a"], "abcd"])
def test_what_has_no_utf8_form_or_is_no_str_or_is_too_long_is_not(value: object) -> None:
    assert value not in TextSpace(3)


def test_a_prompt_is_text_or_messages() -> None:
    space = PromptSpace()
    message = {"role": "user", "content": "hi"}
    assert "hi" in space
    assert (message,) in space
    assert (message, message) in space
    for wrong in (
        (),
        [message],
        ({"role": "user"},),
        ({**message, "name": "x"},),
        ({"role": "user", "content": 1},),
        3,
    ):
        assert wrong not in space


def test_an_action_may_mix_completions_and_text() -> None:
    space = GroupSpace(1, 2)
    assert [["a", Completion.from_text("b")]] in space
    assert (("a", "b"),) in space
    assert [["a"]] not in space
    assert ["ab"] not in space
    assert "ab" not in space
    assert [{"a": 1, "b": 2}] not in space
