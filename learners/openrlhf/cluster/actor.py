"""One data-parallel rank of a policy on a Ray cluster: OpenRLHF's policy actor, trained on examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from learners.example import Example
from learners.openrlhf.cluster.deepspeed import ClusterStrategy, DeepspeedSteps
from learners.openrlhf.cluster.library import BaseModelActor, offload_deepspeed_states, reload_deepspeed_states
from learners.openrlhf.cluster.pieces import load_model
from learners.openrlhf.cluster.ring import check_ring, require_devices
from learners.openrlhf.cluster.state import ClusterState, gathered, writable
from learners.openrlhf.library import Actor
from learners.openrlhf.make_actor import make_actor
from learners.openrlhf.options import ActorOptions, ClusterOptions
from learners.openrlhf.ranks import ProcessGroup
from learners.openrlhf.trainer import ActorTrainer
from learners.sampling import Sample, Sampling
from learners.torch import storage
from learners.torch.options import TorchOptions
from learners.torch.reference import ReferencePolicy
from learners.torch.refill import refilled_groups
from learners.torch.sampler import sample_groups
from learners.torch.trainer import memory_errors
from mutual_env.errors import ConfigError
from mutual_env.types import Floats, Ids, Metrics


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What an actor needs to build its policy. `path` is a model directory that every node sees; `probe` holds ids of
    ordinary text, for the model's check of itself."""

    name: str
    path: str
    vocab_size: int
    tokenizer: str
    options: TorchOptions
    cluster: ClusterOptions
    computed: ActorOptions
    probe: tuple[int, ...] = ()


class SharingPolicyActor(BaseModelActor):  # type: ignore[misc]
    """Set up by OpenRLHF and DeepSpeed; the model is loaded without running its directory's code, the losses are
    ours, and checkpoints are safetensors where OpenRLHF's are pickles.

    Every method is called on all ranks at once, with the same arguments.
    """

    def init_model_from_pretrained(self, strategy: ClusterStrategy, spec: PolicySpec) -> int:
        """Build the policy; returns the number of logits."""
        require_devices(spec.cluster)
        self._setup_distributed(strategy)
        self._spec = spec
        ranks = ProcessGroup(spec.cluster.ring_attn_size)
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        with memory_errors(spec.name):
            self._model = load_model(Path(spec.path), spec.vocab_size, spec.options, strategy, spec.probe)
            check_ring(self._model.base, self._model.config, spec.cluster)
            actor = make_actor(self._model, spec.options.temperature, spec.computed)
            self._pulled_to = self._reference(actor)
            self._steps = DeepspeedSteps(strategy, actor, spec.options)
        self.actor = self._steps.actor
        ring = strategy.ring_attn_group
        self._trainer = ActorTrainer(self.actor, self._pulled_to, self._steps, spec.options, device, ranks, ring)
        return self._model.head.size

    def _reference(self, actor: Actor) -> ReferencePolicy[Actor]:
        copied: Callable[[Actor], Actor] = self._read_again if self.strategy.stage == 3 else copy.deepcopy
        return ReferencePolicy(actor, self._model, self._spec.options, self.strategy.prepare, copied, writable)

    def _read_again(self, _: Actor) -> Actor:
        """The policy as it begins: weights that lie in pieces cannot be copied."""
        spec = self._spec
        model = load_model(Path(spec.path), spec.vocab_size, spec.options, self.strategy)
        return make_actor(model, spec.options.temperature, spec.computed)

    def where(self) -> tuple[str, tuple[str, ...]]:
        """This rank's node, and Ray's names of its GPUs."""
        context = ray.get_runtime_context()
        return context.get_node_id(), tuple(context.get_accelerator_ids().get("GPU", ()))

    def offload(self) -> None:
        """DeepSpeed's state into the machine's memory, by OpenRLHF's own means; it needs CUDA."""
        if torch.cuda.is_available():
            offload_deepspeed_states(self.actor.model)

    def restore(self) -> None:
        if torch.cuda.is_available():
            reload_deepspeed_states(self.actor.model)

    def sample(
        self, prompts: Sequence[Ids], seeds_PG: Sequence[Sequence[int]], sampling: Sampling
    ) -> dict[int, tuple[Sample, ...]]:
        """This rank's share of the groups, by the index of their prompt."""
        if self._spec.cluster.zero_stage == 3:
            raise ConfigError("zero_stage 3 cuts the weights, and our sampler needs them whole: sample with vLLM")
        self._model.require_parts()
        dealt = ProcessGroup().mine(range(len(prompts)))
        mine = [index for index in dealt if index is not None]
        with memory_errors(self._spec.name):
            asked, seeds = [prompts[i] for i in mine], [seeds_PG[i] for i in mine]
            sample = refilled_groups if self._spec.options.refill else sample_groups
            groups = sample(self._model, asked, seeds, sampling, self._spec.options.max_rows)
        return dict(zip(mine, groups, strict=True))

    def score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Floats]:
        with memory_errors(self._spec.name):
            return self._trainer.score(pairs)

    def update(self, examples: Sequence[Example]) -> Metrics:
        with memory_errors(self._spec.name):
            return self._trainer.update(examples)

    def renew_reference(self) -> None:
        self._pulled_to.renew()
        if self._spec.options.optimizer_reset:
            ClusterState(self._model, self._steps).writer().forget()

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight on the CPU, adapters merged in; from the first rank, the others return nothing. On the devices
        one after the other is whole."""
        found = {}
        for name, weight in self._model.merged_weights(gathered):
            if self.strategy.is_rank_0():
                found[name] = weight.to("cpu", copy=True)
        return found

    def save(self, directory: str, version: int) -> None:
        """The torch learner's own format, in as many files as there are ranks: a checkpoint of one loads into the
        other. Each rank keeps and writes its own share of the tensors."""
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        share = ClusterState(self._model, self._steps).read(rank, ranks)
        kept = self._pulled_to.tensors(share.weights) if self._pulled_to.is_renewed else None
        state = storage.state_of(version, self._steps.steps, self._spec.tokenizer)
        saved = storage.Saved(share.weights, share.moments, state, kept, storage.Part(rank, ranks))
        try:
            saved.write(Path(directory))
        finally:  # who could not write is not waited for
            torch.distributed.barrier()

    def load(self, directory: str) -> int:
        """Returns the version."""
        state = ClusterState(self._model, self._steps)
        target = state.writer()
        return storage.load(Path(directory), target, target, self._spec.tokenizer, self._pulled_to)  # type: ignore[arg-type]
