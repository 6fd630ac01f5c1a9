"""`load`: whatever people have as a tokenizer, as a `Tokenizer`.

A package adds a kind by an entry point: a class or function that makes a `Tokenizer` of its options.

    [project.entry-points."mutual_env.tokenizers"]
    acme-bytes = "acme:ByteTokenizer"                    # load({"kind": "acme-bytes", "merges": 100})
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from mutual_env.catalogue import Catalogue
from mutual_env.errors import (
    ConformanceError,
    InvalidInputError,
    MissingExtraError,
    MutualEnvError,
    UnknownNameError,
)
from mutual_env.options import check_options
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.published import PUBLISHED, published
from tokenizers_bridge.kinds.sentencepieces import from_sentencepiece
from tokenizers_bridge.kinds.tiktokens import from_tekken, from_tiktoken
from tokenizers_bridge.kinds.transformers import from_directory, from_transformers, is_byt5
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.testing import check_tokenizer

Stop: TypeAlias = str | Sequence[str] | None
_ACCEPTED = (
    "a directory with tokenizer.json, a tokenizer.json, Tekken .json or SentencePiece .model file, a tokenizers or "
    f"transformers tokenizer, a tiktoken encoding, a SentencePieceProcessor, or one of {', '.join(PUBLISHED)}"
)


_TOYS = {
    "char": "tokenizers_bridge.kinds.toy:CharTokenizer",
    "pair": "tokenizers_bridge.kinds.toy:PairTokenizer",
    "word": "tokenizers_bridge.kinds.toy:WordTokenizer",
}
_KINDS: Catalogue[Callable[..., Tokenizer]] = Catalogue("tokenizer kind", "mutual_env.tokenizers", _TOYS)


def load(source: Any, *, stop: Stop = None) -> Tokenizer:
    """The tokenizer in `source`, tested before it is returned: see `check_tokenizer`. One that already is a `Tokenizer`
    of this package comes back as it is, and so does a toy, which can write its own alphabet alone.

    `stop` names the token that ends a completion, or several, the policy's own first, where the files do not say it or
    a policy was trained otherwise.
    """
    if stop is not None and isinstance(source, (Tokenizer, Mapping)):
        raise InvalidInputError(f"stop={stop!r} is for a tokenizer that is read: this one has its stop token")
    if isinstance(source, Tokenizer):
        return source
    try:
        with _nothing_collected():
            tokenizer = _read(source, stop)
        if not (isinstance(source, Mapping) and source["kind"] in _TOYS):
            check_tokenizer(tokenizer)
    except ConformanceError as error:
        raise InvalidInputError(str(error)) from error  # what is wrong is what was given to `load`
    except MutualEnvError:
        raise
    except BaseException as error:  # the libraries raise what they like; a panic in Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        shown = source if isinstance(source, (str, Path)) else type(source).__name__
        why = str(error).strip().partition("\n")[0][:300]
        raise InvalidInputError(
            f"{shown} cannot be read as a tokenizer ({type(error).__name__}: {why}): take its files as published"
        ) from error
    return tokenizer


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """A vocabulary is a million small objects, none of them garbage: looking for some while they are made doubles the
    time that Gemma's takes."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def described(spec: Mapping[str, Any]) -> Tokenizer:
    """By the name of its kind and the options of that: `{kind: char, alphabet: abc}`, `{kind: pair, alphabet: abc,
    merges: [ab]}`, `{kind: word, words: [...]}`, or a kind of another package."""
    options = dict(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise UnknownNameError.of("tokenizer kind", kind, _KINDS.names())
    make = _KINDS.load(kind)
    check_options(f"tokenizer kind {kind!r}", make, options, complete=True)
    return make(**options)


def target(name: str) -> str | Callable[..., Tokenizer]:
    """What a name stands for, not yet imported."""
    return published if name in PUBLISHED else _KINDS.target(name)


def names() -> list[str]:
    """What `load` knows by name: kinds, and published tokenizers that come inside ordinary packages."""
    return sorted({*_KINDS.names(), *PUBLISHED})


def _read(source: Any, stop: Stop) -> Tokenizer:
    if isinstance(source, Mapping):
        return described(source)
    return _from_path(source, stop) if isinstance(source, (str, Path)) else _from_object(source, stop)


def _from_path(source: str | Path, stop: Stop) -> Tokenizer:
    path = Path(source)
    looks_like_path = isinstance(source, Path) or "/" in source or path.suffix in (".json", ".model")
    if isinstance(source, str) and (source in PUBLISHED or not (path.exists() or looks_like_path)):
        if stop is not None:
            raise InvalidInputError(f"stop={stop!r} is for files: {source!r} has the stop token of its publisher")
        return described({"kind": source}) if source in _KINDS.names() else published(source)
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist: give {_ACCEPTED}")
    if path.is_dir():
        return _from_directory(path, stop)
    if not path.is_file():  # a pipe, from which nothing may ever come
        raise InvalidInputError(f"{path} is neither a file nor a directory: give {_ACCEPTED}")
    if path.suffix == ".json":
        return _from_json(path, stop)
    _refuse_other_vocabularies(path)
    return from_sentencepiece(path, name=path.stem, stop=stop)


def _from_directory(path: Path, stop: Stop) -> AdaptedTokenizer:
    if (path / "tokenizer.json").exists():
        configured = (path / "tokenizer_config.json").exists() or (path / "config.json").exists()
        return from_directory(path, stop=stop) if configured else _from_json(path / "tokenizer.json", stop)
    if (path / "tekken.json").exists():
        return from_tekken(path / "tekken.json", stop=stop)
    if (path / "tokenizer.model").exists():
        raise InvalidInputError(
            f"{path} has no tokenizer.json: load {path / 'tokenizer.model'} itself, or save the fast tokenizer there"
        )
    if is_byt5(path):
        return from_directory(path, stop=stop)
    _refuse_other_directories(path)
    raise InvalidInputError(f"{path} has no tokenizer.json: save the fast tokenizer of the model there")


def _refuse_other_directories(path: Path) -> None:
    """Directories with a vocabulary of a kind that is known and not supported."""
    for file in sorted(path.glob("*vocab*.txt")):
        _refuse_other_vocabularies(file)
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        raise InvalidInputError(
            f"{path} has vocab.json and merges.txt without a tokenizer.json, which says how text is cut: save the fast "
            "tokenizer there, AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    for file in sorted(path.glob("*.tiktoken")):
        _refuse_other_vocabularies(file)
    for file in sorted(path.glob("*.model")):
        raise InvalidInputError(f"{path} has no tokenizer.json: load {file} itself, if it is a SentencePiece model")


def _from_json(path: Path, stop: Stop) -> AdaptedTokenizer:
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidInputError(f"{path} is not JSON ({error}): give {_ACCEPTED}") from error
    if not isinstance(data, dict) or not ("model" in data or ("vocab" in data and "config" in data)):
        raise InvalidInputError(f"{path} has neither a 'model' nor a 'vocab': give {_ACCEPTED}")
    if "model" not in data:
        return from_tekken(path, stop=stop)
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError as error:
        raise MissingExtraError.of("a tokenizer.json", "tokenizers") from error
    return from_huggingface(Backend.from_file(str(path)), name=path.parent.name, stop=stop)


def _refuse_other_vocabularies(path: Path) -> None:
    """Vocabulary files that are no SentencePiece model, by what they begin with."""
    with path.open("rb") as file:
        head = file.read(256)
    if path.suffix == ".txt" and head[:2] in (b"1 ", b"0 "):
        raise InvalidInputError(
            f"{path} is an RWKV vocabulary, which is not supported: nothing but RWKV's own code says how it cuts text; "
            "use a policy with a BPE or Unigram tokenizer"
        )
    if path.suffix == ".tiktoken" or _RANKS.match(head):
        raise InvalidInputError(
            f"{path} has the ranks of a tiktoken encoding, and not how text is cut before they are asked, nor its "
            "special tokens: give load a tiktoken.Encoding that is made of them"
        )
    if head[:8] == b"#version" or head[:1] == b"{":
        raise InvalidInputError(
            f"{path} is one of the two files of a byte-level vocabulary, which do not say how text is cut: save the "
            "fast tokenizer, AutoTokenizer.from_pretrained(...).save_pretrained(...), and load its tokenizer.json"
        )
    if path.suffix in (".txt", ".vocab"):
        raise InvalidInputError(
            f"{path} is a word list (WordPiece?), not supported because its ids do not say where the white space was: "
            "use a policy with a BPE or Unigram tokenizer"
        )


# A token in base64, and its rank.
_RANKS = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


def _from_object(source: Any, stop: Stop) -> AdaptedTokenizer:
    module = type(source).__module__.partition(".")[0]
    if module == "tiktoken":
        return from_tiktoken(source, stop=stop)
    if module == "sentencepiece":
        return from_sentencepiece(source, stop=stop)
    if module == "tokenizers" and hasattr(source, "to_str"):
        return from_huggingface(source, stop=stop)
    if hasattr(source, "backend_tokenizer") or hasattr(source, "chat_template"):
        return from_transformers(source, stop=stop)
    got = f" {source!r}"[:120] if isinstance(source, (bool, int, float, list, tuple)) else ""
    raise InvalidInputError(f"cannot read a tokenizer from {type(source).__name__}{got}: give {_ACCEPTED}")
