"""The browser of rounds in a report: recorded lines, packed, for page.js; without it, the last round as plain HTML."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from learners.report.page import note
from learners.run.recorded import Recorded, RecordedGroup, RecordedLesson, Written

PACKED_LIMIT = 2_600_000  # bytes in the page, of the 5 MB that a report may have
RAW_LIMIT = 24_000_000  # bytes that are worth packing to see how small they become


def browser(path: Path) -> str:
    """Nothing where nothing was recorded."""
    recorded = Recorded(path)
    if not recorded.numbers:
        return ""
    packed, kept = _packed(recorded)
    policies = html.escape(json.dumps(list(recorded.policies)))
    told = "" if kept == len(recorded.numbers) else f" {kept} of {len(recorded.numbers)} rounds, spread evenly."
    return (
        note(f"Every kept prompt with each policy's samples, and the lessons that were borrowed.{told}")
        + f'<div id="rounds" data-policies="{policies}">{"".join(_plain(recorded))}</div>'
        + f'<pre id="recorded" hidden>{packed}</pre>'
    )


def _packed(recorded: Recorded) -> tuple[str, int]:
    """As many rounds as fit, evenly spread, the last one among them."""
    stride = max(1, math.ceil(recorded.size / RAW_LIMIT))
    while True:
        numbers = recorded.numbers[::-1][::stride]
        raw = b"".join(line for number in numbers for line in recorded.lines(number))
        packed = base64.b64encode(gzip.compress(raw, 6, mtime=0))
        if len(packed) <= PACKED_LIMIT or len(numbers) == 1:
            return packed.decode(), len(numbers)
        stride = max(stride + 1, math.ceil(stride * len(packed) / PACKED_LIMIT))


def _plain(recorded: Recorded) -> Iterator[str]:
    last = recorded.round(recorded.numbers[-1])
    yield f"<h3>round {last.number}</h3>"
    by_prompt: dict[str, dict[str, RecordedGroup]] = defaultdict(dict)
    for policy, groups in last.groups.items():
        for group in groups:
            by_prompt[group.task][policy] = group
    for task, of in by_prompt.items():
        yield _prompt(next(iter(of.values())))
        yield f'<div class="groups">{"".join(_group(policy, group, recorded) for policy, group in of.items())}</div>'
        yield from (_lesson(lesson, recorded) for lesson in last.lessons if lesson.task == task)


def _prompt(group: RecordedGroup) -> str:
    messages: Sequence[Mapping[str, str]] = (
        [{"content": group.prompt}] if isinstance(group.prompt, str) else group.prompt
    )
    said = "".join(
        (f'<span class="role">{html.escape(m["role"])}</span>' if "role" in m else "")
        + f"<div>{html.escape(m['content'])}</div>"
        for m in messages
    )
    return f'<div class="prompt">{said}<span class="role">answer</span><div>{html.escape(group.answer)}</div></div>'


def _group(policy: str, group: RecordedGroup, recorded: Recorded) -> str:
    samples = "".join(map(_sample, group.samples))
    right = sum(sample.correct for sample in group.samples)
    head = f"{html.escape(policy)}: {right} of {len(group.samples)} right"
    return f'<div class="group {_colour(policy, recorded)}"><h4>{head}</h4>{samples}</div>'


def _sample(sample: Written) -> str:
    verdict = sample.status if sample.reward is None else f"{sample.reward:g}"
    facts = [verdict, *([sample.status] if sample.status not in ("ok", verdict) else []), sample.detail]
    told = " · ".join(html.escape(fact) for fact in facts if fact)
    return (
        f'<div class="sample{" right" if sample.correct else ""}"><code>{html.escape(sample.text)}</code>'
        f'<div class="verdict">{told}</div></div>'
    )


def _lesson(lesson: RecordedLesson, recorded: Recorded) -> str:
    refused = f"not taken: {lesson.dropped.replace('_', ' ')}. " if lesson.dropped else ""
    told = f"{refused}advantage {lesson.advantage:g}, weight {lesson.weight:g}, {lesson.loss} · {lesson.correction}"
    return (
        f'<div class="lesson {_colour(lesson.author, recorded)}{" refused" if lesson.dropped else ""}">'
        f'<span class="arrow">{html.escape(lesson.author)} → {html.escape(lesson.reader)}</span> {html.escape(told)}'
        f"<div><code>{html.escape(lesson.text)}</code></div></div>"
    )


def _colour(policy: str, recorded: Recorded) -> str:
    return f"c{recorded.policies.index(policy) % 8 if policy in recorded.policies else 7}"
