"""Under ZeRO 3 a rank holds its piece of every weight once a model is loaded: two processes with gloo between them."""

from __future__ import annotations

import multiprocessing
import os
import queue
import runpy
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openrlhf")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = [pytest.mark.openrlhf, pytest.mark.timeout(300)]

RANKS, RANK = 2, "rank"
VOCABULARY = 1000


def loads(rank: int, path: Path, port: int, stage: int, dtype: str, answers: Any) -> None:
    """In a process of its own: what a rank holds of each weight once the model is loaded."""
    here = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {**here, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from learners.openrlhf.cluster.deepspeed import ClusterStrategy, DeepspeedSteps
    from learners.openrlhf.cluster.pieces import load_model
    from learners.openrlhf.cluster.state import gathered
    from learners.openrlhf.make_actor import make_actor
    from learners.openrlhf.options import ActorOptions, ClusterOptions
    from learners.torch.options import TorchOptions

    torch.set_num_threads(1)
    options = TorchOptions(device="cpu", dtype=dtype)  # type: ignore[arg-type]
    strategy = ClusterStrategy(options, ClusterOptions(gpus_per_node=RANKS, zero_stage=stage))
    strategy.setup_distributed()
    model = load_model(path, VOCABULARY, options, strategy)
    held = {n: p.ds_tensor.numel() if hasattr(p, "ds_id") else p.numel() for n, p in model.trainable().items()}
    there = {n: p.numel() for n, p in model.trainable().items()}
    wholes = {n: (str(w.dtype), w.float().numpy().copy()) for n, w in model.merged_weights(gathered)}
    DeepspeedSteps(strategy, make_actor(model, 1.0, ActorOptions()), options)
    frequencies = model.decoder.rotary_emb.inv_freq
    answers.put((rank, held, there, wholes if rank == 0 else {}, str(frequencies.dtype), frequencies.numpy()))
    torch.distributed.barrier()


def each_rank(path: Path, stage: int, dtype: str = "float32") -> dict[int, tuple[Any, ...]]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    answers = context.Queue()
    # By the path of this file: OpenRLHF's own package `tests` is what another process would import under that name.
    processes = [
        context.Process(
            target=runpy.run_path,
            args=(__file__, {"given": (rank, path, port, stage, dtype, answers)}, RANK),
            daemon=True,
        )
        for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    found: dict[int, tuple[Any, ...]] = {}
    while len(found) < RANKS:
        assert all(process.exitcode in (None, 0) for process in processes), "a rank ended: its error is printed"
        with suppress(queue.Empty):
            rank, *rest = answers.get(timeout=1.0)
            found[rank] = tuple(rest)
    for process in processes:
        process.join(timeout=30)
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """34 million weights, the largest matrix 1 million of them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(path)
    return path


def test_each_rank_holds_its_piece_of_every_weight_and_no_more(path: Path) -> None:
    expected = dict(LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).named_parameters())
    whole = sum(p.numel() for p in expected.values())
    cut, uncut = each_rank(path, 3), each_rank(path, 2)
    for held, there, *_ in cut.values():
        assert held.keys() == expected.keys()
        assert set(there.values()) == {0}  # a placeholder, until a layer is computed
        assert all(held[name] == -(-p.numel() // RANKS) for name, p in expected.items())
    for held, *_ in uncut.values():
        assert sum(held.values()) == whole
    gathered = cut[0][2]
    assert gathered.keys() == expected.keys()
    assert all(np.array_equal(gathered[name][1], p.detach().numpy()) for name, p in expected.items())


def test_pieces_are_of_the_type_that_is_trained_in(path: Path) -> None:
    exact = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).model.rotary_emb.inv_freq
    for stage in (2, 3):
        for held, _, wholes, kind, frequencies in each_rank(path, stage, "bfloat16").values():
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


if __name__ == RANK:
    loads(*globals()["given"])
