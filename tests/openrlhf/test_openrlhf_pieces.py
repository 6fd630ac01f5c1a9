"""Under ZeRO 3 a rank holds its piece of every weight from the first tensor on, and reads and writes no more than its
share of a checkpoint: two processes with gloo between them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openrlhf")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = [pytest.mark.openrlhf, pytest.mark.timeout(300)]

RANKS = 2
VOCABULARY = 1000


class Peak:
    """The most memory of its own that this process has held beyond what it held at first, in bytes: files that are
    mapped do not count."""

    def __init__(self) -> None:
        self._first = self._most = _anonymous()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self._most = max(self._most, _anonymous())

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self._most - self._first


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


def loads(rank: int, path: Path, port: int, stage: int, dtype: str, answers: Any) -> None:
    """In a process of its own: what a rank holds of each weight once the model is loaded."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
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
    peak = Peak()
    model = load_model(path, VOCABULARY, options, strategy)
    most = peak.end()
    held = {n: p.ds_tensor.numel() if hasattr(p, "ds_id") else p.numel() for n, p in model.trainable().items()}
    there = {n: p.numel() for n, p in model.trainable().items()}
    wholes = {n: (str(w.dtype), w.float().numpy().copy()) for n, w in model.merged_weights(gathered)}
    DeepspeedSteps(strategy, make_actor(model, 1.0, ActorOptions()), options)
    frequencies = model.decoder.rotary_emb.inv_freq
    answers.put((rank, most, held, there, wholes if rank == 0 else {}, str(frequencies.dtype), frequencies.numpy()))
    torch.distributed.barrier()


def each_rank(path: Path, stage: int, dtype: str = "float32") -> dict[int, tuple[Any, ...]]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    answers = context.Queue()
    processes = [
        context.Process(target=loads, args=(r, path, port, stage, dtype, answers), daemon=True) for r in range(RANKS)
    ]
    for process in processes:
        process.start()
    found = {rank: rest for rank, *rest in (answers.get(timeout=240) for _ in processes)}
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


def test_no_rank_ever_holds_the_model_whole(path: Path) -> None:
    expected = dict(LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).named_parameters())
    whole = sum(p.numel() for p in expected.values())
    cut, uncut = each_rank(path, 3), each_rank(path, 2)
    for most, held, there, *_ in cut.values():
        assert held.keys() == expected.keys()
        assert set(there.values()) == {0}  # a placeholder, until a layer is computed
        assert all(held[name] == -(-p.numel() // RANKS) for name, p in expected.items())
        assert most < 0.75 * 4 * whole
    for most, held, *_ in uncut.values():
        assert sum(held.values()) == whole
        assert most > 0.9 * 4 * whole
    gathered = cut[0][3]
    assert gathered.keys() == expected.keys()
    assert all(np.array_equal(gathered[name][1], p.detach().numpy()) for name, p in expected.items())


def test_pieces_are_of_the_type_that_is_trained_in(path: Path) -> None:
    exact = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).model.rotary_emb.inv_freq
    for stage in (2, 3):
        for _, held, _, wholes, kind, frequencies in each_rank(path, stage, "bfloat16").values():
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
