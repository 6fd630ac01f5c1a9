"""A run's rounds in a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from learners.cli import main
from learners.report.shown import Filter, prompts_of
from learners.run.config import load_run
from learners.run.recorded import Recorded
from learners.run.training import train

pytest.importorskip("textual", reason="the extra view")
from textual.widgets import OptionList, Static

from learners.report.viewer import Viewer

CONFIG = """
name: r
rounds: 12
env: {id: mutual/arithmetic-v0, group_size: 6, prompts_per_round: 5, options: {digits: 1, modulus: 10}}
sharing: {strategy: ftis}
policies:
  ada:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, alphabet: "0123456789", max_new_tokens: 2}
  bob:
    learner: tabular
    options:
      tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["12"]}
      alphabet: "0123456789"
      max_new_tokens: 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    (root / "run.yaml").write_text(CONFIG + f"output: {root}\n")
    return train(load_run(root / "run.yaml")).directory


def driven(run: Path, drive: Callable[[Viewer, Callable[..., Awaitable[None]]], Awaitable[None]]) -> None:
    async def go() -> None:
        app = Viewer(run)
        async with app.run_test(size=(140, 50)) as pilot:
            await drive(app, pilot.press)

    asyncio.run(go())


def where(app: Viewer) -> str:
    return str(app.query_one("#where", Static).content)


def test_rounds_are_gone_through_by_keys(run: Path) -> None:
    async def drive(app: Viewer, press: Callable[..., Awaitable[None]]) -> None:
        assert where(app).startswith("round 11, 12 of 12 · all policies")
        await press("left", "left")
        assert where(app).startswith("round 9, 10 of 12")
        await press("home", "left")
        assert where(app).startswith("round 0, 1 of 12")
        await press("end")
        assert where(app).startswith("round 11")
        said = [key.binding.description for key in app.active_bindings.values() if key.binding.show]
        assert said[:2] == ["round before", "after"]  # the footer

    driven(run, drive)


def test_filters_and_words_leave_what_was_asked_for(run: Path) -> None:
    rounds = Recorded(run)
    prompts = prompts_of(rounds.round(11))
    some = sum(any(sample.correct for sample in prompt.samples) for prompt in prompts)

    async def drive(app: Viewer, press: Callable[..., Awaitable[None]]) -> None:
        assert app.query_one("#prompts", OptionList).option_count == 5
        await press("v")
        assert f"some right · all lessons · {some} of 5 prompts" in where(app)
        await press("v", "v", "v", "v", "p")
        assert "ada · all verdicts" in where(app)
        await press("slash", *"zz", "home", "x", "left", "z", "delete", "enter")
        assert "/zzz" in where(app)
        await press("slash", "enter")
        assert "/zzz · 0 of 5 prompts" in where(app)
        assert "No prompt of this round is left" in str(app.query_one("#prompt", Static).content)

    driven(run, drive)


def test_a_filter_looks_at_lessons_too(run: Path) -> None:
    prompts = prompts_of(Recorded(run).round(5))
    taught = [prompt for prompt in prompts if prompt.lessons]
    assert [prompt for prompt in prompts if Filter(lessons=1).takes(prompt)] == taught
    assert [prompt for prompt in prompts if Filter(lessons=3).takes(prompt)] == [p for p in prompts if not p.lessons]
    assert not any(Filter(policy="eve").takes(prompt) for prompt in prompts)


def test_a_round_is_printed_plainly_with_arrows_and_tokens(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(run), "--round", "3", "--plain"]) == 0
    printed = capsys.readouterr().out
    assert "round 3" in printed
    assert "ada → bob" in printed
    assert "AuthorWeight" in printed
    assert "│" in printed
    assert main(["view", str(run), "--round", "99", "--plain"]) != 0
    assert "has recorded rounds 0 to 11" in capsys.readouterr().err
