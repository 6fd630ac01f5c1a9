"""Options of a configuration, checked by the annotations of what takes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import pytest

from mutual_env.errors import ConfigError, UnknownNameError
from mutual_env.options import Unbounded, check_options, fields_of, problem


class Shared(TypedDict, total=False):
    wait: float
    kinds: Collection[Literal["a", "b"]]


@dataclass(frozen=True)
class Limits:
    low: int
    span: tuple[float, float] = (0.0, 1.0)


def cow(
    name: str,
    milk: float = 1.0,
    *,
    legs: int = 4,
    spots: bool = True,
    breed: Literal["angus", "jersey"] = "angus",
    weight: float | Mapping[str, float] = 1.0,
    calves: Sequence[str] = (),
    cap: Unbounded = math.inf,
    stable: Path | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    merges: Sequence[Sequence[str]] = (),
    **shared: Unpack[Shared],
) -> None: ...


def anything(*, first: int = 0, **options: object) -> None: ...


def test_an_option_that_is_not_taken_is_refused_with_the_nearest() -> None:
    check_options("animal 'cow'", cow, ["milk"])
    check_options("anything", anything, {"mlik": object()})
    with pytest.raises(UnknownNameError, match="option of animal 'cow' 'mlik': did you mean 'milk'"):
        check_options("animal 'cow'", cow, ["mlik"])
    with pytest.raises(UnknownNameError, match="did you mean 'agents'"):
        check_options("animal 'cow'", cow, ["agnets"], also=["agents"])
    with pytest.raises(UnknownNameError, match="did you mean 'kinds'"):
        check_options("animal 'cow'", cow, ["kindz"])


RIGHT: list[dict[str, Any]] = [
    {"milk": 2, "legs": 3, "spots": False, "breed": "jersey"},
    {"weight": 0.5},
    {"weight": {"ada": 1, "*": 0.25}},
    {"calves": ["a", "b"], "merges": ["ab", ["a", "bc"]]},
    {"cap": math.inf, "stable": "here", "limits": {"low": 1}},
    {"stable": None, "limits": Limits(1)},
    {"wait": 1.5, "kinds": ["a"]},
]


@pytest.mark.parametrize("given", RIGHT)
def test_a_value_of_its_annotations_type_is_taken(given: dict[str, Any]) -> None:
    check_options("animal 'cow'", cow, {"name": "berta", **given}, complete=True)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"milk": "fast"}, "option 'milk' of animal 'cow' must be a finite number, got 'fast'"),
        ({"milk": math.nan}, "'milk' of animal 'cow' must be a finite number, got nan"),
        ({"milk": math.inf}, "a finite number, got inf"),
        ({"milk": True}, "a finite number, got True"),
        ({"milk": 10**400}, "a finite number, got 1000"),
        ({"legs": 4.5}, "a whole number, got 4.5"),
        ({"legs": None}, "a whole number, got None"),
        ({"spots": 1}, "true or false, got 1"),
        ({"breed": "yak"}, "one of 'angus', 'jersey', got 'yak'"),
        ({"weight": {"ada": "much"}}, "a finite number or a mapping to a finite number, got {'ada': 'much'}"),
        ({"weight": {"ada": "much"}}, ": at 'ada' stands 'much'"),
        ({"calves": ["a", 3]}, "a list, each a text, got ['a', 3]: item 2 is 3"),
        ({"calves": {"a": 1}}, "a list, each a text, got {'a': 1}"),
        ({"cap": math.nan}, "a finite number (or .inf), got nan"),
        ({"stable": 3}, "a path or null, got 3"),
        ({"stable": "a\0b"}, "a path or null"),
        ({"limits": 3}, "a mapping or null, got 3"),
        ({"merges": [1]}, "item 1 is 1"),
        ({"wait": []}, "option 'wait' of animal 'cow' must be a finite number, got []"),
        ({"kinds": ["c"]}, "a list, each one of 'a', 'b', got ['c']: item 1 is 'c'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_it_must_be(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options("animal 'cow'", cow, given)
    assert sentence in str(caught.value)


def test_a_missing_option_is_asked_for_unless_somebody_provides_it() -> None:
    check_options("animal 'cow'", cow, {})
    check_options("animal 'cow'", cow, {}, complete=True, provided=["name"])
    with pytest.raises(ConfigError, match=r"animal 'cow' needs the option 'name' \(a text\)"):
        check_options("animal 'cow'", cow, {}, complete=True)


def test_named_options_of_a_factory_that_takes_anything_are_still_checked() -> None:
    with pytest.raises(ConfigError, match="option 'first' of anything must be a whole number"):
        check_options("anything", anything, {"first": "x", "second": "y"})


def test_a_dataclass_is_made_of_a_mapping_of_its_fields() -> None:
    assert fields_of("limits", Limits, {"low": 2, "span": (0, 3)}) == Limits(2, (0, 3))
    with pytest.raises(ConfigError, match="limits needs the option 'low'"):
        fields_of("limits", Limits, {})
    with pytest.raises(ConfigError, match="option 'span' of limits must be a list of 2: a finite number"):
        fields_of("limits", Limits, {"low": 1, "span": [0]})


def test_the_fields_of_a_typed_mapping_are_checked_one_by_one() -> None:
    class Fields(TypedDict, total=False):
        many: int
        long: float

    assert not problem({"many": 4, "long": 1}, Fields | None)
    assert problem({"many": "x"}, Fields | None).endswith("many must be a whole number")
    assert problem({"few": 1}, Fields).endswith("'few' is none of many, long")
    assert "a mapping with the fields of Fields, got [['x']]" in problem([["x"]], Fields)
