"""Files as their publishers have them, of families beyond those that come in packages.

They are not part of this repository. `$MUTUAL_ENV_TOKENIZERS` names a folder with one directory for each family;
without it they are looked for beside the checkout, in ../shared/data/tokenizers. A test that needs a family says so
when it is not there. Where only the configuration of a family is at hand, with its added tokens and its chat template,
it is put around the vocabulary of another: which tokens act, and what a template does with them, does not depend on the
rest. Claude's file comes in the package litellm, as anthropic_tokenizer.json: claude/tokenizer.json here.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenizers_bridge import Tokenizer, load
from tokenizers_bridge.kinds.gguf import cache_directory, converted_tokenizer
from tokenizers_bridge.kinds.packaged import SOURCES, TOKENIZER_FILES

FOLDER = Path(os.environ.get("MUTUAL_ENV_TOKENIZERS", Path(__file__).parents[3] / "shared" / "data" / "tokenizers"))
WHOLE = ("chatglm", "claude", "falcon-tokenizer", "phi-2", "phi-3-medium", "phi-3-mini", "roberta-base")
# Configuration alone: by family, whose vocabulary it is put around. That of Gemma 3 is its own.
AROUND = {
    "gemma": "gpt2",
    "gemma-3-chat": "gemma3",
    "gemma-4": "gpt2",
    "gpt-oss": "gpt2",
    "phi-4-base": "gpt2",
    "phi-4-mini": "gpt2",
    "qwen2.5": "gpt2",
    "qwen3": "gpt2",
}
LOADABLE = (*WHOLE, *AROUND)
STOPS = {"claude": "<EOT>"}  # whose files name none
CHATS = ("chatglm", "phi-3-medium", "phi-3-mini", *AROUND)


def folder_of(family: str) -> Path:
    """Where the publisher's files are; skips the test, and says why, where they are not."""
    if not (FOLDER / family).is_dir():
        pytest.skip(f"no official files of {family}: set MUTUAL_ENV_TOKENIZERS to a folder that has them")
    return FOLDER / family


def directory_of(family: str) -> Path:
    """A directory to load: the publisher's own, or its configuration around another vocabulary."""
    source = folder_of(family)
    if family not in AROUND:
        return source
    target = cache_directory() / "tests" / f"{family}-around-{AROUND[family]}"
    if not (target / "tokenizer.json").exists():
        _put_around(source, _vocabulary(AROUND[family]), target)
    return target


@cache
def official(family: str) -> Tokenizer:
    return load(directory_of(family), stop=STOPS.get(family))


def _vocabulary(name: str) -> dict[str, Any]:
    import tokenizers

    if name == "gemma3":
        folder = converted_tokenizer("gemma3", [part.path() for part in SOURCES["gemma3"].parts])
        return json.loads((folder / "tokenizer.json").read_text("utf-8"))
    lines = TOKENIZER_FILES["gpt2_vocab"].path().read_text("utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    vocab = json.loads(TOKENIZER_FILES["gpt2_encoder"].path().read_text("utf-8"))
    built = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    return json.loads(built.to_str())


def _put_around(source: Path, definition: dict[str, Any], target: Path) -> None:
    config = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    rows = [{"id": int(i), **row} for i, row in (config.pop("added_tokens_decoder", None) or {}).items()]
    rows = rows or [_special(text) for key, text in config.items() if key.endswith("_token") and isinstance(text, str)]
    vocab = definition["model"]["vocab"]
    free = max(vocab.values()) + 1
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = vocab.get(row["content"])
        seen[row["content"]] = {**row, "id": free if known is None else known}
        free += known is None
    definition["added_tokens"] = list(seen.values())
    work = target.with_name(f".{target.name}-{os.getpid()}")
    work.mkdir(parents=True, exist_ok=True)
    (work / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    template = source / "chat_template.json"  # that of a processor, which transformers' tokenizers do not read
    if template.exists():
        config["chat_template"] = json.loads(template.read_text("utf-8"))["chat_template"]
    (work / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    if (source / "chat_template.jinja").exists():
        shutil.copyfile(source / "chat_template.jinja", work / "chat_template.jinja")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def _special(text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": text, "special": True, **flags}
