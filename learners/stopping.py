"""Where a completion ends before its stop token: once its text holds a stop string.

Tokens are not characters: a stop string may lie inside a token, or be spread over several. So the strings become an
automaton over bytes, and that a table over tokens: which state each token leads to from each state. Following a sample
is then one look-up a token, for all rows at once, and needs no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tokenizers_bridge.protocol import Tokenizer

States = npt.NDArray[np.int16]

MAX_BYTES = 256
"""Of all stop strings together: the table has a row for each, and a column for each token."""


@dataclass(frozen=True, slots=True, eq=False)
class Endings:
    """Some stop strings, for one vocabulary. `after[state, token]` is the state behind the token; state 0 is the
    beginning, the last state says that a string is complete."""

    after: States

    @classmethod
    def of(cls, strings: Sequence[str], tokenizer: Tokenizer) -> Endings | None:
        """None where there are no strings."""
        wanted = [text.encode() for text in checked(strings)]
        return cls(_over_tokens(_automaton(wanted), tokenizer)) if wanted else None

    @property
    def ended(self) -> int:
        """The state that says so."""
        states: int = self.after.shape[0]
        return states - 1

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that hold a stop string by themselves."""
        return tuple(np.flatnonzero(self.after[0] == self.ended).tolist())

    def length(self, ids: Sequence[int] | Ids) -> int | None:
        """How many of these tokens come up to the end of the first stop string; None where there is none."""
        state = 0
        for count, token in enumerate(ids, 1):
            state = int(self.after[state, token])
            if state == self.ended:
                return count
        return None


def checked(strings: Sequence[str] | str) -> tuple[str, ...]:
    """The stop strings, one alone in a tuple; refused where they are none."""
    given = (strings,) if isinstance(strings, str) else tuple(strings)
    for text in given:
        if not isinstance(text, str) or not text:
            raise InvalidInputError(f'stop must be texts of at least one character, such as "\\n", got {text!r}')
    if sum(len(text.encode("utf-8", "surrogatepass")) for text in given) > MAX_BYTES:
        raise InvalidInputError(f"stop must have at most {MAX_BYTES} bytes in all, got {list(given)!r:.200}")
    return given


def _automaton(strings: Sequence[bytes]) -> npt.NDArray[np.int16]:
    """(states, 256): the state behind each byte. A state is the longest end of what was read that begins a string."""
    beginnings = [b"", *sorted({s[:i] for s in strings for i in range(1, len(s))} - set(strings))]
    beginnings = [b for b in beginnings if not any(s in b for s in strings)]
    number = {beginning: i for i, beginning in enumerate(beginnings)}
    table = np.full((len(beginnings) + 1, 256), len(beginnings), dtype=np.int16)
    for i, beginning in enumerate(beginnings):
        for byte in range(256):
            read = beginning + bytes([byte])
            if not any(read.endswith(s) for s in strings):
                table[i, byte] = next(number[read[at:]] for at in range(len(read) + 1) if read[at:] in number)
    return table


def _over_tokens(table: npt.NDArray[np.int16], tokenizer: Tokenizer) -> States:
    """(states, vocabulary): the state behind all bytes of each token."""
    every = np.arange(tokenizer.vocab_size, dtype=np.int32)
    data = np.frombuffer(tokenizer.token_bytes(every), dtype=np.uint8)
    lengths = tokenizer.byte_lengths(every)
    starts = np.cumsum(lengths) - lengths
    after = np.repeat(np.arange(table.shape[0], dtype=np.int16)[:, None], every.size, axis=1)
    for at in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > at)
        after[:, longer] = table[after[:, longer], data[starts[longer] + at]]
    return after
