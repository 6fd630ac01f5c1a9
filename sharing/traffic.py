"""What a round's sharing measures: what went through the exchange, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mutual_env.types import Group, Lesson, Metrics
from sharing.admission import Admitted
from sharing.codec import wire_size
from sharing.exchange.protocol import Reading


def traffic(reading: Reading, admitted: Admitted, sent: Mapping[str, int], prompts: int) -> Metrics:
    """What went through the exchange, bytes for each prompt, and what was turned away."""
    metrics = {f"sent_bytes/{kind}": n / max(prompts, 1) for kind, n in sorted(sent.items())}
    received: Counter[str] = Counter()
    for stored in reading.records:
        received[stored.record.kind] += wire_size(stored.record)
    metrics.update({f"received_bytes/{kind}": n / max(prompts, 1) for kind, n in sorted(received.items())})
    counts = {key: float(n) for key, n in sorted(admitted.counts.items()) if n}
    refused = sum(n for key, n in counts.items() if key.startswith("refused/"))
    metrics.update(counts)
    metrics["refused"] = refused + reading.unreadable
    if reading.unreadable:
        metrics["refused/unreadable"] = float(reading.unreadable)
    metrics["outside_staleness"] = float(reading.outside)
    if admitted.divergence is not None:
        metrics["divergence"] = admitted.divergence
    return metrics


def outcomes(reader: str, groups: Sequence[Group], lessons: Sequence[Lesson]) -> Metrics:
    """How many prompts teach the reader nothing by themselves, and how much of its lessons is borrowed."""
    tried = failed = passed = 0
    for group in groups:
        if group:
            right = sum(e.verdict.correct for e in group)
            tried += 1
            failed += right == 0
            passed += right == len(group)
    borrowed = sum(lesson.experience.author != reader for lesson in lessons)
    return {
        "share/all_fail": failed / max(tried, 1),
        "share/all_pass": passed / max(tried, 1),
        "share/lessons": float(len(lessons)),
        "share/borrowed": borrowed / max(len(lessons), 1),
    }


def complaints(
    strategy: str, offered: int, heard: Mapping[str, int], said: tuple[float, float] | None
) -> dict[str, str]:
    """What is wrong with a round that read so many records: that everything was turned away, which is a round without
    peers; or that some were for rewards of which the env's verifier says nothing. `said`: the rewards that it names."""
    found = {}
    if offered and not heard.get("taken"):
        refused = sorted((key.removeprefix("refused/"), n) for key, n in heard.items() if "refused/" in key and n)
        reasons = ", ".join(f"{reason} {n}" for reason, n in refused)
        found["silence"] = (
            f"{strategy} learns nothing from its peers: all {offered} records that it read this round were turned away "
            f"({reasons}). docs/exchange.md says what each reason means; `limits` is an option"
        )
    beyond = heard.get("refused/out_of_range", 0)
    if beyond and said is None:
        found["range"] = (
            f"{strategy} turned {beyond} of {offered} records away because of rewards outside [0, 1] and outside what "
            "this env's verifier has given so far. If peers earn such rewards, let the verifier say `reward_range` "
            "(docs/verifiers.md), or give `limits: {reward_range: [low, high]}`"
        )
    return found
