"""Prompts that take the places of samples that have ended: the same samples, in fewer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from learners.torch import decoding, refill, sampler
from tests.learners.tiny_policies import gemma, learner, llama, neox

pytestmark = pytest.mark.torch

MIXED = ["1+2=", "12+34=", "abc", "9=", "8+8=", "7", "77+1=", "abcd", "5+", "h"]
LONG = [text * (4 + 4 * (i % 3)) + "=" for i, text in enumerate(MIXED)]  # beyond what is copied to the rows


def drawn(build: Callable[[], PreTrainedModel], prompts: list[str], **options: Any) -> list[list[tuple[Any, Any]]]:
    groups = learner(build(), **{"max_new_tokens": 16, "max_rows": 12, **options}).act(prompts, 3, seed=5)
    return [[(c.token_ids.tolist(), c.logprobs) for c in group] for group in groups]


def assert_same(found: list[list[tuple[Any, Any]]], expected: list[list[tuple[Any, Any]]]) -> None:
    assert [[ids for ids, _ in group] for group in found] == [[ids for ids, _ in group] for group in expected]
    for mine, theirs in zip(found, expected, strict=True):
        for (_, some), (_, others) in zip(mine, theirs, strict=True):
            assert np.abs(some - others).max() < 1e-5


@pytest.mark.parametrize(("build", "prompts"), [(llama, MIXED), (llama, LONG), (neox, MIXED), (gemma, LONG)])
def test_samples_are_those_of_whole_passes(
    build: Callable[[], PreTrainedModel], prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "FIRST_ROOM", 4)  # caches grow, and what is left in them moves
    moved: list[int] = []
    shifted = decoding._Cache.shifted
    monkeypatch.setattr(decoding._Cache, "shifted", lambda c, *where: (moved.append(where[1]), shifted(c, *where))[1])
    expected = drawn(build, prompts * 3, stop=("1", "ab"))
    assert not moved
    assert_same(drawn(build, prompts * 3, stop=("1", "ab"), refill=True), expected)
    assert moved
    monkeypatch.setattr(refill, "looks_every", lambda device: 7)
    assert_same(drawn(build, prompts * 3, stop=("1", "ab"), refill=True), expected)


def test_it_takes_fewer_steps_and_never_more_rows_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = sampler.pick

    def counted(logits: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(logits.shape[0])
        return whole(logits, *rest, **options)

    monkeypatch.setattr(sampler, "pick", counted)
    monkeypatch.setattr(refill, "pick", counted)
    lengths = [len(ids) for group in drawn(llama, MIXED * 4, stop=("1", "ab")) for ids, _ in group]
    passes, sizes = sizes, []
    drawn(llama, MIXED * 4, stop=("1", "ab"), refill=True)
    assert max(sizes) <= 12
    assert len(sizes) < 0.8 * len(passes)
    assert sum(lengths) / 12 <= len(sizes)


def test_a_group_larger_than_the_batch_and_one_prompt_alone_go_as_well() -> None:
    for prompts, n in ((["1+2=", "h"], 20), (["1+2="], 2)):
        found, expected = (learner(llama(), max_rows=12, refill=it).act(prompts, n, seed=5) for it in (True, False))
        assert [[c.text for c in group] for group in found] == [[c.text for c in group] for group in expected]
    assert learner(llama(), refill=True).act([], 2, seed=5) == []


@pytest.mark.parametrize("refill_too", [False, True])
def test_a_group_is_told_of_when_its_last_sample_has_ended(refill_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, whole = 0, sampler.pick

    def counted(*rest: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        return whole(*rest, **options)

    monkeypatch.setattr(sampler, "pick", counted)
    monkeypatch.setattr(refill, "pick", counted)
    policy = learner(llama(), max_new_tokens=16, max_rows=12, stop=("1", "ab"), refill=refill_too)
    told: list[tuple[int, tuple[Any, ...], int]] = []
    groups = policy.act_and_tell(MIXED, 3, lambda place, group: told.append((place, group, steps)), seed=5)
    assert groups == policy.act(MIXED, 3, seed=5)
    assert {place: group for place, group, _ in told} == dict(enumerate(groups))
    assert len(told) == len(groups)
    assert len({step for _, _, step in told}) > 4  # passes are three; groups of one pass end at different steps
