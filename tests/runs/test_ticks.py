"""Marks on an axis are round, and no two say the same."""

from __future__ import annotations

import pytest

from learners.report.ticks import axis


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.0, 1.0),
        (0.0, 1.05),
        (0.999999, 1.000001),
        (-3e-7, 5e-7),
        (1e6, 3e6),
        (0.0, 0.003),
        (-1.0, 250.0),
        (0.1, 0.11),
    ],
)
def test_marks_say_different_things_and_lie_on_the_axis(low: float, high: float) -> None:
    found = axis(low, high)
    labels = [label for _, label in found.ticks]
    assert len(labels) >= 3
    assert len({*labels}) == len(labels)
    assert all(low - 1e-9 <= value <= high + 1e-9 for value, _ in found.ticks)
    assert max(map(len, labels)) <= 8


def test_marks_are_the_numbers_that_people_would_choose() -> None:
    assert [label for _, label in axis(0.0, 1.0).ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [label for _, label in axis(0, 250, whole=True).ticks] == ["0", "50", "100", "150", "200", "250"]
    assert [label for _, label in axis(0, 2, whole=True).ticks] == ["0", "1", "2"]


def test_what_differs_far_behind_the_point_is_counted_from_a_base() -> None:
    """These were `1 1 1 1 1`."""
    found = axis(0.999999, 1.000001)
    assert found.base == "+ 0.999999"
    assert [label for _, label in found.ticks][:2] == ["0", "5e-7"]
