"""`mutual/python-v0`: any family of one turn, with a Python interpreter that a policy may call before it answers."""

from __future__ import annotations

import ast
import io
import random
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

from mutual_env.confined import Confined
from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.spec import whole_number
from mutual_env.tasks.tools import called
from mutual_env.tasks.wrapped import WrappedTasks
from mutual_env.types import JSON, Reply, Task


@dataclass(frozen=True)
class PythonTool(Confined):
    """Answers a text that ends with a call, such as `<python>print(3*4)</python>`, with what the program printed; a
    text without a call is the final answer. `opening` and `closing` are what a call is written between, {output} in
    `template` is what was printed, at most `max_output` characters of it.

    A program is run in a confined worker process of its own (see `VerifierPool`), and keeps nothing from one call to
    the next. If its last statement is an expression, the value is printed too; what it raises is printed by name. One
    that hangs, or brings its process down, ends its conversation with a status.
    """

    max_turns: int = 4
    opening: str = "<python>"
    closing: str = "</python>"
    template: str = "<output>{output}</output>"
    max_output: int = 1000

    def at_once(self, task: Task, conversation: Conversation) -> Answer | None:
        return Over() if self._called(conversation) is None else None

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        outputs = [printed(self._called(c) or "", self.max_output) for c in conversations]
        return [Reply(self.template.replace("{output}", output), role="tool") for output in outputs]

    def _called(self, conversation: Conversation) -> str | None:
        return called(conversation.text, self.opening, self.closing)


class PythonTasks(WrappedTasks):
    """The tasks of another family, with a Python interpreter at hand.

    family  the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    turns   how often a policy writes, its final answer counted
    opening, closing, template, max_output  how a call and its answer are written: see `PythonTool`
    """

    def __init__(
        self,
        *,
        family: str,
        turns: int = 4,
        opening: str = "<python>",
        closing: str = "</python>",
        template: str = "<output>{output}</output>",
        max_output: int = 1000,
        **options: Any,
    ) -> None:
        super().__init__(family, options)
        if not opening or not closing:
            raise InvalidInputError(f"opening and closing must not be empty, got {opening!r} and {closing!r}")
        kwargs: dict[str, JSON] = {
            "max_turns": turns,
            "opening": opening,
            "closing": closing,
            "template": template,
            "max_output": whole_number("max_output", max_output, 1),
        }
        self.interaction = InteractionSpec("python", kwargs)


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
    """What a program prints, run in this process: call it in a worker alone."""
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
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(tree, "<program>", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<program>", "eval"), names)
        if value is not None:
            print(repr(value))
