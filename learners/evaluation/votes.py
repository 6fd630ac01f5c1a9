"""The answer that a text votes for, so that samples can be counted by what they say and not by how they say it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from learners.evaluation.outcomes import Judged
from mutual_env.types import VerdictStatus
from mutual_env.verifiers.answers import final_answer
from mutual_env.verifiers.numeric import last_number

RIGHT = "right"


def vote(sample: Judged) -> str | None:
    """All that the verifier calls right is one answer. What is wrong votes for its last number where its final answer
    (in a tag, a box, after `####`, or the whole text) holds one, else for the words; None: it gave no answer."""
    return voted(sample.text, sample.status, correct=sample.correct)


def voted(text: str, status: VerdictStatus, *, correct: bool) -> str | None:
    """The same of a text and what the verifier said of it."""
    if correct:
        return RIGHT
    answer = final_answer(text) if status == "ok" else None
    if answer is None:
        return None
    number = last_number(answer)
    return str(number) if number is not None else " ".join(unicodedata.normalize("NFC", answer).casefold().split())


def majority_is_right(samples: Sequence[Judged]) -> float:
    """1 where the answer with most votes is the right one; where m answers tie for most, the right one's share 1/m."""
    counts = Counter(answer for answer in map(vote, samples) if answer is not None)
    most = max(counts.values(), default=0)
    first = [answer for answer, count in counts.items() if count == most]
    return first.count(RIGHT) / len(first) if first else 0.0


def majority_of(samples: Sequence[Judged], k: int) -> float:
    """Expected maj@k: the mean over consecutive blocks of k samples; a rest smaller than k is left out."""
    blocks = [samples[i : i + k] for i in range(0, len(samples) - k + 1, k)]
    return sum(map(majority_is_right, blocks)) / len(blocks)
