"""What the types of a round refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mutual_env import Task, Verdict
from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion, Experience, Lesson, OldPolicy, PolicyGradient

EXPERIENCE = Experience(Task("t", "1+1=", "2"), "ada", Completion.from_text("2"), Verdict.scored(1.0, correct=True), 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"experience": "what ada wrote"}, "Lesson.experience must be an Experience, got 'what ada wrote'"),
        ({"advantage": np.array([1.0, 2.0])}, r"Lesson.advantage must be one number, got array\(\[1., 2.\]\)"),
        ({"advantage": "1.0"}, "Lesson.advantage must be one number, got '1.0'"),
        ({"advantage": True}, "Lesson.advantage must be one number, got True"),
        ({"advantage": float("nan")}, "Lesson.advantage must be finite, got nan"),
        ({"advantage": np.float32("inf")}, "Lesson.advantage must be finite"),
        ({"weight": None}, "Lesson.weight must be one number, got None"),
        ({"weight": float("inf")}, "Lesson.weight must be finite, got inf"),
        (
            {"weight": -0.1},
            "Lesson.weight must be at least 0, got -0.1: give what should become less",
        ),
        ({"order": 1.5}, "Lesson.order must be a whole number, got 1.5"),
        ({"order": False}, "Lesson.order must be a whole number, got False"),
        ({"loss": "cross_entropy"}, r"Lesson.loss must be a LossSpec, such as PolicyGradient\(\)"),
        ({"loss": PolicyGradient}, "Lesson.loss must be a LossSpec"),
        ({"correction": "the old policy"}, r"Lesson.correction must be a Correction, such as OldPolicy\(\)"),
        ({"correction": OldPolicy}, "Lesson.correction must be a Correction"),
    ],
)
def test_a_lesson_that_no_learner_could_follow_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        Lesson(**{"experience": EXPERIENCE, "advantage": 1.0, **changes})


def test_a_lesson_takes_numbers_of_python_and_of_numpy() -> None:
    for number in (1, 0.5, np.float64(0.5), np.float32(0.5)):
        assert Lesson(EXPERIENCE, number).advantage == number  # type: ignore[arg-type]
