"""`mutual-env bridge AUTHOR READER [FILE]`: is this pair of tokenizers worth training together?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mutual_env.types import Completion
from tokenizers_bridge.bridge import TokenizerBridge
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.kinds.loading import load
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.types import ACTIONS, Translation, residual_metrics

SAMPLE = (
    "Let x be the number of apples. Then 3x + 7 = 52, so x = (52 - 7) / 3 = 15. The answer is \\boxed{15}.",
    "def fibonacci(n: int) -> int:\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "\t\tif (value != NULL) {\r\n\t\t\treturn hash_table[key % SIZE]->next;\r\n\t\t}\r\n",
    "The quick brown fox jumps over the lazy dog, 1,234,567.89 times; isn't that unbelievable?",
    "∀ε > 0 ∃δ > 0: |x − a| < δ ⇒ |f(x) − L| < ε.   $\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}$",
    "Größe, naïveté, señor, Łódź; Съешь ещё этих мягких французских булок; Ξεσκεπάζω την ψυχοφθόρα",
    "天地玄黃，宇宙洪荒。いろはにほへと ちりぬるを。 다람쥐 헌 쳇바퀴에 타고파",
    "नमस्ते दुनिया · สวัสดีชาวโลก · مرحبا بالعالم · שלום עולם · বাংলা",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 👍🏿 e\u0301 a\u0323\u0308",
)
_COLOURS = ("black on bright_cyan", "black on bright_yellow")
_INEXACT = "white on red"


@dataclass(frozen=True, slots=True)
class Direction:
    """One author's texts in one reader's tokens."""

    author: Tokenizer
    reader: Tokenizer
    completions: Sequence[Completion]
    translations: Sequence[Translation]

    @classmethod
    def of(cls, author: Tokenizer, reader: Tokenizer, texts: Sequence[str]) -> Direction:
        completions = [_as_sampled(text, author) for text in texts]
        return cls(author, reader, completions, TokenizerBridge([author, reader]).translate(completions, reader))


def report(names: tuple[str, str], texts: Sequence[str] = SAMPLE) -> dict[str, Any]:
    """The figures of what is lost between two tokenizers, by name, in both directions."""
    author, reader = load(names[0]), load(names[1])
    directions = (Direction.of(author, reader, texts), Direction.of(reader, author, texts))
    arrows = zip(directions, (names, names[::-1]), strict=True)
    return {"directions": [{"author": a, "reader": r, **_figures(direction)} for direction, (a, r) in arrows]}


def _figures(direction: Direction) -> dict[str, Any]:
    exact = np.concatenate([translation.exact for translation in direction.translations])
    return {
        "tokens": sum(completion.token_ids.size - 1 for completion in direction.completions),
        "exact": float(exact.mean()) if exact.size else None,
        "changes": list(declaration_of(direction.author).names),
        "metrics": residual_metrics(direction.translations),
        "verdicts": dict(Counter(translation.verdict for translation in direction.translations)),
    }


def print_report(
    names: tuple[str, str],
    texts: Sequence[str] = SAMPLE,
    *,
    worst: int = 8,
    rows: int = 4,
    console: Console | None = None,
) -> int:
    """Print what is lost between two tokenizers, by name; 1 where a sample could not be translated, else 0."""
    console = console or Console()
    author, reader = load(names[0]), load(names[1])
    there = Direction.of(author, reader, texts)
    back = Direction.of(reader, author, texts)
    console.print(_tokenizers(names, (there, back)))
    console.print(_directions(names, (there, back)))
    console.print(_specials(names, author, reader))
    console.print(_worst_chunks(there, worst))
    for row in range(min(rows, len(texts))):
        console.print(_side_by_side(there, row, names))
    problems = [(i, t) for i, t in enumerate(there.translations) if t.verdict not in ("exact", "normalised")]
    for i, translation in problems[:12]:
        console.print(Text(f"sample {i + 1}: {translation.verdict} ({translation.action}): {translation.reason}"))
    return int(any(t.verdict == "failed" for t in there.translations))


def _as_sampled(text: str, tokenizer: Tokenizer) -> Completion:
    ids = np.append(tokenizer.encode_batch([text])[0], np.int32(tokenizer.stop_id))
    return Completion(tokenizer.decode(ids), ids, np.full(ids.size, -1.0), "stop", 0, tokenizer.fingerprint)


def _tokenizers(names: tuple[str, str], directions: Iterable[Direction]) -> Table:
    table = Table("tokenizer", "ids", "bytes per token", "tokens per word", "changes text by", "bytes it cannot write")
    for name, direction in zip(names, directions, strict=True):
        tokenizer = direction.author
        tokens = sum(c.token_ids.size - 1 for c in direction.completions)
        size = sum(len(tokenizer.token_bytes(c.token_ids)) for c in direction.completions)
        words = sum(len(c.text.split()) for c in direction.completions)
        changes = ", ".join(declaration_of(tokenizer).names) or "nothing"
        per_token, per_word = size / max(tokens, 1), tokens / max(words, 1)
        table.add_row(
            name, f"{tokenizer.vocab_size:,}", f"{per_token:.2f}", f"{per_word:.2f}", changes, _lacking(tokenizer)
        )
    return table


def _lacking(tokenizer: Tokenizer) -> str:
    every = np.arange(tokenizer.vocab_size, dtype=np.int32)
    single = set(tokenizer.token_bytes(every[tokenizer.byte_lengths(every) == 1]))
    # 0xc0, 0xc1 and 0xf5 to 0xff are never part of valid UTF-8.
    lacking = [b for b in range(256) if b not in single and b not in (0xC0, 0xC1) and b < 0xF5]
    shown = ", ".join(f"{b:02x}" for b in lacking[:6])
    return f"{len(lacking)} alone ({shown}{', ...' if len(lacking) > 6 else ''})" if lacking else "none"


def _directions(names: tuple[str, str], directions: Iterable[Direction]) -> Table:
    table = Table(
        "author → reader", "tokens not 1:1", "tokens not exact", "unmatched bytes", "largest chunk", "verdicts"
    )
    arrows = (f"{names[0]} → {names[1]}", f"{names[1]} → {names[0]}")
    for arrow, direction in zip(arrows, directions, strict=True):
        metrics = residual_metrics(direction.translations)
        inexact = np.concatenate([~t.exact for t in direction.translations])
        counts = Counter(t.verdict for t in direction.translations)
        table.add_row(
            arrow,
            f"{metrics['bridge/token_share']:.1%}",
            f"{inexact.mean():.1%}" if inexact.size else "-",
            f"{metrics['bridge/unmatched_bytes']:.0f}",
            f"{metrics['bridge/largest_chunk']:.0f} tokens",
            ", ".join(f"{counts[verdict]} {verdict}" for verdict in ACTIONS if counts[verdict]),
        )
    return table


def _specials(names: tuple[str, str], author: Tokenizer, reader: Tokenizer) -> Table:
    table = Table("role", *names, title="control tokens")
    for role in sorted({*author.specials.values(), *reader.specials.values()} - {"other"}):
        table.add_row(role, *(_spelled(t, role) for t in (author, reader)))
    others = [str(sum(r == "other" for r in t.specials.values())) for t in (author, reader)]
    table.add_row("other (count)", *others)
    return table


def _spelled(tokenizer: Tokenizer, role: str) -> Text:
    texts = declaration_of(tokenizer).control_texts
    ids = sorted(i for i, r in tokenizer.specials.items() if r == role)
    shown = " ".join(texts.get(i, str(i)) + (" (stop)" if i == tokenizer.stop_id else "") for i in ids[:4])
    return Text(shown or "-")


def _worst_chunks(direction: Direction, worst: int) -> Table:
    table = Table("author", "reader", "tokens", title="largest chunks, their tokens divided by |")
    found: dict[tuple[str, str], tuple[int, int, bool]] = {}
    for completion, translation in zip(direction.completions, direction.translations, strict=True):
        starts_a = translation.author_ends - np.diff(translation.author_ends, prepend=0)
        starts_r = translation.reader_ends - np.diff(translation.reader_ends, prepend=0)
        counts = np.maximum(translation.author_ends - starts_a, translation.reader_ends - starts_r)
        for c in np.argsort(-counts, kind="stable")[:worst].tolist():
            ids_a = completion.token_ids[starts_a[c] : translation.author_ends[c]]
            ids_r = translation.token_ids[starts_r[c] : translation.reader_ends[c]]
            key = _pieces(direction.author, ids_a), _pieces(direction.reader, ids_r)
            found[key] = (ids_a.size, ids_r.size, bool(translation.chunk_exact[c]))
    for (left, right), (n_a, n_r, exact) in sorted(found.items(), key=lambda row: -max(row[1][:2]))[:worst]:
        style = "" if exact else _INEXACT
        table.add_row(Text(left, style), Text(right, style), f"{n_a} : {n_r}{'' if exact else ' not exact'}")
    return table


def _pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    return "|".join(_shown(tokenizer, int(i)) for i in ids)


def _shown(tokenizer: Tokenizer, token_id: int) -> str:
    if token_id in tokenizer.specials:
        return declaration_of(tokenizer).control_texts.get(token_id, f"<{token_id}>")
    data = tokenizer.token_bytes([token_id])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"\\x{b:02x}" for b in data)
    return "".join("␣" if c == " " else c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _side_by_side(direction: Direction, row: int, names: tuple[str, str]) -> RenderableType:
    """Both sides of one sample; neighbouring chunks differ in colour, a chunk that is not exact is red."""
    completion, translation = direction.completions[row], direction.translations[row]
    heading = Text(f"sample {row + 1}: {translation.verdict}", "bold")
    lines = []
    sides = (
        (names[0], direction.author, completion.token_ids, translation.author_ends),
        (names[1], direction.reader, translation.token_ids, translation.reader_ends),
    )
    for name, tokenizer, ids, ends in sides:
        line = Text(f"{name}: ", "dim")
        starts = [0, *ends[:-1].tolist()] if ends.size else []
        for c, (start, end) in enumerate(zip(starts, ends.tolist(), strict=True)):
            style = _COLOURS[c % 2] if translation.chunk_exact[c] else _INEXACT
            line.append(_pieces(tokenizer, ids[start:end]), style)
        lines.append(line)
    return Group(heading, *lines, Text())
