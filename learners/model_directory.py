"""What a directory with a model must hold, found out without loading it. Importing this loads no torch."""

from __future__ import annotations

import os
from pathlib import Path

from learners.sealed import read_json
from mutual_env.errors import StorageError, WrongPathError


def check_model_directory(path: Path) -> None:
    """Raise where no model can be read from there."""
    if not (path / "config.json").is_file():
        there = "holds no model (config.json is missing)" if path.is_dir() else "does not exist"
        raise WrongPathError(
            f"path={str(path)!r} {there}: give the directory that `save_pretrained` or `hf download MODEL --local-dir` "
            "wrote; nothing is fetched while a run goes on"
        )
    try:
        read_json(path / "config.json")
    except StorageError as error:
        raise WrongPathError(f"path={str(path)!r} holds no model: {error}") from error
    if not any(path.glob("*.safetensors")):
        raise WrongPathError(f"path={str(path)!r} holds no weights as *.safetensors: fetch the model in that form")


def open_to_others(directory: Path) -> None:
    """Weights as readable as every other file that this user writes: safetensors keeps them to the owner, and a server
    under another name, or in a container, could not load them."""
    mask = os.umask(0)
    os.umask(mask)
    for file in directory.glob("*.safetensors"):
        file.chmod(0o666 & ~mask)
