"""Tokenizers of the transformers library, and directories as they are published with a model: the fast tokenizer, the
chat template around it, the tokens that end a turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mutual_env.errors import InvalidInputError, MissingExtraError
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.byt5 import from_byt5
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.templates import ChatTemplate
from tokenizers_bridge.protocol import Role

_NAMED: dict[str, Role] = {"bos_token": "bos", "eos_token": "eos", "pad_token": "pad", "unk_token": "unk"}


def from_transformers(
    tokenizer: Any, *, name: str = "", stop: str | Sequence[str] | None = None, also_stops: Sequence[int] = ()
) -> AdaptedTokenizer:
    """A fast transformers tokenizer. Prompts go through its chat template if it has one, and a completion ends with
    what the template ends a turn with; else with its eos token."""
    kind = type(tokenizer).__name__
    if kind == "ByT5Tokenizer":
        return from_byt5(tokenizer, name=name, stop=stop)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        remedy = _REMEDIES.get(kind, "load the fast version of the tokenizer")
        raise InvalidInputError(f"{kind} has no definition that can be read: {remedy}")
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    return from_huggingface(
        backend,
        name=name or Path(str(tokenizer.name_or_path)).name or kind,
        special_texts={role: special[key] for key, role in _NAMED.items() if key in special},
        stop=stop,
        template=ChatTemplate(tokenizer.get_chat_template(), special) if tokenizer.chat_template else None,
        also_stops=also_stops,
    )


_REMEDIES = {
    "CanineTokenizer": "its ids are code points in a hash; use a policy with a BPE or Unigram tokenizer",
    "PerceiverTokenizer": "use a policy with a BPE or Unigram tokenizer",
}


def from_directory(directory: Path, *, name: str = "", stop: str | Sequence[str] | None = None) -> AdaptedTokenizer:
    """A directory with tokenizer.json, as published with a model. Where transformers cannot make it a tokenizer,
    because it comes with code of its own for one, the files are read without it."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError.of("a tokenizer directory", "torch") from error
    also = generation_stops(directory)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # whatever a stranger's files do to it
        return _from_files(directory, name or directory.name, stop, also, error)
    return from_transformers(tokenizer, name=name or directory.name, stop=stop, also_stops=also)


def is_byt5(directory: Path) -> bool:
    """Whether the directory is that of a byte tokenizer, which has no file of its own."""
    path = directory / "tokenizer_config.json"
    return path.exists() and _json(path).get("tokenizer_class") == "ByT5Tokenizer"


def generation_stops(directory: Path) -> list[int]:
    """The ids that generation_config.json ends a completion with."""
    path = directory / "generation_config.json"
    named = _json(path).get("eos_token_id") if path.exists() else None
    ids = named if isinstance(named, list) else [named]
    return [i for i in ids if type(i) is int]


def _from_files(
    directory: Path, name: str, stop: str | Sequence[str] | None, also: Sequence[int], why: Exception
) -> AdaptedTokenizer:
    from tokenizers import Tokenizer

    config = _json(directory / "tokenizer_config.json") if (directory / "tokenizer_config.json").exists() else {}
    try:
        backend = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:
        raise InvalidInputError(
            f"{directory}: neither transformers ({_first_line(why)}) nor tokenizers ({_first_line(error)}) can read "
            "its tokenizer: save it again with the library that its model is published for"
        ) from error
    special = {key: _text(config.get(key)) for key in _NAMED if _text(config.get(key))}
    source = _template_source(directory, config)
    return from_huggingface(
        backend,
        name=name,
        special_texts={role: special[key] for key, role in _NAMED.items() if key in special},
        stop=stop,
        template=ChatTemplate(source, special) if source else None,
        also_stops=also,
    )


def _template_source(directory: Path, config: Mapping[str, Any]) -> str:
    path = directory / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {t["name"]: t["template"] for t in source}.get("default")
    return source if isinstance(source, str) else ""


def _text(token: Any) -> str:
    """A token of tokenizer_config.json: its text, or a mapping with its content."""
    found = token.get("content", "") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else ""


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} is not JSON ({error}): take it as published with the model") from error
    if not isinstance(found, Mapping):
        raise InvalidInputError(f"{path} holds no object: take it as published with the model")
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
