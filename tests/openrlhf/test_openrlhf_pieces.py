"""Under ZeRO 3 a rank holds its piece of every weight once a model is loaded: two processes with gloo between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openrlhf")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.openrlhf.forked import answers_of

pytestmark = [pytest.mark.openrlhf, pytest.mark.timeout(300)]

RANKS = 2
WAYS = tuple((stage, dtype) for stage in (2, 3) for dtype in ("float32", "bfloat16"))
VOCABULARY = 1000


@pytest.fixture(scope="module")
def ranks(path: Path) -> dict[tuple[int, str], dict[int, tuple[Any, ...]]]:
    """By stage and type, what each rank found."""
    folder = path.with_name("ranks")
    folder.mkdir()
    common = {"path": str(path), "vocabulary": VOCABULARY, "ranks": RANKS}
    plans = [{**common, "stage": stage, "dtype": dtype} for stage, dtype in WAYS]
    answers = answers_of("pieces_ranks.py", plans, [RANKS] * len(WAYS), folder)
    return {way: dict(enumerate(of)) for way, of in zip(WAYS, answers, strict=True)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """34 million weights, the largest matrix 1 million of them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(path)
    return path


def test_each_rank_holds_its_piece_of_every_weight_and_no_more(
    path: Path, ranks: dict[tuple[int, str], dict[int, tuple[Any, ...]]]
) -> None:
    expected = dict(LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).named_parameters())
    whole = sum(p.numel() for p in expected.values())
    cut, uncut = ranks[3, "float32"], ranks[2, "float32"]
    for held, there, *_ in cut.values():
        assert held.keys() == expected.keys()
        assert set(there.values()) == {0}  # a placeholder, until a layer is computed
        assert all(held[name] == -(-p.numel() // RANKS) for name, p in expected.items())
    for held, *_ in uncut.values():
        assert sum(held.values()) == whole
    gathered = cut[0][2]
    assert gathered.keys() == expected.keys()
    assert all(np.array_equal(gathered[name][1], p.detach().numpy()) for name, p in expected.items())


def test_pieces_are_of_the_type_that_is_trained_in(
    path: Path, ranks: dict[tuple[int, str], dict[int, tuple[Any, ...]]]
) -> None:
    exact = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).model.rotary_emb.inv_freq
    for stage in (2, 3):
        for held, _, wholes, kind, frequencies in ranks[stage, "bfloat16"].values():
            assert {dtype for dtype, _ in wholes.values()} <= {"torch.bfloat16"}
            assert sum(held.values()) < 0.51 * 34.6e6 or stage == 2
            assert kind == "torch.float32"
            assert np.array_equal(frequencies, exact.numpy())  # DeepSpeed would round them


def test_tensors_are_dealt_so_that_all_ranks_keep_about_as_much() -> None:
    from learners.openrlhf.cluster.pieces import dealt

    sizes = {"embedding": 60, **{f"layer {i}": 10 for i in range(6)}, "norm": 1}
    first, second = dealt(sizes, 2)
    assert first | second == sizes.keys()
    assert not first & second
    assert sorted(sum(sizes[name] for name in part) for part in (first, second)) == [60, 61]
    assert dealt(sizes, 1) == [frozenset(sizes)]


class Weighed(torch.nn.Module):
    """Has weights beside what it computes."""

    made = 0

    def __init__(self, config: object = None) -> None:
        super().__init__()
        Weighed.made += 1
        self.config = config
        self.inner = torch.nn.Linear(2, 2)
        self.register_buffer("frequencies", torch.ones(2), persistent=False)


def test_what_is_computed_is_never_made_anew_with_weights_beside_it() -> None:
    from learners.openrlhf.cluster.pieces import _make_exact
    from mutual_env.errors import InvalidInputError

    model = torch.nn.Sequential(Weighed())
    with pytest.raises(InvalidInputError, match=r"would round frequencies of Weighed, .*: use zero_stage 2"):
        _make_exact(model)
    assert Weighed.made == 1
