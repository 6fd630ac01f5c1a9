"""The tokenizer inside a GGUF file, converted once to tokenizer.json and kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mutual_env.errors import MissingExtraError

CACHE_VARIABLE = "MUTUAL_ENV_CACHE"


def cache_directory() -> Path:
    """$MUTUAL_ENV_CACHE, else $XDG_CACHE_HOME/mutual-env, else ~/.cache/mutual-env."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mutual-env"


def converted_tokenizer(name: str, parts: Sequence[Path]) -> Path:
    """A directory with the tokenizer.json of the GGUF file that these parts make up; converted on the first call.

    The conversion takes 10 to 60 seconds and reads no weights. Its result is moved into place when it is complete, so
    several processes may ask at the same time.
    """
    try:
        import gguf  # noqa: F401  transformers reads GGUF files through it
        import transformers
    except ImportError as error:
        raise MissingExtraError.of(f"the tokenizer of {name}", "models") from error
    size = sum(part.stat().st_size for part in parts)
    target = cache_directory() / "tokenizers" / f"{name}-{size}-transformers-{transformers.__version__}"
    if (target / "tokenizer.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as work:
        # The tokenizer lies at the front; the tensors behind it are a hole of the right length, and never read.
        file = Path(work) / "model.gguf"
        shutil.copyfile(parts[0], file)
        os.truncate(file, size)
        tokenizer = transformers.AutoTokenizer.from_pretrained(work, gguf_file=file.name, trust_remote_code=False)
        done = Path(work) / "done"
        tokenizer.save_pretrained(done)
        try:
            done.rename(target)
        except OSError:
            if not (target / "tokenizer.json").exists():  # another process was first: its result is the same
                raise
    return target
