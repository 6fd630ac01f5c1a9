"""The short form of `make fuzz-turns`."""

from __future__ import annotations

import pytest

from tests.learners.fuzz_turns import run


@pytest.mark.real_tokenizers
def test_no_reply_is_trained_on_and_no_control_token_enters_in_random_conversations() -> None:
    tried, taken = run(200)
    assert tried == 200
    assert taken > 50  # so many were learnt from; the others were rejected whole
