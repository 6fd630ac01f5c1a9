"""OpenRLHF's actor groups and DeepSpeed on a real Ray cluster of this machine, without a GPU (make test-openrlhf).

Ray is told of two GPUs that are not there, so that OpenRLHF's groups can be placed; the actors find no CUDA and compute
on the CPU, with gloo between them. What only CUDA can show is not shown here: NCCL, and bfloat16 at speed.
"""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners.example import Example
from learners.losses import CappedSequence, ShapedProbability
from learners.testing import check_learner
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from learners.torch.tiny import make_model
from mutual_env.errors import ConfigError, DeadlineExceededError, InvalidInputError, TrainingError
from mutual_env.types import CrossEntropy, LossSpec, PolicyGradient
from tests.learners.test_torch_options import TOGETHER
from tokenizers_bridge import CharTokenizer

pytestmark = [pytest.mark.openrlhf, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore:own samples were")]

TOKENIZER = CharTokenizer("0123456789+= abcdefgh")
PROMPTS = ("1+2=", "3+4=", "12+34=")
KINDS: tuple[LossSpec, ...] = (
    PolicyGradient(),
    PolicyGradient(ratio="sequence"),
    CrossEntropy(),
    ShapedProbability(),
    CappedSequence(floor=0.1, cap=5.0),
)
ELSEWHERE = {
    *("device", "dtype", "lora_rank", "lora_alpha", "lora_targets", "seed"),  # in the tests below
    *(
        "compile",
        "conversation_mb",
        "logits_chunk_mib",
        "share_prompts",
        "micro_batch_tokens",
    ),  # refused, and given by each test
}
OPTIONS = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_model("llama", TOKENIZER, width=32, layers=2, heads=4, seed=1).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def build(path: Path) -> Iterator[Callable[..., Any]]:
    """Learners on one small cluster; what a test leaves open is closed."""
    import ray

    from learners.openrlhf.make import make_openrlhf_ray

    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)

    def build(**options: Any) -> Any:
        settings = {**OPTIONS, "timeout": 300.0, **options}
        return make_openrlhf_ray(str(path), name="toy", tokenizer=TOKENIZER, **settings)

    yield build
    ray.shutdown()


def torch_learner(**options: Any) -> TorchLearner:
    model = make_model("llama", TOKENIZER, width=32, layers=2, heads=4, seed=1)
    return TorchLearner(model, TOKENIZER, name="toy", options=TorchOptions.of({**OPTIONS, **options}))


def examples_of(learner: TorchLearner) -> list[Example]:
    """Fifteen examples of every kind, uneven in length and weight, some anchored, some pulled to a reference."""
    numbers = np.random.default_rng(5)
    groups = learner.act(PROMPTS, 5, seed=7)
    examples = []
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for index, completion in enumerate(group):
            size = completion.token_ids.size
            examples.append(
                Example(
                    TOKENIZER.render_prompt(prompt),
                    completion.token_ids,
                    np.arange(size) % 4 != 1,
                    numbers.normal(size=size),
                    KINDS[index],
                    weight=(1.0, 0.5, 2.0, 1.0, 0.25)[index],
                    anchor=completion.logprobs - 0.1 if index % 2 else None,
                    reference=completion.logprobs - 0.2 if index == 0 else None,
                    kl_weight=0.05 if index == 0 else 0.0,
                    behaviour=completion.logprobs + (0.3 if index == 1 else 0.0),
                )
            )
    return examples


def worst(first: Any, second: Any, examples: list[Example]) -> float:
    prompts, responses = [e.prompt_ids for e in examples], [e.response_ids for e in examples]
    pairs = zip(first.score(prompts, responses), second.score(prompts, responses), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def assert_dealt(directory: Path, ranks: int) -> None:
    """Each rank has written a file of its own, and all tensors are in one of them."""
    from safetensors.torch import load_file

    for kind in ("weights", "optimizer", "reference"):
        files = sorted(directory.glob(f"{kind}*.safetensors"))
        assert len(files) == ranks
        sizes = [sum(tensor.numel() for tensor in load_file(file).values()) for file in files]
        assert max(sizes) < 0.7 * sum(sizes) or ranks == 1
        assert len({name for file in files for name in load_file(file)}) == sum(len(load_file(file)) for file in files)


def with_every_option(actors: int, stage: int) -> dict[str, Any]:
    """Two actors add up in another order. What that rounds grows with every step, and most of all where Adam begins
    anew, whose first step is as long for a gradient of nothing but rounding: they take fewer steps, and reset later."""
    options = {name: value for name, value in TOGETHER.items() if name not in ELSEWHERE}
    return {**options, "optimizer_reset": stage > 1, "epochs": 3 - actors, "reference_reset": actors}


@pytest.mark.parametrize(("actors", "stage"), [(1, 1), (2, 2), (2, 3)])
def test_any_number_of_actors_learns_what_the_torch_learner_learns(
    build: Callable[..., Any], tmp_path: Path, actors: int, stage: int
) -> None:
    """With another value of every option of the torch learner than its default, in training as in sampling."""
    options = with_every_option(actors, stage)
    # 40 tokens: the 15 toy sequences (at most 17 tokens each) make an odd number of micro-batches of two or three.
    ours = torch_learner(**options)
    theirs = build(gpus_per_node=actors, zero_stage=stage, micro_batch_tokens=40, **options)
    try:
        examples = examples_of(ours)
        assert worst(ours, theirs, examples) < 1e-5
        for _ in range(3):
            first, second = ours.update(examples), theirs.update(examples)
            assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
            assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)
        assert worst(ours, theirs, examples) < 1e-4
        theirs.save(tmp_path / "saved")
        assert_dealt(tmp_path / "saved", actors)
        going_on = theirs.update(examples)
        theirs.load(tmp_path / "saved")
        assert theirs.version == 3
        assert theirs.update(examples) == going_on
        other = torch_learner(**options)
        other.load(tmp_path / "saved")
        assert other.version == 3
        other.save(tmp_path / "theirs")
        theirs.load(tmp_path / "theirs")
        assert worst(other, theirs, examples) < 1e-5
        exported, expected = dict(theirs.export_weights()), dict(other.export_weights())
        assert exported.keys() == expected.keys()
        assert all(np.array_equal(exported[n].numpy(), expected[n].numpy()) for n in expected)
        if stage == 3:
            with pytest.raises(ConfigError, match="sample with vLLM"):
                theirs.act(PROMPTS, 2, seed=1)
        else:
            pairs = zip(theirs.act(PROMPTS, 2, seed=1), other.act(PROMPTS, 2, seed=1), strict=True)
            assert all([c.text for c in a] == [c.text for c in b] for a, b in pairs)
    finally:
        theirs.close()
        theirs.close()


def test_bfloat16_has_float32_masters_that_a_checkpoint_keeps(build: Callable[..., Any], tmp_path: Path) -> None:
    ours = torch_learner(dtype="bfloat16", learning_rate=1e-4)
    theirs = build(gpus_per_node=2, dtype="bfloat16", learning_rate=1e-4, micro_batch_tokens=40)
    try:
        examples = examples_of(ours)
        for _ in range(3):
            first, second = ours.update(examples), theirs.update(examples)
            assert first["loss"] == pytest.approx(second["loss"], rel=0.02)
        theirs.save(tmp_path)
        going_on = theirs.update(examples)
        theirs.load(tmp_path)
        assert theirs.update(examples) == going_on
    finally:
        theirs.close()


class Rewound:
    """One of a few learners that the suite uses again and again, each time from the same checkpoint."""

    def __init__(self, learner: Any) -> None:
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def close(self) -> None:
        """Not yet."""


def test_the_cluster_learner_conforms(build: Callable[..., Any], tmp_path: Path) -> None:
    pair = [build(), build()]  # two policies on one cluster, which must not meet
    pair[0].save(tmp_path / "initial")
    turns = iter(range(10**6))

    def make() -> Any:
        learner = pair[next(turns) % 2]
        learner.load(tmp_path / "initial")
        return Rewound(learner)

    try:
        check_learner(make)
    finally:
        for learner in pair:
            learner.close()


def test_a_loss_that_is_not_finite_is_refused_by_all_actors_alike(build: Callable[..., Any], tmp_path: Path) -> None:
    learner = build(gpus_per_node=2, micro_batch_tokens=40)
    try:
        examples = examples_of(torch_learner())
        learner.save(tmp_path / "good")
        spoilt = [replace(examples[0], weight=float("inf")), *examples[1:]]
        with pytest.raises(TrainingError, match="the weights were not touched"):
            learner.update(spoilt)
        assert learner.version == 0
        with pytest.raises(TrainingError, match="Load the last checkpoint"):
            learner.update(examples)
        learner.load(tmp_path / "good")
        learner.update(examples)
        assert learner.version == 1
    finally:
        learner.close()


def test_adapters_train_on_the_cluster_too(build: Callable[..., Any]) -> None:
    options: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8.0, "lora_targets": "q_proj,v_proj", "seed": 3}
    options |= {"kl_coefficient": 0.02, "reference_reset": 2}
    ours, theirs = torch_learner(**options), build(**options)
    try:
        examples = examples_of(ours)
        for _ in range(3):
            first, second = ours.update(examples), theirs.update(examples)
            assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
        changed = theirs.weights_stamp
        assert theirs.update([])["optimizer_steps"] == 0
        assert (changed, theirs.weights_stamp) == (3, 3)  # what samples need not be given them again
        merged, expected = dict(theirs.export_weights()), dict(ours.export_weights())
        assert merged.keys() == expected.keys()
        assert all(np.allclose(merged[n].numpy(), expected[n].numpy(), atol=1e-4) for n in expected)
    finally:
        theirs.close()


def in_a_ring() -> type:
    """OpenRLHF's actor in a process of Ray that has flash-attn's kernels in plain torch. Made here, so that Ray hands
    it on as it stands: what it holds must be imported after those kernels are there."""
    script = str(Path(__file__).with_name("ring_ranks.py"))

    class InARing:
        def __init__(self, *arguments: Any) -> None:
            self.actor = runpy.run_path(script)["actor_of"](*arguments)

        def get_master_addr_port(self) -> Any:
            return self.actor.get_master_addr_port()

        def init_model_from_pretrained(self, *arguments: Any) -> Any:
            return self.actor.init_model_from_pretrained(*arguments)

        def score(self, *arguments: Any) -> Any:
            return self.actor.score(*arguments)

        def update(self, *arguments: Any) -> Any:
            return self.actor.update(*arguments)

    return InARing


def test_a_ring_through_rays_actors_learns_what_one_rank_learns(
    build: Callable[..., Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels are those of flash_on_cpu.py; Ray, OpenRLHF's group and actors, ring_flash_attn and gloo are real."""
    from learners.openrlhf.cluster import learner as on_ray
    from learners.openrlhf.options import ActorOptions, ClusterOptions

    monkeypatch.setattr(on_ray, "SharingPolicyActor", in_a_ring())
    options, ours = TorchOptions.of({**OPTIONS, "kl_coefficient": 0.02}), torch_learner(kl_coefficient=0.02)
    cluster = ClusterOptions(gpus_per_node=2, ring_attn_size=2, ring_attn_head_stride=2, timeout=300.0)
    computed = ActorOptions(attention="flash_attention_2", packing=True)
    ring = on_ray.RayOpenRlhfLearner(
        str(path), TOKENIZER, name="toy", options=options, cluster=cluster, computed=computed
    )
    try:
        examples = examples_of(ours)
        assert worst(ours, ring, examples) < 1e-5
        first, second = ours.update(examples), ring.update(examples)
        for key in ("loss", "gradient_norm"):
            assert second[key] == pytest.approx(first[key], rel=1e-4)
        assert worst(ours, ring, examples) < 1e-4
    finally:
        ring.close()


def test_a_cluster_without_room_is_named_in_time(build: Callable[..., Any]) -> None:
    with pytest.raises(DeadlineExceededError, match="no 9 bundles of one GPU and one CPU free for toy within 2 s"):
        build(gpus_per_node=9, timeout=2.0)


def test_cluster_options_are_refused_by_name() -> None:
    from learners.openrlhf.options import ClusterOptions

    for field, value in (("nodes", 0), ("zero_stage", 4), ("timeout", 0.0)):
        with pytest.raises(InvalidInputError, match=field):
            ClusterOptions(**{field: value})


def test_what_we_build_on_is_there_in_the_installed_version() -> None:
    """The names and parameters of OpenRLHF that our code calls, on the real classes."""
    from learners.openrlhf import library
    from learners.openrlhf.cluster import library as cluster_library
    from learners.openrlhf.cluster.actor import SharingPolicyActor

    def parameters(function: Any) -> set[str]:
        return set(inspect.signature(function).parameters)

    assert parameters(cluster_library.RayActorGroup.__init__) >= {
        "num_nodes",
        "num_gpus_per_node",
        "ray_actor_type",
        "pg",
        "num_gpus_per_actor",
    }
    assert parameters(cluster_library.RayActorGroup.async_run_method) >= {"method_name", "args", "kwargs"}
    assert issubclass(SharingPolicyActor, cluster_library.BaseModelActor)
    assert parameters(cluster_library.BaseModelActor.__init__) - {"_ray_trace_ctx"} == {
        "self",
        "world_size",
        "rank",
        "master_addr",
        "master_port",
    }
    assert parameters(cluster_library.BaseModelActor._setup_distributed) >= {"self", "strategy"}
    for method in ("setup_distributed", "prepare", "backward", "optimizer_step", "get_grad_norm", "is_rank_0"):
        assert callable(getattr(cluster_library.DeepspeedStrategy, method))
    assert parameters(library.Actor.forward) >= {"sequences", "action_mask", "attention_mask"}
    fields = set(library.Experience.__dataclass_fields__)
    assert fields >= {"sequences", "attention_mask", "action_mask"}


def test_the_ray_executor_hands_its_placement_group_on_to_the_actors(build: Callable[..., Any], path: Path) -> None:
    """The cluster has two GPUs: the executor's group takes both, so a group of the learner's own would find none."""
    from functools import partial

    from learners.openrlhf.make import make_openrlhf_ray
    from learners.resources.demand import Demand, Needs, Patience
    from learners.resources.on_ray import RayExecutor
    from learners.resources.record import Span

    needs = Needs(gpus=1.0, gang=2, limit=300.0)
    demand = Demand("toy", {"act": needs, "update": needs}, spreads=True)
    executor = RayExecutor([demand], Patience(restart_limit=300.0), address="auto")
    make = partial(
        make_openrlhf_ray, str(path), name="toy", tokenizer=TOKENIZER, gpus_per_node=2, timeout=240.0, **OPTIONS
    )
    learner = executor.host({"toy": make})["toy"]
    acted = executor.map("act", {"toy": partial(learner.act, PROMPTS, 2, seed=1)})["toy"]
    assert [len(group) for group in acted] == [2, 2, 2]
    [span] = [item for item in executor.record.take() if isinstance(item, Span)]
    assert len(span.devices) == 2
    assert learner.max_sequence == 512  # type: ignore[attr-defined]  (the positions of the tiny model)
    learner.offload()  # type: ignore[attr-defined]  (nothing, without CUDA)
    learner.restore()  # type: ignore[attr-defined]
    assert len(executor.hosts["toy"].places()) == 2
    assert {len(place.gpus) for place in executor.hosts["toy"].places()} == {1}
    executor.close()
