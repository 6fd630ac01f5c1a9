"""What is refused of examples, whether they are looked at together or one by one."""

from __future__ import annotations

import numpy as np
import pytest

from learners.checks import check_examples
from learners.example import Example
from mutual_env.errors import InvalidInputError
from mutual_env.types import CrossEntropy, Ids


def example(prompt: Ids, response: Ids) -> Example:
    return Example(prompt, response, np.ones(len(response), np.bool_), np.zeros(len(response)), CrossEntropy())


def test_the_one_token_outside_the_vocabulary_is_named() -> None:
    ids = np.array([0, 3, 8], np.int32)
    good = [example(ids, ids) for _ in range(3)]
    check_examples(good, 9)
    check_examples([], 9)
    for bad in (np.array([2, 9], np.int64), np.array([-1, 2], np.int32)):
        with pytest.raises(InvalidInputError, match=r"examples\[3\]\.response_ids holds an id outside .* of 9"):
            check_examples([*good, example(ids, bad)], 9)
        with pytest.raises(InvalidInputError, match=r"examples\[0\]\.prompt_ids holds an id outside .* of 9"):
            check_examples([example(bad, ids), *good], 9)
    with pytest.raises(InvalidInputError, match=r"examples\[0\]\.prompt_ids must be a one-dimensional array of int"):
        check_examples([example(np.array([1.0]), ids)], 9)  # type: ignore[arg-type]
