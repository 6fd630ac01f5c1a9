"""The actors of rings, each in a process: `python ring_ranks.py plans answers`. Forked from one that has imported what
they need."""

from __future__ import annotations

import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

runpy.run_path(str(Path(__file__).with_name("flash_on_cpu.py")))["install"]()

import torch  # noqa: E402  (flash-attn is asked for when these are imported)
from transformers import PreTrainedModel  # noqa: E402

from learners.openrlhf.cluster import actor as of_cluster  # noqa: E402
from learners.openrlhf.cluster.deepspeed import ClusterStrategy  # noqa: E402
from learners.openrlhf.options import ActorOptions, ClusterOptions  # noqa: E402
from learners.torch.options import TorchOptions  # noqa: E402


def actor_of(*arguments: Any) -> of_cluster.SharingPolicyActor:
    """OpenRLHF's actor, in a process without a GPU. Both of these ask for one."""
    torch.set_num_threads(1)
    PreTrainedModel._check_and_adjust_attn_implementation = lambda _, name, *_rest, **_kwargs: name or "eager"
    of_cluster.require_devices = lambda _cluster: None
    return of_cluster.SharingPolicyActor(*arguments)


def lives(rank: int, plan: dict[str, Any], answer: Path) -> None:
    """One actor's scores before and after three updates, and what the updates said."""
    options, cluster = TorchOptions.of(plan["options"]), ClusterOptions(**plan["cluster"])
    computed = ActorOptions(attention="flash_attention_2", packing=True)
    spec = of_cluster.PolicySpec("toy", plan["path"], plan["vocabulary"], "toy", options, cluster, computed)
    actor = actor_of(cluster.actors, rank, "127.0.0.1", plan["port"])
    actor.init_model_from_pretrained(ClusterStrategy(options, cluster), spec)
    before = actor.score(plan["pairs"])
    said = [actor.update(plan["examples"]) for _ in range(3)]
    answer.write_bytes(pickle.dumps((before, said, actor.score(plan["pairs"]))))
    torch.distributed.barrier()


if __name__ == "__main__":
    forked = runpy.run_path(str(Path(__file__).with_name("forked.py")))["forked"]
    for number, plan in enumerate(pickle.loads(Path(sys.argv[1]).read_bytes())):
        forked(lives, ClusterOptions(**plan["cluster"]).actors, plan, Path(sys.argv[2]), number)
