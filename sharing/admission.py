"""What a reader takes from the exchange: nothing that a peer merely claims can move it.

Records that this very env published this round are taken as they are, because this env verified them. All others,
those of its own agents' earlier rounds among them, are checked against `Limits` and, where asked, verified again by the
reader's own verifier. What is turned away is counted by reason:

    impostor        signed with the name of one of this env's agents, of a round that is not over, but not what this env
                    published
    not_finite      a reward, a sum or a log-probability that is NaN or infinite, or a log-probability above 0
    implausible     log-probabilities that no policy would have sampled
    out_of_range    a reward, or the mean reward of statistics, outside `reward_range`, outside what this env's own
                    verifier has given so far, and not what it says of that very text
    too_long        more text or tokens than the limits, or a name of more than 256 characters
    too_many        more rollouts on one task than the limits
    inconsistent    statistics that no rewards could have; ids or counts below 0
    old_version     a policy version lower than one that this author used in an earlier round: a replay
    false_claim     said to be correct, and is not
    unscored        the reader's verifier reached no verdict
    other_dialogue  a conversation in which the reader would have got other replies, more than `max_divergence` of them

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
from mutual_env.types import Completion, Experience, Floats, Group, Task, Turn, Verdict
from sharing.records import Record, Rollout, Statistics, Stored, Success

Verify: TypeAlias = Callable[[Sequence[tuple[Task, str]]], Sequence[Verdict]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a stranger's record is plausible.

    `reward_range` widens by itself to what the env's own verifier gives. `vocabulary` is the largest that a peer may
    have: whatever a policy's distribution, 1 / its probability of what it sampled has a mean of at most that, token by
    token, so a token below -(log vocabulary + 30) comes once in e^30 tokens, and a sample of n tokens below
    -(n log vocabulary + 20) once in e^20 samples.
    """

    max_text_bytes: int = 262_144
    max_tokens: int = 65_536
    max_group: int = 64
    vocabulary: int = 1_048_576
    reward_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.reward_range
        least = min(self.max_text_bytes, self.max_tokens, self.max_group, self.vocabulary)
        if least < 1 or not low < high:
            raise InvalidInputError(f"{self}: every limit must be at least 1 and reward_range rising, e.g. (0.0, 1.0)")

    def widened(self, rewards: Collection[float]) -> Limits:
        """The same with these rewards in range."""
        low, high = self.reward_range
        return replace(self, reward_range=(min([low, *rewards]), max([high, *rewards])))


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """What a reader knows before it looks: the round, whom its peers could not be, what this env published in it, and
    the last (round, version) of each author."""

    round: int
    agents: Collection[str]
    published: Mapping[int, Record]
    seen: Mapping[str, tuple[int, int]]

    def trusts(self, stored: Stored) -> bool:
        """Whether this is what this env published, and nobody has put something else in its place."""
        return stored.id in self.published and self.published[stored.id] == stored.record


@dataclass(frozen=True, slots=True)
class Admitted:
    """What is left, found by task and then by author in the order of their names. `divergence`: the mean share of the
    replies in peers' conversations that the reader would not have got; None: nobody had turns (see `dialogue`)."""

    rollouts: Mapping[str, Mapping[str, Group]]
    successes: Mapping[str, Mapping[str, Group]]
    statistics: Mapping[str, Mapping[str, Statistics]]
    counts: Counter[str] = field(default_factory=Counter)
    versions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    divergence: float | None = None

    @property
    def taken(self) -> int:
        """How many records were let in."""
        groups = [
            g for found in (self.rollouts, self.successes) for authors in found.values() for g in authors.values()
        ]
        return sum(map(len, groups)) + sum(map(len, self.statistics.values()))

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
    stored: Sequence[Stored],
    tasks: Mapping[str, Task],
    context: AdmissionContext,
    limits: Limits,
    verify: Verify | None,
) -> Admitted:
    """Check every record; verify again what others published, unless `verify` is None."""
    counts: Counter[str] = Counter()
    passed: list[tuple[Record, bool]] = []
    for one in stored:
        trusted = context.trusts(one)
        reason = None if trusted else defect(one.record, context, limits)
        if reason is None:
            passed.append((one.record, trusted))
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
    verdicts = _verdicts(claims, tasks, verify, limits, counts)
    rollouts: dict[str, dict[str, list[Experience]]] = {}
    successes: dict[str, dict[str, list[Experience]]] = {}
    for (record, _), verdict in zip(claims, verdicts, strict=True):
        if verdict is None:
            continue
        by_author = (rollouts if isinstance(record, Rollout) else successes).setdefault(record.origin.task_id, {})
        experience = _experience(record, tasks[record.origin.task_id], verdict)
        by_author.setdefault(record.origin.author, []).append(experience)
    return Admitted(_as_groups(rollouts), _as_groups(successes), statistics, counts, _versions(passed))


def _as_groups(found: Mapping[str, Mapping[str, list[Experience]]]) -> dict[str, dict[str, Group]]:
    return {task: {author: tuple(group) for author, group in by_author.items()} for task, by_author in found.items()}


def defect(record: Record, context: AdmissionContext, limits: Limits) -> str | None:
    """Why a stranger's record is turned away; None if it may pass."""
    origin = record.origin
    if origin.author in context.agents and origin.round >= context.round:
        return "impostor"
    if max(map(len, (origin.author, origin.tokenizer, origin.verifier))) > _LONGEST_NAME:
        return "too_long"
    if origin.round < 0 or origin.policy_version < 0 or record.index < 0:
        return "inconsistent"
    if record.index >= limits.max_group:
        return "too_many"
    round_, version = context.seen.get(origin.author, (-1, 0))
    if origin.round >= round_ and origin.policy_version < version:
        return "old_version"
    if not isinstance(record, Statistics) and record.earlier:
        in_turns = _turns_defect(record.earlier, limits)
        if in_turns is not None:
            return in_turns
    match record:
        case Rollout(completion=completion, reward=reward):
            return _trace_defect(completion, limits) or (None if math.isfinite(reward) else "not_finite")
        case Success(text=text, reward=reward):
            return _text_defect(text, limits) or (None if math.isfinite(reward) else "not_finite")
        case Statistics():
            return _statistics_defect(record, limits)
        case _:
            assert_never(record)


def _text_defect(text: str, limits: Limits) -> str | None:
    if len(text) > limits.max_text_bytes:
        return "too_long"
    try:
        return "too_long" if len(text.encode()) > limits.max_text_bytes else None
    except UnicodeEncodeError:  # half a character: no codec of ours lets that through, another's may
        return "inconsistent"


def _trace_defect(completion: Completion, limits: Limits) -> str | None:
    if completion.token_ids.size > limits.max_tokens:
        return "too_long"
    if completion.token_ids.size and completion.token_ids.min() < 0:
        return "inconsistent"
    if not np.all(np.isfinite(completion.logprobs)) or np.any(completion.logprobs > 1e-6):
        return "not_finite"
    return _text_defect(completion.text, limits) or _claim_defect(completion.logprobs, limits)


def _claim_defect(logprobs: Floats, limits: Limits) -> str | None:
    """What `Limits.vocabulary` says of log-probabilities."""
    entropy = math.log(limits.vocabulary)
    lowest, least = -(entropy + _UNLIKELY_TOKEN), -(logprobs.size * entropy + _UNLIKELY_SAMPLE)
    return "implausible" if logprobs.size and (logprobs.min() < lowest or logprobs.sum() < least) else None


def _turns_defect(turns: Sequence[Turn], limits: Limits) -> str | None:
    """Of the turns before the last: each is bounded as a completion is, and together they are as one."""
    if sum(len(turn.completion.text) + len(turn.reply.text) for turn in turns) > limits.max_text_bytes:
        return "too_long"
    if sum(turn.completion.token_ids.size for turn in turns) > limits.max_tokens:
        return "too_long"
    found = (_trace_defect(turn.completion, limits) or _text_defect(turn.reply.text, limits) for turn in turns)
    return next((defect for defect in found if defect is not None), None)


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
    limits: Limits,
    counts: Counter[str],
) -> list[Verdict | None]:
    """The verdict on each claim: the reader's own, or the claimed one where it is trusted or nobody asked. None:
    refused.
    """
    verdicts: list[Verdict | None] = [_claimed(record) for record, _ in claims]
    foreign = [i for i, (_, trusted) in enumerate(claims) if not trusted]
    checked: Sequence[Verdict | None] = [None] * len(foreign)
    if verify is not None and foreign:
        checked = verify([(tasks[claims[i][0].origin.task_id], text_of(claims[i][0])) for i in foreign])
    counts["unverified" if verify is None else "reverified"] += len(foreign)
    for i, own in zip(foreign, checked, strict=True):
        record = claims[i][0]
        reason = _claim_refused(record, own, limits)
        if reason is not None:
            counts[f"refused/{reason}"] += 1
        elif own is not None:
            counts["corrected"] += (own.reward, own.correct) != (record.reward, _claimed(record).correct)
        verdicts[i] = None if reason is not None else own or verdicts[i]
    return verdicts


def _claimed(record: Rollout | Success) -> Verdict:
    return Verdict.scored(record.reward, correct=record.correct if isinstance(record, Rollout) else True)


def _claim_refused(record: Rollout | Success, own: Verdict | None, limits: Limits) -> str | None:
    """Why a claim is turned away, given the reader's own verdict, if there is one."""
    if own is not None and own.reward is None:
        return "unscored"
    if own is not None and isinstance(record, Success) and not own.correct:
        return "false_claim"
    low, high = limits.widened([own.reward] if own is not None and own.reward is not None else []).reward_range
    return None if low <= record.reward <= high else "out_of_range"


def text_of(record: Rollout | Success) -> str:
    return record.completion.text if isinstance(record, Rollout) else record.text


def _experience(record: Rollout | Success, task: Task, verdict: Verdict) -> Experience:
    origin = record.origin
    if isinstance(record, Rollout):
        return Experience(task, origin.author, record.completion, verdict, origin.round, record.earlier)
    completion = Completion(
        record.text, _NO_IDS, _NO_LOGPROBS, record.finish_reason, origin.policy_version, tokenizer=""
    )
    return Experience(task, origin.author, completion, verdict, origin.round, record.earlier)


def _versions(passed: Sequence[tuple[Record, bool]]) -> dict[str, tuple[int, int]]:
    """The latest round of each author, with the highest version it used there."""
    latest: dict[str, tuple[int, int]] = {}
    for record, _ in passed:
        origin = record.origin
        latest[origin.author] = max(latest.get(origin.author, (-1, 0)), (origin.round, origin.policy_version))
    return latest


# How the families at hand spell theirs: <|im_end|>, <｜end▁of▁sentence｜>, <s>, </s>, <eos>, <end_of_turn>, [INST].
_CONTROL = re.compile(r"<[|｜][^<>]{1,40}[|｜]>|</?(s|bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]")
_LONGEST_NAME = 256
_UNLIKELY_TOKEN, _UNLIKELY_SAMPLE = 30.0, 20.0  # nats beyond the entropy that any vocabulary allows
_NO_IDS = np.empty(0, np.int32)
_NO_LOGPROBS = np.empty(0)
