"""The reference update of lessons is what the learners' own corrections and losses make of them."""

import numpy as np
import pytest

from benchmarks.bandit.shipped import SHIPPED, arm_of, shipped, shipped_lessons, update_of
from learners.corrections import Draft, Scores, Taught, correct
from learners.example import Example
from learners.losses import example_loss, scales
from learners.teacher_reward import rewarded
from mutual_env.seeding import generator
from mutual_env.types import Floats, Lesson, TeacherDivergence, TeacherMixture, TeacherReward
from sharing.analysis.bandit import Bools, Context, contexts
from tests.sharing.analysis.simulation import draw


@pytest.mark.parametrize(("tokens", "divergent", "chunk"), [(1, 0, 1), (5, 0, 1), (7, 4, 1), (7, 4, 2)])
@pytest.mark.parametrize("strategy", SHIPPED)
def test_learners_make_of_the_lessons_what_the_analysis_makes_of_them(
    strategy: str, tokens: int, divergent: int, chunk: int
) -> None:
    for context in contexts(0.7, 0.4, tokens=tokens, divergent=divergent, chunk=chunk):
        rollouts = draw(context, 6, 3, generator("lessons", strategy, context.name))
        wrapper = shipped(strategy, context, 6)
        for arms_AG, aligned_AG in zip(rollouts.arms_DAG, rollouts.aligned_DAG, strict=True):
            lessons = shipped_lessons(wrapper, arms_AG)
            ours = update_of(lessons, context, aligned_AG)
            np.testing.assert_allclose(ours, learnt(lessons, context, aligned_AG), rtol=0, atol=1e-12)


def learnt(lessons: tuple[Lesson, ...], context: Context, aligned_AG: Bools) -> Floats:
    """-∇ of one optimizer step's loss, times T: a response counts as one, and a token that carries the choice has its
    part of the score."""
    if not lessons:  # a teacher without a success has nothing to give
        return np.zeros(context.reader_K.size)
    drafts, scores = zip(*(draft_of(lesson, context, aligned_AG) for lesson in lessons), strict=True)
    credited, _ = rewarded(drafts, scores)
    made = [correct(draft, known) for draft, known in zip(credited, scores, strict=True)]
    kept = [(lesson, example) for lesson, example in zip(lessons, made, strict=True) if isinstance(example, Example)]
    total = np.zeros(context.reader_K.size)
    for (lesson, example), scale in zip(kept, scales([example for _, example in kept]), strict=True):
        arm = arm_of(lesson.experience)
        old = spread(np.log(context.reader_K[arm]), context)
        _, gradient = example_loss(example, old, old if example.anchor is None else example.anchor)
        share = gradient[: context.places].sum() / context.places
        total -= scale * context.tokens * share * context.scores_KK[arm]
    return total


def spread(log_probability: float, context: Context) -> Floats:
    """Over the tokens that carry the choice; the others are certain."""
    return np.where(np.arange(context.tokens) < context.places, log_probability / context.places, 0.0)


def draft_of(lesson: Lesson, context: Context, aligned_AG: Bools) -> tuple[Draft, Scores]:
    """The lesson as the learners correct it, an unaligned copy having no exact token."""
    row = int(lesson.experience.author.removeprefix("agent_"))
    aligned = bool(aligned_AG[row, int(lesson.experience.completion.text.split("#")[1])])
    log_AT = [spread(whole, context) for whole in np.log(context.policies_AK[:, arm_of(lesson.experience)])]
    ids, prompt = np.arange(context.tokens, dtype=np.int32), np.zeros(1, dtype=np.int32)
    exact = np.full(context.tokens, aligned or row == 0)
    author = log_AT[row]
    numbers = np.where(ids < context.places, ids // context.chunk, ids)
    chunks = np.where(exact, numbers, -1) if row else ids
    draft = Draft(lesson, prompt, ids, author, float(author.mean()), exact, chunks, is_borrowed=row != 0)
    taught = isinstance(lesson.correction, TeacherMixture | TeacherDivergence | TeacherReward)
    teacher = log_AT[1] if aligned else np.full(context.tokens, np.nan)
    known = Taught(teacher, np.where(aligned, numbers, -1)) if taught else None
    return draft, Scores(log_AT[0], known)
