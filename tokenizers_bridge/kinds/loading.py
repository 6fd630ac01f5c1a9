"""`load`: whatever people have as a tokenizer, as a `Tokenizer`.

A package adds a kind by an entry point: a class or function that makes a `Tokenizer` of its options.

    [project.entry-points."mutual_env.tokenizers"]
    acme-bytes = "acme:ByteTokenizer"                    # load({"kind": "acme-bytes", "merges": 100})
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mutual_env.catalogue import Catalogue, check_options
from mutual_env.errors import ConformanceError, InvalidInputError, MissingExtraError, UnknownNameError
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.published import PUBLISHED, published
from tokenizers_bridge.kinds.sentencepieces import from_sentencepiece
from tokenizers_bridge.kinds.tiktokens import from_tekken, from_tiktoken
from tokenizers_bridge.kinds.transformers import from_directory, from_transformers
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.testing import check_tokenizer

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


def load(source: Any) -> Tokenizer:
    """The tokenizer in `source`, tested before it is returned: see `check_tokenizer`. One that already is a `Tokenizer`
    of this package comes back as it is, and so does a toy, which can write its own alphabet alone."""
    if isinstance(source, Tokenizer):
        return source
    if isinstance(source, Mapping):
        tokenizer = described(source)
        if source["kind"] in _TOYS:
            return tokenizer
    else:
        tokenizer = _from_path(source) if isinstance(source, (str, Path)) else _from_object(source)
    try:
        check_tokenizer(tokenizer)
    except ConformanceError as error:
        raise InvalidInputError(str(error)) from error  # what is wrong is what was given to `load`
    return tokenizer


def described(spec: Mapping[str, Any]) -> Tokenizer:
    """By the name of its kind and the options of that: `{kind: char, alphabet: abc}`, `{kind: pair, alphabet: abc,
    merges: [ab]}`, `{kind: word, words: [...]}`, or a kind of another package."""
    options = dict(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise UnknownNameError.of("tokenizer kind", kind, _KINDS.names())
    make = _KINDS.load(kind)
    check_options(f"tokenizer kind {kind!r}", make, options)
    try:
        return make(**options)
    except TypeError as error:
        raise InvalidInputError(f"tokenizer of kind {kind!r}: {error}") from error


def target(name: str) -> str | Callable[..., Tokenizer]:
    """What a name stands for, not yet imported."""
    return published if name in PUBLISHED else _KINDS.target(name)


def names() -> list[str]:
    """What `load` knows by name: kinds, and published tokenizers that come inside ordinary packages."""
    return sorted({*_KINDS.names(), *PUBLISHED})


def _from_path(source: str | Path) -> Tokenizer:
    path = Path(source)
    if isinstance(source, str) and (source in PUBLISHED or not path.exists()):
        return described({"kind": source}) if source in _KINDS.names() else published(source)
    if path.is_dir():
        if (path / "tokenizer.json").exists():
            configured = (path / "tokenizer_config.json").exists() or (path / "config.json").exists()
            return from_directory(path) if configured else _from_json(path / "tokenizer.json")
        if (path / "tekken.json").exists():
            return from_tekken(path / "tekken.json")
        raise InvalidInputError(f"{path} has no tokenizer.json: save the fast tokenizer of the model there")
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist: give {_ACCEPTED}")
    return _from_json(path) if path.suffix == ".json" else from_sentencepiece(path, name=path.stem)


def _from_json(path: Path) -> AdaptedTokenizer:
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidInputError(f"{path} is not JSON ({error}): give {_ACCEPTED}") from error
    if "vocab" in data and "config" in data:
        return from_tekken(path)
    if "model" not in data:
        raise InvalidInputError(f"{path} has neither a 'model' nor a 'vocab': give {_ACCEPTED}")
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError as error:
        raise MissingExtraError.of("a tokenizer.json", "tokenizers") from error
    return from_huggingface(Backend.from_file(str(path)), name=path.parent.name)


def _from_object(source: Any) -> AdaptedTokenizer:
    module = type(source).__module__.partition(".")[0]
    if module == "tiktoken":
        return from_tiktoken(source)
    if module == "sentencepiece":
        return from_sentencepiece(source)
    if module == "tokenizers" and hasattr(source, "to_str"):
        return from_huggingface(source)
    if hasattr(source, "backend_tokenizer") or hasattr(source, "chat_template"):
        return from_transformers(source)
    raise InvalidInputError(f"cannot read a tokenizer from {type(source).__name__}: give {_ACCEPTED}")
