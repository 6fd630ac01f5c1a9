"""Where a strategy has nothing to share, it is GRPO to the last bit, and costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sharing
from mutual_env.types import Lesson, PolicyGradient
from sharing import InMemoryExchange
from sharing.advantages import Moments, group_advantages
from tests.sharing.toys import BAD, GOOD, ScriptedEnv, play

AGENTS = ["policy_0", "policy_1", "policy_2"]
Answers = dict[str, list[list[str]]]

# The same update as GRPO where there is nothing to share. LUFFY leaves the std out, GRAFT clips higher, HACPO takes the
# sequence ratio, SAPO draws: each is compared with GRPO under the same setting.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prp": ({}, {}),
    "xgrpo": ({}, {}),
    "sgt": ({}, {}),
    "graft": ({}, {"clip_high": 0.28}),
    "hacpo": ({}, {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}),
    "ftis": ({}, {}),
    "luffy": ({}, {"std": False}),
    "sapo": ({"local": 100, "external": 0}, {"ratio": "none"}),
    "trrd": ({"teacher": "policy_0"}, {}),
    "kdrl": ({"teacher": "policy_0"}, {}),
    "topd": ({"teacher": "policy_0"}, {}),
}


def lessons(name: str, answers: Answers, agents: list[str] = AGENTS, **options: Any) -> dict[str, tuple[Lesson, ...]]:
    prompts, group = len(next(iter(answers.values()))), len(next(iter(answers.values()))[0])
    env = sharing.make(name, ScriptedEnv(agents, prompts=prompts, group=group), **options)
    return {agent: info["lessons"] for agent, info in play(env, answers).items()}


_groups = st.lists(
    st.lists(st.sampled_from([GOOD, BAD, "0.25", "0.1", "0.7"]), min_size=3, max_size=3), min_size=2, max_size=2
)


@pytest.mark.parametrize("name", FORMS)
@given(groups=_groups)
@settings(max_examples=40, deadline=None)
def test_one_agent_alone_is_grpo(name: str, groups: list[list[str]]) -> None:
    options, same = FORMS[name]
    alone = {"policy_0": groups}
    assert lessons(name, alone, ["policy_0"], **options) == lessons("grpo", alone, ["policy_0"], **same)


@pytest.mark.parametrize("name", FORMS)
def test_peers_out_of_reach_leave_grpo(name: str) -> None:
    options, same = FORMS[name]
    answers = {key: [[GOOD, BAD, BAD], [BAD, BAD, BAD]] for key in AGENTS}
    mine = lessons(name, answers, **options, peers=0)["policy_0"]
    assert mine == lessons("grpo", answers, **same)["policy_0"]


@given(answers=st.fixed_dictionaries(dict.fromkeys(AGENTS, _groups)))
@settings(max_examples=60, deadline=None)
def test_switched_off_is_grpo(answers: Answers) -> None:
    grpo = lessons("grpo", answers)
    assert lessons("xgrpo", answers, eta=0.0) == grpo
    assert lessons("sgt", answers, weight=0.0) == grpo
    assert lessons("trrd", answers, teacher="policy_1", alpha=1.0) == grpo
    assert lessons("kdrl", answers, teacher="policy_1", coefficient=0.0) == grpo
    assert lessons("topd", answers, teacher="policy_1", alpha=0.0, verified=1.0) == grpo


_rewards = st.lists(st.sampled_from([0.0, 1.0, 0.1, 0.25, 0.7]), min_size=1, max_size=8)


@given(own=_rewards, peers=_rewards)
def test_mixing_with_weight_zero_changes_no_bit_of_the_moments(own: list[float], peers: list[float]) -> None:
    mine, theirs = Moments.of(own), Moments.of(peers)
    mixed = mine.mixed(theirs, 0.0)
    assert (mixed.mean, mixed.variance) == (mine.mean, mine.variance)
    assert mixed.advantages(own) == group_advantages(own)


@pytest.mark.parametrize("name", ["sgt", "graft"])
def test_no_peer_success_or_all_solved_is_grpo(name: str) -> None:
    _, same = FORMS[name]
    for answer in (GOOD, BAD):
        answers = {key: [[answer] * 3, [answer] * 3] for key in AGENTS}
        assert lessons(name, answers) == lessons("grpo", answers, **same)


@pytest.mark.parametrize("name", ["prp", "xgrpo", "ftis", "hacpo", "luffy"])
def test_all_solved_by_all_gives_every_rollout_the_advantage_zero(name: str) -> None:
    answers = {key: [[GOOD] * 3, [GOOD] * 3] for key in AGENTS}
    for mine in lessons(name, answers).values():
        assert {lesson.advantage for lesson in mine} == {0.0}


@pytest.mark.parametrize("normalise", ["union", "author"])
def test_ftis_gives_the_credit_of_prp_under_the_same_normalisation(normalise: str) -> None:
    answers = {a: [[GOOD, BAD, BAD], [BAD, GOOD, "0.5"]] for a in AGENTS}
    ftis, prp = (lessons(name, answers, normalise=normalise) for name in ("ftis", "prp"))
    for agent in AGENTS:
        told = [[(x.experience, x.advantage) for x in found[agent]] for found in (ftis, prp)]
        assert told[0] == told[1]
    assert lessons("ftis", answers) == lessons("ftis", answers, normalise="author")


def test_a_teacher_learns_as_if_there_were_no_teacher() -> None:
    answers = {key: [[GOOD, BAD, BAD], [BAD, BAD, BAD]] for key in AGENTS}
    for name in ("trrd", "kdrl", "topd"):
        assert lessons(name, answers, teacher="policy_1")["policy_1"] == lessons("grpo", answers)["policy_1"]


class _Watched(InMemoryExchange):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.published = 0

    def read(self, *arguments: Any, **options: Any) -> Any:
        self.reads += 1
        return super().read(*arguments, **options)

    def publish(self, records: Any) -> Any:
        self.published += len(records)
        return super().publish(records)


@pytest.mark.parametrize(
    ("name", "options", "published", "reads"),
    [
        ("grpo", {}, 0, 0),
        ("trrd", {"teacher": "policy_1"}, 0, 0),
        ("kdrl", {"teacher": "policy_1"}, 0, 0),
        ("topd", {"teacher": "policy_1"}, 0, 0),
        ("sgt", {}, 18, 0),  # nobody failed: 3 agents, 2 prompts, 3 successes are published and none is read
        ("xgrpo", {"eta": 0.0}, 6, 0),
    ],
)
def test_nothing_to_share_costs_nothing(name: str, options: dict[str, Any], published: int, reads: int) -> None:
    watched = _Watched()
    lessons(name, dict.fromkeys(AGENTS, [[GOOD] * 3] * 2), exchange=watched, **options)
    assert (watched.published, watched.reads) == (published, reads)


def _dropped(form: Callable[[Lesson], Lesson], taken: tuple[Lesson, ...]) -> list[Lesson]:
    return [form(lesson) for lesson in taken]


def test_teachers_change_the_correction_of_own_lessons_and_nothing_else() -> None:
    answers = {"policy_0": [[BAD, BAD], [GOOD, BAD]], "policy_1": [[GOOD, GOOD], [GOOD, BAD]]}
    env = sharing.make("sgt", ScriptedEnv(AGENTS[:2]))
    taught = sharing.make("trrd", env, teacher="policy_1", alpha=0.25)
    plain = play(sharing.make("sgt", ScriptedEnv(AGENTS[:2])), answers)["policy_0"]["lessons"]
    mixed = play(taught, answers)["policy_0"]["lessons"]
    own = [lesson for lesson in mixed if lesson.experience.author == "policy_0"]
    assert {(lesson.correction.teacher, lesson.correction.alpha) for lesson in own} == {("policy_1", 0.25)}
    back = _dropped(lambda lesson: replace(lesson, correction=plain[0].correction), mixed)
    assert tuple(back) == plain
    assert all(isinstance(lesson.loss, PolicyGradient) for lesson in own)
