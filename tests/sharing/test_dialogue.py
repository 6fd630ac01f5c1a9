"""A peer's conversation that the reader would not have had is measured, and refused where that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mutual_env
import sharing
from mutual_env import Completion
from mutual_env.errors import ConfigError

DEBATE: dict[str, Any] = {"family": "mutual/arithmetic-v0", "digits": 1}


def traced(text: str) -> Completion:
    return Completion(text, np.array([1], np.int32), np.array([-1.0]), "stop", 0, "some tokenizer")


def played(name: str, strategy: str, said: dict[str, list[str]], family: dict[str, Any], **options: Any) -> Any:
    """The infos of a round in which everybody says `said[agent][turn]` in all its conversations."""
    env = sharing.make(
        strategy, mutual_env.make(name, agents=list(said), group_size=1, prompts_per_round=1, **family), **options
    )
    env.reset(seed=0)
    turn = 0
    while env.agents:
        *_, infos = env.step({agent: [[traced(said[agent][min(turn, 1)])]] for agent in env.agents})
        turn += 1
    return infos


def test_in_a_debate_the_reader_would_have_read_its_peer_and_not_itself() -> None:
    # ann read "bob: 2"; in ann's place bob would have read "ann: 1". With three, carl's answer is the same to both.
    said = {"ann": ["1", "3"], "bob": ["2", "3"]}
    assert played("mutual/debate-v0", "prp", said, DEBATE)["bob"]["metrics"]["share/divergence"] == 1.0
    alone = {"line": "{text}", **DEBATE}
    same = {"ann": ["1", "3"], "bob": ["1", "4"]}
    assert played("mutual/debate-v0", "prp", same, alone)["bob"]["metrics"]["share/divergence"] == 0.0


def test_only_the_replies_that_would_be_others_count() -> None:
    # Three turns, two replies. Ann's table: bob says 2, then 2. At bob's place ann's own moves are what he reads: 2, 3.
    said = {"ann": ["2", "3"], "bob": ["2", "2"]}
    metrics = played("mutual/undercut-v0", "prp", said, {})["bob"]["metrics"]
    # bob, in ann's conversation, reads what ann wrote ("2", "3"); ann had read what bob wrote ("2", "2").
    assert metrics["share/divergence"] == 0.5


def test_where_the_world_answers_each_by_itself_nothing_diverges() -> None:
    said = {"ann": ["-1", "-2"], "bob": ["-3", "-4"]}
    metrics = played("mutual/retries-v0", "prp", said, DEBATE)["bob"]["metrics"]
    assert (metrics["share/divergence"], metrics["share/refused"]) == (0.0, 0.0)
    plain = played("mutual/arithmetic-v0", "prp", said, {"digits": 1})["bob"]["metrics"]
    assert "share/divergence" not in plain  # nobody had turns


@pytest.mark.parametrize(("most", "lessons"), [(1.0, 2), (0.5, 2), (0.4, 1), (0.0, 1)])
def test_conversations_that_are_too_far_are_refused_where_that_is_asked_for(most: float, lessons: int) -> None:
    said = {"ann": ["2", "3"], "bob": ["2", "2"]}
    info = played("mutual/undercut-v0", "prp", said, {}, max_divergence=most)["bob"]
    assert len(info["lessons"]) == lessons
    assert info["metrics"].get("share/refused/other_dialogue", 0.0) == 2.0 - lessons


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_divergence must be a share of replies"):
        sharing.make("sgt", mutual_env.make("mutual/guess-v0"), max_divergence=2)
