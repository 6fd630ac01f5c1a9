"""A short form of the fuzzer of records."""

from __future__ import annotations

from tests.hostile import fuzzing
from tests.hostile.fuzz_records import GOOD, KINDS, case


def test_random_records_of_a_peer_end_no_reader() -> None:
    found = fuzzing.run(case, KINDS, GOOD, 2)
    assert {outcome.partition(": ")[2] for outcome in found} <= set(GOOD), found
    assert found["sgt: learnt"] == 2
