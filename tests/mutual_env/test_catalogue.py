"""Things by name: what is found, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutual_env.catalogue import Catalogue, load
from mutual_env.errors import InvalidInputError, UnknownNameError


def animals() -> Catalogue[type]:
    return Catalogue("animal", "mutual_env.test_animals", {"path": "pathlib:Path"})


def test_a_target_is_imported_when_it_is_asked_for() -> None:
    catalogue = animals()
    assert catalogue.target("path") == "pathlib:Path"
    assert catalogue.load("path") is Path
    assert catalogue.names() == ["path"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown animal 'paht': did you mean 'path'"):
        animals().load("paht")


def test_the_same_thing_can_be_registered_again_and_another_cannot() -> None:
    catalogue = animals()

    def cell(legs: int) -> type:
        class Spider:
            count = legs

        return Spider

    catalogue.register("spider", cell(8))
    again = cell(8)  # a notebook's cell, run a second time: another object of the same name and place
    catalogue.register("spider", again)
    assert catalogue.load("spider") is again
    catalogue.register("path", Path)
    with pytest.raises(InvalidInputError, match="animal 'path' is taken: it already names 'pathlib:Path'"):
        catalogue.register("path", "pathlib:PurePath")
    assert catalogue.load("path") is Path


def test_a_target_that_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="animal 'cow': there is no module 'no_such_farm'"):
        load("animal 'cow'", "no_such_farm:Cow")
    with pytest.raises(UnknownNameError, match="attribute of animal 'cow' 'PurePaht': did you mean 'PurePath'"):
        load("animal 'cow'", "pathlib:PurePaht")
    with pytest.raises(InvalidInputError, match=r"must read 'module:attribute', got 'pathlib\.Path'"):
        animals().register("cow", "pathlib.Path")


def test_a_module_that_misses_something_itself_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "farm_of_ours.py").write_text("import no_such_tractor\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_tractor"):
        load("animal 'cow'", "farm_of_ours:Cow")
