"""Numbers for each policy and each edge, and strategies on one another, from a configuration to a run's lessons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sharing
from learners.run.check import check
from learners.run.config import load_run
from learners.run.results import read_run
from learners.run.training import train
from mutual_env.errors import ConfigError, MutualEnvError
from mutual_env.types import CrossEntropy, Lesson
from sharing import Shared, SharingWrapper, Situation
from sharing.records import reward_of

pytestmark = pytest.mark.torch

CONFIG = """
name: stack
rounds: 3
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 12, options: {digits: 1, modulus: 4}}
sharing:
  strategy: watched
  below:
    - strategy: sgt
      options:
        weight: {ada: {bob: 0.4, "*": 0.2}, bob: 0.1, "*": 0.05}
        trust: {ada: {eve: 0.5, "*": 1.0}, "*": 1.0}
    - {strategy: xgrpo, options: {eta: {ada: 1.0, bob: 0.0, "*": 0.25}, std: false}}
policies:
  ada: &tiny
    learner: tiny
    options: {tokenizer: {kind: char, alphabet: "0123456789=+()%"}, width: 16, layers: 1, heads: 2, max_new_tokens: 1}
  bob: *tiny
  eve: *tiny
checkpoint: {every: 0}
"""
WEIGHTS = {  # of a rescue: λ of the edge times the trust in its author
    ("ada", "bob"): 0.4,
    ("ada", "eve"): 0.2 * 0.5,
    ("bob", "ada"): 0.1,
    ("bob", "eve"): 0.1,
    ("eve", "ada"): 0.05,
    ("eve", "bob"): 0.05,
}
ETA = {"ada": 1.0, "bob": 0.0, "eve": 0.25}
SEEN: list[tuple[Situation, tuple[Lesson, ...]]] = []


class Watched(SharingWrapper):
    """The lessons below as they are, and noted."""

    needs = frozenset({"own rollouts"})

    def share(self, situation: Situation) -> Shared:
        SEEN.append((situation, situation.lessons))
        return Shared(situation.lessons, {})


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    if "watched" not in sharing.names():
        sharing.register("watched", Watched)
    SEEN.clear()
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


def test_every_reader_and_edge_has_the_number_that_the_configuration_gives_it(config_file: Path) -> None:
    run = read_run(train(load_run(config_file)).directory)
    rewards = {  # of each author on each task of each round
        (s.round, group[0].task.id, s.reader): [reward_of(e) for e in group] for s, _ in SEEN for group in s.groups
    }
    edges = set()
    for situation, lessons in SEEN:
        for lesson in lessons:
            experience = lesson.experience
            if lesson.loss == CrossEntropy():
                edge = (situation.reader, experience.author)
                assert lesson.weight == pytest.approx(WEIGHTS[edge])
                edges.add(edge)
                continue
            own = rewards[situation.round, experience.task.id, situation.reader]
            others = [name for name in WROTE if name != situation.reader]
            peers = [r for name in others for r in rewards[situation.round, experience.task.id, name]]
            eta = ETA[situation.reader]
            baseline = (1.0 - eta) * sum(own) / len(own) + eta * sum(peers) / len(peers)
            assert lesson.advantage == pytest.approx(reward_of(experience) - baseline)
    assert edges == set(WEIGHTS)  # the case is rich enough: a rescue went over every edge
    for name in WROTE:
        assert len(run.metrics[name]["gradient_norm"]) == 3
        assert any(norm > 0.0 for _, norm in run.metrics[name]["gradient_norm"])


WROTE = ("ada", "bob", "eve")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("sharing.below=[{strategy: sgt, options: {weight: {ada: 0.1}}}]", "weight has no number for 'bob'"),
        ("sharing.below=[{strategy: trrd, options: {teacher: adda}}]", r"sharing\.below\.0\.options\.teacher 'adda'"),
        ("sharing.below=[{strategy: sgt, options: {exchange: x}}]", r"sharing\.below\.0\.options\.exchange is not"),
        ("sharing.below=[{strategy: sgt}, {strategy: prp}]", "peers' rollouts credit twice"),
        ("sharing.below=[{stratgy: sgt}]", "strategy"),
    ],
)
def test_a_layer_that_cannot_be_is_refused_by_its_place(config_file: Path, override: str, says: str) -> None:
    with pytest.raises(MutualEnvError, match=says):
        check(load_run(config_file, [override]), here=False)


def test_layers_meet_at_one_delay_in_asynchronous_rounds(config_file: Path) -> None:
    apart = ["resources.mode=asynchronous", "sharing.options={max_staleness: 1}"]
    config: Any = load_run(config_file, [*apart, "rounds=2", "policies.ada.options.width=8"])
    train(config)
    assert {s.reader for s, _ in SEEN} == set(WROTE)
    with pytest.raises(ConfigError, match=r"sharing\.below\.0\.options\.max_staleness is another"):
        check(load_run(config_file, [*apart, "sharing.below=[{strategy: sgt, options: {max_staleness: 3}}]"]))
