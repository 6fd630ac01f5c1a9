"""A run in a terminal: rounds, prompts, groups side by side, who taught whom. Needs textual (the extra `view`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from learners.report.shown import LESSONS, VERDICTS, Filter, Palette, Prompt, prompts_of, shown
from learners.run.recorded import Recorded


class Viewer(App[None]):
    """One round is read at a time, when it is shown."""

    CSS = """
    #prompts { width: 34; border: none; } #prompt { padding: 0 1; } #where { height: 1; padding: 0 1; }
    #words { display: none; height: 3; } #words.shown { display: block; }
    .-narrow Horizontal { layout: vertical; } .-narrow #prompts { width: 100%; height: 30%; }
    .-narrow #where { height: auto; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-wide")]  # noqa: RUF012  (its own is no ClassVar)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "round before", priority=True),  # else the list's own
        Binding("right", "step(1)", "after", priority=True),
        Binding("home", "edge(0)", "first", priority=True),
        Binding("end", "edge(-1)", "last", priority=True),
        ("p", "policy", "policy"),
        ("v", "verdict", "verdict"),
        ("l", "lessons", "lessons"),
        ("slash", "words", "words"),
        ("t", "tokens", "tokens"),
        ("r", "reload", "new rounds"),
        ("q", "quit", "end"),
    ]

    def __init__(self, path: Path, first: int | None = None) -> None:
        super().__init__()
        self._path = path
        self._recorded = Recorded(path)
        self._palette = Palette(self._recorded.policies)
        numbers = self._recorded.numbers
        self._at = numbers.index(first) if first in numbers else len(numbers) - 1
        self._filter = Filter()
        self._tokens = False
        self._prompts: list[Prompt] = []

    def compose(self) -> ComposeResult:
        yield Static(id="where")
        yield Input(placeholder="words of prompt or text", id="words")
        with Horizontal():
            yield OptionList(id="prompts")
            with VerticalScroll():
                yield Static(id="prompt")
        yield Footer()

    def on_mount(self) -> None:
        self.title = str(self._path)
        self._show_round()
        self.query_one("#prompts").focus()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._show_prompt(event.option_index)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._filter = replace(self._filter, words=event.value)
        self.query_one("#words").remove_class("shown")
        self.query_one("#prompts").focus()
        self._show_round()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """While words are written, those keys move in them."""
        return action not in ("step", "edge") or not isinstance(self.focused, Input)

    def action_step(self, by: int) -> None:
        self._at = min(max(self._at + by, 0), len(self._recorded.numbers) - 1)
        self._show_round()

    def action_edge(self, which: int) -> None:
        self._at = 0 if which == 0 else len(self._recorded.numbers) - 1
        self._show_round()

    def action_policy(self) -> None:
        order = ["", *self._recorded.policies]
        self._filter = replace(self._filter, policy=order[(order.index(self._filter.policy) + 1) % len(order)])
        self._show_round()

    def action_verdict(self) -> None:
        self._filter = replace(self._filter, verdict=(self._filter.verdict + 1) % len(VERDICTS))
        self._show_round()

    def action_lessons(self) -> None:
        self._filter = replace(self._filter, lessons=(self._filter.lessons + 1) % len(LESSONS))
        self._show_round()

    def action_words(self) -> None:
        words = self.query_one("#words", Input)
        words.add_class("shown")
        words.focus()

    def action_tokens(self) -> None:
        self._tokens = not self._tokens
        self._show_prompt(self.query_one("#prompts", OptionList).highlighted)

    def action_reload(self) -> None:
        self._recorded = Recorded(self._path)
        self._show_round()

    def _show_round(self) -> None:
        round_ = self._recorded.round(self._recorded.numbers[self._at])
        everything = prompts_of(round_)
        self._prompts = [prompt for prompt in everything if self._filter.takes(prompt)]
        left_out = f" · {round_.left_out} not kept" if round_.left_out else ""
        self.query_one("#where", Static).update(
            f"round {round_.number}, {self._at + 1} of {len(self._recorded.numbers)} · {self._filter} · "
            f"{len(self._prompts)} of {len(everything)} prompts{left_out}"
        )
        listed = self.query_one("#prompts", OptionList)
        listed.clear_options()
        listed.add_options([Option(_line(prompt)) for prompt in self._prompts])
        listed.highlighted = 0 if self._prompts else None
        self._show_prompt(listed.highlighted)

    def _show_prompt(self, index: int | None) -> None:
        target = self.query_one("#prompt", Static)
        if index is None or not self._prompts:
            target.update("No prompt of this round is left: change the filter (p, v, l, /).")
        else:
            target.update(shown(self._prompts[min(index, len(self._prompts) - 1)], self._palette, tokens=self._tokens))


def _line(prompt: Prompt) -> Text:
    """No markup: a prompt may hold some."""
    counts = " ".join(str(sum(sample.correct for sample in group.samples)) for group in prompt.groups.values())
    arrows = "→" * min(3, len(prompt.lessons))
    return Text(f"{counts} {arrows} {prompt.title[:60]}")
