"""A million random completions through the bridge: `python -m tests.tokenizers_bridge.fuzz --cases 1000000`.

The ten tokenizers of packages, and official files of more families where they are at hand. Authors sample canonically,
with tokens split at random, or any ids at all; they stop, are cut anywhere, or put control tokens where none belong.
Their texts, and what users say in prompts, spell the control tokens of both sides and other things in that shape. Each
translation is checked against every promise of the bridge: no text becomes a control token, and what is accepted says
what was said. A failure prints the seed that repeats it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from tests.tokenizers_bridge.corpus import random_text
from tests.tokenizers_bridge.official import FOLDER, LOADABLE, official
from tests.tokenizers_bridge.published import loaded
from tests.tokenizers_bridge.reference import assert_alignment_holds, assert_sums_hold
from tokenizers_bridge import Tokenizer, TokenizerBridge, Translation, align
from tokenizers_bridge.declaration import Declaration, declaration_of
from tokenizers_bridge.kinds.published import PUBLISHED
from tokenizers_bridge.roles import think_tags

BATCH = 250
SPELLING = 0.3


class Author:
    """Samples completions in one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        every = np.arange(tokenizer.vocab_size, dtype=np.int32)
        data = tokenizer.token_bytes(every)
        ends = np.cumsum(tokenizer.byte_lengths(every)).tolist()
        self.pieces = [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self.by_bytes = {piece: i for i, piece in enumerate(self.pieces) if piece}
        self.controls = sorted(tokenizer.specials)
        self.spellings = spellings_of(tokenizer)

    def sample(self, rng: random.Random, encoded: Sequence[int]) -> Completion:
        ids = list(encoded)
        how = rng.random()
        if how < 0.4:
            ids = self._split(rng, ids)
        elif how < 0.55:
            ids = [rng.randrange(len(self.pieces)) for _ in range(rng.randint(0, 12))]
        elif how < 0.6:
            ids.insert(rng.randint(0, len(ids)), rng.choice(self.controls))
        if rng.random() < 0.3:
            ids = ids[: rng.randint(0, len(ids))]
        stops = rng.random() < 0.5
        if stops and rng.random() < 0.95:
            ids.append(self.tokenizer.stop_id)
        sampled = np.array(ids, np.int32)
        logprobs = -np.exp(np.array([rng.uniform(-12, 4) for _ in ids]))
        reason = "stop" if stops else "length"
        return Completion(self.tokenizer.decode(sampled), sampled, logprobs, reason, 0, self.tokenizer.fingerprint)

    def _split(self, rng: random.Random, ids: list[int]) -> list[int]:
        """Tokens cut in two where both halves are tokens: what a sampler may well produce, and encoding never does."""
        out: list[int] = []
        for i in ids:
            piece = self.pieces[i]
            if len(piece) > 1 and rng.random() < 0.3:
                cut = rng.randrange(1, len(piece))
                left, right = self.by_bytes.get(piece[:cut]), self.by_bytes.get(piece[cut:])
                if left is not None and right is not None:
                    out += [left, right]
                    continue
            out.append(i)
        return out


def check(
    completion: Completion, author: Tokenizer, reader: Tokenizer, translation: Translation, thorough: bool
) -> None:
    """Everything the bridge promises of one translation."""
    ids, logprobs = translation.token_ids, completion.logprobs
    assert translation.has_logprobs, translation.reason
    if author.fingerprint == reader.fingerprint:
        assert np.array_equal(ids, completion.token_ids)
        assert np.array_equal(translation.logprobs, logprobs)
        assert translation.exact.all()
        return
    _check_controls(completion, reader, ids)
    _check_said(completion, author, reader, translation)
    ends_a, ends_r = translation.author_ends, translation.reader_ends
    if ids.size and logprobs.size:
        assert (np.diff(ends_a, prepend=0) > 0).all()
        assert (np.diff(ends_r, prepend=0) > 0).all()
        assert (ends_a[-1], ends_r[-1]) == (logprobs.size, ids.size)
        assert np.isclose(translation.logprobs.sum(), logprobs.sum(), rtol=1e-9, atol=1e-12)
        starts = ends_r - np.diff(ends_r, prepend=0)
        sums = np.add.reduceat(translation.logprobs, starts)
        assert np.allclose(sums, np.add.reduceat(logprobs, ends_a - np.diff(ends_a, prepend=0)), rtol=1e-9, atol=1e-12)
        _check_exact(completion, author, reader, translation)
    exact = translation.verdict == "exact"
    if exact:
        assert translation.residual.unmatched_bytes == 0
        assert author.token_bytes(completion.token_ids) == reader.token_bytes(ids)
    if translation.verdict == "failed":
        assert translation.reason
    if thorough:
        alignment = align(completion.token_ids, author, ids, reader)
        assert_alignment_holds(alignment, author, completion.token_ids, reader, ids)
        assert_sums_hold(alignment, logprobs, ids.size, -np.abs(np.sin(np.arange(ids.size))))


def _check_controls(completion: Completion, reader: Tokenizer, ids: np.ndarray) -> None:
    """No control token but the stop at the end; one of role "unk" says that something could not be written."""
    if completion.finish_reason == "stop":
        assert ids[-1] == reader.stop_id
        ids = ids[:-1]
    met = {reader.specials[i] for i in ids.tolist() if i in reader.specials}
    assert met <= {"unk"}, met


def _check_said(completion: Completion, author: Tokenizer, reader: Tokenizer, translation: Translation) -> None:
    """What is accepted says what the author said, but for its canonical form and what the prompts had said already."""
    if translation.action == "reject":
        assert translation.reason
        return
    controls = [i for i in completion.token_ids.tolist() if i in author.specials]
    assert len(controls) <= (completion.finish_reason == "stop"), "a control token went in silence"
    wrote, read = author.token_bytes(completion.token_ids), reader.token_bytes(translation.token_ids)
    ours, theirs = declaration_of(author), declaration_of(reader)
    cuts = range(4) if "cut in the middle of a character" in translation.reason else (0,)  # of its first bytes
    said = [_decomposed(w) for cut in cuts for w in _unspaced(wrote[: len(wrote) - cut], ours)]
    shown = [_decomposed(r) for r in _unspaced(read, theirs)]
    assert any(_same(s, r, ours, theirs) for s in said for r in shown), (wrote, read)


def _same(said: str, read: str, ours: Declaration, theirs: Declaration) -> bool:
    opened, opens = ours.boundary.opening, theirs.boundary.opening
    if opened == opens or not said or "\udc80" <= said[0] <= "\udcff":
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
        whole = whole.lstrip().replace("<think>\n", "<think>", 1)
    return whole


def _unspaced(data: bytes, says: Declaration) -> set[bytes]:
    """As it stands, and without the prefix space that a completion of this tokenizer begins with."""
    return {data, data.removeprefix(b" ")} if says.prefix_space and not says.boundary.continues else {data}


def _decomposed(data: bytes) -> str:
    return unicodedata.normalize("NFD", data.decode("utf-8", "surrogateescape"))


def check_prompt(tokenizer: Tokenizer, text: str) -> None:
    """What a user says is in the prompt, and adds no control token to it."""
    plain, ids = tokenizer.render_prompt("ab"), tokenizer.render_prompt(f"a{text}b")
    acting = [[i for i in row.tolist() if tokenizer.specials.get(i, "unk") != "unk"] for row in (plain, ids)]
    assert acting[0] == acting[1], (text, acting)
    tags = set(declaration_of(tokenizer).tags)
    assert [i for i in plain.tolist() if i in tags] == [i for i in ids.tolist() if i in tags], text
    (own,) = tokenizer.encode_batch([text])
    if _decomposed(tokenizer.token_bytes(own).removeprefix(b" ")) == _decomposed(text.encode()).removeprefix(" "):
        assert _decomposed(text.strip().encode()) in _decomposed(tokenizer.token_bytes(ids)), text


def spellings_of(tokenizer: Tokenizer) -> list[str]:
    """How its control tokens and its tags are spelled."""
    says = declaration_of(tokenizer)
    tags = [tokenizer.token_bytes([i]).decode() for i in says.tags]
    return sorted({text for text in says.control_texts.values() if text} | set(tags))


def spelling_text(rng: random.Random, spellings: Sequence[str]) -> str:
    """A text that spells control tokens, whole, in pieces and joined, among other things in their shape."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        text = rng.choice(spellings) if kind < 0.6 and spellings else f"<|{rng.choice('abxyz')}_{rng.randint(0, 9)}|>"
        if kind < 0.1:
            text = text[: rng.randint(0, len(text))]
        elif kind < 0.2:
            cut = rng.randint(0, len(text))
            text = text[:cut] + rng.choice((" ", "<", text)) + text[cut:]
        parts.append(text)
    return random_text(rng, 1) + rng.choice(("", " ", "\n")).join(parts) + random_text(rng, 1)


def _check_exact(completion: Completion, author: Tokenizer, reader: Tokenizer, translation: Translation) -> None:
    """Bytes of exact chunks are equal, and no exact chunk has a common border inside."""
    counts_a = np.diff(translation.author_ends, prepend=0)
    in_a = np.repeat(translation.chunk_exact, counts_a)
    ids_a, ids_r = completion.token_ids[in_a], translation.token_ids[translation.exact]
    assert author.token_bytes(ids_a) == reader.token_bytes(ids_r)
    ends_a, ends_r = np.cumsum(author.byte_lengths(ids_a)), np.cumsum(reader.byte_lengths(ids_r))
    exact_counts_a = np.cumsum(counts_a[translation.chunk_exact])
    exact_counts_r = np.cumsum(np.diff(translation.reader_ends, prepend=0)[translation.chunk_exact])
    borders = ends_a[exact_counts_a - 1]
    assert np.array_equal(borders, ends_r[exact_counts_r - 1])
    assert np.array_equal(np.intersect1d(ends_a, ends_r), np.unique(borders))


def run(
    tokenizers: Sequence[Tokenizer],
    cases: int,
    seed: int,
    spelling: float = 0.0,
    prompts: Counter[str] | None = None,
) -> Counter[str]:
    """Fuzz this many cases, a share of which spells control tokens, and a prompt to about twenty of them; how many had
    which verdict. `prompts` counts the prompts."""
    authors = [Author(t) for t in tokenizers]
    bridge = TokenizerBridge(tokenizers, cache_bytes=1 << 20)
    verdicts: Counter[str] = Counter()
    for batch in range(-(-cases // BATCH)):
        rng = random.Random(f"{seed}/{batch}")
        author, other = rng.choice(authors), rng.choice(authors)
        reader, spellings = other.tokenizer, [*author.spellings, *other.spellings]
        texts = [
            spelling_text(rng, spellings) if spelling and rng.random() < spelling else random_text(rng)
            for _ in range(min(BATCH, cases - batch * BATCH))
        ]
        asked = _prompts_hold(reader, texts[batch % 20 :: 20], f"{seed}/{batch}")
        if prompts is not None:
            prompts["prompts"] += asked
        encoded = author.tokenizer.encode_batch(texts)
        completions = [author.sample(rng, row.tolist()) for row in encoded]
        translations = bridge.translate(completions, reader)
        for i, (completion, translation) in enumerate(zip(completions, translations, strict=True)):
            try:
                check(completion, author.tokenizer, reader, translation, thorough=i % 10 == 0)
            except AssertionError as error:
                where = f"seed {seed}, batch {batch}, case {i}: {author.tokenizer!r} -> {reader!r}"
                raise AssertionError(f"{where}: {completion!r} -> {translation!r}: {error}") from error
            verdicts[translation.verdict] += 1
    return verdicts


def _prompts_hold(tokenizer: Tokenizer, texts: Sequence[str], where: str) -> int:
    try:
        tokenizer.render_prompt("ab")
    except InvalidInputError:  # an alphabet without these letters
        return 0
    for text in texts:
        try:
            check_prompt(tokenizer, text)
        except AssertionError as error:
            raise AssertionError(f"seed {where}: the prompt {text!r} of {tokenizer!r}: {error}") from error
    return len(texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slice", type=int, default=50_000, help="cases between two lines of progress")
    args = parser.parse_args()
    tokenizers = [loaded(name) for name in PUBLISHED]
    tokenizers += [official(family) for family in LOADABLE if (FOLDER / family).is_dir()]
    print(f"{len(tokenizers)} tokenizers", flush=True)
    start, done, total = time.perf_counter(), 0, Counter[str]()
    while done < args.cases:
        size = min(args.slice, args.cases - done)
        total += run(tokenizers, size, args.seed + done, SPELLING, prompts=total)
        done += size
        print(f"{done:>9,} cases, 0 failures, {time.perf_counter() - start:7.0f} s, {dict(total)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
