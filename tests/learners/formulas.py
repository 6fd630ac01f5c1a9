"""An update as autograd sees it, from the lessons themselves: written from docs/sharing.md and docs/learners.md, in
float64, with none of the code that trains.

A policy is its table: logits of the next token for each place. Strings become chunks (tokens that share byte borders on
both sides), and everything that is compared is compared on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from learners.tabular import TabularLearner
from mutual_env.types import (
    AuthorMean,
    AuthorPolicy,
    AuthorWeight,
    CompatibilityGate,
    CrossEntropy,
    Lesson,
    TeacherDivergence,
    TeacherMixture,
    TeacherReward,
)
from tokenizers_bridge import TokenizerBridge, align

Vector = torch.Tensor


@dataclass
class Text:
    """One lesson in the reader's tokens: `chunk` numbers the chunk of each token, `author` (one for each chunk) sums
    what the author said of it, NaN where the author left no trace; `teacher` likewise."""

    lesson: Lesson
    prompt: list[int]
    ids: list[int]
    chunk: Vector
    author: Vector
    own: bool
    teacher: Vector | None = None
    teacher_chunk: Vector | None = None
    old: Vector = field(default_factory=lambda: torch.zeros(0))
    gained: Vector | None = None

    @property
    def loss(self) -> str:
        return self.lesson.loss.name

    @property
    def imitated(self) -> bool:
        return self.loss == "cross_entropy"


class Formulas:
    """The reader's table as parameters, and its updates."""

    def __init__(self, reader: TabularLearner, bridge: TokenizerBridge, teachers: Mapping[str, TabularLearner]) -> None:
        self.reader, self.bridge, self.teachers = reader, bridge, teachers
        self.rows = {key: torch.tensor(row, requires_grad=True) for key, row in reader._table.items()}

    def logprobs(self, text: Text) -> Vector:
        rows = []
        for t, token in enumerate(text.ids):
            key = self.reader._key(np.array(text.prompt), text.ids, t)
            if key not in self.rows:
                self.rows[key] = torch.tensor(self.reader._initial, requires_grad=True)
            rows.append((self.rows[key] / self.reader._temperature).log_softmax(0)[token])
        return torch.stack(rows)

    def update(self, lessons: Sequence[Lesson], minibatches: int, cap: float = 2.0) -> int:
        """Returns how many lessons taught."""
        texts = [text for lesson in lessons if (text := self.text(lesson)) is not None]
        for text in texts:
            text.old = self.logprobs(text).detach()
        reward_by_teacher(texts)
        kept = [text for text in texts if is_kept(text)]
        for m, step in enumerate(cut(kept, minibatches)):
            total = torch.zeros((), dtype=torch.float64)
            for text in step:
                total = total + loss(text, self.logprobs(text), m, cap) * text.lesson.weight * gate(text) / divisor(
                    text, step
                )
            rows = list(self.rows.values())
            slopes = torch.autograd.grad(total, rows, allow_unused=True) if total.requires_grad else [None] * len(rows)
            with torch.no_grad():
                for row, slope in zip(rows, slopes, strict=True):
                    if slope is not None:
                        row -= self.reader._learning_rate * slope
        return len(kept)

    def text(self, lesson: Lesson) -> Text | None:
        completion, mine = lesson.experience.completion, self.reader.tokenizer
        prompt = mine.render_prompt(lesson.experience.task.prompt).tolist()
        if lesson.experience.author == self.reader.name:
            said = torch.tensor(np.array(completion.logprobs))
            text = Text(lesson, prompt, completion.token_ids.tolist(), torch.arange(said.numel()), said, True)
        else:
            ids = np.append(mine.encode_batch([completion.text])[0], mine.stop_id)
            theirs = next((x.tokenizer for x in self.teachers.values() if x.name == lesson.experience.author), mine)
            if completion.has_trace:
                chunks = align(completion.token_ids, theirs, ids, mine)
                assert chunks.exact.all()
                sums = torch.tensor(np.bincount(chunks.chunk_ids("author"), np.array(completion.logprobs)))
                text = Text(lesson, prompt, ids.tolist(), torch.tensor(chunks.chunk_ids()), sums, False)
            else:
                none = torch.full((ids.size,), math.nan, dtype=torch.float64)
                text = Text(lesson, prompt, ids.tolist(), torch.arange(ids.size), none, False)
        name = getattr(lesson.correction, "teacher", None)
        if name is not None:
            self._teach(text, self.teachers[name])
        return text

    def _teach(self, text: Text, teacher: TabularLearner) -> None:
        written, mine = text.lesson.experience.completion.text, self.reader.tokenizer
        ids = np.append(teacher.tokenizer.encode_batch([written])[0], teacher.tokenizer.stop_id).astype(np.int32)
        (said,) = teacher.score([teacher.tokenizer.render_prompt(text.lesson.experience.task.prompt)], [ids])
        chunks = align(ids, teacher.tokenizer, np.array(text.ids), mine)
        text.teacher = torch.tensor(np.bincount(chunks.chunk_ids("author"), said))
        text.teacher_chunk = torch.tensor(chunks.chunk_ids())


def sums(values: Vector, chunk: Vector) -> Vector:
    return torch.zeros(int(chunk.max()) + 1, dtype=torch.float64).index_add(0, chunk, values)


def is_kept(text: Text) -> bool:
    correction = text.lesson.correction
    if isinstance(correction, CompatibilityGate):
        return gate(text) > correction.floor
    if isinstance(correction, AuthorWeight) and not text.own and text.lesson.advantage <= 0:
        apart = sums(text.old, text.chunk) - text.author
        return float((apart.exp() - 1 - apart).sum()) <= correction.max_kl
    return True


def gate(text: Text) -> float:
    """min(exp(mean log π_old - mean log β), cap) over the reader's tokens."""
    if not isinstance(text.lesson.correction, CompatibilityGate):
        return 1.0
    return min(math.exp(float(text.old.mean() - text.author.sum() / len(text.ids))), text.lesson.correction.cap)


def anchor(text: Text) -> tuple[Vector, Vector]:
    """What the ratio of each unit is taken against, and the unit of each token."""
    correction, tokens = text.lesson.correction, torch.arange(len(text.ids))
    if isinstance(correction, AuthorPolicy):
        return text.author, text.chunk
    if isinstance(correction, AuthorMean):
        return (text.author.sum() / len(text.ids)).expand(len(text.ids)), tokens
    if isinstance(correction, TeacherMixture) and correction.alpha != 1.0:
        assert text.teacher is not None
        assert text.teacher_chunk is not None
        old = sums(text.old, text.teacher_chunk)
        teacher = text.teacher.clamp(old - correction.log_ratio_limit, old + correction.log_ratio_limit)
        return correction.alpha * old + (1 - correction.alpha) * teacher, text.teacher_chunk
    return text.old, tokens


def behaviour(text: Text, unit: Vector, cap: float, *, whole: bool) -> Vector:
    """min(π_old / β, cap) of own samples whose loss is an expectation under the old policy; 1 for all others."""
    weighed = text.own and not isinstance(text.lesson.correction, AuthorPolicy | AuthorWeight | AuthorMean)
    if not weighed:
        return torch.ones(int(unit.max()) + 1, dtype=torch.float64)
    gap = sums(text.old - text.author, unit)
    gap = torch.where(gap.abs() > 1e-4, gap, 0.0)
    return (gap.mean().expand_as(gap) if whole else gap).exp().clamp(max=cap)


def loss(text: Text, now: Vector, m: int, cap: float) -> Vector:
    """The sum of the lesson's terms, to be minimised."""
    if text.imitated:
        return -now.sum()
    against, unit = anchor(text)
    a = credit(text, unit)
    options = dict(text.lesson.loss.options)
    whole = options.get("ratio") == "sequence" or text.loss == "capped_sequence"
    if text.loss == "shaped_probability":
        p = now.exp()
        terms = -a * p / (p + float(options.get("gamma", 0.1)))  # type: ignore[arg-type]
    else:
        log_ratio = sums(now, unit) - against
        log_ratio = log_ratio.mean().expand_as(log_ratio) if whole else log_ratio
        terms = (capped if text.loss == "capped_sequence" else clipped)(log_ratio, a, options, m)
    total = (behaviour(text, unit, cap, whole=whole) * terms).sum()
    correction = text.lesson.correction
    if isinstance(correction, TeacherDivergence) and correction.coefficient:
        assert text.teacher is not None
        assert text.teacher_chunk is not None
        d = text.teacher - sums(now, text.teacher_chunk)
        total = total + correction.coefficient * (d.exp() - d - 1).sum()
    return total


def reward_by_teacher(texts: Sequence[Text]) -> None:
    """R_c = r_c + mean of the later r, r = log(alpha ρ + 1 - alpha), against all chunks of what was written on a prompt
    under the same teacher."""
    asking = [t for t in texts if isinstance(t.lesson.correction, TeacherReward)]
    for prompt in {tuple(t.prompt) for t in asking}:
        group = [t for t in asking if tuple(t.prompt) == prompt]
        returns = []
        for text in group:
            assert text.teacher is not None
            assert text.teacher_chunk is not None
            assert isinstance(text.lesson.correction, TeacherReward)
            alpha = text.lesson.correction.alpha
            r = (alpha * (text.teacher - sums(text.author, text.teacher_chunk)).exp() + 1 - alpha).log()
            returns.append(torch.stack([r[c] + (r[c + 1 :].mean() if c + 1 < len(r) else 0.0) for c in range(len(r))]))
        every, std = torch.cat(returns), group[0].lesson.correction.std  # type: ignore[union-attr]
        scale = every.std(correction=1 if std == "sample" else 0) + 1e-6 if std else 1.0
        for text, found in zip(group, returns, strict=True):
            text.gained = ((found - every.mean()) / scale)[text.teacher_chunk]


def credit(text: Text, unit: Vector) -> Vector:
    a = torch.full((int(unit.max()) + 1,), float(text.lesson.advantage), dtype=torch.float64)
    if text.gained is not None:
        return a + text.gained
    if isinstance(text.lesson.correction, AuthorWeight):
        ratio = (sums(text.old, text.chunk) - text.author).exp().clamp(max=text.lesson.correction.ratio_cap)
        return a * ratio[text.chunk]
    return a


def clipped(log_ratio: Vector, a: Vector, options: Mapping[str, object], m: int) -> Vector:
    if options["ratio"] == "none":
        return -a * (log_ratio - log_ratio.detach())
    ratio = log_ratio.exp().clamp(max=float(options["ratio_cap"]))  # type: ignore[arg-type]
    low, high = 1 - float(options["clip_low"]), 1 + float(options["clip_high"])  # type: ignore[arg-type]
    return -torch.minimum(ratio * a, ratio.clamp(low, high) * a)


def capped(log_ratio: Vector, a: Vector, options: Mapping[str, object], m: int) -> Vector:
    def at(name: str, default: float) -> float:
        return float(options.get(name, default))  # type: ignore[arg-type]

    top = at("cap", 1.0)
    s = log_ratio.exp().clamp(min(at("floor", 0.8) + at("floor_step", 0.025) * m, top), top)
    return -s * s.detach() ** at("alpha", 1.0) * a


def divisor(text: Text, step: Sequence[Text]) -> float:
    """Tokens of what it is averaged with; or its own times their number, where it is averaged over sequences."""
    per_rescue = text.imitated and isinstance(text.lesson.loss, CrossEntropy) and text.lesson.loss.denominator != "own"
    alike = [t for t in step if t.imitated == (text.imitated and not per_rescue)]
    if text.lesson.aggregation == "sequence_mean":
        return float(len(text.ids) * len(alike))
    return float(sum(len(t.ids) for t in alike))


def cut(texts: Sequence[Text], count: int) -> list[list[Text]]:
    """Prompts in even numbers, those of the highest order last; what is imitated is where its prompt is, or in the next
    step that has credit of its own."""
    asked = [t for t in texts if not t.imitated] or list(texts)
    prompts = list(dict.fromkeys(tuple(t.prompt) for t in asked))
    prompts.sort(key=lambda p: max((t.lesson.order for t in asked if tuple(t.prompt) == p), key=abs))
    borders = [round(i * len(prompts) / count) for i in range(count + 1)]
    parts = [prompts[a:b] for a, b in pairwise(borders) if b > a]
    steps = [[t for t in asked if tuple(t.prompt) in part] for part in parts]
    taken = [i for i, step in enumerate(steps) if any(has_credit(t) for t in step)] or list(range(len(steps)))
    imitated = [t for t in texts if all(t is not other for other in asked)]
    for text in imitated:
        here = [i for i, part in enumerate(parts) if tuple(text.prompt) in part]
        if here:
            steps[next((i for i in taken if i >= here[0]), taken[-1])].append(text)
    strangers = [t for t in imitated if tuple(t.prompt) not in prompts]
    for at, text in enumerate(strangers):
        steps[taken[at * len(taken) // len(strangers)]].append(text)
    return steps


def has_credit(text: Text) -> bool:
    """Whether it moves anything by itself."""
    pulled = isinstance(text.lesson.correction, TeacherDivergence) and text.lesson.correction.coefficient
    gained = text.gained is not None and bool((text.gained + text.lesson.advantage != 0).any())
    return bool(pulled) or gained or (text.gained is None and text.lesson.advantage != 0) or text.imitated
