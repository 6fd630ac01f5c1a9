"""Lessons to examples: own ids kept, peers translated, every correction applied, what was lost counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import learners
from learners import Batch, build_batch, make, register
from learners.tabular import TabularLearner
from mutual_env.errors import IdentityMismatchError, InvalidInputError, StorageError, TrainingError, UnknownNameError
from mutual_env.types import (
    AuthorMean,
    AuthorPolicy,
    AuthorWeight,
    CompatibilityGate,
    Completion,
    Correction,
    CrossEntropy,
    Experience,
    Floats,
    Ids,
    Lesson,
    OldPolicy,
    Task,
    TeacherDivergence,
    TeacherMixture,
    Verdict,
)
from tokenizers_bridge import CharTokenizer, PairTokenizer, Tokenizer, TokenizerBridge

ALPHABET = "0123456789+="
CHARS = CharTokenizer(ALPHABET)
PAIRS = PairTokenizer(ALPHABET, [("1", "2"), ("12", "3")])
BRIDGE = TokenizerBridge([CHARS, PAIRS])
TASK = Task("t", "1+2=", "3")


class Counting(TabularLearner):
    """Remembers how often it was asked to score, and what."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        super().__init__(tokenizer, name=name, alphabet="0123456789", max_new_tokens=6)
        self.asked: list[int] = []

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        self.asked.append(len(response_ids))
        return super().score(prompt_ids, response_ids)


def reader() -> Counting:
    return Counting(CHARS, "reader")


def written(author: str, text: str, tokenizer: Tokenizer, logprobs: list[float] | None = None) -> Experience:
    """A completion of this text that stopped by itself, each token at log-probability -1 unless said."""
    ids = np.append(tokenizer.encode_batch([text])[0], tokenizer.stop_id)
    values = np.full(ids.size, -1.0) if logprobs is None else np.array(logprobs)
    completion = Completion(text, ids, values, "stop", 0, tokenizer.fingerprint)
    return Experience(TASK, author, completion, Verdict.scored(1.0, correct=True), 0)


def batch_of(policy: Counting, *lessons: Lesson, **teachers: Counting) -> Batch:
    return build_batch(lessons, policy, BRIDGE, teachers)


def test_own_experience_keeps_the_ids_that_were_sampled() -> None:
    # "12" as two characters is not how PAIRS would write it: text would turn 2 ids into 1.
    policy = Counting(PAIRS, "reader")
    ids = np.array([*PAIRS.encode_batch(["1"])[0], *PAIRS.encode_batch(["2"])[0], PAIRS.stop_id], np.int32)
    completion = Completion("12", ids, np.full(3, -2.0), "stop", 0, PAIRS.fingerprint)
    own = Experience(TASK, "reader", completion, Verdict.scored(1.0, correct=True), 0)
    (example,) = batch_of(policy, Lesson(own, 0.5)).examples
    assert example.response_ids.tolist() == ids.tolist()
    assert example.prompt_ids.tolist() == PAIRS.render_prompt("1+2=").tolist()
    assert (example.anchor, example.mask.all(), example.advantages.tolist()) == (None, True, [0.5] * 3)
    assert policy.asked == []


def test_own_experience_of_another_tokenizer_or_without_a_trace_is_refused() -> None:
    with pytest.raises(IdentityMismatchError, match="sampled with tokenizer"):
        batch_of(reader(), Lesson(written("reader", "3", PAIRS), 1.0))
    bare = replace(written("reader", "3", CHARS), completion=Completion.from_text("3"))
    with pytest.raises(InvalidInputError, match="no token trace"):
        batch_of(reader(), Lesson(bare, 1.0))


def test_a_peers_success_is_learnt_in_the_readers_tokens() -> None:
    lesson = Lesson(written("peer", "123", PAIRS), 0.0, CrossEntropy(), weight=0.1, order=1)
    batch = batch_of(reader(), lesson)
    (example,) = batch.examples
    # One token "123" and the stop token become three characters and the stop token.
    assert example.response_ids.tolist() == [*CHARS.encode_batch(["123"])[0], CHARS.stop_id]
    assert (example.weight, example.order, example.mask.sum()) == (0.1, 1, 4)
    assert batch.metrics["batch/borrowed_share"] == 1.0
    assert batch.metrics["bridge/token_share"] == pytest.approx(3 / 4)


def test_the_authors_policy_is_the_anchor_and_its_sums_are_kept() -> None:
    # -3 for "123" is spread over three characters, -0.5 goes with the stop token.
    policy = reader()
    lesson = Lesson(written("peer", "123", PAIRS, [-3.0, -0.5]), 1.0, correction=AuthorPolicy())
    batch = batch_of(policy, lesson)
    assert batch.examples[0].anchor == pytest.approx([-1.0, -1.0, -1.0, -0.5])
    assert batch.examples[0].units.tolist() == [0, 0, 0, 1]
    # The reader is uniform over ten digits and the stop token: the log-ratios of the two chunks are 3 log(1/11) + 3 and
    # log(1/11) + .5, and spreading the first evenly adds nothing, since the reader's own tokens are alike.
    logs = np.array([3 * math.log(1 / 11) + 3, math.log(1 / 11) + 0.5])
    assert batch.metrics["batch/ratio_variance"] == pytest.approx(float(np.exp(logs).var()), rel=1e-6)
    assert batch.metrics["batch/log_ratio_variance"] == pytest.approx(float(logs.var()), rel=1e-6)
    assert batch.metrics["batch/spread_variance"] == pytest.approx(0.0, abs=1e-12)
    assert batch.metrics["batch/effective_sample_size"] == 1.0


def test_the_effective_sample_size_is_that_of_the_sequence_weights() -> None:
    # The reader gives both the same probability; the authors differ by log 3, so the weights are 3 to 1: 16 / 10 of 2.
    lessons = [
        Lesson(written("peer", "5", CHARS, [total / 2, total / 2]), 1.0, correction=AuthorPolicy())
        for total in (-2.0 - math.log(3), -2.0)
    ]
    assert batch_of(reader(), *lessons).metrics["batch/effective_sample_size"] == pytest.approx(16 / 10 / 2)


def test_the_reader_scores_once_for_all_that_need_it() -> None:
    policy, teacher = reader(), Counting(PAIRS, "teacher")
    corrections: list[Correction] = [
        OldPolicy(),
        AuthorPolicy(),
        AuthorMean(),
        CompatibilityGate(floor=0.0),
        TeacherMixture("teacher", 0.5),
        TeacherDivergence("teacher", 0.1),
    ]
    lessons = [Lesson(written("peer", "123", PAIRS), 1.0, correction=c) for c in corrections]
    batch = batch_of(policy, *lessons, teacher=teacher)
    assert len(batch.examples) == 6
    # Author policy, gate and mixture need the reader's own; mixture and divergence the teacher's.
    assert (policy.asked, teacher.asked) == ([3], [2])


def test_far_samples_that_are_not_good_are_dropped_by_their_divergence() -> None:
    # The reader's log-probability of each token is log 1/11 = -2.4; that of "far"'s author -0.1, so ρ = .1005 a token
    # and KL is 2 (ρ - 1 - log ρ) = 2 (.1005 - 1 + 2.298) = 2.8.
    near = math.log(1 / 11)
    far, twin = written("peer", "5", CHARS, [-0.1] * 2), written("peer", "5", CHARS, [near] * 2)
    for bound, dropped in ((2.7, 1.0), (2.9, 0.0)):
        correction = AuthorWeight(max_kl=bound)
        lessons = [Lesson(e, advantage, correction=correction) for e in (far, twin) for advantage in (1.0, -1.0)]
        batch = batch_of(reader(), *lessons)
        assert batch.metrics.get("batch/dropped_too_far_from_author", 0.0) == dropped
        found = [float(e.advantages[0]) for e in batch.examples]
        expected = [math.exp(near + 0.1), -math.exp(near + 0.1), 1.0, -1.0]
        assert found == pytest.approx([a for i, a in enumerate(expected) if not (dropped and i == 1)])


def test_a_weight_is_truncated_and_a_chunk_of_several_tokens_has_one() -> None:
    # "123" is one token of its author, at -12, and three of the reader's at log 1/11 each: ρ = e^(12 - 7.19) = 122,
    # truncated to 2 and given to all three. The stop token's ρ is e^(3 - 2.4) = 1.83. What is above the cap teaches.
    lesson = Lesson(written("peer", "123", PAIRS, [-12.0, -3.0]), -1.0, correction=AuthorWeight(ratio_cap=2.0))
    batch = batch_of(reader(), lesson)
    (example,) = batch.examples
    assert example.advantages == pytest.approx([-2.0, -2.0, -2.0, -math.exp(3.0) / 11])
    assert (example.anchor, example.units) == (None, None)


def test_what_a_peer_claims_never_overflows_into_a_weight() -> None:
    claims = [[-1e4, 0.0], [0.0, 0.0], [-1e300, -1e300]]
    for claimed in claims:
        lesson = Lesson(written("peer", "5", CHARS, claimed), 1.0, correction=AuthorWeight(ratio_cap=math.inf))
        batch = batch_of(reader(), lesson)
        assert all(np.isfinite(e.advantages).all() for e in batch.examples)
        assert len(batch.examples) + batch.metrics["batch/dropped"] == 1.0


def test_only_means_are_compared_where_lengths_differ() -> None:
    # The author's -4 over the reader's four tokens; as published, over the two that the author needed for them.
    for correction, mean in ((AuthorMean(), -1.0), (AuthorMean(lengths="own"), -2.0)):
        lesson = Lesson(written("peer", "123", PAIRS, [-3.0, -1.0]), 1.0, correction=correction)
        (example,) = batch_of(reader(), lesson).examples
        assert example.anchor == pytest.approx([mean] * 4)


def test_the_gate_weighs_by_compatibility_and_shuts_below_its_floor() -> None:
    # The reader's mean is log(1/11). An author at the same mean + log(1/0.9) gives s = 0.9; + log(1/0.5) gives 0.5.
    mean = math.log(1 / 11)
    lessons = [
        Lesson(written("peer", "5", CHARS, [mean - math.log(s)] * 2), 1.0, correction=CompatibilityGate(), weight=2.0)
        for s in (0.9, 0.5, 1.5)
    ]
    batch = batch_of(reader(), *lessons)
    assert [e.weight for e in batch.examples] == pytest.approx([2 * 0.9, 2 * 1.0], abs=1e-6)
    assert all(e.anchor is None for e in batch.examples)
    assert batch.metrics["batch/dropped_gate_closed"] == 1.0
    assert batch.metrics["batch/gate_kept"] == pytest.approx(2 / 3)
    assert batch.metrics["batch/gate_mean"] == pytest.approx(0.95, abs=1e-6)


def test_a_teacher_of_another_tokenizer_mixes_into_the_anchor() -> None:
    policy, teacher = reader(), Counting(PAIRS, "teacher")
    own = written("reader", "123", CHARS)
    half, none = (Lesson(own, 1.0, correction=TeacherMixture("teacher", alpha)) for alpha in (0.5, 1.0))
    mixed, plain = batch_of(policy, half, none, teacher=teacher).examples
    old = policy.score([mixed.prompt_ids], [mixed.response_ids])[0]
    taught = teacher.score([PAIRS.render_prompt("1+2=")], [np.append(PAIRS.encode_batch(["123"])[0], PAIRS.stop_id)])[0]
    expected = 0.5 * old + 0.5 * np.array([*[taught[0] / 3] * 3, taught[1]])
    assert mixed.anchor == pytest.approx(expected)
    assert plain.anchor is None  # alpha = 1 is GRPO to the last bit


def test_divergence_from_a_teacher_is_a_reference_on_aligned_tokens() -> None:
    teacher = Counting(CHARS, "teacher")
    lesson = Lesson(written("reader", "5", CHARS), 1.0, correction=TeacherDivergence("teacher", 0.3))
    (example,) = batch_of(reader(), lesson, teacher=teacher).examples
    assert example.kl_weight == 0.3
    assert example.reference == pytest.approx([math.log(1 / 11)] * 2, abs=1e-6)
    with pytest.raises(UnknownNameError, match="teacher"):
        batch_of(reader(), lesson)


def test_what_has_no_trace_or_no_translation_is_dropped_and_counted() -> None:
    bare = replace(written("peer", "5", CHARS), completion=Completion.from_text("5"))
    foreign = written("peer", "5", CharTokenizer("5"))  # a tokenizer the bridge does not know
    lessons = [
        Lesson(bare, 1.0, correction=c)
        for c in (AuthorPolicy(), AuthorMean(), CompatibilityGate(), AuthorWeight(), OldPolicy())
    ]
    batch = batch_of(reader(), *lessons, Lesson(foreign, 1.0))
    assert len(batch.examples) == 1
    assert batch.metrics["batch/dropped_no_author_logprobs"] == 4.0
    assert batch.metrics["batch/dropped_translation_failed"] == 1.0


def test_the_tabular_policy_learns_a_task_from_its_reward() -> None:
    policy = TabularLearner(CHARS, name="p", alphabet="0123456789", max_new_tokens=3)
    for round_index in range(60):
        (group,) = policy.act([TASK.prompt], 16, seed=round_index)
        rewards = np.array([float(c.text == "3") for c in group])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        lessons = [
            Lesson(Experience(TASK, "p", c, Verdict.scored(r, correct=r > 0), round_index), float(a))
            for c, r, a in zip(group, rewards, advantages, strict=True)
        ]
        policy.update(build_batch(lessons, policy, BRIDGE).examples)
    assert np.mean([c.text == "3" for c in policy.act([TASK.prompt], 100, seed=999)[0]]) > 0.8


def test_a_tabular_checkpoint_of_another_tokenizer_or_torn_is_refused(tmp_path: Path) -> None:
    TabularLearner(CHARS).save(tmp_path)
    with pytest.raises(IdentityMismatchError):
        TabularLearner(PAIRS).load(tmp_path)
    (tmp_path / "table.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(StorageError, match="no whole tabular checkpoint"):
        TabularLearner(CHARS).load(tmp_path)


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_update_that_is_not_finite_leaves_the_table_alone() -> None:
    policy = TabularLearner(CHARS, name="p")
    (example,) = build_batch([Lesson(written("p", "5", CHARS), 1.0)], policy, BRIDGE).examples
    with pytest.raises(TrainingError, match="weights were not touched"):
        policy.update([replace(example, advantages=np.full(2, 1e308), weight=1e10)])
    assert policy.version == 0


def test_learners_are_made_by_name_and_registered_from_outside() -> None:
    assert isinstance(make("tabular", name="a"), TabularLearner)
    with pytest.raises(UnknownNameError, match="'tabular'"):
        make("tabulr")
    with pytest.raises(UnknownNameError, match="'temperature'"):
        make("tabular", temprature=2.0)
    register("mine", lambda **options: TabularLearner(CHARS, **options))
    register("mine_too", "learners.tabular:TabularLearner")
    assert make("mine", name="b").name == "b"
    assert make("mine_too", name="c").name == "c"
    assert {"mine", "mine_too", "tabular", "torch"} <= set(learners.names())
    with pytest.raises(InvalidInputError, match="module:attribute"):
        register("bad", "learners.tabular")


# -- what a peer merely claims, and what a reader cannot train on -----------------------------------------------------


class Short(Counting):
    """Trains on sequences of up to eight tokens."""

    max_sequence = 8


def test_a_peers_text_that_the_reader_cannot_train_on_is_dropped_and_counted() -> None:
    # "1+2=" is bos and four characters: there is room for two, and the stop token.
    policy = Short(CHARS, "reader")
    lessons = [Lesson(written("peer", text, CHARS), 1.0, CrossEntropy()) for text in ("12", "123")]
    batch = batch_of(policy, *lessons)
    assert [example.response_ids.size for example in batch.examples] == [3]
    assert batch.metrics["batch/dropped_too_long"] == 1.0
    scored = Lesson(written("peer", "123", CHARS), 1.0, correction=AuthorPolicy())
    assert batch_of(policy, scored).examples == ()
    assert policy.asked == []  # nor is it scored


def test_the_readers_own_sample_is_trained_on_or_refused_by_the_learner_itself() -> None:
    assert len(batch_of(Short(CHARS, "reader"), Lesson(written("reader", "12345", CHARS), 1.0)).examples) == 1


def test_a_teacher_is_not_asked_about_what_it_cannot_score() -> None:
    teacher = Short(CHARS, "teacher")
    lesson = Lesson(written("reader", "12345", CHARS), 1.0, correction=TeacherMixture("teacher", 0.5))
    batch = batch_of(reader(), lesson, teacher=teacher)
    assert teacher.asked == []
    assert batch.metrics["batch/teacher_aligned_share"] == 0.0


def test_a_claim_that_no_honest_author_could_make_is_dropped_and_counted() -> None:
    # The reader's six tokens have log-probabilities near -2.4 each (ten digits and the stop token). Of two claims, one
    # makes the sample less than e^20 times as likely for the reader as for its author, the other more.
    policy = reader()
    for claimed, kept in ((-5.0, 1), (-7.0, 0)):
        lesson = Lesson(written("peer", "12345", CHARS, [claimed] * 6), -1.0, correction=AuthorPolicy())
        batch = batch_of(policy, lesson)
        assert len(batch.examples) == kept
        assert batch.metrics.get("batch/dropped_implausible_logprobs", 0.0) == 1.0 - kept
    gate = Lesson(written("peer", "12345", CHARS, [-7.0] * 6), 1.0, correction=CompatibilityGate())
    assert batch_of(policy, gate).metrics["batch/dropped_implausible_logprobs"] == 1.0


def test_what_only_the_figures_want_is_scored_for_a_few() -> None:
    # "5" and the stop token have -2.4 each for the reader: e^20 times as likely it can only be where less than -20 is
    # claimed. Of 100 such claims one in eight is scored, and of 20 four; all that are below are.
    def batch(count: int, *claims: float) -> tuple[Counting, Batch]:
        policy = reader()
        said = [*[-9.0] * count, *claims]
        lessons = [Lesson(written("peer", "5", CHARS, [each] * 2), 1.0, correction=AuthorPolicy()) for each in said]
        return policy, batch_of(policy, *lessons)

    for count, scored in ((100, 12), (20, 4), (3, 3)):
        policy, found = batch(count, -11.0, -13.0)
        assert policy.asked == [scored + 2]
        assert len(found.examples) == count + 1
        assert found.metrics["batch/dropped_implausible_logprobs"] == 1.0
        assert "batch/ratio_mean" in found.metrics
        anchors = [example.anchor.tolist() for example in found.examples if example.anchor is not None]
        assert anchors == [[-9.0, -9.0]] * count + [[-11.0, -11.0]]


def test_figures_are_of_every_author_and_not_of_the_first() -> None:
    authors = [author for author in ("first", "second") for _ in range(40)]
    lessons = [Lesson(written(who, "5", CHARS, [-9.0] * 2), 1.0, correction=AuthorPolicy()) for who in authors]
    sizes = {key for key in batch_of(reader(), *lessons).metrics if key.startswith("batch/chunk_sample_size/")}
    assert sizes == {"batch/chunk_sample_size/first", "batch/chunk_sample_size/second"}


def test_figures_are_of_whole_prompts_from_all_of_the_batch() -> None:
    # Four rows of each of 16 prompts: 64, of which eight are scored. A prompt is computed once for all of its rows.
    policy = reader()
    tasks = [Task(f"t{i}", f"{i}+2=", "3") for i in range(16) for _ in range(4)]
    told = [replace(written("peer", "5", CHARS, [-9.0] * 2), task=task) for task in tasks]
    batch = batch_of(policy, *(Lesson(each, 1.0, correction=AuthorPolicy()) for each in told))
    scored = [o.lesson.experience.task.id for o in batch.outcomes if o.scores is not None and o.scores.old is not None]
    assert scored == ["t0"] * 4 + ["t8"] * 4


def test_what_cannot_be_an_example_is_dropped_where_it_is_a_peers_and_raises_where_it_is_ones_own() -> None:
    # The mean of these overflows, which no example may hold.
    wild = [-1e308] * 6
    batch = batch_of(reader(), Lesson(written("peer", "12345", CHARS, wild), 1.0, correction=AuthorMean()))
    assert batch.examples == ()
    assert batch.metrics["batch/dropped_unusable"] == 1.0
    with pytest.raises(InvalidInputError, match="anchor must be finite"):
        batch_of(reader(), Lesson(written("reader", "12345", CHARS, wild), 1.0, correction=AuthorMean()))
