"""One recorded prompt for a terminal: each policy's group side by side, the lessons with arrows, tokens on demand.

A recording holds what models wrote, so nothing of it reaches the terminal but through `harmless`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from learners.run.recorded import RecordedGroup, RecordedLesson, RecordedRound, Written
from mutual_env.display import shown as harmless
from mutual_env.display import shown_on_one_line

COLOURS = ("dodger_blue2", "dark_orange3", "green4", "medium_purple3", "gold3", "deep_pink3", "dark_cyan", "grey58")
LEAST_WIDTH = 24  # of a policy's group
VERDICTS = ("all verdicts", "some right", "none right", "all right", "no verdict")
LESSONS = ("all lessons", "with a borrowed lesson", "with one that was refused", "without")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One task of a round: everybody's groups, and the lessons on it."""

    task: str
    groups: Mapping[str, RecordedGroup]
    lessons: tuple[RecordedLesson, ...]

    @property
    def title(self) -> str:
        group = next(iter(self.groups.values()))
        text = group.prompt if isinstance(group.prompt, str) else group.prompt[-1]["content"]
        return shown_on_one_line(" ".join(text.split()))

    @property
    def samples(self) -> list[Written]:
        return [sample for group in self.groups.values() for sample in group.samples]


@dataclass(frozen=True, slots=True)
class Filter:
    """What is shown: places in the lists above, and words."""

    policy: str = ""
    verdict: int = 0
    lessons: int = 0
    words: str = ""

    def takes(self, prompt: Prompt) -> bool:
        if self.policy and self.policy not in prompt.groups:
            return False
        samples = prompt.groups[self.policy].samples if self.policy else prompt.samples
        lessons = [one for one in prompt.lessons if self.policy in ("", one.reader, one.author)]
        right = sum(sample.correct for sample in samples)
        verdicts = (True, right > 0, right == 0, right == len(samples), any(s.reward is None for s in samples))
        taught = (True, bool(lessons), any(one.dropped for one in lessons), not lessons)
        said = "\n".join([prompt.title, *(sample.text for sample in samples)]).casefold()
        return verdicts[self.verdict] and taught[self.lessons] and self.words.casefold() in said

    def __str__(self) -> str:
        parts = [self.policy or "all policies", VERDICTS[self.verdict], LESSONS[self.lessons]]
        return " · ".join([*parts, *([f"/{self.words}"] if self.words else [])])


@dataclass(frozen=True, slots=True)
class Palette:
    """A policy's colour, the same everywhere."""

    policies: Sequence[str]
    colours: Sequence[str] = field(default=COLOURS)

    def of(self, policy: str) -> str:
        known = policy in self.policies
        return self.colours[self.policies.index(policy) % (len(self.colours) - 1)] if known else self.colours[-1]


def prompts_of(round_: RecordedRound) -> list[Prompt]:
    tasks = dict.fromkeys(group.task for groups in round_.groups.values() for group in groups)
    by_task = {policy: {group.task: group for group in groups} for policy, groups in round_.groups.items()}
    return [
        Prompt(
            task,
            {policy: of[task] for policy, of in by_task.items() if task in of},
            tuple(lesson for lesson in round_.lessons if lesson.task == task),
        )
        for task in tasks
    ]


def shown(prompt: Prompt, palette: Palette, *, tokens: bool) -> RenderableType:
    groups = [_group(policy, group, prompt, palette) for policy, group in prompt.groups.items()]
    lessons = [_lesson(lesson, palette, tokens=tokens) for lesson in prompt.lessons]
    return Group(_asked(prompt), _Beside(groups), *lessons)


@dataclass(frozen=True, slots=True)
class _Beside:
    """As many in a row as can be read there."""

    parts: Sequence[RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        in_a_row = min(len(self.parts), max(1, options.max_width // LEAST_WIDTH))
        beside = Table.grid(expand=True)
        for _ in range(in_a_row):
            beside.add_column(ratio=1)
        for first in range(0, len(self.parts), in_a_row):
            beside.add_row(*self.parts[first : first + in_a_row])
        yield beside


def _asked(prompt: Prompt) -> Panel:
    group = next(iter(prompt.groups.values()))
    text = Text()
    messages = [{"content": group.prompt}] if isinstance(group.prompt, str) else group.prompt
    for message in messages:
        if "role" in message:
            text.append(harmless(f"{message['role']}\n"), style="dim")
        text.append(harmless(f"{message['content']}\n"))
    text.append("answer ", style="dim").append(harmless(group.answer))
    return Panel(text, title=Text(shown_on_one_line(prompt.task)), title_align="left")


def _group(policy: str, group: RecordedGroup, prompt: Prompt, palette: Palette) -> Panel:
    right = sum(sample.correct for sample in group.samples)
    parts = [part for sample in group.samples for part in _sample(sample, policy, prompt, palette)]
    title = f"{policy}: {right} of {len(group.samples)} right"
    return Panel(
        Group(*parts), title=Text(shown_on_one_line(title)), title_align="left", border_style=palette.of(policy)
    )


def _sample(sample: Written, policy: str, prompt: Prompt, palette: Palette) -> Iterator[Text]:
    readers = [one.reader for one in prompt.lessons if one.author == policy and one.text == sample.text]
    yield Text(harmless(sample.text) or "(nothing)", style="green" if sample.correct else "")
    verdict = sample.status if sample.reward is None else f"{sample.reward:g}"
    facts = [verdict, sample.status if sample.status not in ("ok", verdict) else "", sample.detail]
    facts += [f"{sample.tokens} tokens" if sample.tokens else ""]
    facts += [f"advantage {sample.advantage:g}" if sample.advantage is not None else ""]
    line = Text("  " + harmless(" · ".join(fact for fact in facts if fact)), style="dim")
    for reader in dict.fromkeys(readers):
        line.append(harmless(f" → {reader}"), style=f"bold {palette.of(reader)}")
    yield line


def _lesson(lesson: RecordedLesson, palette: Palette, *, tokens: bool) -> RenderableType:
    text = Text()
    text.append(harmless(lesson.author), style=f"bold {palette.of(lesson.author)}").append(" → ")
    text.append(harmless(lesson.reader), style=f"bold {palette.of(lesson.reader)}").append(" ")
    if lesson.dropped:
        text.append(harmless(f"not taken: {lesson.dropped.replace('_', ' ')} "), style="red")
    facts = [f"advantage {lesson.advantage:g}", f"weight {lesson.weight:g}", f"{lesson.loss} · {lesson.correction}"]
    facts += [f"given {lesson.given:g}"] if lesson.given not in (None, lesson.weight) else []
    facts += [f"{lesson.exact:.0%} of its tokens in exact chunks"] if lesson.exact is not None else []
    facts += [f"ratio {lesson.ratio:g}"] if lesson.ratio is not None else []
    text.append(harmless(", ".join(facts)), style="dim").append(harmless(f"\n{lesson.text}"))
    return Group(text, _tokens(lesson)) if tokens and lesson.pieces else text


def _tokens(lesson: RecordedLesson) -> Text:
    """Chunks between bars; a token is green where the reader finds it likelier than its author did, red where less."""
    text, before = Text("  "), None
    for piece, chunk, log in lesson.pieces:
        if chunk != before:
            text.append("│", style="dim")
        strong = log is not None and abs(log) > 0.05
        style = ("green" if (log or 0) > 0 else "red") if strong else ("" if chunk >= 0 else "dim italic")
        text.append(harmless((piece or "∎").replace("\n", "⏎")), style=style)
        if strong and log is not None:
            text.append(f"({math.exp(log):.2g})", style="dim")
        before = chunk
    return text
