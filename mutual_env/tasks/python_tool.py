"""`mutual/python-v0`: any family of one turn, with a Python interpreter that a policy may call before it answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mutual_env.confined import Confined
from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.spec import whole_number
from mutual_env.tasks import program_output
from mutual_env.tasks.tools import called
from mutual_env.tasks.wrapped import WrappedTasks
from mutual_env.types import JSON, Reply, Task
from mutual_env.wasm_python import INSTRUCTIONS, MEMORY_MB, Bounds, Interpreter, check_extra, compiled

_MAX_BYTES = 12
"""Of a character, as JSON in ASCII."""


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
        outputs = [self._printed(self._called(c) or "") for c in conversations]
        return [Reply(self.template.replace("{output}", output), role="tool") for output in outputs]

    def _printed(self, program: str) -> str:
        return program_output.printed(program, self.max_output)

    def _called(self, conversation: Conversation) -> str | None:
        return called(conversation.text, self.opening, self.closing)


@dataclass(frozen=True)
class WasmPythonTool(PythonTool):
    """The same with a CPython compiled to WebAssembly, in the same confined workers. A program there finds no file, no
    socket, no other process and no environment. It may use `instructions` of the WebAssembly machine, which are counted
    and so the same on every computer, and `memory_mb`; one that wants more ends its conversation with a status.
    """

    instructions: int = INSTRUCTIONS
    memory_mb: int = MEMORY_MB
    _interpreter: ClassVar[Interpreter]

    @classmethod
    def prepare(cls) -> str:
        """The file whose descriptor `warm` is given: the interpreter, compiled."""
        return compiled()

    @classmethod
    def warm(cls, file: int) -> None:
        cls._interpreter = Interpreter.load(file)

    def _printed(self, program: str) -> str:
        bounds = Bounds(self.instructions, self.memory_mb, output=4096 + _MAX_BYTES * self.max_output)
        source = f"{inspect.getsource(program_output)}\nanswer = lambda asked: printed(asked, {self.max_output})"
        output = self._interpreter.answer(source, program, bounds)
        if not isinstance(output, str):
            raise RuntimeError("the program answered in its interpreter's place")
        return output[: self.max_output]


class PythonTasks(WrappedTasks):
    """The tasks of another family, with a Python interpreter at hand.

    family  the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    turns   how often a policy writes, its final answer counted
    opening, closing, template, max_output  how a call and its answer are written: see `PythonTool`
    runtime  "native" (this interpreter) or "wasm" (see `WasmPythonTool`; its bounds are `instructions`, `memory_mb`)
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
        runtime: Literal["native", "wasm"] = "native",
        instructions: int | None = None,
        memory_mb: int | None = None,
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
        bounds = {"instructions": instructions, "memory_mb": memory_mb}
        given: dict[str, JSON] = {name: whole_number(name, n, 1) for name, n in bounds.items() if n is not None}
        if runtime == "wasm":
            check_extra()
        elif given:
            raise InvalidInputError(f"{' and '.join(given)} can be bounded with runtime='wasm' only, not {runtime!r}")
        self.interaction = InteractionSpec("wasm_python" if runtime == "wasm" else "python", kwargs | given)
