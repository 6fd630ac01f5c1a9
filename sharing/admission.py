"""What a reader takes from the exchange: nothing that a peer merely claims can move it.

Records that this very env published are taken as they are, because this env verified them. All others are checked
against `Limits` and, where asked, verified again by the reader's own verifier. What is turned away is counted by
reason:

    impostor        signed with the name of one of this env's agents, but not published by this env
    not_finite      a reward, a sum or a log-probability that is NaN or infinite, or a log-probability above 0
    out_of_range    a reward, or the mean reward of statistics, outside `reward_range`
    too_long        more text or tokens than the limits
    too_many        more rollouts on one task than the limits
    inconsistent    statistics that no rewards could have; ids or counts below 0
    old_version     a policy version lower than one that this author used in an earlier round: a replay
    false_claim     said to be correct, and is not
    unscored        the reader's verifier reached no verdict

What is let in but worth a look is counted too: `flagged/control_text` (a stranger's text that spells control
tokens, which the bridge will encode as plain text), `corrected` (a rollout whose claimed reward was replaced by
the reader's verdict), `unverified` (statistics, which nobody can verify, and claims where `reverify` is off).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, assert_never

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion, Experience, Group, Task, Verdict
from sharing.records import Record, Rollout, Statistics, Stored, Success

Verify: TypeAlias = Callable[[Sequence[tuple[Task, str]]], Sequence[Verdict]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a stranger's record is plausible. A custom verifier with other rewards needs another
    `reward_range`.
    """

    max_text_bytes: int = 262_144
    max_tokens: int = 65_536
    max_group: int = 64
    reward_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.reward_range
        if min(self.max_text_bytes, self.max_tokens, self.max_group) < 1 or not low < high:
            raise InvalidInputError(f"{self}: every limit must be at least 1 and reward_range rising, e.g. (0.0, 1.0)")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a reader knows of its peers before it looks: who they could not be, and the last (round, version) of
    each.
    """

    agents: Collection[str]
    published: Collection[int]
    seen: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What is left, found by task and then by author in the order of their names."""

    rollouts: Mapping[str, Mapping[str, Group]]
    successes: Mapping[str, Mapping[str, Group]]
    statistics: Mapping[str, Mapping[str, Statistics]]
    counts: Counter[str] = field(default_factory=Counter)
    versions: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def seen_by(self, heard: Callable[[str], bool], shape: Callable[[Group], Group]) -> Admitted:
        """The same of the authors that are heard, their rollouts' rewards as the reader's strategy sees rewards."""

        def of_heard(by_author: Mapping[str, Any]) -> dict[str, Any]:
            return {author: found for author, found in by_author.items() if heard(author)}

        return replace(
            self,
            rollouts={t: {a: shape(g) for a, g in of_heard(x).items()} for t, x in self.rollouts.items()},
            successes={task: of_heard(by_author) for task, by_author in self.successes.items()},
            statistics={task: of_heard(by_author) for task, by_author in self.statistics.items()},
        )


def admit(
    stored: Sequence[Stored], tasks: Mapping[str, Task], standing: Standing, limits: Limits, verify: Verify | None
) -> Admitted:
    """Check every record; verify again what others published, unless `verify` is None."""
    counts: Counter[str] = Counter()
    passed: list[tuple[Record, bool]] = []
    for id_, record in stored:
        trusted = id_ in standing.published
        reason = None if trusted else defect(record, standing, limits)
        if reason is None:
            passed.append((record, trusted))
        else:
            counts[f"refused/{reason}"] += 1
    statistics: dict[str, dict[str, Statistics]] = {}
    for record, trusted in passed:
        if isinstance(record, Statistics):
            statistics.setdefault(record.origin.task_id, {})[record.origin.author] = record
            counts["unverified"] += not trusted
        else:
            counts["flagged/control_text"] += not trusted and _CONTROL.search(text_of(record)) is not None
    claims = [(r, trusted) for r, trusted in passed if not isinstance(r, Statistics)]
    verdicts = _verdicts(claims, tasks, verify, counts)
    rollouts: dict[str, dict[str, Group]] = {}
    successes: dict[str, dict[str, Group]] = {}
    for (record, _), verdict in zip(claims, verdicts, strict=True):
        if verdict is None:
            continue
        groups = rollouts if isinstance(record, Rollout) else successes
        by_author = groups.setdefault(record.origin.task_id, {})
        experience = _experience(record, tasks[record.origin.task_id], verdict)
        by_author[record.origin.author] = (*by_author.get(record.origin.author, ()), experience)
    return Admitted(rollouts, successes, statistics, counts, _versions(passed))


def defect(record: Record, standing: Standing, limits: Limits) -> str | None:
    """Why a stranger's record is turned away; None if it may pass."""
    origin = record.origin
    if origin.author in standing.agents:
        return "impostor"
    if origin.round < 0 or origin.policy_version < 0 or record.index < 0:
        return "inconsistent"
    if record.index >= limits.max_group:
        return "too_many"
    round_, version = standing.seen.get(origin.author, (-1, 0))
    if origin.round >= round_ and origin.policy_version < version:
        return "old_version"
    match record:
        case Rollout(completion=completion, reward=reward):
            return _trace_defect(completion, limits) or _reward_defect(reward, limits)
        case Success(text=text, reward=reward):
            return _text_defect(text, limits) or _reward_defect(reward, limits)
        case Statistics():
            return _statistics_defect(record, limits)
        case _:
            assert_never(record)


def _text_defect(text: str, limits: Limits) -> str | None:
    return "too_long" if len(text) > limits.max_text_bytes or len(text.encode()) > limits.max_text_bytes else None


def _trace_defect(completion: Completion, limits: Limits) -> str | None:
    if completion.token_ids.size > limits.max_tokens:
        return "too_long"
    if completion.token_ids.size and completion.token_ids.min() < 0:
        return "inconsistent"
    if not np.all(np.isfinite(completion.logprobs)) or np.any(completion.logprobs > 1e-6):
        return "not_finite"
    return _text_defect(completion.text, limits)


def _reward_defect(reward: float, limits: Limits) -> str | None:
    if not math.isfinite(reward):
        return "not_finite"
    return None if limits.reward_range[0] <= reward <= limits.reward_range[1] else "out_of_range"


def _statistics_defect(record: Statistics, limits: Limits) -> str | None:
    n, total, squares = record.count, record.reward_sum, record.square_sum
    if not (math.isfinite(total) and math.isfinite(squares)):
        return "not_finite"
    if n > limits.max_group:
        return "too_many"
    if n < 1 or squares < 0.0:
        return "inconsistent"
    low, high = limits.reward_range
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    if not low - slack <= total / n <= high + slack:
        return "out_of_range"
    # Cauchy-Schwarz: no rewards have a sum of squares below mean^2 n, and none inside the range one above this chord.
    highest = (low + high) * total - n * low * high
    return None if total * total / n - slack * n <= squares <= highest + slack * n else "inconsistent"


def _verdicts(
    claims: Sequence[tuple[Rollout | Success, bool]],
    tasks: Mapping[str, Task],
    verify: Verify | None,
    counts: Counter[str],
) -> list[Verdict | None]:
    """The verdict on each claim: the reader's own, or the claimed one where it is trusted or nobody asked. None:
    refused.
    """
    verdicts: list[Verdict | None] = [
        Verdict.scored(r.reward, correct=r.correct if isinstance(r, Rollout) else True) for r, _ in claims
    ]
    foreign = [i for i, (_, trusted) in enumerate(claims) if not trusted]
    if verify is None or not foreign:
        counts["unverified"] += len(foreign)
        return verdicts
    checked = verify([(tasks[claims[i][0].origin.task_id], text_of(claims[i][0])) for i in foreign])
    counts["reverified"] += len(foreign)
    for i, own in zip(foreign, checked, strict=True):
        record, claimed = claims[i][0], verdicts[i]
        if own.reward is None:
            counts["refused/unscored"] += 1
            verdicts[i] = None
        elif isinstance(record, Success) and not own.correct:
            counts["refused/false_claim"] += 1
            verdicts[i] = None
        else:
            counts["corrected"] += claimed is not None and (own.reward, own.correct) != (
                claimed.reward,
                claimed.correct,
            )
            verdicts[i] = own
    return verdicts


def text_of(record: Rollout | Success) -> str:
    return record.completion.text if isinstance(record, Rollout) else record.text


def _experience(record: Rollout | Success, task: Task, verdict: Verdict) -> Experience:
    origin = record.origin
    if isinstance(record, Rollout):
        return Experience(task, origin.author, record.completion, verdict, origin.round)
    completion = Completion(
        record.text, _NO_IDS, _NO_LOGPROBS, record.finish_reason, origin.policy_version, tokenizer=""
    )
    return Experience(task, origin.author, completion, verdict, origin.round)


def _versions(passed: Sequence[tuple[Record, bool]]) -> dict[str, tuple[int, int]]:
    """The latest round of each author, with the highest version it used there."""
    latest: dict[str, tuple[int, int]] = {}
    for record, _ in passed:
        origin = record.origin
        latest[origin.author] = max(latest.get(origin.author, (-1, 0)), (origin.round, origin.policy_version))
    return latest


# How the families at hand spell theirs: <|im_end|>, <｜end▁of▁sentence｜>, <s>, </s>, <eos>, <end_of_turn>, [INST].
_CONTROL = re.compile(r"<[|｜][^<>]{1,40}[|｜]>|</?(s|bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]")
_NO_IDS = np.empty(0, np.int32)
_NO_LOGPROBS = np.empty(0)
