"""Damaged tokenizer files: each is read, or refused in a sentence.

    python -m tests.hostile.fuzz_tokenizers --cases 10000

Sound files of every kind that `load` reads are damaged at random, byte by byte or as the JSON that they are (values of
other types, keys gone, numbers made huge, texts swapped, templates that never end), then loaded, given texts to encode
and a prompt to render. An error that is not this project's own (a panic of a library in Rust among them), one whose
sentence does not fit on a screen, and a case that takes half a minute are failures and print what repeats them. A crash
of the process, or a limit of its memory, ends the run with the case named in the last line of its log.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mutual_env.errors import MutualEnvError
from tests.hostile import fuzzing
from tokenizers_bridge import TokenizerBridge, WordTokenizer, load
from tokenizers_bridge.protocol import Tokenizer as Loaded

KINDS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "sentencepiece", "tekken.json")
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
BOMBS = (
    "{{ 'x' * 10**10 }}", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x'|center(10**10) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ ''.__class__.__mro__ }}", "{% if",
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
)  # fmt: skip
TEXTS = ("hello, world", "e\u0301 日本 \U0001f600", "<|start|>a<|end|></s>", "", "\x00\x01 \ud7ff", "a" * 2000)
LONGEST_SENTENCE = 2000
LONGEST_SECONDS = 30.0  # of processor time
MEMORY_BYTES = 12 * 2**30


def sound(kind: str, rng: random.Random, folder: Path) -> Path:
    """A tokenizer without fault below this folder, and which of its files is damaged."""
    if kind == "sentencepiece":
        return _sentencepiece(rng, folder)
    if kind == "tekken.json":
        return _tekken(folder)
    unigram = rng.random() < 0.4
    built = _unigram() if unigram else _byte_level()
    built.add_tokens([AddedToken(t, special=rng.random() < 0.5) for t in ("<|start|>", "<|end|>", "<think>", "</s>")])
    (folder / "tokenizer.json").write_text(built.to_str(), "utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": TEMPLATE}
    if kind != "tokenizer.json" or rng.random() < 0.5:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2, 300]}', "utf-8")
    return folder / kind


def _byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll")]
    built = Tokenizer(models.BPE({p: i for i, p in enumerate([*alphabet, *(a + b for a, b in merges)])}, merges))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.normalizer = normalizers.NFC()
    built.decoder = decoders.ByteLevel()
    return built


def _unigram() -> Tokenizer:
    pieces = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abcdehlorw,", "▁hello", "world"]
    built = Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate(pieces)], unk_id=0, byte_fallback=True))
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Metaspace()])
    return built


def _sentencepiece(rng: random.Random, folder: Path) -> Path:
    sentences = ["hello world, this is a model", "<b> 1234567890 user model"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(folder / "small"), vocab_size=300, byte_fallback=True,
        model_type=rng.choice(["unigram", "bpe"]), user_defined_symbols=["<start_of_turn>", "<end_of_turn>"],
        hard_vocab_limit=False, minloglevel=2, normalization_rule_name=rng.choice(["identity", "nmt_nfkc"]),
    )  # fmt: skip
    return folder / "small.model"


def _tekken(folder: Path) -> Path:
    ranks = [bytes([b]) for b in range(256)] + [b"he", b"hell"]
    rows = [{"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": None} for i, p in enumerate(ranks)]
    texts = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    data = {
        "config": {
            "pattern": r"\s?\S+|\s+", "num_vocab_tokens": 258, "default_vocab_size": 268,
            "default_num_special_tokens": 10, "version": "v7",
        },
        "vocab": rows,
        "special_tokens": [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(texts)],
    }  # fmt: skip
    (folder / "tekken.json").write_text(json.dumps(data), "utf-8")
    return folder / "tekken.json"


def damage(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        tree = json.loads(data)
        for _ in range(rng.randint(1, 3)):
            tree = _changed(tree, rng)
        data = json.dumps(tree).encode()
    else:
        for _ in range(rng.randint(1, 4)):
            data = _bytes_changed(data, rng)
    path.write_bytes(data)


def _changed(tree: Any, rng: random.Random) -> Any:
    """The tree with one place in it changed, found by a walk that stops anywhere."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        if rng.random() < 0.1:
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: _changed(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        at = rng.randrange(len(tree))
        if rng.random() < 0.1:
            return tree[:at] + tree[at + 1 :]
        return [*tree[:at], _changed(tree[at], rng), *tree[at + 1 :]]
    others: tuple[Any, ...] = (
        None, True, -1, 0, 3, 10**6, 10**18, 1.5, "", "▁", "<|x|>", "\u0000", "a" * 300, [], {}, [1], {"type": "Fuse"},
        "Sequence", "ByteLevel", *BOMBS,
    )  # fmt: skip
    if isinstance(tree, str) and "messages" in tree and rng.random() < 0.5:
        at = rng.randrange(len(tree))
        return tree[:at] + rng.choice(("{%", "}}", "{{", "|", "10**9", *BOMBS)) + tree[at:]
    return rng.choice(others)


def _bytes_changed(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return bytes([rng.randrange(256)])
    at, size = rng.randrange(len(data)), rng.choice((1, 1, 2, 16, 300))
    kind = rng.random()
    if kind < 0.4:
        return data[:at] + bytes(rng.randrange(256) for _ in range(size)) + data[at + size :]
    if kind < 0.6:
        return data[:at] + data[at + size :]
    if kind < 0.75:
        return data[:at]
    return data[:at] + data[at : at + size] * rng.randint(2, 5) + data[at + size :]


def use(tokenizer: Loaded) -> None:
    """What a run does with a tokenizer. A text that cannot be encoded fails its row; a prompt may be refused."""
    author = WordTokenizer([])
    (ids,) = author.encode_batch([" ".join(TEXTS)])
    for text in TEXTS:
        tokenizer.decode(tokenizer.encode_batch([text])[0])
    tokenizer.render_prompt(TEXTS[2])
    assert ids.size
    TokenizerBridge([author, tokenizer])


def case(kind: str, seed: int) -> tuple[str, str]:
    """What became of it: "read", "refused" or a failure; and what there is to say about it."""
    rng = random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory(prefix="mutual-env-fuzz-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = sound(kind, rng, Path(name))
        damage(path, rng)
        source = path if kind == "sentencepiece" or (kind == "tekken.json" and rng.random() < 0.5) else path.parent
        start = time.process_time()
        outcome, said = _used(source)
        taken = time.process_time() - start
    return (outcome, said) if taken < LONGEST_SECONDS else ("took too long", f"{taken:.0f} s; {outcome}: {said}")


def _used(source: Path) -> tuple[str, str]:
    try:
        use(load(source))
    except MutualEnvError as error:
        said = str(error)
        return ("refused", said) if 0 < len(said) < LONGEST_SENTENCE else ("no sentence", said[:200])
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        return "raw exception", f"{type(error).__name__}: {error}"[:300]
    return "read", ""


@contextlib.contextmanager
def prepared(kinds: Sequence[str]) -> Iterator[fuzzing.Case]:
    yield case


GOOD = ("read", "refused")


def main() -> int:
    return fuzzing.main("python -m tests.hostile.fuzz_tokenizers", __doc__, prepared, KINDS, GOOD, MEMORY_BYTES)


if __name__ == "__main__":
    sys.exit(main())
