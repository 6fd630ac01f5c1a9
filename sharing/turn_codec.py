"""The turns before the last as bytes and back. Each is a header, then three UTF-8 strings (what was written, the role
that answered, the reply), then token ids (int32) and log-probabilities (float64):

    flags | policy version | reward | three string lengths | tokens
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from mutual_env.errors import StorageError
from mutual_env.types import Completion, FinishReason, Reply, Turn

_TURN: Final = struct.Struct("<Bqd4I")
FINISHES: Final[dict[FinishReason, int]] = {"length": 0, "stop": 2, "stop_string": 4}
_REWARDED = 1


def finish_of(flags: int) -> FinishReason:
    return next((reason for reason, flag in FINISHES.items() if flags & flag), "length")


def turn_bytes(turn: Turn) -> bytes:
    own, reply = turn.completion, turn.reply
    strings = [s.encode() for s in (own.text, reply.role, reply.text)]
    flags = _REWARDED * (reply.reward is not None) | FINISHES[own.finish_reason]
    header = _TURN.pack(flags, own.policy_version, reply.reward or 0.0, *map(len, strings), own.token_ids.size)
    return b"".join((header, *strings, own.token_ids.astype("<i4").tobytes(), own.logprobs.astype("<f8").tobytes()))


def turn_size(turn: Turn) -> int:
    """len(turn_bytes(turn)), without making the bytes."""
    texts = (turn.completion.text, turn.reply.role, turn.reply.text)
    return (
        _TURN.size
        + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        + 12 * turn.completion.token_ids.size
    )


def turns_of(data: bytes, count: int, tokenizer: str) -> tuple[Turn, ...]:
    """Exactly `count` turns, each with something before the next, and nothing after the last."""
    if count == 0 or count * _TURN.size > len(data):
        raise StorageError(f"torn turns: {len(data)} bytes, their number says {count}")
    turns: list[Turn] = []
    at = 0
    for _ in range(count):
        turn, at = _turn(data, at, tokenizer)
        turns.append(turn)
    if at != len(data):
        raise StorageError(f"torn turns: {len(data) - at} bytes too many")
    return tuple(turns)


def _turn(data: bytes, at: int, tokenizer: str) -> tuple[Turn, int]:
    """The turn that begins here, and where the next one does."""
    try:
        flags, version, reward, *lengths, tokens = _TURN.unpack_from(data, at)
        at += _TURN.size
        if at + sum(lengths) + 12 * tokens > len(data):
            raise StorageError("torn turn: its header does not describe the bytes that follow")
        texts = []
        for length in lengths:
            texts.append(data[at : at + length].decode())
            at += length
    except (struct.error, UnicodeDecodeError) as error:
        raise StorageError(f"torn turn: {error}") from error
    ids, logprobs = np.frombuffer(data, "<i4", tokens, at), np.frombuffer(data, "<f8", tokens, at + 4 * tokens)
    own = Completion(texts[0], ids, logprobs, finish_of(flags), version, tokenizer if tokens else "")
    return Turn(own, Reply(texts[2], texts[1], reward if flags & _REWARDED else None)), at + 12 * tokens
