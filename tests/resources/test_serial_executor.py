"""The reference executor, and the record it keeps."""

from __future__ import annotations

import itertools

import pytest

from learners.resources.executor import Executor, SerialExecutor
from learners.resources.record import Event, Span, UsageRecord, as_json


def ticking_clock() -> itertools.count[float]:
    return itertools.count(0.0, 1.0)


def test_results_come_back_by_policy_in_the_order_of_the_calls() -> None:
    executor = SerialExecutor()
    assert isinstance(executor, Executor)
    assert list(executor.map("act", {"b": lambda: 2, "a": lambda: 1}).items()) == [("b", 2), ("a", 1)]


def test_an_error_names_the_policy_and_keeps_its_type() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        SerialExecutor().map("update", {"a": lambda: 1 // 0})
    assert caught.value.__notes__ == ["policy 'a', phase 'update'"]


def test_waiting_behind_another_policy_is_recorded_as_waiting() -> None:
    ticks = ticking_clock()
    executor = SerialExecutor(clock=lambda: next(ticks))
    executor.map("act", {"a": lambda: None, "b": lambda: None})
    # ticks: start 0, asked 1, a begins 2 and ends 3, b begins 4 and ends 5
    usage = executor.record.policies()
    assert (usage["a"].waiting, usage["a"].busy) == (1.0, 1.0)
    assert (usage["b"].waiting, usage["b"].busy) == (3.0, 1.0)
    assert usage["a"].idle == (5.0 - 1.0) - 1.0 - 1.0  # counted from the first request, at 1
    assert executor.record.device_usage()["local"].busy == 2.0


def test_take_hands_over_each_span_once_and_totals_stay() -> None:
    record = UsageRecord({"d0": 1.0})
    record.add(Span("a", "act", ("d0",), 0.0, 1.0, 3.0))
    record.add(Event(3.5, "died", "a", "exit code -9"))
    assert [as_json(item)["type"] for item in record.take()] == ["span", "event"]
    assert record.take() == []
    assert record.summary()["events"] == {"died": 1}
    assert record.utilisation() == pytest.approx(2.0 / 3.5)
    assert record.phase_seconds() == {("a", "act"): 2.0}
