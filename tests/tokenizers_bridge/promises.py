"""Everything that the bridge promises of its translations, checked over many rows at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mutual_env.types import Completion, Ids
from tests.tokenizers_bridge.reference import assert_alignment_holds, assert_sums_hold
from tokenizers_bridge import Tokenizer, Translation, align
from tokenizers_bridge.declaration import Declaration, declaration_of
from tokenizers_bridge.roles import think_tags
from tokenizers_bridge.types import Ints, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Token sequences of one vocabulary behind one another: row i has ids[at[i] : at[i + 1]], and spells
    data[bytes_at[i] : bytes_at[i + 1]]."""

    ids: Ids
    at: Ints
    data: bytes
    bytes_at: Ints

    @classmethod
    def of(cls, parts: Sequence[Ids], tokenizer: Tokenizer) -> Rows:
        ids = np.concatenate(parts)
        at = np.cumsum([0, *map(len, parts)])
        ends = np.append(0, np.cumsum(tokenizer.byte_lengths(ids)))
        return cls(ids, at, tokenizer.token_bytes(ids), ends[at])

    @property
    def numbers(self) -> Ints:
        """The row of each token."""
        return np.arange(self.at.size - 1).repeat(np.diff(self.at))

    def spelled(self) -> list[bytes]:
        return [self.data[a:b] for a, b in pairwise(self.bytes_at.tolist())]

    def count(self, marked: Mask) -> Ints:
        """How many tokens of each row are marked."""
        return np.bincount(self.numbers[marked], minlength=self.at.size - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """The chunks of the rows on one side: how many tokens each holds, and its first."""

    counts: Ints
    starts: Ints

    @classmethod
    def of(cls, ends: Sequence[Ints], side: Rows) -> Chunks:
        """They rise, and cover all tokens of each row."""
        counts = np.concatenate([np.diff(row, prepend=0) for row in ends])
        assert (counts > 0).all()
        assert [int(row[-1]) for row in ends] == np.diff(side.at).tolist()
        return cls(counts, np.cumsum(counts) - counts)


def check(completion: Completion, author: Tokenizer, reader: Tokenizer, translation: Translation) -> None:
    """Everything the bridge promises of one translation, and that aligning once more holds what `reference` asks."""
    check_rows([completion], author, reader, [translation])
    check_alignment(completion, author, reader, translation)


def check_alignment(completion: Completion, author: Tokenizer, reader: Tokenizer, translation: Translation) -> None:
    ids = translation.token_ids
    alignment = align(completion.token_ids, author, ids, reader)
    assert_alignment_holds(alignment, author, completion.token_ids, reader, ids)
    assert_sums_hold(alignment, completion.logprobs, ids.size, -np.abs(np.sin(np.arange(ids.size))))


def check_rows(
    completions: Sequence[Completion], author: Tokenizer, reader: Tokenizer, translations: Sequence[Translation]
) -> None:
    """Everything the bridge promises of translations of one author to one reader."""
    for translation in translations:
        assert translation.has_logprobs, translation.reason
        assert translation.reason or translation.verdict != "failed"
    if author.fingerprint == reader.fingerprint:
        for completion, translation in zip(completions, translations, strict=True):
            assert np.array_equal(translation.token_ids, completion.token_ids)
            assert np.array_equal(translation.logprobs, completion.logprobs)
            assert translation.exact.all()
        return
    wrote, read = (
        Rows.of([c.token_ids for c in completions], author),
        Rows.of([t.token_ids for t in translations], reader),
    )
    _check_controls(completions, reader, read)
    _check_said(completions, author, reader, translations, wrote, read)
    for translation, said, shown in zip(translations, wrote.spelled(), read.spelled(), strict=True):
        if translation.verdict == "exact":
            assert translation.residual.unmatched_bytes == 0
            assert said == shown
    some = [(c, t) for c, t in zip(completions, translations, strict=True) if t.token_ids.size and c.logprobs.size]
    if some:
        _check_chunks([c for c, _ in some], author, reader, [t for _, t in some])


def _check_chunks(
    completions: Sequence[Completion], author: Tokenizer, reader: Tokenizer, translations: Sequence[Translation]
) -> None:
    """Chunks cover both sides, and keep the sums of each row and of each chunk. None of these rows is empty."""
    wrote, read = (
        Rows.of([c.token_ids for c in completions], author),
        Rows.of([t.token_ids for t in translations], reader),
    )
    chunks_a = Chunks.of([t.author_ends for t in translations], wrote)
    chunks_r = Chunks.of([t.reader_ends for t in translations], read)
    logprobs, carried = (np.concatenate([row.logprobs for row in rows]) for rows in (completions, translations))
    close = {"rtol": 1e-9, "atol": 1e-12}
    assert np.allclose(np.add.reduceat(carried, read.at[:-1]), np.add.reduceat(logprobs, wrote.at[:-1]), **close)
    sums = np.add.reduceat(carried, chunks_r.starts)
    assert np.allclose(sums, np.add.reduceat(logprobs, chunks_a.starts), **close)
    exact = np.concatenate([t.chunk_exact for t in translations])
    in_exact = np.concatenate([t.exact for t in translations])
    assert np.array_equal(in_exact, exact.repeat(chunks_r.counts))
    places_a = _places(wrote, exact.repeat(chunks_a.counts), author)
    places_r = _places(read, in_exact, reader)
    borders = places_a[np.cumsum(chunks_a.counts[exact]) - 1]
    assert np.array_equal(borders, places_r[np.cumsum(chunks_r.counts[exact]) - 1])
    assert np.array_equal(np.intersect1d(places_a, places_r), np.unique(borders))
    ids_a, ids_r = wrote.ids[exact.repeat(chunks_a.counts)], read.ids[in_exact]
    assert author.token_bytes(ids_a) == reader.token_bytes(ids_r)


def _places(rows: Rows, marked: Mask, tokenizer: Tokenizer) -> Ints:
    """Where the marked tokens end among the bytes of all that are marked. A new row is one step more, so that no place
    of one row is a place of another."""
    return np.cumsum(tokenizer.byte_lengths(rows.ids[marked])) + rows.numbers[marked]


def _check_controls(completions: Sequence[Completion], reader: Tokenizer, read: Rows) -> None:
    """No control token but the stop at the end; one of role "unk" says that something could not be written."""
    stopped = np.array([c.finish_reason == "stop" for c in completions])
    assert (np.diff(read.at)[stopped] > 0).all()
    last = read.at[1:][stopped] - 1
    assert (read.ids[last] == reader.stop_id).all()
    acting = np.isin(read.ids, [i for i, role in reader.specials.items() if role != "unk"])
    acting[last] = False
    assert not acting.any(), {reader.specials[i] for i in read.ids[acting].tolist()}


def _check_said(
    completions: Sequence[Completion],
    author: Tokenizer,
    reader: Tokenizer,
    translations: Sequence[Translation],
    wrote: Rows,
    read: Rows,
) -> None:
    """What is accepted says what the author said, but for its canonical form and what the prompts had said already."""
    controls = wrote.count(np.isin(wrote.ids, list(author.specials))).tolist()
    ours, theirs = declaration_of(author), declaration_of(reader)
    alike = ours.boundary.opening == theirs.boundary.opening
    rows = zip(completions, translations, controls, wrote.spelled(), read.spelled(), strict=True)
    for completion, translation, count, said, shown in rows:
        if translation.action == "reject":
            assert translation.reason
            continue
        assert count <= (completion.finish_reason == "stop"), "a control token went in silence"
        if alike and said == shown:
            continue
        ended, cut_short = completion.finish_reason == "stop", "cut in the middle of a character" in translation.reason
        _check_same(said, shown, ours, theirs, ended=ended, cut_short=cut_short)


def _check_same(
    wrote: bytes, read: bytes, ours: Declaration, theirs: Declaration, *, ended: bool, cut_short: bool
) -> None:
    """Of a completion that was cut before anything was said, nothing is read."""
    cuts = range(4) if cut_short else (0,)  # of its first bytes
    said = [decomposed(w) for cut in cuts for w in _unspaced(wrote[: len(wrote) - cut], ours)]
    shown = [decomposed(r) for r in _unspaced(read, theirs)]
    assert any((not ended and s == r == "") or _same(s, r, ours, theirs) for s in said for r in shown), (wrote, read)


def _same(said: str, read: str, ours: Declaration, theirs: Declaration) -> bool:
    opened, opens = ours.boundary.opening, theirs.boundary.opening
    if opened == opens:
        return _turn(said, "") == _turn(read, "")
    if opens and read == theirs.boundary.closing + said:
        return not opened
    return _turn(said, opened) == _turn(read, opens)


def _turn(text: str, opening: str) -> str:
    """The whole turn, thoughts marked in one way, without the line break behind the first mark."""
    whole = opening + text
    for role, mark in (("think_open", "<think>"), ("think_close", "</think>")):
        for tag in think_tags(role):
            whole = whole.replace(tag, mark)
    if opening or whole.lstrip().startswith("<think>"):
        whole = re.sub("^<think>\n", "<think>", whole.lstrip())
    return whole


def _unspaced(data: bytes, says: Declaration) -> set[bytes]:
    """As it stands, and without the prefix space that a completion of this tokenizer begins with."""
    return {data, data.removeprefix(b" ")} if says.prefix_space and not says.boundary.continues else {data}


def decomposed(data: bytes) -> str:
    return unicodedata.normalize("NFD", data.decode("utf-8", "surrogateescape"))


def check_prompt(tokenizer: Tokenizer, text: str) -> None:
    """What a user says is in the prompt, and adds no control token to it."""
    plain, ids = tokenizer.render_prompt("ab"), tokenizer.render_prompt(f"a{text}b")
    acting = [[i for i in row.tolist() if tokenizer.specials.get(i, "unk") != "unk"] for row in (plain, ids)]
    assert acting[0] == acting[1], (text, acting)
    tags = set(declaration_of(tokenizer).tags)
    assert [i for i in plain.tolist() if i in tags] == [i for i in ids.tolist() if i in tags], text
    (own,) = tokenizer.encode_batch([text])
    if decomposed(tokenizer.token_bytes(own).removeprefix(b" ")) == decomposed(text.encode()).removeprefix(" "):
        assert decomposed(text.strip().encode()) in decomposed(tokenizer.token_bytes(ids)), text
