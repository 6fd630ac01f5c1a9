"""What a model wrote is shown on a terminal, never obeyed: escapes, links, titles, directions, line ends."""

from __future__ import annotations

import argparse
import asyncio
import importlib
from pathlib import Path

import pytest

from learners import cli
from mutual_env.errors import InvalidInputError, VerificationError
from mutual_env.types import Verdict
from mutual_env.verifiers import settle
from tests.hostile.answers import ODD
from tests.hostile.fuzz_config import FIRST_SIGNAL, told
from tests.hostile.recorded import a_run, put_into
from tokenizers_bridge import CharTokenizer

SPELLS = (
    *ODD,
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",  # a link
    "\x1bP+q544e\x1b\\",  # a question that some terminals answer as if it had been typed
    "\x1b[?1049h",  # another screen
    "\x1b]52;c;ZXZpbA==\x07",  # the clipboard
    "\x07\x08\x0c\x7f\x9b2J",
    "[bold red on white]markup[/]",
    "[link=http://evil]x[/link]",
    "[/]",
)
OBEYED = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\ufeff", "\U000e0041"} - {"\n", "\t"}


def obeyed(said: str) -> set[str]:
    return OBEYED & set(said)


@pytest.fixture(scope="module")
def spelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose models wrote one spell after the other, everywhere that words are recorded."""
    directory = a_run(tmp_path_factory.mktemp("runs"))
    put_into(directory, "".join(SPELLS))
    return directory


def test_a_run_is_looked_at_without_obeying_what_it_holds(spelled: Path) -> None:
    code, said = told(["view", str(spelled), "--plain"])
    assert code == 0, said
    assert obeyed(said) == set()
    words = "".join(said.replace("│", "").split())
    assert r"\x1b[2J\x1b]0;title\x07" in words
    assert "[boldredonwhite]markup[/]" in words


def test_the_viewer_takes_nothing_of_it_for_markup(spelled: Path) -> None:
    widgets = pytest.importorskip("textual.widgets", reason="the extra view")
    viewer = importlib.import_module("learners.report.viewer")

    async def look() -> list[str]:
        app = viewer.Viewer(spelled)
        async with app.run_test(size=(140, 50)) as pilot:
            await pilot.press("down")
            prompts = app.query_one("#prompts", widgets.OptionList)
            return [str(prompts.get_option_at_index(i).prompt) for i in range(prompts.option_count)]

    titles = asyncio.run(look())
    assert len(titles) == 2
    assert all(r"\x00\x1b[2J" in title and not obeyed(title) for title in titles), titles


@pytest.mark.parametrize("command", [["report"], ["eval", "--json"], ["compare", "--json"], ["train", "--resume"]])
def test_other_commands_do_not_obey_it_either(spelled: Path, command: list[str]) -> None:
    _, said = told([*command, str(spelled)])
    assert obeyed(said) == set()


def test_an_error_that_quotes_a_model_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli._COMMANDS._targets, "doctor", Quotes)
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert obeyed(said) == set()
    assert said.startswith(r"error: wrote \x1b[2J")


class Quotes:
    """A command that fails with what a model wrote."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        pass

    def run(self, args: argparse.Namespace) -> int:
        raise InvalidInputError("wrote " + "\x1b[2J" + "".join(SPELLS))


class QuotesMuch(Quotes):
    """A command that fails with a value that nobody reads to its end."""

    def run(self, args: argparse.Namespace) -> int:
        raise InvalidInputError("alphabet " + "[" * 10**6 + " stands twice\nsay another")


def test_of_an_error_that_quotes_much_both_ends_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli._COMMANDS._targets, "doctor", QuotesMuch)
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: alphabet [[")
    assert said.endswith("[[ stands twice\nsay another\n")
    assert "characters ..." in said
    assert len(said) < 1500


@pytest.mark.parametrize("character", ["[", "0", "é"])
def test_an_alphabet_that_is_refused_is_not_quoted_whole(character: str) -> None:
    with pytest.raises(InvalidInputError, match="more than once") as caught:
        CharTokenizer("01" + character * 5000)
    assert len(str(caught.value)) < 300


def test_a_refusal_of_unscored_items_quotes_none_as_it_is() -> None:
    for spell in SPELLS:
        with pytest.raises(VerificationError) as caught:
            settle([Verdict.unscored("error", detail=f"wrote {spell}")], "raise")
        assert obeyed(str(caught.value)) == set()


def test_an_interrupt_ends_the_fuzzer_and_is_no_outcome_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Quotes):
        def run(self, args: argparse.Namespace) -> int:
            raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS._targets, "doctor", Interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"exit code {FIRST_SIGNAL + 2}"):
        told(["doctor"])
