"""SIGTERM and SIGHUP end a run or a suite as Ctrl-C does: everything is closed on the way out."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_HEARD = (signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


class EndedBySignal(KeyboardInterrupt):
    """A scheduler's, a terminal's or a person's wish that the process end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the main thread. Only the first signal is heard: the way out is not to be interrupted by a second. One that
    was ignored from the start (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HEARD}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with(parent: int) -> None:
    """Have this process told to end when its parent is gone, however that ended. `parent`: its process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before that
        raise EndedBySignal(signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for other in _HEARD:
        signal.signal(other, signal.SIG_IGN)
    raise EndedBySignal(number)
