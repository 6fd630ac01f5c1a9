from __future__ import annotations

import pytest

from mutual_env.errors import InvalidInputError, UnknownNameError, VerificationError
from mutual_env.types import Verdict
from mutual_env.verifiers import settle

RIGHT = Verdict.scored(1.0, correct=True)
JUNK = Verdict.wrong_format()
LATE = Verdict.unscored("timeout", elapsed=5.0, detail="no verdict within the deadline of 5 s")
DEAD = Verdict.unscored("crash")


def test_drop_keeps_the_scored_items_in_order_and_counts_all() -> None:
    settled = settle([JUNK, LATE, RIGHT], "drop")
    assert settled.kept == (0, 2)
    assert settled.verdicts == (JUNK, RIGHT)
    assert settled.counts == {"wrong_format": 1, "timeout": 1, "ok": 1}
    assert settled.unscored == 1


def test_zero_keeps_every_item_and_says_which_zeros_are_made_up() -> None:
    settled = settle([RIGHT, LATE], "zero")
    assert settled.kept == (0, 1)
    assert [v.reward for v in settled.verdicts] == [1.0, 0.0]
    assert settled.verdicts[1].detail == "timeout counted as 0: no verdict within the deadline of 5 s"
    assert settled.counts == {"ok": 1, "timeout": 1}


def test_raise_tolerates_no_unscored_item() -> None:
    with pytest.raises(VerificationError, match=r"1 of 100 items .* \(1 timeout\); policy 'raise' tolerates none"):
        settle([RIGHT] * 99 + [LATE], "raise")


@pytest.mark.parametrize("policy", ["drop", "zero"])
def test_more_than_the_limit_is_an_error_that_names_counts_and_remedy(policy: str) -> None:
    # 5% of 100 are 5: five may be lost, six may not
    assert settle([RIGHT] * 95 + [LATE] * 5, policy).unscored == 5  # type: ignore[arg-type]
    with pytest.raises(VerificationError) as caught:
        settle([RIGHT] * 94 + [LATE] * 4 + [DEAD] * 2, policy)  # type: ignore[arg-type]
    assert "6 of 100" in str(caught.value)
    assert "2 crash, 4 timeout" in str(caught.value)
    assert "Raise the pool's deadline" in str(caught.value)


def test_one_lost_item_never_fails_a_tiny_round() -> None:
    # 1 of 4 is 25%, yet says nothing of the rate; 2 of 4 do
    assert settle([RIGHT, RIGHT, RIGHT, LATE]).kept == (0, 1, 2)
    assert settle([LATE]).kept == ()
    with pytest.raises(VerificationError, match="2 of 4"):
        settle([RIGHT, RIGHT, LATE, LATE])


def test_a_limit_of_zero_tolerates_nothing_and_of_one_everything() -> None:
    with pytest.raises(VerificationError):
        settle([RIGHT] * 3 + [LATE], limit=0.0)
    assert settle([LATE, DEAD], limit=1.0).kept == ()


def test_an_empty_round_settles() -> None:
    assert settle([]).counts == {}


def test_wrong_policy_and_limit_are_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'drop'"):
        settle([], "dropp")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"limit of unscored items must lie in \[0, 1\], got 5"):
        settle([], limit=5)
