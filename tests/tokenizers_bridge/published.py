"""Published tokenizers for tests, each read once in a process: it takes up to eight seconds, and nothing changes it."""

from __future__ import annotations

from functools import cache

from tokenizers_bridge import Tokenizer, load


@cache
def loaded(name: str) -> Tokenizer:
    return load(name)
