"""A policy on a Ray cluster: OpenRLHF's actor groups and DeepSpeed behind the learner protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group

from learners.checks import check_examples, check_sequences
from learners.example import Example
from learners.openrlhf.cluster.actor import PolicySpec, SharingPolicyActor
from learners.openrlhf.cluster.deepspeed import ClusterStrategy
from learners.openrlhf.cluster.library import RayActorGroup
from learners.openrlhf.options import ActorOptions, ClusterOptions
from learners.sampling import Sample, asked_for, room_for, where_room_is
from learners.torch.learner import probe_of
from learners.torch.options import TorchOptions
from mutual_env.errors import ConfigError, DeadlineExceededError
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge import Tokenizer
from tokenizers_bridge.replies import Conversing


class RayOpenRlhfLearner:
    """Data-parallel actors, one GPU each, for one policy; several policies on one cluster do not meet. Inside an actor
    whose placement group has GPUs for them (the Ray executor's), they take those.

    `path` is a model directory that every node sees; so must be the directories of `save` and `load`. Ray is used as it
    was initialised, or started for this machine. Sampling is the torch learner's, its prompts dealt to the actors (not
    with zero_stage 3, which needs vLLM for it). A call that outlasts `cluster.timeout` raises, and the actors are then
    best closed: Ray cannot interrupt them.
    """

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        *,
        name: str,
        options: TorchOptions | None = None,
        cluster: ClusterOptions | None = None,
        computed: ActorOptions | None = None,
    ) -> None:
        self._name = name
        self._options = options or TorchOptions()
        self._tokenizer = self._options.prompted(tokenizer)
        self._conversing = Conversing(self._tokenizer)
        self._cluster = cluster or ClusterOptions()
        self._computed = computed or ActorOptions()
        self._version = 0
        self._changes = 0
        if not ray.is_initialized():
            ray.init()
        positions = json.loads((Path(path) / "config.json").read_text()).get("max_position_embeddings")
        self._positions = None if positions is None else int(positions)
        self._given = _group_given(self._cluster.actors)
        self._place = self._given or placement_group([{"GPU": 1, "CPU": 1}] * self._cluster.actors, strategy="PACK")
        try:
            self._actors = self._start(path)
            self._head_size = int(self._first("init_model_from_pretrained", *self._plan(path)))
        except BaseException:
            self._give_back()
            raise
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int:
        return self._version

    @property
    def weights_stamp(self) -> int:
        """Changes whenever the weights do, or may have done."""
        return self._changes

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def max_sequence(self) -> int | None:
        """What the model's positions leave room for; a long row is a micro-batch of its own."""
        return self._positions

    def offload(self) -> None:
        """The optimizer's state and the gradients' room into the machine's memory; the weights stay."""
        self._all("offload")

    def restore(self) -> None:
        self._all("restore")

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        """A group of n completions for each prompt."""
        asked = asked_for(prompts, n, seed, self._name, self._conversing)
        sampling = self._options.sampling(self._tokenizer)

        def sample(rendered: list[Ids], seeds_PG: list[tuple[int, ...]]) -> list[tuple[Completion, ...]]:
            check_sequences(rendered, [ids[:0] for ids in rendered], self._head_size)
            shares: list[dict[int, tuple[Sample, ...]]] = self._all("sample", rendered, seeds_PG, sampling)
            groups = {index: group for share in shares for index, group in share.items()}
            return [
                tuple(one.completion(self._tokenizer, self._version) for one in groups[i]) for i in range(len(rendered))
            ]

        full = Completion.no_room(self._version, self._tokenizer.fingerprint)
        return where_room_is(prompts, asked, room_for(self.max_sequence, sampling.max_new_tokens), full, sample)

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π(response | prompt) for each response token, at the temperature of `act`."""
        check_sequences(prompt_ids, response_ids, self._head_size)
        scores: list[Floats] = self._first("score", list(zip(prompt_ids, response_ids, strict=True)))
        return scores

    def update(self, examples: Sequence[Example]) -> Metrics:
        """Learn from these examples in one update."""
        check_examples(examples, self._head_size)
        try:
            metrics: Metrics = self._first("update", list(examples))
        except BaseException:  # steps before the one that failed may have been taken
            self._changes += 1
            raise
        self._changes += metrics["optimizer_steps"] > 0
        self._version += 1
        if self._options.resets_after(self._version):
            self._all("renew_reference")
        return metrics

    def export_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights a sampler elsewhere needs to follow this policy, under the model's own names, LoRA merged in."""
        yield from self._first("weights").items()

    def save(self, directory: Path) -> None:
        self._all("save", str(directory.absolute()), self._version)

    def load(self, directory: Path) -> None:
        self._changes += 1
        self._version = int(self._first("load", str(directory.absolute())))

    def close(self) -> None:
        """Kill the actors and give their devices back. Safe to call twice."""
        if not self._closed:
            self._closed = True
            for actor in self._actors._actor_handlers:
                ray.kill(actor)
            self._give_back()

    def _give_back(self) -> None:
        """A group that was handed on belongs to who handed it on."""
        if self._given is None:
            remove_placement_group(self._place)

    def _start(self, path: str) -> RayActorGroup:
        wanted = f"{self._cluster.actors} bundles of one GPU and one CPU"
        self._wait([self._place.ready()], f"the cluster has no {wanted} free for {self._name}")
        return RayActorGroup(
            self._cluster.nodes,
            self._cluster.gpus_per_node,
            ray.remote(num_gpus=1)(SharingPolicyActor),
            pg=self._place,
            num_gpus_per_actor=min(1.0, *(float(b.get("GPU", 1.0)) for b in self._place.bundle_specs), 1.0),
        )

    def _plan(self, path: str) -> tuple[ClusterStrategy, PolicySpec]:
        spec = PolicySpec(
            name=self._name,
            path=str(Path(path).absolute()),
            vocab_size=self._tokenizer.vocab_size,
            tokenizer=self._tokenizer.fingerprint,
            options=self._options,
            cluster=self._cluster,
            computed=self._computed,
            probe=tuple(int(i) for i in probe_of(self._tokenizer)),
        )
        return ClusterStrategy(self._options, self._cluster), spec

    def places(self) -> list[tuple[str, tuple[str, ...]]]:
        """Of each actor, its node and Ray's names of its GPUs."""
        return self._all("where")

    def _first(self, method: str, *arguments: Any) -> Any:
        """Run a method on all actors; what the first returns."""
        return self._all(method, *arguments)[0]

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        references = self._actors.async_run_method(method, *arguments)
        return self._wait(references, f"{method} of {self._name} did not end")

    def _wait(self, references: list[Any], what: str) -> list[Any]:
        timeout = self._cluster.timeout
        try:
            results: list[Any] = ray.get(references, timeout=timeout)
        except GetTimeoutError as error:
            raise DeadlineExceededError(
                f"{what} within {timeout:.0f} s: raise `timeout`, or look at the cluster"
            ) from error
        return results


def _group_given(actors: int) -> Any:
    """The placement group around this process, if it holds a GPU for each actor; None: there is none."""
    group = get_current_placement_group()
    if group is None or not any(bundle.get("GPU") for bundle in group.bundle_specs):
        return None
    if len(group.bundle_specs) != actors:
        raise ConfigError(
            f"the policy is given {len(group.bundle_specs)} GPUs by resources.demands (gang), and nodes x "
            f"gpus_per_node asks for {actors}: make them equal"
        )
    return group
