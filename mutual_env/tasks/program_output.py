"""Runs a program and returns what it prints, in whatever interpreter reads this file: it imports nothing of ours.

Importing it costs an interpreter in WebAssembly time for each program, so it imports little.
"""

from __future__ import annotations

import ast
import io
import random
from contextlib import redirect_stderr, redirect_stdout, suppress


class _Bounded(io.StringIO):
    """Keeps the first `limit` characters."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def write(self, text: str) -> int:
        kept = text[: self._left]
        self._left -= len(kept)
        super().write(kept)
        return len(text)


def printed(program: str, limit: int) -> str:
    """What a program prints, run in this process: call it in a worker, or in WebAssembly, alone."""
    output = _Bounded(limit)
    random.seed(0)  # the same program prints the same
    with redirect_stdout(output), redirect_stderr(output):
        try:
            _run(program)
        except MemoryError:
            raise
        except Exception as cause:
            with suppress(Exception):  # its message may raise too
                print(f"{type(cause).__name__}: {cause}")
        except SystemExit:
            pass
    return output.getvalue().rstrip("\n")


def _run(program: str) -> None:
    tree = ast.parse(program.strip("\n"))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(tree, "<program>", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<program>", "eval"), names)
        if value is not None:
            print(repr(value))
