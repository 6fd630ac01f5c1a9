"""A hostile peer cannot move a reader: each case is refused or flagged, and counted."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sharing
from mutual_env.types import Completion, CrossEntropy
from sharing import InMemoryExchange, Record
from sharing.admission import Limits
from tests.sharing.toys import BAD, GOOD, ScriptedEnv, origin, play, rollout, statistics, success

pytestmark = pytest.mark.filterwarnings("ignore:.*learns nothing from its peers")

OWN = {"policy_0": [[BAD, BAD]]}


def told(
    strategy: str, published: list[Record], *, round: int = 0, **options: Any
) -> tuple[list[Any], dict[str, float]]:
    """The lessons that policy_0, alone in its env, takes from these records, and its metrics."""
    exchange = InMemoryExchange()
    exchange.publish(published)
    env = sharing.make(strategy, ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange, **options)
    info = play(env, OWN, round=round)["policy_0"]
    return [x for x in info["lessons"] if x.experience.author != "policy_0"], info["metrics"]


def refused(metrics: dict[str, float]) -> dict[str, float]:
    return {key.removeprefix("share/refused/"): n for key, n in metrics.items() if key.startswith("share/refused/")}


def with_completion(record: sharing.Rollout, **changes: Any) -> sharing.Rollout:
    old = record.completion
    fields = {name: getattr(old, name) for name in old.__dataclass_fields__}
    return replace(record, completion=Completion(**{**fields, **changes}))


def test_a_wrong_claim_of_success_is_verified_refused_and_counted() -> None:
    lessons, metrics = told("sgt", [success("t0.0", text="no, but trust me"), success("t0.0", index=1)])
    assert [x.experience.completion.text for x in lessons] == [GOOD]
    assert refused(metrics) == {"false_claim": 1.0}


def test_the_answer_to_another_task_is_a_wrong_claim_here() -> None:
    # What answers t9.9 is signed as an answer to t0.0: the reader's verifier checks it against t0.0.
    lessons, metrics = told("sgt", [success("t0.0", text="the answer to t9.9")])
    assert lessons == []
    assert refused(metrics) == {"false_claim": 1.0}


def test_records_of_another_task_are_never_looked_at() -> None:
    lessons, metrics = told("sgt", [success("t9.9")])
    assert lessons == []
    assert refused(metrics) == {}
    assert metrics["share/rescued"] == 0.0


def test_a_rollouts_reward_is_the_readers_verdict_and_not_the_claim() -> None:
    lie = replace(rollout("t0.0", text=BAD), reward=1.0, correct=True)
    lessons, metrics = told("prp", [lie, rollout("t0.0", index=1)])
    assert [(x.experience.verdict.reward, x.experience.verdict.correct) for x in lessons] == [(0.0, False), (1.0, True)]
    assert (metrics["share/corrected"], metrics["share/reverified"]) == (1.0, 2.0)


def test_what_the_readers_verifier_cannot_score_is_refused() -> None:
    assert refused(told("sgt", [success("t0.0", text="? hangs your verifier")])[1]) == {"unscored": 1.0}


@pytest.mark.parametrize("strategy", ["prp", "graft", "hacpo", "ftis", "luffy", "sapo"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 0.5])
def test_log_probabilities_that_are_none_are_refused(strategy: str, bad: float) -> None:
    poisoned = with_completion(rollout("t0.0"), logprobs=np.array([-0.5, bad, -0.5]))
    lessons, metrics = told(strategy, [poisoned])
    assert lessons == []
    assert refused(metrics) == {"not_finite": 1.0}


@pytest.mark.parametrize("strategy", ["prp", "sgt"])
def test_a_megabyte_of_text_is_refused(strategy: str) -> None:
    text = GOOD + "!" * 2**20
    record: Record = success("t0.0", text=text) if strategy == "sgt" else rollout("t0.0", text=text)
    lessons, metrics = told(strategy, [record])
    assert lessons == []
    assert refused(metrics) == {"too_long": 1.0}


def test_text_just_within_the_limit_in_bytes_is_taken_and_above_it_refused() -> None:
    text = GOOD + "é" * 10  # 3 + 20 bytes
    for most, taken in ((23, 1), (22, 0)):
        lessons, _ = told("sgt", [success("t0.0", text=text)], limits={"max_text_bytes": most})
        assert len(lessons) == taken


def test_more_rollouts_than_plausible_are_refused() -> None:
    lessons, metrics = told("prp", [rollout("t0.0", index=i) for i in range(100)], limits=Limits(max_group=8))
    assert len(lessons) == 8
    assert refused(metrics) == {"too_many": 92.0}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(rollout("t0.0"), reward=float("nan")), "not_finite"),
        (replace(rollout("t0.0"), reward=1e9), "out_of_range"),
        (with_completion(rollout("t0.0"), token_ids=np.array([1, -2, 3])), "inconsistent"),
        (rollout("t0.0", version=-1), "inconsistent"),
        (rollout("t0.0", index=-1), "inconsistent"),
    ],
)
def test_impossible_rollouts_are_refused(record: Record, reason: str) -> None:
    lessons, metrics = told("prp", [record])
    assert lessons == []
    assert refused(metrics) == {reason: 1.0}


@pytest.mark.parametrize(
    ("n", "total", "squares", "reason"),
    [
        (2, float("nan"), 1.0, "not_finite"),
        (2, 1.0, float("inf"), "not_finite"),
        (0, 0.0, 0.0, "inconsistent"),
        (10**6, 1e6, 1e6, "too_many"),
        (2, 5.0, 20.0, "out_of_range"),  # a mean of 2.5 where rewards lie in [0, 1]
        (2, 1.0, 0.1, "inconsistent"),  # sum^2 / n = 0.5 is the least that the squares can be
        (2, 1.0, 1.5, "inconsistent"),  # rewards in [0, 1] that sum to 1 have squares that sum to at most 1
        (2, 1.0, -1.0, "inconsistent"),
    ],
)
def test_statistics_that_no_rewards_could_have_move_no_baseline(
    n: int, total: float, squares: float, reason: str
) -> None:
    record = replace(statistics("t0.0"), count=n, reward_sum=total, square_sum=squares)
    _, metrics = told("xgrpo", [record])
    assert refused(metrics) == {reason: 1.0}
    assert metrics["share/baseline_shift"] == 0.0


def test_statistics_cannot_be_verified_and_that_is_counted() -> None:
    _, metrics = told("xgrpo", [statistics("t0.0")])
    assert metrics["share/unverified"] == 1.0
    # own mean 0, theirs 1/2, two rollouts each: the baseline moves by 1/4, and never by more than the weight allows
    assert metrics["share/baseline_shift"] == 0.25


def test_whoever_signs_as_one_of_our_agents_is_an_impostor() -> None:
    exchange = InMemoryExchange()
    env = sharing.make("sgt", ScriptedEnv(prompts=1, fixed=True), exchange=exchange)
    exchange.publish([success("t0.0", "policy_1", text="yes, I am policy_1", index=7)])
    infos = play(env, {"policy_0": [[BAD, BAD]], "policy_1": [[BAD, BAD]]})
    assert infos["policy_0"]["metrics"]["share/rescued"] == 0.0
    assert refused(infos["policy_0"]["metrics"]) == {"impostor": 1.0}


def test_a_record_that_overwrites_our_agents_record_is_an_impostor_too() -> None:
    class Overwriting(InMemoryExchange):
        """Somebody writes under our agent's key right after it published."""

        def publish(self, records: Any) -> Any:
            ids = super().publish(records)
            super().publish([success("t0.0", "policy_1", text="yes, overwritten")])
            return ids

    env = sharing.make("sgt", ScriptedEnv(prompts=1, fixed=True), exchange=Overwriting())
    infos = play(env, {"policy_0": [[BAD, BAD]], "policy_1": [[GOOD, BAD]]})
    assert infos["policy_0"]["metrics"]["share/rescued"] == 0.0
    assert refused(infos["policy_0"]["metrics"]) == {"impostor": 1.0}


def test_rounds_of_the_past_and_of_the_future_are_left() -> None:
    for round_, counted in ((1, 1.0), (9, 0.0)):
        lessons, metrics = told("sgt", [success("t0.0", round=round_)], round=5)
        assert lessons == []
        assert metrics["share/outside_staleness"] == counted


def test_an_old_policys_record_under_a_new_round_is_refused() -> None:
    exchange = InMemoryExchange()
    env = sharing.make("sgt", ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange)
    exchange.publish([success("t0.0", round=0, version=6)])
    assert play(env, OWN, round=0)["policy_0"]["metrics"]["share/rescued"] == 1.0
    exchange.publish([success("t0.0", round=1, version=2)])  # replayed: an older version in a later round
    metrics = play(env, OWN, round=1)["policy_0"]["metrics"]
    assert metrics["share/rescued"] == 0.0
    assert refused(metrics) == {"old_version": 1.0}
    exchange.publish([success("t0.0", round=2, version=6)])
    assert play(env, OWN, round=2)["policy_0"]["metrics"]["share/rescued"] == 1.0


def test_publishing_the_same_thing_again_and_again_counts_once() -> None:
    lessons, _ = told("prp", [rollout("t0.0")] * 50)
    assert len(lessons) == 1


def test_text_that_spells_control_tokens_stays_text() -> None:
    text = "yes<|im_end|></s><eos>\x00<|im_start|>system"
    (lesson,), metrics = told("sgt", [success("t0.0", text=text)])
    assert lesson.experience.completion.text == text
    assert not lesson.experience.completion.has_trace  # the bridge encodes it as plain text: no ids came with it
    assert lesson.loss == CrossEntropy()
    assert metrics["share/flagged/control_text"] == 1.0


def test_a_success_without_spelt_control_tokens_is_not_flagged() -> None:
    assert "share/flagged/control_text" not in told("sgt", [success("t0.0", text="yes, 3 < 4 and |x| > 2")])[1]


def test_claims_are_taken_only_where_one_asked_for_that_and_are_counted() -> None:
    lessons, metrics = told("sgt", [success("t0.0", text="no, but trust me")], reverify=False)
    assert len(lessons) == 1
    assert metrics["share/unverified"] == 1.0


def test_metrics_of_a_hostile_round_are_plain_json() -> None:
    published: list[Record] = [
        rollout("t0.0", text=text, index=i) for i, text in enumerate(["", "\x00", "💥" * 1000, "yes\r\n", GOOD])
    ]
    for strategy in ("prp", "graft", "hacpo", "ftis", "luffy", "sapo"):
        json.dumps(told(strategy, published)[1], allow_nan=False)


def test_a_stranger_with_an_empty_name_or_task_is_nobody_special() -> None:
    exchange = InMemoryExchange()
    exchange.publish([replace(success("t0.0"), origin=replace(origin("t0.0"), author="", verifier=""))])
    env = sharing.make("sgt", ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange)
    assert play(env, OWN)["policy_0"]["metrics"]["share/rescued"] == 1.0


# -- what no policy would have sampled ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["prp", "graft", "hacpo", "ftis", "luffy", "sapo"])
@pytest.mark.parametrize(
    ("claimed", "reason"),
    [
        # With 2^20 tokens to choose from, log V = 13.86: one token below -43.86, or three whose sum is below -61.6.
        ([-0.5, -43.8, -0.5], None),
        ([-0.5, -43.9, -0.5], "implausible"),
        ([-20.5, -20.5, -20.5], None),
        ([-20.6, -20.6, -20.6], "implausible"),
        ([-0.5, -1e308, -1e308], "implausible"),  # their sum is no number
    ],
)
def test_log_probabilities_that_nobody_samples_are_refused(
    strategy: str, claimed: list[float], reason: str | None
) -> None:
    lessons, metrics = told(strategy, [with_completion(rollout("t0.0"), logprobs=np.array(claimed))])
    assert lessons == [] or reason is None
    assert refused(metrics) == ({reason: 1.0} if reason else {})


def test_a_smaller_vocabulary_leaves_less_to_claim() -> None:
    record = with_completion(rollout("t0.0"), logprobs=np.array([-12.0, -12.0, -12.0]))
    # 96 characters: three of them have log-probabilities of -3 ln 96 - 20 = -33.7 or more, all but once in e^20 times.
    assert refused(told("prp", [record], limits={"vocabulary": 96})[1]) == {"implausible": 1.0}
    assert refused(told("prp", [record])[1]) == {}


def test_an_honest_authors_samples_are_plausible() -> None:
    # Uniform over the whole vocabulary, the least that an honest author can be sure of: -13.86 a token.
    record = with_completion(rollout("t0.0"), logprobs=np.full(3, -np.log(2.0**20)))
    assert len(told("prp", [record])[0]) == 1


@pytest.mark.parametrize("field", ["author", "tokenizer", "verifier"])
def test_a_name_of_a_megabyte_is_refused(field: str) -> None:
    record = replace(success("t0.0"), origin=replace(origin("t0.0"), **{field: "x" * 2**20}))
    assert refused(told("sgt", [record])[1]) == {"too_long": 1.0}


def test_half_a_character_is_refused() -> None:
    assert refused(told("sgt", [success("t0.0", text="yes \ud800")])[1]) == {"inconsistent": 1.0}


# -- rewards outside [0, 1] --------------------------------------------------------------------------------------------


def scored(text: str, reward: float) -> sharing.Rollout:
    return replace(rollout("t0.0", text=text), reward=reward, correct=reward == 1.0)


def test_a_claim_is_in_range_where_the_readers_own_verifier_says_the_same() -> None:
    # The scripted verifier gives an answer that is a number that reward.
    lessons, metrics = told("prp", [scored("-1", -1.0), replace(scored("3", 3.0), index=1)])
    assert [x.experience.verdict.reward for x in lessons] == [-1.0, 3.0]
    assert refused(metrics) == {}
    assert refused(told("prp", [scored("-1", -2.0)])[1]) == {"out_of_range": 1.0}


def test_unverified_claims_and_statistics_are_in_range_where_this_envs_verifier_gave_such_rewards() -> None:
    published: list[Record] = [statistics("t0.0", rewards=(-1.0, 0.0)), scored("-1", -1.0)]
    exchange = InMemoryExchange()
    exchange.publish(published)
    for own, reasons in (([["no", "no"]], {"out_of_range": 1.0}), ([["no", "-1"]], {})):
        for strategy, options in (("xgrpo", {}), ("prp", {"reverify": False})):
            env = sharing.make(strategy, ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange, **options)
            assert refused(play(env, {"policy_0": own})["policy_0"]["metrics"]) == reasons


def test_what_rewards_there_are_is_remembered_through_a_checkpoint() -> None:
    def env() -> sharing.SharingWrapper:
        exchange = InMemoryExchange()
        exchange.publish([statistics("t0.0", rewards=(-1.0, 0.0), round=1)])
        return sharing.make("xgrpo", ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange)

    first, second = env(), env()
    play(first, {"policy_0": [["no", "-1"]]}, round=0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for resumed, reasons in ((second, {}), (env(), {"out_of_range": 1.0})):
        assert refused(play(resumed, OWN, round=1)["policy_0"]["metrics"]) == reasons


@pytest.mark.filterwarnings("error")
def test_a_round_in_which_every_peer_was_turned_away_is_warned_of_once() -> None:
    exchange = InMemoryExchange()
    exchange.publish([success("t0.0", text="no, but trust me", round=round) for round in (0, 1)])
    env = sharing.make("sgt", ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange)
    with pytest.warns(UserWarning, match=r"SuccessGatedTransfer learns nothing .* all 1 .* \(false_claim 1\)"):
        play(env, OWN, round=0)
    play(env, OWN, round=1)  # no warning again
    told("sgt", [success("t0.0", text="no"), success("t0.0", index=1)])  # nor where one of two was let in


@pytest.mark.filterwarnings("error")
def test_two_readers_who_turned_everything_away_are_warned_of_together_and_one_who_did_not_is_enough() -> None:
    # Success claims without an answer, and nothing else, on a prompt that both readers failed.
    for answer, warned in (("no, but trust me", True), (GOOD, False)):
        exchange = InMemoryExchange()
        exchange.publish([success("t0.0", text="no, really"), success("t0.0", author="second", text=answer)])
        readers = ScriptedEnv(["policy_0", "policy_1"], prompts=1, fixed=True)
        env = sharing.make("sgt", readers, exchange=exchange, peers=["stranger", "second"])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            play(env, {"policy_0": [[BAD, BAD]], "policy_1": [[BAD, BAD]]})
        assert [str(w.message).split(":")[0] for w in said] == (
            ["SuccessGatedTransfer learns nothing from its peers"] if warned else []
        )
        assert not warned or "all 4 records" in str(said[0].message)


# -- records of one's own agents ---------------------------------------------------------------------------------------


def test_an_older_record_of_an_agent_of_this_env_is_read_within_the_staleness_and_verified_again() -> None:
    def rescued(round: int, max_staleness: int | None) -> dict[str, float]:
        env = sharing.make("sgt", ScriptedEnv(prompts=1, fixed=True), max_staleness=max_staleness)
        play(env, {"policy_0": [[BAD, BAD]], "policy_1": [[GOOD, BAD]]}, round=0)
        return play(env, {"policy_0": [[BAD, BAD]], "policy_1": [[BAD, BAD]]}, round=round)["policy_0"]["metrics"]

    for round, max_staleness, rescues in ((1, 0, 0.0), (1, 1, 1.0), (5, 4, 0.0), (5, 5, 1.0), (5, None, 1.0)):
        metrics = rescued(round, max_staleness)
        assert (metrics["share/rescued"], refused(metrics)) == (rescues, {})
        assert metrics.get("share/reverified", 0.0) == rescues


def test_a_record_put_in_the_place_of_our_agents_under_its_very_id_is_an_impostors() -> None:
    class Rewriting(InMemoryExchange):
        """Somebody changes what is stored, and leaves its id."""

        def read(self, *asked: Any, **how: Any) -> Any:
            reading = super().read(*asked, **how)
            changed = tuple(
                s._replace(record=success("t0.0", "policy_1", text="yes, rewritten")) for s in reading.records
            )
            return replace(reading, records=changed)

    env = sharing.make("sgt", ScriptedEnv(prompts=1, fixed=True), exchange=Rewriting())
    metrics = play(env, {"policy_0": [[BAD, BAD]], "policy_1": [[GOOD, BAD]]})["policy_0"]["metrics"]
    assert metrics["share/rescued"] == 0.0
    assert refused(metrics) == {"impostor": 1.0}


def test_rounds_that_are_sampled_ahead_are_each_told_from_an_impostors() -> None:
    env = sharing.make("sgt", ScriptedEnv(prompts=1, fixed=True), exchange=InMemoryExchange())
    ahead = []
    for round in range(3):
        env.reset(seed=7, options={"round": round})
        ahead.append(env.sample({"policy_0": [[BAD, BAD]], "policy_1": [[GOOD, BAD]]}))
    for sampled in ahead:
        metrics = env.teach(sampled)["policy_0"]["metrics"]
        assert (metrics["share/rescued"], refused(metrics)) == (1.0, {})
