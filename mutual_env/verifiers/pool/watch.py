"""Notices that an item has made Python run code that belongs to no library.

Python audits what it does (`sys.addaudithook`): exec and eval, unpickling, programs started, foreign functions called.
The first such event of an item is reported before the code runs, so nothing that it does can take the report back. It
costs a worker, never a verdict: an item that is reported keeps its verdict, which is not remembered, and the worker is
not used again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_EVENTS = frozenset(
    {"exec", "code.__new__", "function.__new__", "marshal.loads", "pickle.find_class", "sys.settrace", "sys.setprofile"}
    | {"os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn", "os.posix_spawn", "subprocess.Popen", "pty.spawn"}
    | {"ctypes.call_function", "ctypes.cdata", "ctypes.cdata/buffer", "ctypes.string_at", "ctypes.wstring_at"}
)
_HARMLESS_NAMES = frozenset({"Integer", "Float", "Rational", "Symbol", "Function", "Add", "Mul", "Pow", "sympy"})
"""SymPy evaluates a number's text as `Integer (71 )`. Code in which nothing else is named can only make numbers and
symbols, and is no event worth a worker."""
_LIBRARIES = ("<frozen importlib._bootstrap>", "sympy/polys/monomials.py")
"""What is executed while a module is imported; and functions that SymPy writes for a number of variables."""


class Watch:
    """`report` is called at the first event between `begin` and the next; not at all before the first `begin`. One to
    a process: Python takes no hook back."""

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report
        self._armed = False
        sys.addaudithook(self._hear)

    def begin(self) -> None:
        self._armed = True

    def end(self) -> None:
        self._armed = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed or event not in _EVENTS:
            return
        if event == "exec" and _is_harmless(arguments[0]):
            return
        if _is_library(sys._getframe(1)):
            return
        self._armed = False
        self._report()


def _is_harmless(code: object) -> bool:
    return (
        isinstance(code, CodeType)
        and _HARMLESS_NAMES.issuperset(code.co_names)
        and not any(isinstance(constant, CodeType) for constant in code.co_consts)
    )


def _is_library(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith(_LIBRARIES):
            return True
        frame = frame.f_back
    return False
