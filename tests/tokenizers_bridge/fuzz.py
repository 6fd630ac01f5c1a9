"""A million random completions through the bridge: `python -m tests.tokenizers_bridge.fuzz --cases 1000000`.

The ten tokenizers of packages, ByT5's, and official files of more families where they are at hand. Authors sample
canonically, with tokens split at random, or any ids at all; they stop, are cut anywhere, or put control tokens where
none belong. Their texts, and what users say in prompts, spell the control tokens of both sides and other things in that
shape. Each translation is checked against every promise of the bridge: no text becomes a control token, and what is
accepted says what was said. A failure prints the seed that repeats it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from tests.tokenizers_bridge.corpus import random_text
from tests.tokenizers_bridge.official import FOLDER, LOADABLE, official
from tests.tokenizers_bridge.promises import check, check_alignment, check_prompt, check_rows
from tests.tokenizers_bridge.published import loaded
from tokenizers_bridge import Tokenizer, TokenizerBridge, Translation, load
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.kinds.published import PUBLISHED

BATCH = 250
SPELLING = 0.3
THOROUGH = 10  # of so many translations, one is aligned once more and held against the reference


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

    def sample(self, rng: random.Random, draws: np.random.Generator, encoded: Sequence[int]) -> Completion:
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
        logprobs = -np.exp(draws.uniform(-12, 4, sampled.size))
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


def run(
    tokenizers: Sequence[Tokenizer],
    cases: int,
    seed: int,
    spelling: float = 0.0,
    prompts: Counter[str] | None = None,
) -> Counter[str]:
    """`fuzz` over these tokenizers."""
    return fuzz([Author(t) for t in tokenizers], cases, seed, spelling, prompts)


def fuzz(
    authors: Sequence[Author], cases: int, seed: int, spelling: float, prompts: Counter[str] | None = None
) -> Counter[str]:
    """Fuzz this many cases, a share of which spells control tokens, and a prompt to about twenty of them; how many had
    which verdict. `prompts` counts the prompts."""
    bridge = TokenizerBridge([author.tokenizer for author in authors], cache_bytes=1 << 20)
    verdicts: Counter[str] = Counter()
    for batch in range(-(-cases // BATCH)):
        rng = random.Random(f"{seed}/{batch}")
        draws = np.random.default_rng([seed, batch])
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
        completions = [author.sample(rng, draws, row.tolist()) for row in encoded]
        translations = bridge.translate(completions, reader)
        _translations_hold(completions, author.tokenizer, reader, translations, f"seed {seed}, batch {batch}")
        verdicts.update(translation.verdict for translation in translations)
    return verdicts


def _translations_hold(
    completions: Sequence[Completion],
    author: Tokenizer,
    reader: Tokenizer,
    translations: Sequence[Translation],
    where: str,
) -> None:
    """All at once; where that fails, one by one, to say which it is."""
    try:
        check_rows(completions, author, reader, translations)
        for i in range(0, len(completions), THOROUGH):
            check_alignment(completions[i], author, reader, translations[i])
    except AssertionError as failed:
        for i, (completion, translation) in enumerate(zip(completions, translations, strict=True)):
            try:
                check(completion, author, reader, translation)
            except AssertionError as error:
                row = f"{where}, case {i}: {author!r} -> {reader!r}: {completion!r} -> {translation!r}"
                raise AssertionError(f"{row}: {error}") from error
        raise AssertionError(f"{where}: {author!r} -> {reader!r}, all rows together: {failed}") from failed


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
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first case: ranges that do not meet are other cases"
    )
    parser.add_argument("--slice", type=int, default=10_000, help="cases between two lines of progress")
    args = parser.parse_args()
    from transformers import ByT5Tokenizer

    tokenizers = [*(loaded(name) for name in PUBLISHED), load(ByT5Tokenizer())]
    tokenizers += [official(family) for family in LOADABLE if (FOLDER / family).is_dir()]
    authors = [Author(t) for t in tokenizers]
    print(f"{len(tokenizers)} tokenizers", flush=True)
    start, total = time.perf_counter(), Counter[str]()
    for done in range(0, args.cases, args.slice):
        size = min(args.slice, args.cases - done)
        total += fuzz(authors, size, args.seed + done, SPELLING, prompts=total)
        took = time.perf_counter() - start
        print(f"{done + size:>9,} cases, 0 failures, {took:7.0f} s, {dict(total)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
