"""`mutual/arithmetic-v0`: sums, differences and products of whole numbers. No dependency, no download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import add, mul, sub

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.seeding import generator
from mutual_env.tasks.source import check_split, split_of, take_distinct
from mutual_env.types import Task
from mutual_env.verifiers import VerifierSpec

_OPERATIONS = {"add": ("+", add), "sub": ("-", sub), "mul": ("*", mul)}
_MAX_DIGITS = 18  # what a 64-bit generator draws in one go


class ArithmeticTasks:
    """`a op b`, both operands uniform over the whole numbers of at most `digits` digits.

    operation  "add", "sub" or "mul", or several of them: then each task draws one, and says which in its metadata
    digits     how many digits an operand has at most, 1 to 18
    modulus    the answer is taken modulo this number (so it lies in 0 .. modulus - 1); None: the plain answer
    template   the prompt; `{expression}` stands for the question
    split      "train" or "eval". An expression belongs to exactly one of them (a quarter to "eval"), by a hash of its
               text: the two share no expression, whatever the seeds and the template.
    """

    verifier = VerifierSpec("numeric")

    def __init__(
        self,
        *,
        operation: str | Sequence[str] = "add",
        digits: int = 2,
        modulus: int | None = None,
        template: str = "{expression}=",
        split: str = "train",
    ) -> None:
        names = (operation,) if isinstance(operation, str) else tuple(operation)
        if not names:
            raise InvalidInputError(f"operation is empty: name at least one of {', '.join(_OPERATIONS)}")
        for name in names:
            if name not in _OPERATIONS:
                raise UnknownNameError.of("operation", name, _OPERATIONS)
        if not (isinstance(digits, int) and 1 <= digits <= _MAX_DIGITS):
            raise InvalidInputError(f"digits must be a whole number from 1 to {_MAX_DIGITS}, got {digits!r}")
        if modulus is not None and not (isinstance(modulus, int) and modulus >= 2):
            raise InvalidInputError(f"modulus must be None or a whole number of at least 2, got {modulus!r}")
        if "{expression}" not in template:
            raise InvalidInputError(f"template must contain {{expression}}, got {template!r}")
        self._operations = names
        self._limit = 10**digits
        self._modulus = modulus
        self._template = template
        self._split = check_split(split)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        what = f"mutual/arithmetic-v0 (operands below {self._limit}, split {self._split!r})"
        return take_distinct(self._candidates(seed, round, attempts=1000 + 200 * n), n, what)

    def _candidates(self, seed: int, round: int, attempts: int) -> Iterator[Task]:
        rng = generator(seed, "mutual/arithmetic-v0", self._split, round)
        for _ in range(attempts):
            operation = self._operations[int(rng.integers(len(self._operations)))]
            a, b = (int(x) for x in rng.integers(self._limit, size=2))
            task = self._task(operation, a, b)
            if split_of(task.id) == self._split:
                yield task

    def _task(self, operation: str, a: int, b: int) -> Task:
        sign, function = _OPERATIONS[operation]
        expression, value = f"{a}{sign}{b}", function(a, b)
        if self._modulus is not None:
            expression, value = f"({expression})%{self._modulus}", value % self._modulus
        prompt = self._template.replace("{expression}", expression)
        return Task(f"mutual/arithmetic-v0:{expression}", prompt, str(value), {"operation": operation})
