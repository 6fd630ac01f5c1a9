"""The thread that waits for vLLM in our place."""

from __future__ import annotations

import threading

import pytest

from learners.vllm.local import Caller


def test_calls_are_made_in_order_in_one_thread_and_errors_come_back() -> None:
    caller = Caller("test")
    names = [caller.submit(lambda: threading.current_thread().name) for _ in range(3)]
    assert [name.result(5.0) for name in names] == ["test"] * 3
    with pytest.raises(ZeroDivisionError):
        caller.submit(lambda: 1 // 0).result(5.0)
    assert caller.submit(lambda: 2).result(5.0) == 2
    caller.close()


def test_a_call_that_never_ends_does_not_keep_the_program_alive() -> None:
    caller = Caller("stuck")
    caller.submit(threading.Event().wait)
    stuck = [thread for thread in threading.enumerate() if thread.name == "stuck"]
    assert [thread.daemon for thread in stuck] == [True]
