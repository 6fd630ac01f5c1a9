"""What a run keeps for reading: what everybody wrote, and who taught whom. Bounded in size, the same for the same seed.

    samples.jsonl   a line a round and policy: its groups, each completion [text, reward, status, correct, tokens,
                    detail, advantage of its own lesson]; how many of each prompt were right, of all prompts
    lessons.jsonl   a line a round and reader: how many lessons came from whom and were accepted, of all lessons; the
                    borrowed ones one by one: author, task, text, advantage, weight, loss, correction, and what became
                    of them; of a few the tokens with their chunks and density ratios
    evaluations.jsonl  a line an evaluation and policy: of each task, which samples were right and what they voted for

Counts are of everything. Texts are kept as far as a round's allowance goes, prompts with borrowed lessons first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from learners.batch import Outcome
from learners.evaluation.votes import voted
from learners.protocol import Learner
from learners.units import Units, units_of
from mutual_env.types import AgentInfo, Experience, Group

LONGEST_TEXT, LONGEST_VOTE = 4000, 40
LEAST_PROMPTS = 2
PIECES_OF, MOST_PIECES = 4, 256  # of how many lessons a round and reader tokens are kept, and how many tokens of each

_AROUND = 45  # bytes that come with a text, about

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Allowance:
    """Bytes for one policy's round, in each of the two files."""

    bytes: int
    group_size: int

    @classmethod
    def of(cls, megabytes: float, rounds: int, policies: int, group_size: int) -> Allowance:
        return cls(int(megabytes * 1e6 / max(1, rounds) / max(1, policies) / 2), group_size)

    @property
    def longest_text(self) -> int:
        """So that the least number of prompts fits."""
        return max(40, min(LONGEST_TEXT, self.bytes // (LEAST_PROMPTS * max(1, self.group_size))))


class Recorder:
    """Told after each update; asked when the round is written."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._lines: dict[tuple[str, int], tuple[Line, Line]] = {}
        self._spelled: defaultdict[str, dict[int, str]] = defaultdict(dict)  # a policy's tokens, as they come up

    def noticed(self, learner: Learner, info: AgentInfo, outcomes: Sequence[Outcome]) -> None:
        """Made into plain values at once, so that no round's arrays are held until it is written."""
        lines = (
            samples_line(learner.name, info, outcomes, self._allowance),
            lessons_line(learner, outcomes, self._allowance, self._spelled[learner.name]),
        )
        self._lines[learner.name, info["round"]] = lines

    def take(self, policy: str, round: int) -> tuple[Line, Line] | None:
        """The samples and the lessons of this policy's round; None where it was lost before it had learnt from them."""
        return self._lines.pop((policy, round), None)


def samples_line(policy: str, info: AgentInfo, outcomes: Sequence[Outcome], allowance: Allowance) -> Line:
    lessons = [outcome.lesson for outcome in outcomes]
    own = [lesson for lesson in lessons if lesson.experience.author == policy]
    advantages = {id(lesson.experience): _short(lesson.advantage) for lesson in own}
    borrowed = {lesson.experience.task.id for lesson in lessons if lesson.experience.author != policy}
    groups = [group for group in info["groups"] if group]
    order = sorted(range(len(groups)), key=lambda at: (groups[at][0].task.id not in borrowed, at))
    kept: dict[int, Line] = {}
    left, longest = allowance.bytes, allowance.longest_text
    for at in order:
        shown, size = _group(groups[at], advantages, longest)
        left -= size
        if left < 0 and len(kept) >= LEAST_PROMPTS:
            break
        kept[at] = shown
    return {
        "groups": [kept[at] for at in sorted(kept)],
        "right": [[e.verdict.correct for e in group].count(True) for group in groups],
        "left_out": len(groups) - len(kept),
    }


def lessons_line(
    learner: Learner, outcomes: Sequence[Outcome], allowance: Allowance, spelled: dict[int, str] | None = None
) -> Line:
    """`spelled` is what is known of the reader's tokens, and grows."""
    spelled = {} if spelled is None else spelled
    name = learner.name
    flow: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    borrowed: list[Outcome] = []
    for outcome in outcomes:
        lesson, example = outcome.lesson, outcome.example
        counts = flow[author := lesson.experience.author]
        counts[0] += 1
        if example is not None:
            counts[1] += 1
            counts[2] += abs(lesson.advantage * example.weight)
        if author != name:
            borrowed.append(outcome)
    kept: list[Line] = []
    left, longest = allowance.bytes, allowance.longest_text
    for outcome in borrowed:
        shown = _lesson(outcome, longest)
        if sum("pieces" in other for other in kept) < PIECES_OF and outcome.example is not None:
            shown["pieces"] = _pieces(outcome, learner, spelled)
        left -= len(shown["text"]) + 6 * _AROUND + _AROUND * len(shown.get("pieces", ())) // 2
        if left < 0 and len(kept) >= LEAST_PROMPTS:
            break
        kept.append(shown)
    notes = Counter([note for outcome in outcomes if (note := outcome.lesson.note)])
    dropped = Counter([why for outcome in outcomes if (why := outcome.dropped)])
    return {
        "flow": {author: [n, accepted, _short(pull)] for author, (n, accepted, pull) in sorted(flow.items())},
        "dropped": dict(sorted(dropped.items())),
        **({"notes": dict(sorted(notes.items()))} if notes else {}),
        "lessons": kept,
        "left_out": len(borrowed) - len(kept),
    }


def evaluation_line(info: AgentInfo, part: str) -> Line:
    """task -> [part, right or not as digits, the votes]: enough to say who solves what, and who errs alike."""
    tasks: dict[str, list[Any]] = {}
    for group in info["groups"]:
        if group:
            task = group[0].task
            right = "".join(["1" if e.verdict.correct else "0" for e in group])
            tasks[task.id] = [str(task.metadata.get(part, "")) if part else "", right, [_vote(e) for e in group]]
    return {"tasks": tasks}


def _vote(experience: Experience) -> str | None:
    verdict = experience.verdict
    given = voted(experience.completion.text, verdict.status, correct=verdict.correct)
    return given if given is None else given[:LONGEST_VOTE]


def _group(group: Group, advantages: Mapping[int, float | None], longest: int) -> tuple[Line, int]:
    """And its size in bytes, about: to write it out in order to know would cost as much as to keep it. `advantages`: of
    the author's own lessons, as they are written, by the experience's id()."""
    task = group[0].task
    prompt = task.prompt if isinstance(task.prompt, str) else [dict(message) for message in task.prompt]
    size = len(str(prompt)) + len(task.id) + len(task.answer) + _AROUND * (2 + len(group))
    completions: list[list[Any]] = []
    for experience in group:
        completion, verdict = experience.completion, experience.verdict
        text = transcript(experience) if experience.earlier else completion.text
        text = text if len(text) <= longest else cut(text, longest)
        detail, tokens, advantage = verdict.detail[:200], completion.token_ids.size, advantages.get(id(experience))
        completions.append([text, verdict.reward, verdict.status, verdict.correct, tokens, detail, advantage])
        size += len(text) + len(detail)
    return {"task": task.id, "prompt": prompt, "answer": task.answer, "completions": completions}, size


def _lesson(outcome: Outcome, longest: int) -> Line:
    lesson = outcome.lesson
    shown: Line = {
        "author": lesson.experience.author,
        "task": lesson.experience.task.id,
        "text": cut(transcript(lesson.experience), longest),
        "advantage": _short(lesson.advantage),
        "weight": _short(lesson.weight),
        "loss": named(lesson.loss),
        "correction": named(lesson.correction),
        "written_in": lesson.experience.round,
    }
    if lesson.spans:
        shown["spans"] = [[s.turn, s.start, s.end, _short(s.advantage)] for s in lesson.spans]
    if lesson.note:
        shown["note"] = lesson.note
    if outcome.dropped:
        shown["dropped"] = outcome.dropped
    if outcome.example is not None:
        shown["given"] = _short(outcome.example.weight)
        shown["tokens"] = int(outcome.example.mask.sum())
    if outcome.draft is not None and (size := outcome.draft.exact.size):
        shown["exact"] = _short(np.count_nonzero(outcome.draft.exact) / size)
        ratios = _log_ratios(outcome)
        if ratios is not None and (known := np.isfinite(ratios)).any():
            chunks = Units.among(known, units_of(outcome.draft.chunks)).sums(ratios[known])
            shown["ratio"] = _short(float(np.exp(np.clip(chunks, -20, 20)).mean()))
    return shown


def _pieces(outcome: Outcome, learner: Learner, spelled: dict[int, str]) -> list[list[Any]]:
    """[text, chunk (-1: in no exact one), log π_old / β or None] of each of the reader's tokens."""
    draft = outcome.draft
    if draft is None or outcome.translation is None:
        return []
    ids = draft.response_ids[:MOST_PIECES].tolist()
    for token in ids:
        if token not in spelled:
            spelled[token] = learner.tokenizer.decode([token])
    ratios = _log_ratios(outcome)
    logs = [None] * len(ids) if ratios is None else [float(r) if np.isfinite(r) else None for r in ratios[: len(ids)]]
    chunks = draft.chunks[: len(ids)].tolist()
    return [[spelled[token], chunk, _short(log)] for token, chunk, log in zip(ids, chunks, logs, strict=True)]


def _log_ratios(outcome: Outcome) -> Any:
    """log π_old - log β where both are known and compare, NaN elsewhere; None where the reader was not asked."""
    draft, scores = outcome.draft, outcome.scores
    if draft is None or scores is None or scores.old is None or draft.author_logprobs is None:
        return None
    return np.where(draft.exact, scores.old - draft.author_logprobs, np.nan)


def named(part: object) -> str:
    """The loss or correction of a lesson: its name if it says one, else its class."""
    return str(getattr(part, "name", None) or type(part).__name__)


def transcript(experience: Experience) -> str:
    """What was written; of an episode of several turns all of it, with the world's replies between."""
    if not experience.earlier:
        return experience.completion.text
    said = [f"{t.completion.text}\n[{t.reply.role}] {t.reply.text}\n" for t in experience.earlier]
    return "".join([*said, experience.completion.text])


def cut(text: str, longest: int) -> str:
    """The beginning and the end of a text that is too long, and how much is missing between."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} [… {len(text) - 2 * half} characters …] {text[-half:]}"


def _short(value: float | None) -> float | None:
    """Four digits. A zero is not looked up: 0.0 and -0.0 are one key, and are written differently."""
    return _four_digits(value) if value else (None if value is None else float(value))


@lru_cache(maxsize=1024)
def _four_digits(value: float) -> float:
    """Remembered: the samples of a group have few different advantages, and lessons few different weights."""
    return float(f"{value:.4g}")
