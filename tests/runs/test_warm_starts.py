"""Runs of one seed start from the same weights, which the first of them leaves for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from learners.run.directory import WARM_STARTS
from tokenizers_bridge import load

pytestmark = pytest.mark.torch


def made(seed: int, steps: int = 3) -> Any:
    from learners.tiny import make_tiny

    warm = {"env": "mutual/letters-v0", "knows": {"skill": ["sort"]}, "steps": steps, "prompts": 8}
    tokenizer = load({"kind": "char", "alphabet": "abcdefgh:=rs"})
    return make_tiny(name="ada", seed=seed, tokenizer=tokenizer, width=16, layers=1, heads=2, warm_start=warm).model


def same(first: Any, second: Any) -> bool:
    import torch

    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_kept_start_is_the_one_that_would_have_been_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = made(0)
    monkeypatch.setenv(WARM_STARTS, str(tmp_path / "starts"))
    assert same(made(0), alone)
    assert same(made(0), alone)
    assert len(list((tmp_path / "starts").iterdir())) == 1


def test_another_seed_or_another_warm_start_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WARM_STARTS, str(tmp_path))
    assert not same(made(0), made(1))
    assert not same(made(0), made(0, steps=4))
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_in_the_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another seed's weights under this seed's name are what the policy then begins with.
    monkeypatch.setenv(WARM_STARTS, str(tmp_path))
    made(0)
    (first,) = tmp_path.iterdir()
    other = made(1)
    (second,) = set(tmp_path.iterdir()) - {first}
    first.write_bytes(second.read_bytes())
    assert same(made(0), other)
