"""Records as bytes and back, without pickle. Decoding trusts nothing: whatever the bytes, it returns a record or
raises.

One fixed header (little endian), then five UTF-8 strings, then token ids (int32) and log-probabilities (float64):

    magic "ME" | schema | kind | flags | round | policy version | index | count | x | y | five string lengths | tokens

x, y: reward, unused (rollout, success); sum r, sum r^2 (statistics). Where an episode had several turns the schema is 2
and `count` turns follow: see `sharing.turn_codec`.
"""

from __future__ import annotations

import struct
from typing import Final, assert_never

import numpy as np

from mutual_env.errors import InvalidInputError, MutualEnvError, StorageError
from mutual_env.types import Completion
from sharing.records import KINDS, SCHEMA_VERSION, TURNS_SCHEMA, Origin, Record, Rollout, Statistics, Success
from sharing.turn_codec import FINISHES, finish_of, turn_bytes, turn_size, turns_of

_MAGIC: Final = b"ME"
_HEADER: Final = struct.Struct("<2sHBBqqIIdd6I")
_CORRECT = 1
_NO_IDS = np.empty(0, np.int32)
_NO_LOGPROBS = np.empty(0, np.float64)


def encode(record: Record) -> bytes:
    origin = record.origin
    flags = count = 0
    x = y = 0.0
    text, ids, logprobs = "", _NO_IDS, _NO_LOGPROBS
    earlier = () if isinstance(record, Statistics) else record.earlier
    match record:
        case Rollout(completion=completion):
            flags = _CORRECT * record.correct | FINISHES[completion.finish_reason]
            text, ids, logprobs, x = completion.text, completion.token_ids, completion.logprobs, record.reward
        case Statistics():
            count, x, y = record.count, record.reward_sum, record.square_sum
        case Success():
            flags = _CORRECT | FINISHES[record.finish_reason]
            text, x = record.text, record.reward
        case _:
            assert_never(record)
    try:
        strings = [s.encode() for s in (origin.task_id, origin.author, origin.tokenizer, origin.verifier, text)]
        header = _HEADER.pack(
            _MAGIC,
            TURNS_SCHEMA if earlier else SCHEMA_VERSION,
            KINDS.index(record.kind),
            flags,
            origin.round,
            origin.policy_version,
            record.index,
            len(earlier) or count,
            x,
            y,
            *map(len, strings),
            ids.size,
        )
        turns = map(turn_bytes, earlier)
        return b"".join((header, *strings, ids.astype("<i4").tobytes(), logprobs.astype("<f8").tobytes(), *turns))
    except (UnicodeEncodeError, struct.error) as error:
        raise InvalidInputError(
            f"record of {origin.author!r} on {origin.task_id!r} has no byte form ({error}): text must be "
            "valid Unicode, numbers must fit 64 bits"
        ) from error


def wire_size(record: Record) -> int:
    """len(encode(record)), without making the bytes. Of half a character, which has no bytes, what it would take."""
    origin = record.origin
    size = _HEADER.size + sum(map(_width, (origin.task_id, origin.author, origin.tokenizer, origin.verifier)))
    if isinstance(record, Statistics):
        return size
    size += sum(map(turn_size, record.earlier))
    if isinstance(record, Rollout):
        return size + _width(record.completion.text) + 12 * record.completion.token_ids.size
    return size + _width(record.text)


def _width(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def decode(data: bytes) -> Record:
    if len(data) < _HEADER.size or data[:2] != _MAGIC:
        raise StorageError(f"not a record: {len(data)} bytes that start with {data[:8]!r}")
    _magic, schema, kind, flags, round_, version, index, count, x, y, *lengths, tokens = _HEADER.unpack_from(data)
    if schema not in (SCHEMA_VERSION, TURNS_SCHEMA):
        raise StorageError(
            f"record of schema {schema}, this code reads {SCHEMA_VERSION} and {TURNS_SCHEMA}: "
            "use the release that wrote it"
        )
    whole = _HEADER.size + sum(lengths) + 12 * tokens
    if kind >= len(KINDS) or len(data) < whole or (len(data) > whole and schema == SCHEMA_VERSION):
        raise StorageError(f"torn record: {len(data)} bytes, its header does not describe them")
    try:
        strings, end = _strings(data, lengths)
    except UnicodeDecodeError as error:
        raise StorageError(f"torn record: text that is not UTF-8 ({error})") from error
    task_id, author, tokenizer, verifier, text = strings
    origin = Origin(task_id, author, round_, version, tokenizer, verifier)
    if KINDS[kind] == "statistics":
        return Statistics(origin, count, x, y)
    finish = finish_of(flags)
    try:
        earlier = turns_of(data[whole:], count, tokenizer) if schema == TURNS_SCHEMA else ()
        if KINDS[kind] == "success":
            return Success(origin, index, text, finish, x, earlier)
        ids = np.frombuffer(data, "<i4", tokens, end)
        logprobs = np.frombuffer(data, "<f8", tokens, end + 4 * tokens)
        completion = Completion(text, ids, logprobs, finish, version, tokenizer)
    except MutualEnvError as error:
        raise StorageError(f"record of {author!r} on {task_id!r}: {error}") from error
    return Rollout(origin, index, completion, x, bool(flags & _CORRECT), earlier)


def _strings(data: bytes, lengths: list[int]) -> tuple[list[str], int]:
    strings, start = [], _HEADER.size
    for length in lengths:
        strings.append(data[start : start + length].decode())
        start += length
    return strings, start
