"""The names of a round's metrics, each with a sentence: the one place that says what a number means.

docs/metrics.md is made of it: python -c "from mutual_env.metrics import page; print(page(), end='')"
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

REWARD: Final = "reward/mean"
ACCURACY: Final = "accuracy"
HELD_OUT: Final = "eval/"
"""What a tracker hears of an evaluation begins with this; the run's own record keeps evaluations apart instead."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` may hold one `{part}`, which stands for any text."""

    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """The metrics of one stage of a round."""

    title: str
    metrics: tuple[Metric, ...]


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        "What a policy wrote",
        (
            Metric(REWARD, "Mean reward over the samples that were kept, 0 where none was."),
            Metric(ACCURACY, "Share of the kept samples that are correct, 0 where none was kept."),
            Metric("solved", "Share of prompts with at least one correct sample."),
            Metric("length/chars", "Mean length of a sample, in characters."),
            Metric("length/tokens", "Mean length of a sample, in tokens of its policy."),
            Metric("length/truncated", "Share of the samples that were cut off."),
            Metric(
                "entropy", "Minus the mean log-probability of sampled tokens: what a token's entropy is, estimated."
            ),
            Metric("waves", "Dynamic sampling: how many waves the round had for this policy."),
            Metric("spread/first", "Dynamic sampling: groups of the first wave whose rewards differ."),
            Metric("spread/last", "Dynamic sampling: groups with such a spread in the end, of spare prompts too."),
            Metric("refills", "Dynamic sampling: groups that were sampled again for want of spread."),
            Metric("refills/gained", "Dynamic sampling: prompts that won their spread so."),
            Metric("spare_prompts", "Dynamic sampling: prompts in reserve that were asked for."),
            Metric("spare_prompts/gained", "Dynamic sampling: of these, prompts whose group has spread."),
            Metric("verify/unscored", "How many samples got no reward, because their verification did not end."),
            Metric("verify/{status}", "How many verdicts had this status, before unscored samples were dropped."),
        ),
    ),
    Chapter(
        "What was shared",
        (
            Metric("share/all_fail", "Share of the reader's prompts on which all its own samples are wrong."),
            Metric("share/all_pass", "Share of the reader's prompts on which all its own samples are right."),
            Metric("share/lessons", "How many lessons the reader got."),
            Metric("share/borrowed", "Share of the reader's lessons that a peer wrote."),
            Metric("share/sent_bytes/{kind}", "Bytes of such records that the policy published, for each prompt."),
            Metric("share/received_bytes/{kind}", "Bytes of such records that the policy read, for each prompt."),
            Metric("share/outside_staleness", "Authors and tasks of which there are only records that are too old."),
            Metric("share/refused", "Records that the reader turned away."),
            Metric("share/refused/{reason}", "Records that the reader turned away for this reason."),
            Metric(
                "share/divergence", "Share of the replies in peers' conversations that the reader would not have got."
            ),
            Metric("share/flagged/{reason}", "Strangers' records that were let in and are worth a look."),
            Metric("share/reverified", "Peers' texts that the reader's own verifier scored again."),
            Metric("share/corrected", "Peers' texts whose claimed verdict the reader's own replaced."),
            Metric("share/unverified", "Claims of peers that were taken without verification."),
            Metric("share/failed", "Rescues: prompts on which all own samples are wrong."),
            Metric("share/rescued", "Rescues: failed prompts for which there was a verified success to imitate."),
            Metric("share/weight_factor", "With a target share: what λ is multiplied by this round."),
            Metric("share/rescued_from_memory", "Memory: rescues by a success of an earlier round."),
            Metric(
                "share/rescued_by_own", "Memory: rescues, replayed ones too, by an own success of an earlier round."
            ),
            Metric("share/replayed", "Memory: rescues of tasks that are not in this round."),
            Metric("share/remembered", "Memory: tasks of which there is a success."),
            Metric("share/returned", "Memory: tasks that were rescued before and came up again."),
            Metric("share/retained", "Memory: of these, tasks that a sample of the reader's own solved."),
            Metric("share/retention", "Memory: the share of all returns so far that were solved so."),
            Metric("share/placebos", "Placebo: successes imitated that are no help with what failed."),
            Metric("share/placebos_missing", "Placebo: rescues of SGT's for which there was none."),
            Metric("share/frozen", "Frozen peers: 1 for a policy that does not learn."),
            Metric("share/auto/chunk_sample_size/{author}", "Auto: how near this peer is, as past batches measured."),
            Metric("share/auto/{choice}", "Auto: prompts on which the reader learns so."),
            Metric("share/vote/peers", "Co-RL: prompts on which a peer voted; on the others the reader did."),
            Metric("share/vote/cast", "Co-RL: prompts on which there was a majority."),
            Metric("share/vote/right", "Co-RL: share of the majorities that the verifier calls right."),
            Metric(
                "share/vote/accuracy_sum", "Co-RL: the reader's accuracy and its voters' together, mean over prompts."
            ),
            Metric(
                "share/vote/converges", "Co-RL: share of prompts on which that sum is above 1: voting leads to right."
            ),
            Metric("share/baseline_shift", "XGRPO: mean distance of the shared baseline from the reader's own mean."),
            Metric("share/candidates", "GRAFT: prompts on which a peer's group could replace the reader's."),
            Metric("share/grafted", "GRAFT: prompts on which it did."),
            Metric("share/capability_ratio/{author}", "HACPO: the reader's capability over this peer's."),
            Metric("share/pooled", "PRP and FTIS: peers' samples that the reader took."),
            Metric("share/local", "SAPO: own questions that the reader is trained on, each with its group."),
            Metric("share/external", "SAPO: peers' questions that the reader is trained on, each with its group."),
            Metric("share/masked", "Lessons on completions that were cut off, left out."),
            Metric("share/untraced", "Peers' samples that were left out because they have no token trace."),
            Metric("share/taught", "Lessons that a teacher takes part in."),
            Metric("share/covered", "Offline distillation: prompts on which there is a stored sample."),
        ),
    ),
    Chapter(
        "What became of the lessons",
        (
            Metric("batch/lessons", "How many lessons came in."),
            Metric("batch/examples", "How many examples they became."),
            Metric("batch/tokens", "How many tokens these train on."),
            Metric("batch/borrowed", "Examples that a peer wrote."),
            Metric("batch/borrowed_share", "Share of the examples that a peer wrote."),
            Metric("batch/dropped", "Lessons that could not be used."),
            Metric("batch/dropped_{reason}", "Lessons that could not be used for this reason."),
            Metric("batch/ratio_mean", "Mean of the reader's probability over the author's, on peers' chunks."),
            Metric("batch/ratio_variance", "Variance of the reader's probability over the author's, on peers' chunks."),
            Metric("batch/log_ratio_variance", "Variance of its logarithm over chunks: what the policies differ by."),
            Metric(
                "batch/spread_variance",
                "What spreading it evenly would add within chunks: what the tokenizers differ by. Enters no loss.",
            ),
            Metric(
                "batch/effective_sample_size", "That of peers' samples under importance weights, as a share of them."
            ),
            Metric(
                "batch/chunk_sample_size/{author}",
                "The effective sample size of this peer's chunks under π_old / β, as a share of them.",
            ),
            Metric("batch/gate_mean", "Mean weight that open compatibility gates gave."),
            Metric("batch/gate_kept", "Share of compatibility gates that were open."),
            Metric("batch/teacher_reward", "TOP-D: mean over chunks of log(α ρ + 1 - α), ρ being π_teacher / π."),
            Metric("batch/teacher_aligned_share", "Share of tokens on which the teacher's log-probability is known."),
            Metric("bridge/token_share", "Share of the reader's tokens whose author's probability is not exact."),
            Metric("bridge/mass_share", "Share of the author's log-probability that lies on such tokens."),
            Metric("bridge/unmatched_bytes", "Bytes on either side of a translation without an equal on the other."),
            Metric("bridge/largest_chunk", "Most tokens on one side that had to be aligned as one."),
            Metric("bridge/leading_space", "Share of translations that begin with white space."),
            Metric("bridge/text_differs", "Completions whose text was not what their ids decode to."),
            Metric("bridge/{verdict}", "How many translations had this verdict."),
        ),
    ),
    Chapter(
        "The update",
        (
            Metric("loss", "Mean loss over the optimizer steps."),
            Metric("gradient_norm", "Mean norm of the gradient over the optimizer steps, before it is clipped."),
            Metric("learning_rate", "That of the first optimizer step."),
            Metric("optimizer_steps", "How many there were; 0 where nothing taught anything."),
            Metric("trained_tokens", "How many tokens were trained on."),
            Metric("clip_share", "Share of the tokens on which clipping stopped the gradient."),
            Metric(
                "batch/borrowed_gradient_share", "Share of the gradient, |scale · slope|, that is on peers' tokens."
            ),
            Metric("batch/imitation_gradient_share", "The same of imitated tokens, whoever wrote them."),
            Metric("cap_share", "Share of the tokens, of those whose ratio has a cap, at which it is passed."),
            Metric(
                "behaviour/gap_mean",
                "Own samples: mean distance of log π at the start of the update from what their sampler recorded.",
            ),
            Metric("behaviour/gap_max", "The largest of these distances."),
            Metric("behaviour/kl", "Mean of ρ - 1 - log ρ, ρ = π at the start of the update over their sampler's."),
            Metric(
                "behaviour/effective_sample_size", "That of own samples under importance weights, as a share of them."
            ),
            Metric("behaviour/cut_share", "Share of the tokens whose weight the cap cuts; with `off`, would cut."),
            Metric(
                "staleness/mean", "Asynchronous rounds: mean age of what was learnt from, in updates of its author."
            ),
            Metric("staleness/max", "Asynchronous rounds: the highest age of what was learnt from, in updates."),
        ),
    ),
    Chapter(
        "Evaluations",
        (
            Metric(f"{HELD_OUT}{ACCURACY}", "Share of held-out samples that are correct."),
            Metric(f"{HELD_OUT}{ACCURACY}/{{part}}", "The same over the tasks of this part."),
        ),
    ),
)
METRICS: tuple[Metric, ...] = tuple(metric for chapter in CHAPTERS for metric in chapter.metrics)

_EXACT = {metric.name: metric.meaning for metric in METRICS if "{" not in metric.name}
_PATTERNS = [
    (re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(metric.name)), re.DOTALL), metric.meaning)
    for metric in METRICS
    if "{" in metric.name
]


@functools.lru_cache(maxsize=4096)
def describe(name: str) -> str:
    """What a metric means; "" of one that is not ours."""
    if name in _EXACT:
        return _EXACT[name]
    return next((meaning for pattern, meaning in _PATTERNS if pattern.fullmatch(name)), "")


def page() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "What `metrics.jsonl`, the report and the trackers hold of each policy and round. A `{part}` is any text. A",
        "strategy or learner of another package adds its own. This page is generated from `mutual_env/metrics.py`.",
    ]
    for chapter in CHAPTERS:
        lines += ["", f"## {chapter.title}", "", "| metric | says |", "|---|---|"]
        lines += [f"| `{metric.name}` | {metric.meaning} |" for metric in chapter.metrics]
    return "\n".join(lines) + "\n"
