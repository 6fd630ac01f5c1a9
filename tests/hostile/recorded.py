"""A run whose models wrote what somebody else says, everywhere that words are recorded."""

from __future__ import annotations

import json
from pathlib import Path

from learners.run.config import load_run
from learners.run.training import train
from tests.hostile.fuzz_config import RUN

KEEP = {"policy", "reader", "author", "loss", "correction", "dropped", "note", "status", "finish_reason"}


def a_run(root: Path) -> Path:
    (root / "run.yaml").write_text(f"{RUN}output: {root}\n")
    return train(load_run(root / "run.yaml", ["rounds=1"])).directory


def put_into(directory: Path, words: str) -> None:
    """These words in front of all that was recorded of a model's."""
    for name in ("samples.jsonl", "lessons.jsonl"):
        path = directory / name
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps(_with(words, line)) + "\n" for line in lines))


def _with(words: str, value: object, key: str = "") -> object:
    if isinstance(value, dict):
        return {k: _with(words, v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_with(words, v, key) for v in value]
    known = key in KEEP or value in ("ok", "wrong_format", "timeout", "crash", "error")
    return value if known or not isinstance(value, str) else words + value
