"""What an evaluation holds, and the file it is kept in: one JSON object a task and policy."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from learners.run import lines
from learners.run.lines import read_lines
from learners.sealed import read_file
from mutual_env.errors import StorageError, WrongPathError
from mutual_env.options import typed
from mutual_env.types import JSON, Experience, Message, VerdictStatus

SAMPLES, SUMMARY = "samples.jsonl", "evaluation.json"


@dataclass(frozen=True, slots=True)
class Judged:
    """One sample and what the verifier said of it. `reward` is None where no verdict was reached."""

    text: str
    reward: float | None
    correct: bool
    status: VerdictStatus
    detail: str = ""
    tokens: int = 0
    finish: str = "stop"

    @classmethod
    def of(cls, experience: Experience) -> Judged:
        completion, verdict = experience.completion, experience.verdict
        return cls(
            completion.text,
            verdict.reward,
            verdict.correct,
            verdict.status,
            verdict.detail,
            sum(int(said.token_ids.size) for said in experience.written),
            completion.finish_reason,
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What one policy made of one task. `part` is the value of the task's metadata key that results are split by."""

    policy: str
    task: str
    prompt: str | Sequence[Message]
    answer: str
    part: str
    samples: tuple[Judged, ...]


def write(directory: Path, answered: Iterable[Answered], about: Mapping[str, JSON]) -> Path:
    """The samples and what is to be known of them, replacing what an evaluation of the same name left there."""
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / f"{SAMPLES}.tmp"
    with aside.open("w", encoding="utf-8") as file:
        for item in answered:
            file.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
    aside.replace(directory / SAMPLES)
    (directory / SUMMARY).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return directory


def is_kept(directory: Path) -> bool:
    """Whether an evaluation is kept there. A run has a file of samples too."""
    return (directory / SUMMARY).is_file()


def read(directory: Path) -> dict[str, tuple[Answered, ...]]:
    """policy -> its tasks, in the order in which they were asked."""
    if not is_kept(directory):
        raise WrongPathError(f"{directory} holds no evaluation: it has no {SUMMARY}; `mutual-env eval` writes one")
    path = directory / SAMPLES
    found: dict[str, list[Answered]] = defaultdict(list)
    try:
        rows = read_file(path).splitlines()
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}): evaluate again") from error
    for number, line in enumerate(rows, start=1):
        item = _answered(line, f"{path}, line {number}")
        found[item.policy].append(item)
    return {policy: tuple(items) for policy, items in found.items()}


def read_about(directory: Path) -> dict[str, Any]:
    """What the evaluation says of itself: what was evaluated, how it was sampled, on which tasks."""
    try:
        about = json.loads(read_file(directory / SUMMARY))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{directory / SUMMARY} cannot be read ({error}): evaluate again") from error
    if not isinstance(about, dict):
        raise StorageError(f"{directory / SUMMARY} must hold a JSON object: evaluate again")
    return about


def last_of_run(path: Path) -> dict[str, tuple[Answered, ...]]:
    """policy -> its tasks in the run's last evaluation. A run keeps what each sample voted for, not its text."""
    last: dict[str, Mapping[str, Any]] = {}
    for line in read_lines(path, lines.evaluations):
        last[line["policy"]] = line["tasks"]
    return {
        policy: tuple(
            Answered(policy, task, "", "", part, tuple(map(_voted, right, votes)))
            for task, (part, right, votes) in tasks.items()
        )
        for policy, tasks in last.items()
    }


def _voted(right: str, vote: str | None) -> Judged:
    correct = right == "1"
    return Judged(vote or "", float(correct), correct, "ok" if vote is not None else "wrong_format")


def _answered(line: bytes, where: str) -> Answered:
    try:
        content = json.loads(line)
        json.dumps(content, ensure_ascii=False).encode()  # half a character is no text, and is printed nowhere
        samples = tuple(typed(Judged(**sample)) for sample in content.pop("samples"))
        return typed(Answered(samples=samples, **content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{where} is no evaluated task ({error}): evaluate again") from error
