"""From one reader's lessons to the examples it trains on: everything in its own tokens, every correction applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from learners.batch_metrics import batch_metrics
from learners.conversed import Piece, credit_of, earlier_in_tokens_of, pieces_of, with_turns, written_in
from learners.corrections import Draft, Drop, Scores, Taught, correct, teacher_of, wanting_old
from learners.example import Example
from learners.protocol import Learner, longest_sequence
from learners.teacher_reward import rewarded
from mutual_env.errors import IdentityMismatchError, InvalidInputError, UnknownNameError
from mutual_env.types import Floats, Ids, Lesson, Metrics
from tokenizers_bridge.bridge import TokenizerBridge
from tokenizers_bridge.replies import Conversing
from tokenizers_bridge.translation.align import align
from tokenizers_bridge.types import Translation


@dataclass(frozen=True, slots=True)
class Batch:
    """What `Learner.update` is given, and how it came about: in figures, and lesson by lesson."""

    examples: tuple[Example, ...]
    metrics: Metrics
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one lesson: an example, or the reason why there is none.

    `draft` is None where the text could not be translated; `translation` where it was the reader's own.
    """

    lesson: Lesson
    example: Example | None
    dropped: str = ""
    draft: Draft | None = None
    scores: Scores | None = None
    translation: Translation | None = None


def build_batch(
    lessons: Sequence[Lesson],
    learner: Learner,
    bridge: TokenizerBridge,
    teachers: Mapping[str, Learner] | None = None,
) -> Batch:
    """The examples that these lessons are for this learner.

    The reader's own experience keeps the ids that were sampled, and never goes through text; a peer's goes through
    the bridge. Where corrections need the reader's own log-probabilities, all of them are asked for in one `score`,
    with some of those that only figures are made of; a teacher's likewise. A lesson that cannot be used is dropped and
    counted, under the reason.
    """
    made = _made(lessons, learner, bridge)
    drafts = [draft for draft, _ in made if isinstance(draft, Draft)]
    scores = _scores(drafts, learner, bridge, teachers or {})
    drafts, of_teachers = rewarded(drafts, scores)
    known = iter(zip(drafts, scores, strict=True))
    outcomes = tuple(
        _outcome(lesson, next(known) if isinstance(draft, Draft) else draft, translation)
        for lesson, (draft, translation) in zip(lessons, made, strict=True)
    )
    examples = tuple(outcome.example for outcome in outcomes if outcome.example is not None)
    kept = [(o.draft, o.scores) for o in outcomes if o.example is not None and o.draft is not None and o.scores]
    dropped = Counter(outcome.dropped for outcome in outcomes if outcome.dropped)
    translations = [translation for _, translation in made if translation is not None]
    metrics = batch_metrics(lessons, examples, kept, drafts, scores, translations, dropped)
    return Batch(examples, {**metrics, **of_teachers}, outcomes)


def _made(
    lessons: Sequence[Lesson], learner: Learner, bridge: TokenizerBridge
) -> list[tuple[Draft | Drop, Translation | None]]:
    """Each lesson in the reader's tokens, or why it cannot be; and what the bridge made of it, where it is a peer's."""
    conversing, longest = Conversing(learner.tokenizer), longest_sequence(learner)
    peers = [lesson for lesson in lessons if lesson.experience.author != learner.name]
    written = [[*written_in(e.earlier), e.completion] for e in (lesson.experience for lesson in peers)]
    translated = iter(bridge.translate([c for turns in written for c in turns], learner.tokenizer))
    of_peers = iter([[next(translated) for _ in turns] for turns in written])
    made: list[tuple[Draft | Drop, Translation | None]] = []
    for lesson in lessons:
        if lesson.experience.author == learner.name:
            made.append((_own(lesson, learner, conversing), None))
        else:
            translations = next(of_peers)
            made.append((_borrowed(lesson, translations, conversing, longest), translations[-1]))
    return made


def _borrowed(
    lesson: Lesson, translations: Sequence[Translation], conversing: Conversing, longest: int | None
) -> Draft | Drop:
    """`translations` are of what was written in each turn."""
    *before, translation = translations
    earlier = pieces_of(lesson.experience.earlier, before)
    rejected = translation if translation.action == "reject" else earlier
    if not isinstance(rejected, list):
        return Drop(f"translation_{rejected.verdict.replace('-', '_')}")
    draft = _credited(Draft.borrowed(lesson, conversing.prompt(lesson.experience.task.prompt), translation), conversing)
    if lesson.experience.earlier and isinstance(earlier, list):
        draft = with_turns(draft, earlier, conversing)
    return Drop("too_long") if _is_too_long(draft.prompt_ids, draft.response_ids, longest) else draft


def _outcome(lesson: Lesson, made: tuple[Draft, Scores] | Drop, translation: Translation | None) -> Outcome:
    if isinstance(made, Drop):
        return Outcome(lesson, None, made.reason, translation=translation)
    draft, scores = made
    found = _corrected(draft, scores)
    if isinstance(found, Drop):
        return Outcome(lesson, None, found.reason, draft, scores, translation)
    return Outcome(lesson, found, "", draft, scores, translation)


def _corrected(draft: Draft, scores: Scores) -> Example | Drop:
    """No record of a peer ends an update, whatever is in it; what is wrong with one's own must be heard."""
    try:
        return correct(draft, scores)
    except InvalidInputError:
        if not draft.is_borrowed:
            raise
        return Drop("unusable")


def _is_too_long(prompt_ids: Ids, response_ids: Ids, longest: int | None) -> bool:
    return longest is not None and prompt_ids.size + response_ids.size > longest


def _own(lesson: Lesson, learner: Learner, conversing: Conversing) -> Draft:
    experience = lesson.experience
    opening = sum(turn.is_opening for turn in experience.earlier[:1])
    for completion in experience.written[opening:]:
        if not completion.has_trace:
            raise InvalidInputError(
                f"{learner.name}: a lesson from its own experience on task {experience.task.id!r} has no token "
                "trace: step the env with the completions that `act` returned, not with their text"
            )
        if completion.tokenizer != learner.tokenizer.fingerprint:
            raise IdentityMismatchError(
                f"{learner.name}: its own completion on task {experience.task.id!r} was sampled with tokenizer "
                f"{completion.tokenizer[:12]}, it trains with {learner.tokenizer.fingerprint[:12]}: "
                "give the learner that sampled it"
            )
    draft = _credited(Draft.own(lesson, conversing.prompt(experience.task.prompt)), conversing)
    if not experience.earlier:
        return draft
    return with_turns(draft, [Piece.own(turn.completion) for turn in experience.earlier], conversing)


def _credited(draft: Draft, conversing: Conversing) -> Draft:
    """The draft of what was written last, with what its tokens are worth."""
    last = len(draft.lesson.experience.earlier)
    return replace(draft, credit=credit_of(draft.lesson, last, draft.response_ids, conversing.tokenizer))


def _scores(
    drafts: Sequence[Draft], learner: Learner, bridge: TokenizerBridge, teachers: Mapping[str, Learner]
) -> list[Scores]:
    wanting = wanting_old(drafts)
    old: dict[int, Floats] = {}
    if wanting:
        values = learner.score([drafts[i].prompt_ids for i in wanting], [drafts[i].response_ids for i in wanting])
        old = dict(zip(wanting, values, strict=True))
    taught: dict[int, Taught] = {}
    by_teacher: dict[str, list[int]] = {}
    for index, draft in enumerate(drafts):
        name = teacher_of(draft)
        if name is not None:
            by_teacher.setdefault(name, []).append(index)
    for name, indices in by_teacher.items():
        if name not in teachers:
            raise UnknownNameError.of("teacher", name, teachers)
        taught.update(_taught([drafts[i] for i in indices], indices, learner, bridge, teachers[name]))
    return [Scores(old.get(index), taught.get(index)) for index in range(len(drafts))]


def _taught(
    drafts: Sequence[Draft], indices: Sequence[int], learner: Learner, bridge: TokenizerBridge, teacher: Learner
) -> dict[int, Taught]:
    """The teacher's log-probabilities on the reader's tokens: of what was written last, where there were turns."""
    taught = {i: _untaught(draft) for i, draft in zip(indices, drafts, strict=True)}
    conversing = Conversing(teacher.tokenizer)
    asked: list[tuple[int, Draft, Ids, Ids]] = []
    for index, draft, ids in zip(indices, drafts, _in_tokens_of(drafts, learner, bridge, teacher), strict=True):
        prompt_ids = _before_last(draft, bridge, conversing)
        if ids.size and prompt_ids.size and not _is_too_long(prompt_ids, ids, longest_sequence(teacher)):
            asked.append((index, draft, prompt_ids, ids))
    if not asked:
        return taught
    values = teacher.score([prompt_ids for _, _, prompt_ids, _ in asked], [ids for _, _, _, ids in asked])
    for (index, draft, _, ids), logprobs in zip(asked, values, strict=True):
        alignment = align(ids, teacher.tokenizer, draft.response_ids[draft.last_turn :], learner.tokenizer)
        carried, exact = alignment.carry(logprobs)
        known = exact & np.isfinite(carried)
        taught[index].logprobs[draft.last_turn :] = np.where(known, carried, np.nan)
        taught[index].chunks[draft.last_turn :] = np.where(known, alignment.chunk_ids(), -1)
    return taught


def _before_last(draft: Draft, bridge: TokenizerBridge, conversing: Conversing) -> Ids:
    """The conversation up to what was written last, in a teacher's tokens; nothing where it cannot be translated."""
    experience = draft.lesson.experience
    parts = [conversing.prompt(experience.task.prompt)]
    pieces = earlier_in_tokens_of(experience.earlier, bridge, conversing.tokenizer)
    if not isinstance(pieces, list):
        return np.empty(0, np.int32)
    for turn, piece in zip(experience.earlier, pieces, strict=True):
        parts += [piece.ids, conversing.after(experience.task.prompt, turn.reply, piece.ids)]
    return np.concatenate(parts)


def _untaught(draft: Draft) -> Taught:
    size = draft.response_ids.size
    return Taught(np.full(size, np.nan), np.full(size, -1))


def _in_tokens_of(drafts: Sequence[Draft], learner: Learner, bridge: TokenizerBridge, teacher: Learner) -> list[Ids]:
    """Each draft in the teacher's tokens; nothing where it cannot be translated."""
    if teacher.tokenizer.fingerprint == learner.tokenizer.fingerprint:
        return [draft.response_ids[draft.last_turn :] for draft in drafts]
    translations = bridge.translate([draft.lesson.experience.completion for draft in drafts], teacher.tokenizer)
    return [np.empty(0, np.int32) if t.action == "reject" else t.token_ids for t in translations]
