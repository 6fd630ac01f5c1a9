"""How long a call may take: what was said, else ten times the longest that was seen."""

from __future__ import annotations

from learners.resources.demand import Demand, Needs, Patience
from learners.resources.limits import Limits


def limits(patience: Patience | None = None, **phases: Needs) -> Limits:
    return Limits({"a": Demand("a", phases)} if phases else {}, patience or Patience())


def test_what_a_demand_says_is_fixed_whatever_is_measured() -> None:
    found = limits(act=Needs(limit=5.0))
    found.observe("a", "act", 1e6)
    assert found.of("a", "act") == 5.0


def test_a_phase_that_nobody_has_seen_has_an_hour_and_longer_where_it_is_expected_to_take_long() -> None:
    found = limits(act=Needs(), update=Needs(seconds=900.0))
    assert (found.of("a", "act"), found.of("a", "update")) == (3600.0, 9000.0)  # 10 x 900 s


def test_what_was_measured_makes_the_limit_and_the_longest_counts() -> None:
    found = limits(act=Needs())
    for seconds in (2.0, 60.0, 40.0):
        found.observe("a", "act", seconds)
    assert found.of("a", "act") == 600.0  # 10 x 60 s
    found.observe("a", "act", 700.0)  # an 8k-token round of an 8B model is no hang
    assert found.of("a", "act") == 7000.0


def test_a_quick_phase_keeps_five_minutes() -> None:
    found = limits(act=Needs())
    found.observe("a", "act", 0.01)
    assert found.of("a", "act") == 300.0


def test_a_call_that_is_no_phase_may_take_what_the_longest_phase_may() -> None:
    found = limits(act=Needs(limit=5.0), update=Needs(limit=50.0))
    assert found.of("a", "save") == 50.0
    found.observe("a", "save", 30.0)
    assert found.of("a", "save") == 300.0
    assert limits().of("nobody", "save") == 3600.0


def test_a_start_may_take_half_an_hour_until_one_was_seen() -> None:
    found = limits(act=Needs(limit=5.0))
    assert found.start("a") == 1800.0
    found.observe("a", "start", 62.0)  # an engine's start
    assert found.start("a") == 620.0
    assert limits(Patience(restart_limit=60.0)).start("a") == 60.0


def test_a_lease_lasts_every_attempt_and_the_restarts_between_them() -> None:
    found = limits(Patience(restarts=2, restart_limit=60.0), act=Needs(limit=5.0))
    assert found.lease("a", "act") == 5.0 + 2 * (5.0 + 60.0)
