"""What is to be known of a batch: how much was borrowed, what was dropped, how far the authors are from the reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from learners.corrections import Draft, Scores
from learners.example import Example
from learners.units import Units, units_of
from mutual_env.types import AuthorPolicy, AuthorWeight, CompatibilityGate, Floats, Lesson, Metrics
from tokenizers_bridge.types import Translation, residual_metrics


def batch_metrics(
    lessons: Sequence[Lesson],
    examples: Sequence[Example],
    kept: Sequence[tuple[Draft, Scores]],
    drafts: Sequence[Draft],
    scores: Sequence[Scores],
    translations: Sequence[Translation],
    dropped: Counter[str],
) -> Metrics:
    """`kept` are the drafts of the examples, with what was known of them."""
    borrowed = sum(draft.is_borrowed for draft, _ in kept)
    metrics: Metrics = {
        "batch/lessons": float(len(lessons)),
        "batch/examples": float(len(examples)),
        "batch/tokens": float(sum(int(example.mask.sum()) for example in examples)),
        "batch/borrowed": float(borrowed),
        "batch/borrowed_share": borrowed / max(len(examples), 1),
        "batch/dropped": float(dropped.total()),
    }
    metrics.update({f"batch/dropped_{reason}": float(count) for reason, count in sorted(dropped.items())})
    if translations:
        metrics.update(residual_metrics(translations, prefix="bridge"))
    metrics.update(_ratio_metrics(examples, kept))
    metrics.update(_chunk_sample_sizes(kept))
    metrics.update(_gate_metrics(examples, kept, drafts))
    taught = [s.teacher.logprobs for s in scores if s.teacher is not None]
    if taught:
        metrics["batch/teacher_aligned_share"] = float(np.isfinite(np.concatenate(taught)).mean())
    return metrics


def _ratio_metrics(examples: Sequence[Example], kept: Sequence[tuple[Draft, Scores]]) -> Metrics:
    """How far borrowed samples are from the reader: the mean and variance of π_old / β over their exact chunks, and the
    effective sample size of their sequence weights as a share of their number.

    The variance of the log-ratio between chunks is that of two policies; what spreading each chunk's sum over its
    tokens would add within chunks is that of two tokenizers, and enters no loss.
    """
    chunks: list[Floats] = []
    within: list[Floats] = []
    for example, (draft, known) in zip(examples, kept, strict=True):
        borrowed = draft.is_borrowed and isinstance(draft.lesson.correction, AuthorPolicy | AuthorWeight)
        if not borrowed or known.old is None or draft.author_logprobs is None:
            continue
        units = Units.among(example.mask, units_of(draft.chunks))
        tokens = (known.old - draft.author_logprobs)[example.mask]
        chunks.append(units.sums(tokens))
        within.append(tokens - units.spread(units.means(tokens)))
    if not chunks:
        return {}
    logs = np.concatenate(chunks)
    ratios = np.exp(np.clip(logs, -20.0, 20.0))
    sums = np.array([log.sum() for log in chunks])
    weights = np.exp(sums - sums.max())
    return {
        "batch/ratio_mean": float(ratios.mean()),
        "batch/ratio_variance": float(ratios.var()),
        "batch/log_ratio_variance": float(logs.var()),
        "batch/spread_variance": float((np.concatenate(within) ** 2).mean()),
        "batch/effective_sample_size": float(weights.sum() ** 2 / (weights**2).sum() / weights.size),
    }


def _chunk_sample_sizes(kept: Sequence[tuple[Draft, Scores]]) -> Metrics:
    """For each peer whose samples the reader scored: the effective sample size of the ratios π_old / β of its exact
    chunks, as a share of their number."""
    logs: dict[str, list[Floats]] = {}
    for draft, known in kept:
        if draft.is_borrowed and known.old is not None and draft.author_logprobs is not None:
            compared = draft.exact & np.isfinite(draft.author_logprobs)
            chunks = Units.among(compared, units_of(draft.chunks))
            ratios = chunks.sums((known.old - draft.author_logprobs)[compared])
            logs.setdefault(draft.lesson.experience.author, []).append(ratios)
    sizes = {}
    for author, found in sorted(logs.items()):
        ratios = np.exp(np.clip(np.concatenate(found), -20.0, 20.0))
        if ratios.size:
            sizes[f"batch/chunk_sample_size/{author}"] = float(ratios.sum() ** 2 / (ratios**2).sum() / ratios.size)
    return sizes


def _gate_metrics(
    examples: Sequence[Example], kept: Sequence[tuple[Draft, Scores]], drafts: Sequence[Draft]
) -> Metrics:
    """The mean weight that open gates gave, and the share of gates that were open."""
    gated = sum(_gated(draft) for draft in drafts)
    if gated == 0:
        return {}
    factors = [
        example.weight / draft.lesson.weight
        for example, (draft, _) in zip(examples, kept, strict=True)
        if _gated(draft) and draft.lesson.weight != 0.0
    ]
    mean = float(np.mean(factors)) if factors else 0.0
    return {"batch/gate_mean": mean, "batch/gate_kept": len(factors) / gated}


def _gated(draft: Draft) -> bool:
    return isinstance(draft.lesson.correction, CompatibilityGate)
