"""The loops that the extra `speed` compiles do what NumPy does where it is not installed, to the bit."""

import random
import sys
from dataclasses import replace

import numpy as np
import pytest

from mutual_env.types import Completion
from tests.tokenizers_bridge.corpus import random_text
from tests.tokenizers_bridge.test_bridge_block import TOKENIZERS, WORD, assert_same, batch_of
from tokenizers_bridge import Tokenizer, TokenizerBridge, loops
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.tape import Tape
from tokenizers_bridge.words import MASKS


def batches() -> list[tuple[list[Completion], Tokenizer]]:
    """Several authors' rows for each reader: ordinary ones, long chunks, rows that must be refused."""
    found = []
    for seed, reader in enumerate(TOKENIZERS):
        rng = random.Random(seed)
        written = ["hello world", "the ", "日本é", "        return x" * 3, "", "日" * 40]
        found.append((batch_of(written + [random_text(rng) for _ in range(14)], seed), reader))
    return found


def by_numpy_and_by(monkeypatch: pytest.MonkeyPatch, others: loops.Loops) -> None:
    for rows, reader in batches():
        translations = []
        for found in (None, others):
            monkeypatch.setattr(loops, "WORTH", 0)
            monkeypatch.setattr(loops, "_compiled", lambda found=found: found)
            translations.append(TokenizerBridge(TOKENIZERS, 0).translate(rows, reader))
        for one, other in zip(*translations, strict=True):
            assert_same(one, other)


def test_the_loops_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    by_numpy_and_by(monkeypatch, loops.Loops(**loops.WRITTEN))


def test_a_numba_that_cannot_be_imported_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert loops._compiled.__wrapped__() is None


@pytest.mark.long  # they are compiled once, in five seconds
def test_the_loops_as_they_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = loops._compiled()
    assert compiled is not None
    assert all(type(getattr(compiled, name)).__module__.startswith("numba") for name in loops.Loops.__slots__)
    by_numpy_and_by(monkeypatch, compiled)


def test_tokens_that_differ_anywhere_are_found() -> None:
    reader = TOKENIZERS[0]
    (ids,) = reader.encode_batch(["the         return x日本"])
    data = bytearray(reader.token_bytes(ids))
    lengths = reader.byte_lengths(ids)
    starts = lengths.cumsum() - lengths
    facts, (first,) = TokenizerFacts.of(reader), reader.encode_batch(["first"])
    table, at = facts.table, np.array([0, first.size, first.size + ids.size])
    assert table is not None
    for place in range(len(data)):
        wrong = data.copy()
        wrong[place] ^= 1
        expected = [int((starts <= place).sum()) - 1]
        assert reader.misspelled(ids, starts, lengths, bytes(wrong)).tolist() == expected  # type: ignore[attr-defined]
        tape = Tape.of(["first", bytes(wrong).decode("latin-1")])
        tape = replace(tape, data=b" first\n " + bytes(wrong) + b"\n", starts=np.array([0, 7, 9 + len(data)]))
        both, stopped = np.concatenate([first, ids]).view(np.uint32), np.zeros(2, np.bool_)
        ends, lead, fits, known = loops.laid(both, at, stopped, tape.starts, facts.stops, table.lengths, False)
        assert (fits.all(), known) == (True, True)
        tables = (table.heads, table.blob, table.starts, tape.words, MASKS)
        loops.spelled(both, at, stopped, tape.starts[:-1] + 1, ends, *tables, fits)
        assert (lead.tolist(), fits.tolist(), known) == ([0, 0], [True, False], True)
        assert ends[first.size :].tolist() == (8 + lengths.cumsum()).tolist()


def test_an_id_outside_the_vocabulary_is_left_to_who_refuses_it() -> None:
    facts, tape = TokenizerFacts.of(WORD), Tape.of(["x"])
    table = facts.table
    assert table is not None
    for wrong in (-1, WORD.vocab_size):
        ids = np.array([wrong], np.int32).view(np.uint32)
        found = loops.laid(ids, np.array([0, 1]), np.zeros(1, np.bool_), tape.starts, facts.stops, table.lengths, False)
        assert not found[-1]
