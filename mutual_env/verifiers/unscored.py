"""What becomes of items for which no verdict was reached."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from mutual_env.display import shown
from mutual_env.errors import InvalidInputError, UnknownNameError, VerificationError
from mutual_env.types import Verdict, VerdictStatus

UnscoredPolicy: TypeAlias = Literal["drop", "zero", "raise"]
UNSCORED_POLICIES: tuple[UnscoredPolicy, ...] = get_args(UnscoredPolicy)


@dataclass(frozen=True, slots=True)
class Settlement:
    """`kept` are the indices of the items that stay, in order, and `verdicts` theirs: each has a reward. `counts`
    counts the statuses of all items as they came in."""

    kept: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    counts: Mapping[VerdictStatus, int]

    @property
    def unscored(self) -> int:
        return sum(n for status, n in self.counts.items() if status not in ("ok", "wrong_format"))


def settle(verdicts: Sequence[Verdict], policy: UnscoredPolicy = "drop", limit: float = 0.05) -> Settlement:
    """Drop the unscored items of a round, count them as 0, or refuse them.

    More than `limit` of the round unscored is an error under every policy: something is wrong with the verifier, not
    with the answers. One unscored item is always tolerated unless `limit` is 0: in a round of fewer than 1/limit items
    a single one says nothing of the rate.
    """
    if policy not in UNSCORED_POLICIES:
        raise UnknownNameError.of("policy on unscored items", policy, UNSCORED_POLICIES)
    if not 0.0 <= limit <= 1.0:
        raise InvalidInputError(f"limit of unscored items must lie in [0, 1], got {limit!r}")
    counts: Counter[VerdictStatus] = Counter(verdict.status for verdict in verdicts)
    lost = [i for i, verdict in enumerate(verdicts) if verdict.reward is None]
    allowed = max(1, math.floor(limit * len(verdicts))) if limit else 0
    if len(lost) > (0 if policy == "raise" else allowed):
        raise VerificationError(_refusal(verdicts, lost, policy, allowed))
    if policy == "zero":
        zeros = (v if v.reward is not None else _zero(v) for v in verdicts)
        return Settlement(tuple(range(len(verdicts))), tuple(zeros), dict(counts))
    kept = tuple(i for i, verdict in enumerate(verdicts) if verdict.reward is not None)
    return Settlement(kept, tuple(verdicts[i] for i in kept), dict(counts))


def _zero(verdict: Verdict) -> Verdict:
    detail = f"{verdict.status} counted as 0: {verdict.detail}".rstrip(": ")
    return replace(Verdict.wrong_format(detail=detail), elapsed=verdict.elapsed)


def _refusal(verdicts: Sequence[Verdict], lost: Sequence[int], policy: UnscoredPolicy, allowed: int) -> str:
    by_status = Counter(verdicts[i].status for i in lost)
    counts = ", ".join(f"{n} {status}" for status, n in sorted(by_status.items()))
    most = max(sorted(by_status), key=lambda status: by_status[status])
    example = next((verdicts[i].detail for i in lost if verdicts[i].status == most and verdicts[i].detail), "no detail")
    tolerated = "policy 'raise' tolerates none" if policy == "raise" else f"at most {allowed} may be"
    return (
        f"{len(lost)} of {len(verdicts)} items of the round could not be scored ({counts}); {tolerated}. "
        f"First {most}: {shown(example)}. {_REMEDIES[most]}, or raise the limit of unscored items"
    )


_REMEDIES: Mapping[VerdictStatus, str] = {
    "timeout": "Raise the pool's deadline, or look at what the policies write",
    "crash": "Raise the pool's memory_mb, or repair the verifier",
    "error": "Repair the verifier or the task data",
}
