"""Tokenizers of the transformers library: the fast tokenizer inside, and the chat template around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutual_env.errors import InvalidInputError, MissingExtraError
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.protocol import Role

_NAMED: dict[str, Role] = {"bos_token": "bos", "eos_token": "eos", "pad_token": "pad", "unk_token": "unk"}


def from_transformers(tokenizer: Any, *, name: str = "") -> AdaptedTokenizer:
    """A fast transformers tokenizer. A completion ends with its eos token; prompts go through its chat template if it
    has one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InvalidInputError(
            f"{type(tokenizer).__name__} has no definition that can be read: load the fast version of the tokenizer"
        )
    named = {role: str(getattr(tokenizer, key)) for key, role in _NAMED.items() if getattr(tokenizer, key, None)}
    return from_huggingface(
        backend,
        name=name or Path(str(tokenizer.name_or_path)).name or type(tokenizer).__name__,
        special_texts=named,
        stop=named.get("eos"),
        template_of=tokenizer if tokenizer.chat_template else None,
    )


def from_directory(directory: Path, *, name: str = "") -> AdaptedTokenizer:
    """A directory with tokenizer.json, as published with a model."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError.of("a tokenizer directory", "torch") from error
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(directory), local_files_only=True, trust_remote_code=False, use_fast=True
    )
    return from_transformers(tokenizer, name=name or directory.name)
