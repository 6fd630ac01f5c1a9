"""The bridge against other aligners, against plain encoding, and over tokens, tokenizers and agents.

    python -m benchmarks.bridge           writes docs/figures/data/bridge.json
    python -m benchmarks.bridge translate measures one of align, translate, agents, memory again
    pytest benchmarks/bridge.py           the same calls under pytest-benchmark

Aligners of other projects are measured on the same pairs of token sequences. TRL's comes with the trl package. Those of
tokenkit and NeMo-RL are on no package index: give checkouts of their repositories as $TOKENKIT_SOURCE and
$NEMO_RL_SOURCE, else they are left out.

A full `translate` is set beside plain encoding of the same texts by the tokenizer's own library, twice: its batch call,
and the quickest of its public calls, which for tiktoken and short texts is a loop (its batch call starts a thread's
worth of work for every text). All of it runs on one core, which is one thread for everybody, and is counted in
processor seconds, so that other programs on the machine take little part in it. What is beyond encoding is what a
translation takes less what it spends on encoding itself: the difference of two runs would be mostly their noise.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.figures import DATA, machine, write
from mutual_env.types import Completion, Floats, Ids
from tokenizers_bridge import Alignment, Tokenizer, TokenizerBridge, align, load
from tokenizers_bridge.protocol import encode_rows
from tokenizers_bridge.rows import Rows

TEXTS, CHARACTERS = 24, 14_000
SIZES = ((TEXTS, CHARACTERS), (100, 3_000), (1_000, 200))
ROUNDS = 9
PARTS = ("align", "translate", "agents", "memory")
READERS = ("deepseek", "gemma3", "mistral-spm", "qwen", "llama3")
FOUR = ("smollm2", "deepseek", "qwen", "mistral-spm")
AGENTS = (2, 4, 16, 64, 256)


def code(characters: int, seed: int) -> str:
    """Python-like source of this length."""
    rng = random.Random(seed)
    names = ["index", "value", "row", "self._cache", "total", "tokens", "result"]
    names += ["x_i", "HTTPServer", "math.sqrt", "n2"]
    lines: list[str] = []
    size = 0
    while size < characters:
        a, b, c = (rng.choice(names) for _ in range(3))
        forms = (
            f"{a} = {b}[{rng.randint(0, 999)}] + {c}",
            f"if {a} is not None and {b} >= {rng.random():.3f}:",
            f"for {a} in range({rng.randint(1, 64)}):  # {b} before {c}",
            f"    return {a}({b!r}, key=lambda item: item.{c.replace('.', '_')})",
        )
        lines.append(" " * (4 * rng.randint(0, 4)) + rng.choice(forms))
        size += len(lines[-1]) + 1
    return "\n".join(lines)[:characters]


def sampled(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Completion]:
    rng = np.random.default_rng(0)
    rows = [np.append(ids, np.int32(tokenizer.stop_id)) for ids in tokenizer.encode_batch(texts)]
    return [
        Completion(text, ids, -rng.exponential(1.0, ids.size), "stop", 0, tokenizer.fingerprint)
        for text, ids in zip(texts, rows, strict=True)
    ]


def best(work: Callable[[], Any], times: int = 7, clock: Callable[[], float] = time.process_time) -> float:
    """The least of some measurements: what other programs on the machine add is not the work's."""
    taken = []
    for _ in range(times):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def align_all(pairs: Sequence[tuple[Any, Any]], author: Tokenizer, reader: Tokenizer) -> list[Alignment]:
    """Borders, equality of bytes and the sums of both sides."""
    out = []
    for (ids_a, logprobs_a), (ids_r, logprobs_r) in pairs:
        alignment = align(ids_a, author, ids_r, reader)
        alignment.chunk_sums(logprobs_a, "author")
        alignment.chunk_sums(logprobs_r, "reader")
        out.append(alignment)
    return out


def _with_numbers(ids: Ids) -> tuple[Ids, Floats]:
    return ids, -np.abs(np.sin(np.arange(ids.size)))


def aligners(author: Tokenizer, reader: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Microseconds for each token of the author: ours and the others', on the same texts in the same process."""
    pairs = [
        (_with_numbers(mine), _with_numbers(other))
        for mine, other in zip(author.encode_batch(texts), reader.encode_batch(texts), strict=True)
    ]
    tokens = sum(ids.size for (ids, _), _ in pairs)
    figures = {
        "tokens": float(tokens),
        "ours_us_per_token": best(lambda: align_all(pairs, author, reader), 40) / tokens * 1e6,
    }
    groups, sums = _trl(author, reader, texts, pairs)
    figures["trl_groups_us_per_token"] = best(groups, 3) / tokens * 1e6
    figures["trl_groups_and_sums_us_per_token"] = best(sums, 3) / tokens * 1e6
    figures["trl_over_ours"] = figures["trl_groups_and_sums_us_per_token"] / figures["ours_us_per_token"]
    if (folder := os.environ.get("TOKENKIT_SOURCE")) is not None:
        figures["tokenkit_us_per_token"] = best(_tokenkit(Path(folder), author, reader, texts), 2) / tokens * 1e6
    if (folder := os.environ.get("NEMO_RL_SOURCE")) is not None:
        (ids, _), _ = pairs[0]
        figures["nemo_rl_us_per_token"] = best(_nemo_rl(Path(folder), author, reader, texts[0]), 1) / ids.size * 1e6
    return figures


def _trl(author: Any, reader: Any, texts: Sequence[str], pairs: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """TRL's grouping by byte offsets, and the same with the sum of each group; its own encoding is not counted."""
    from trl.experimental.gold.gold_trainer import ULDLoss
    from trl.experimental.utils import encode_with_byte_offsets

    offsets = [
        [row for _, row in encode_with_byte_offsets(tokenizer._encoder.tokenizer, list(texts))]
        for tokenizer in (author, reader)
    ]

    def groups() -> list[Any]:
        return [ULDLoss._align_by_byte_offsets(s, t) for s, t in zip(*offsets, strict=True)]

    def sums() -> None:
        for (groups_a, groups_r), ((_, logprobs_a), (_, logprobs_r)) in zip(groups(), pairs, strict=True):
            for group in groups_a:
                logprobs_a[group].sum()
            for group in groups_r:
                logprobs_r[group].sum()

    return groups, sums


def _tokenkit(folder: Path, author: Any, reader: Any, texts: Sequence[str]) -> Callable[[], Any]:
    sys.path.insert(0, str(folder))
    module = importlib.import_module("tokenkit.align")
    logging.getLogger("tokenkit.align").setLevel(logging.ERROR)
    kind = SimpleNamespace(model_kind_cls=SimpleNamespace(replacements={}))
    pieces = [[_pieces(t, text) for text in texts] for t in (author, reader)]

    def work() -> None:
        for left, right in zip(*pieces, strict=True):
            module.get_alignment_indices(list(left), list(right), kind, kind)

    return work


def _nemo_rl(folder: Path, author: Any, reader: Any, text: str) -> Callable[[], Any]:
    module = _module_at(folder / "nemo_rl" / "algorithms" / "x_token" / "token_aligner.py")
    aligner = module.TokenAligner(None, None, "")
    left, right = _pieces(author, text), _pieces(reader, text)
    return lambda: aligner._align_single(left, right)


def _pieces(tokenizer: Any, text: str) -> list[str]:
    """Tokens in the byte-level alphabet."""
    pieces: list[str] = tokenizer._encoder.tokenizer.encode(text, add_special_tokens=False).tokens
    return pieces


def _module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def plain_encodings(tokenizer: Any, texts: list[str]) -> dict[str, Callable[[], Any]]:
    """The ways in which the tokenizer's own library encodes texts; the first is its batch call, ids as Python lists."""
    encoder = tokenizer._encoder
    if hasattr(encoder, "encoding"):
        batch, one = encoder.encoding.encode_ordinary_batch, encoder.encoding.encode_ordinary
        return {"batch": lambda: batch(texts, num_threads=1), "loop": lambda: [one(text) for text in texts]}
    if hasattr(encoder, "processor"):
        encode = encoder.processor.encode
        return {
            "batch": lambda: encode(texts, out_type=int, num_threads=1),
            "arrays": lambda: encode(texts, return_type="numpy", num_threads=1),
            "loop": lambda: [encode(text, out_type=int) for text in texts],
        }
    fast = encoder.tokenizer.encode_batch_fast
    return {"batch": lambda: [e.ids for e in fast(texts, add_special_tokens=False)]}


def in_turns(works: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, npt.NDArray[np.float64]]:
    """Processor seconds of each in some rounds in which they take turns: a ratio within a round is of one machine in
    one state."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            taken[name].append(time.process_time() - start)
    return {name: np.array(times) for name, times in taken.items()}


class Timed:
    """A tokenizer, and the processor seconds that it has spent on encoding."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.seconds = 0.0

    def encode_rows(self, texts: Sequence[str], *, goes_on: bool) -> Rows:
        start = time.process_time()
        rows = encode_rows(self.tokenizer, texts, goes_on=goes_on)
        self.seconds += time.process_time() - start
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def bare_passes(author: Tokenizer, reader: Tokenizer, completions: Sequence[Completion]) -> Callable[[], None]:
    """What NumPy alone takes for tokens to meet: rows joined, the length of each token looked up and added up, its
    bytes compared with the text's on the author's side, borders found through one table over bytes, sums carried over.
    Each is one call over all rows, without a look at any row, at verdicts or at residuals: what the bridge takes more
    than this is its own."""
    rows_a, rows_r = [c.token_ids for c in completions], reader.encode_batch([c.text for c in completions])
    logprobs = [c.logprobs for c in completions]
    lengths = [t.byte_lengths(np.arange(t.vocab_size, dtype=np.int32)) for t in (author, reader)]
    ids = [np.concatenate(rows) for rows in (rows_a, rows_r)]
    ends = [table.take(of).cumsum() for table, of in zip(lengths, ids, strict=True)]
    words = np.zeros(1 + max(int(at[-1]) for at in ends), np.uint64)
    heads, is_end = np.zeros(author.vocab_size, np.uint64), np.zeros(words.size, np.bool_)
    shared = np.intersect1d(ends[0], ends[1], return_indices=True)[1:]
    counts = np.diff(shared[1], prepend=-1)

    def work() -> None:
        for table, rows, of, at in zip(lengths, (rows_a, rows_r), ids, ends, strict=True):
            np.concatenate(rows, out=of)
            table.take(of, out=at, mode="clip").cumsum(out=at)
            is_end[at] = True
        (words.take(ends[0]) != heads.take(ids[0])).any()
        for at in ends:
            is_end.take(at).nonzero()
        carried = np.concatenate(logprobs)
        (carried.take(shared[0]) / counts).repeat(counts)

    return work


def translations(author: Tokenizer, readers: dict[str, Tokenizer], texts: list[str]) -> dict[str, dict[str, float]]:
    """A full `translate` of completions that the bridge has not met, beside the plain encoding of the same texts."""
    completions = sampled(author, texts)
    figures = {}
    for name, reader in readers.items():
        bridge, timed = TokenizerBridge([author, reader], cache_bytes=0), Timed(reader)
        bridge.translate(completions[:1], timed)
        plain, encoding = plain_encodings(reader, texts), list[float]()

        def work(bridge: TokenizerBridge = bridge, timed: Timed = timed, encoding: list[float] = encoding) -> None:
            before = timed.seconds
            bridge.translate(completions, timed)
            encoding.append(timed.seconds - before)

        spent = in_turns({**plain, "translate": work, "bare": bare_passes(author, reader, completions)})
        beyond = spent["translate"] - np.array(encoding)
        quickest = spent[min(plain, key=lambda way: float(np.median(spent[way])))]
        tokens = sum(c.token_ids.size for c in completions) + sum(ids.size for ids in reader.encode_batch(texts))
        figures[name] = {
            "encode_batch_us_per_row": float(np.median(spent["batch"])) / len(texts) * 1e6,
            "encode_quickest_us_per_row": float(np.median(quickest)) / len(texts) * 1e6,
            "translate_us_per_row": float(np.median(spent["translate"])) / len(texts) * 1e6,
            "over_encode_batch": float(np.median(spent["translate"] / spent["batch"])),
            "over_encode_quickest": float(np.median(spent["translate"] / quickest)),
            "tokens_per_row": tokens / len(texts),
            "beyond_encoding_ns_per_token_and_side": float(np.median(beyond)) / tokens * 1e9,
            "bare_numpy_passes_ns_per_token_and_side": float(np.median(spent["bare"])) / tokens * 1e9,
        }
    return figures


def beside_tokens(short: dict[str, float], long: dict[str, float]) -> float:
    """Microseconds that a short row takes beyond encoding, beside those that its tokens take in long rows."""
    ns = short["beyond_encoding_ns_per_token_and_side"] - long["beyond_encoding_ns_per_token_and_side"]
    return ns * short["tokens_per_row"] / 1e3


def agents(tokenizers: Sequence[Tokenizer], texts: list[str]) -> dict[str, dict[str, float]]:
    """One round: the same completions, read by every agent; agents share the tokenizers in turn."""
    completions = [row for i, text in enumerate(texts) for row in sampled(tokenizers[i % len(tokenizers)], [text])]
    figures = {}
    for count in AGENTS:
        readers = [tokenizers[i % len(tokenizers)] for i in range(count)]

        def work(readers: Sequence[Tokenizer] = readers) -> None:
            bridge = TokenizerBridge(tokenizers)
            for reader in readers:
                bridge.translate(completions, reader)

        figures[str(count)] = {
            "distinct_tokenizers": float(len({r.fingerprint for r in readers})),
            "ms": best(work, 3) * 1e3,
        }
    return figures


def tokens(author: Tokenizer, reader: Tokenizer) -> dict[str, float]:
    """Microseconds a token for texts of 1, 4, 16, 64 thousand characters: flat where the cost is linear."""
    figures = {}
    for size in (1_000, 4_000, 16_000, 64_000, 256_000):
        text = code(size, 1)
        mine, other = (t.encode_batch([text])[0] for t in (author, reader))
        pairs = [((mine, np.zeros(mine.size)), (other, np.zeros(other.size)))]
        count = pairs[0][0][0].size
        figures[str(count)] = best(partial(align_all, pairs, author, reader)) / count * 1e6
    return figures


def memory(author: Tokenizer, reader: Tokenizer, budget: int = 8 << 20) -> dict[str, float]:
    """What a bridge holds after far more texts than fit its budget."""
    bridge = TokenizerBridge([author, reader], cache_bytes=budget)
    rows = [sampled(author, [code(3_000, seed)])[0] for seed in range(600)]
    bridge.translate(rows[:1], reader)
    tracemalloc.start()
    for row in rows:
        bridge.translate([row], reader)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"budget_mib": budget / 2**20, "accounted_mib": bridge.cache_bytes_used / 2**20, "held_mib": held / 2**20}


@pytest.fixture(scope="module")
def pair() -> tuple[Tokenizer, Tokenizer]:
    return load("smollm2"), load("deepseek")


def test_align(benchmark: Any, pair: tuple[Tokenizer, Tokenizer]) -> None:
    text = code(CHARACTERS, 0)
    sides = [(t.encode_batch([text])[0], np.zeros(t.encode_batch([text])[0].size)) for t in pair]
    (alignment,) = benchmark(align_all, [sides], *pair)
    assert alignment.exact.all()


def test_translate(benchmark: Any, pair: tuple[Tokenizer, Tokenizer]) -> None:
    completions = sampled(pair[0], [code(CHARACTERS, seed) for seed in range(4)])
    bridge = TokenizerBridge(pair, cache_bytes=0)
    translated = benchmark(bridge.translate, completions, pair[1])
    assert {t.verdict for t in translated} == {"exact"}


def main(parts: Sequence[str]) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before a library starts its threads
    tokenizers = {name: load(name) for name in {*READERS, *FOUR, "smollm2"}}
    author, readers = tokenizers["smollm2"], {name: tokenizers[name] for name in READERS}
    rows = {size: [code(size[1], seed) for seed in range(size[0])] for size in SIZES}
    path = DATA / "bridge.json"
    # What is not measured now stays as it was measured last.
    figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() and len(parts) < len(PARTS) else {}
    if "translate" in parts:
        figures = {name: found for name, found in figures.items() if not name.startswith("translate_")}
        for n, size in SIZES:
            figures[f"translate_{n}x{size}_characters"] = translations(author, readers, rows[n, size])
        (long, *_, short) = (figures[f"translate_{n}x{size}_characters"] for n, size in SIZES)
        figures["beside_tokens_us_per_short_row"] = {name: beside_tokens(short[name], long[name]) for name in readers}
    if "align" in parts:
        figures["align_smollm2_deepseek"] = aligners(author, readers["deepseek"], rows[SIZES[0]])
        figures["align_by_length_us_per_token"] = tokens(author, readers["deepseek"])
    if "agents" in parts:
        figures["agents_over_4_tokenizers"] = agents([tokenizers[name] for name in FOUR], rows[SIZES[-1]][:256])
    if "memory" in parts:
        figures["memory"] = memory(author, readers["deepseek"])
    versions = machine(("numpy", "numba", "tokenizers", "tiktoken", "sentencepiece", "trl", "transformers"))
    write("bridge", {**figures, "machine": versions})


if __name__ == "__main__":
    main(sys.argv[1:] or PARTS)
