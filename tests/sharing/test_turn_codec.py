"""Records of episodes of several turns: as bytes and back, torn, and admitted."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutual_env.errors import StorageError
from mutual_env.types import Completion, Reply, Turn
from sharing.admission import AdmissionContext, Limits, defect
from sharing.codec import decode, encode, wire_size
from sharing.records import Origin, Rollout, Success

ORIGIN = Origin("task", "ann", 3, 7, "fp", "exact")
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def _turns(draw: st.DrawFn) -> Turn:
    trace = draw(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(max_value=0)), max_size=6))
    ids, logprobs = np.array([t[0] for t in trace], np.int32), np.array([t[1] for t in trace])
    own = Completion(
        draw(_text), ids, logprobs, draw(st.sampled_from(["stop", "length", "stop_string"])), 7, "fp" if trace else ""
    )
    rewards = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    return Turn(own, Reply(draw(_text), draw(_text), draw(rewards)))


def rollout(*earlier: Turn) -> Rollout:
    last = Completion("end", np.array([1, 2], np.int32), np.array([-1.0, -2.0]), "stop", 7, "fp")
    return Rollout(ORIGIN, 0, last, 1.0, True, earlier)


@given(st.lists(_turns(), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_turns_come_back_as_they_were(turns: list[Turn]) -> None:
    for record in (rollout(*turns), Success(ORIGIN, 0, "end", "stop", 1.0, tuple(turns))):
        data = encode(record)
        assert decode(data) == record
        assert wire_size(record) == len(data)


def test_a_record_of_one_turn_has_the_bytes_it_always_had() -> None:
    assert struct.unpack_from("<2sH", encode(rollout())) == (b"ME", 1)
    assert struct.unpack_from("<2sH", encode(rollout(Turn(Completion.from_text("a"), Reply("b"))))) == (b"ME", 2)


@given(st.data(), st.lists(_turns(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_whatever_is_cut_off_or_added_is_refused(data: st.DataObject, turns: list[Turn]) -> None:
    whole = encode(rollout(*turns))
    cut = data.draw(st.integers(0, len(whole) - 1))
    for torn in (whole[:cut], whole + b"x"):
        with pytest.raises(StorageError):
            decode(torn)


def test_a_strangers_turns_are_bounded_as_its_completions_are() -> None:
    context, limits = AdmissionContext(["me"], frozenset(), 0, {}), Limits(max_tokens=3, max_text_bytes=10)
    bad = Completion("a", np.array([1], np.int32), np.array([np.inf]), "stop", 7, "fp")
    two = Completion("a", np.array([1, 1], np.int32), np.array([-1.0, -1.0]), "stop", 7, "fp")
    assert defect(rollout(Turn(two, Reply("ok"))), context, limits) is None
    assert defect(rollout(Turn(bad, Reply("ok"))), context, limits) == "not_finite"
    assert defect(rollout(Turn(two, Reply("ok")), Turn(two, Reply("ok"))), context, limits) == "too_long"
    assert defect(rollout(Turn(two, Reply("o" * 11))), context, limits) == "too_long"
