"""The ranks that read a model under ZeRO, each in a process: `python pieces_ranks.py plans answers`. Forked from one
that has imported what they need, as in ring_ranks.py."""

from __future__ import annotations

import os
import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

import torch

from learners.openrlhf.cluster.deepspeed import ClusterStrategy, DeepspeedSteps
from learners.openrlhf.cluster.pieces import load_model
from learners.openrlhf.cluster.state import gathered
from learners.openrlhf.make_actor import make_actor
from learners.openrlhf.options import ActorOptions, ClusterOptions
from learners.torch.options import TorchOptions


def loads(rank: int, plan: dict[str, Any], answer: Path) -> None:
    """What a rank holds of each weight once the model is loaded."""
    here = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(plan["ranks"])}
    os.environ |= {**here, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(plan["port"])}
    torch.set_num_threads(1)
    options = TorchOptions(device="cpu", dtype=plan["dtype"])
    strategy = ClusterStrategy(options, ClusterOptions(gpus_per_node=plan["ranks"], zero_stage=plan["stage"]))
    strategy.setup_distributed()
    model = load_model(Path(plan["path"]), plan["vocabulary"], options, strategy)
    held = {n: p.ds_tensor.numel() if hasattr(p, "ds_id") else p.numel() for n, p in model.trainable().items()}
    there = {n: p.numel() for n, p in model.trainable().items()}
    wholes = {n: (str(w.dtype), w.float().numpy().copy()) for n, w in model.merged_weights(gathered)}
    DeepspeedSteps(strategy, make_actor(model, 1.0, ActorOptions()), options)
    frequencies = model.decoder.rotary_emb.inv_freq
    found = (held, there, wholes if rank == 0 else {}, str(frequencies.dtype), frequencies.numpy())
    answer.write_bytes(pickle.dumps(found))
    torch.distributed.barrier()


if __name__ == "__main__":
    forked = runpy.run_path(str(Path(__file__).with_name("forked.py")))["forked"]
    for number, plan in enumerate(pickle.loads(Path(sys.argv[1]).read_bytes())):
        forked(loads, plan["ranks"], plan, Path(sys.argv[2]), number)
