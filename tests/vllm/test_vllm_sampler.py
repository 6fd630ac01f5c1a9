"""vLLM's real engine, in process and behind its server, as the sampler of a torch learner (make test-vllm)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import learners
from learners.example import Example
from learners.stopping import Endings
from learners.testing import check_learner
from learners.torch.learner import TorchLearner
from learners.torch.make import make_torch
from learners.vllm import LocalEngine, Sampling, SamplingEngine, VllmSampled, make_transport
from learners.vllm.server import Server, ServerEngine
from mutual_env.errors import ConfigError, InvalidInputError, TrainingError
from mutual_env.types import Completion, Context, CrossEntropy, Reply, Turn
from tests.vllm.conftest import KeptOpen

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PROMPTS = ("1+2=", "3+4=", "12+34=")
AGREEMENT = 1e-4


def torch_learner(path: Path, **options: Any) -> TorchLearner:
    settings = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, **options}
    learner = make_torch(str(path), name="toy", **settings)
    assert isinstance(learner, TorchLearner)
    return learner


def sampled(path: Path, engine: SamplingEngine, **options: Any) -> VllmSampled:
    learner = torch_learner(path, **options)
    return VllmSampled(learner, engine, Sampling(learner.tokenizer.stop_id, max_new_tokens=10))


def flat(groups: Sequence[Sequence[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def disagreement(learner: VllmSampled, groups: Sequence[Sequence[Completion]]) -> float:
    """The largest difference between a sampled log-probability and the learner's own score of it."""
    prompts = [learner.tokenizer.render_prompt(p) for p, group in zip(PROMPTS, groups, strict=True) for _ in group]
    completions = flat(groups)
    scores = learner.score(prompts, [c.token_ids for c in completions])
    return max(float(np.abs(s - c.logprobs).max()) for s, c in zip(scores, completions, strict=True))


def lesson(learner: VllmSampled, text: str) -> list[Example]:
    """Answer every prompt with this text."""
    response = np.append(learner.tokenizer.encode_batch([text])[0], learner.tokenizer.stop_id).astype(np.int32)
    return [
        Example(
            learner.tokenizer.render_prompt(p),
            response,
            np.ones(response.size, np.bool_),
            np.zeros(response.size),
            CrossEntropy(),
        )
        for p in PROMPTS
    ]


def test_samples_end_with_the_first_stop_string_whether_vllm_can_see_it_or_not(
    model_path: Path, engine: KeptOpen
) -> None:
    learner = torch_learner(model_path)
    free = VllmSampled(learner, engine, Sampling(learner.tokenizer.stop_id, max_new_tokens=10))
    whole = flat(free.act(PROMPTS, 8, seed=5))
    texts = [completion.text for completion in whole if len(completion.text) > 4]
    strings = [texts[0][2], texts[1][1:3]]  # a character, which some token holds, and two, which may be spread
    endings = Endings.of(strings, learner.tokenizer)
    assert endings is not None
    sampling = Sampling(learner.tokenizer.stop_id, max_new_tokens=10, endings=endings)
    cut = flat(VllmSampled(learner, engine, sampling).act(PROMPTS, 8, seed=5))
    assert {completion.finish_reason for completion in cut} >= {"stop_string"}
    for completion in cut:
        met = endings.length(completion.token_ids)
        assert (completion.finish_reason == "stop_string") == (met is not None)
        assert met in (None, completion.token_ids.size)
        assert completion.text == learner.tokenizer.decode(completion.token_ids)


def test_samples_come_with_the_log_probabilities_that_the_learner_gives_them(
    model_path: Path, engine: KeptOpen
) -> None:
    learner = sampled(model_path, engine)
    groups = learner.act(PROMPTS, 8, seed=1)
    assert [len(group) for group in groups] == [8, 8, 8]
    assert disagreement(learner, groups) <= AGREEMENT
    assert len({c.text for c in groups[0]}) > 1
    assert {c.policy_version for c in flat(groups)} == {0}
    for completion in flat(groups):
        stopped = int(completion.token_ids[-1]) == learner.tokenizer.stop_id
        assert (completion.finish_reason == "stop") == stopped
        assert completion.text == learner.tokenizer.decode(completion.token_ids)
    again = learner.act(PROMPTS, 8, seed=1)
    assert [c.token_ids.tolist() for c in flat(again)] == [c.token_ids.tolist() for c in flat(groups)]
    other = learner.act(PROMPTS, 8, seed=2)
    assert [c.text for c in flat(other)] != [c.text for c in flat(groups)]


def test_after_each_update_vllm_samples_what_the_learner_has_become(model_path: Path, engine: KeptOpen) -> None:
    learner = sampled(model_path, engine)
    before = learner.act(PROMPTS, 8, seed=1)
    assert not any(c.text == "ok" for c in flat(before))
    for step in range(40):
        learner.update(lesson(learner, "ok"))
        assert engine.loaded[-1] == learner.version == step + 1
    after = learner.act(PROMPTS, 8, seed=1)
    assert disagreement(learner, after) <= AGREEMENT
    assert sum(c.text == "ok" for c in flat(after)) >= 20
    assert {c.policy_version for c in flat(after)} == {40}
    assert {c.finish_reason for c in flat(after) if c.text == "ok"} == {"stop"}


def test_adapters_are_merged_into_what_vllm_gets(model_path: Path, local: KeptOpen) -> None:
    learner = sampled(model_path, local, lora_rank=4)
    for _ in range(5):
        learner.update(lesson(learner, "ok"))
    assert disagreement(learner, learner.act(PROMPTS, 4, seed=1)) <= AGREEMENT


def test_a_checkpoint_that_is_loaded_reaches_vllm(model_path: Path, local: KeptOpen, tmp_path: Path) -> None:
    first = sampled(model_path, local)
    first.update(lesson(first, "ok"))
    first.save(tmp_path)
    expected = first.act(PROMPTS, 4, seed=1)
    second = sampled(model_path, local)
    second.load(tmp_path)
    got = second.act(PROMPTS, 4, seed=1)
    assert [c.token_ids.tolist() for c in flat(got)] == [c.token_ids.tolist() for c in flat(expected)]
    assert {c.policy_version for c in flat(got)} == {1}


def test_a_long_prompt_cached_under_old_weights_is_computed_anew(model_path: Path, local: KeptOpen) -> None:
    learner = sampled(model_path, local)
    prompt = "0123456789" * 20  # several cache blocks
    ids = learner.tokenizer.render_prompt(prompt)
    for _ in range(3):
        completions = learner.act([prompt], 4, seed=1)[0]
        scores = learner.score([ids] * 4, [c.token_ids for c in completions])
        worst = max(float(np.abs(s - c.logprobs).max()) for s, c in zip(scores, completions, strict=True))
        assert worst <= AGREEMENT
        learner.update(lesson(learner, "ok"))


def test_recorded_log_probabilities_are_of_the_distribution_sampled_from(model_path: Path, local: KeptOpen) -> None:
    learner = torch_learner(model_path)
    wrapped = VllmSampled(learner, local, Sampling(learner.tokenizer.stop_id, 1, temperature=0.5, top_k=3))
    prompt = learner.tokenizer.render_prompt("1+2=")
    with torch.no_grad():
        logits = learner.model(torch.from_numpy(prompt.astype(np.int64))[None]).logits[0, -1]
    best = torch.topk(logits / 0.5, 3)
    expected = dict(zip(best.indices.tolist(), torch.log_softmax(best.values, -1).tolist(), strict=True))
    for completion in wrapped.act(["1+2="], 32, seed=1)[0]:
        assert float(completion.logprobs[0]) == pytest.approx(expected[int(completion.token_ids[0])], abs=AGREEMENT)


def test_the_vllm_sampled_learner_conforms(model_path: Path, local: KeptOpen) -> None:
    def make(**options: Any) -> Callable[[], VllmSampled]:
        return lambda: sampled(model_path, local, **options)

    check_learner(make())


@pytest.mark.parametrize("where", ["local", "server"])
def test_groups_are_handed_on_while_others_are_written(
    model_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """More samples than vLLM writes, or is asked for, at once: the first groups have ended when the last ones wait."""
    engine: Any = request.getfixturevalue(where)
    if where == "server":
        engine = ServerEngine(engine.url, make_transport("file"), api_key=engine.api_key, concurrency=8)
        waiting = lambda: engine._threads[0]._work_queue.qsize()  # noqa: E731
    else:
        waiting = engine.engine._llm.llm_engine.has_unfinished_requests
    learner = sampled(model_path, engine)
    prompts = [f"{i}+{i}=" for i in range(20)]
    told: dict[int, tuple[Completion, ...]] = {}
    at_work = []

    def finished(place: int, group: tuple[Completion, ...]) -> None:
        assert place not in told
        told[place] = group
        at_work.append(waiting())

    learner.act(prompts[:3], 4, seed=1)  # vLLM numbers requests over all calls
    groups = learner.act_and_tell(prompts, 4, finished, seed=5)
    assert told == dict(enumerate(groups))
    assert at_work[0]
    for before, after in zip(groups, learner.act(prompts, 4, seed=5), strict=True):
        assert [list(c.token_ids) for c in before] == [list(c.token_ids) for c in after]
    learner.close()


def test_the_file_that_carried_the_weights_is_gone_afterwards(
    model_path: Path, tmp_path: Path, local: KeptOpen
) -> None:
    transport = make_transport("file", directory=tmp_path)
    client = local.engine._client  # type: ignore[attr-defined]
    transport.send(client, torch_learner(model_path).export_weights(), 0)
    assert not list(tmp_path.iterdir())
    transport.close()


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(TrainingError, match=r"http://127\.0\.0\.1:9 does not answer"):
        ServerEngine("http://127.0.0.1:9", make_transport("file"), timeout=5.0)


def test_what_the_server_refuses_is_said_in_its_words(server: Server) -> None:
    engine = ServerEngine(server.url, make_transport("file"), api_key=server.api_key)
    too_long = np.full(300, 5, dtype=np.int32)
    with pytest.raises(InvalidInputError, match="256"):
        engine.sample([too_long], [1], Sampling(258, 4))
    engine.close()


def test_handles_that_would_be_unpickled_are_never_sent_to_a_server() -> None:
    with pytest.raises(ConfigError, match="unpickle"):
        ServerEngine("http://127.0.0.1:9", make_transport("ipc"))


@pytest.mark.parametrize("name", ["ipc", "nccl"])
def test_the_transfers_of_vllm_that_need_a_gpu_fit_the_installed_version(name: str) -> None:
    """What can be checked without one: names, fields and signatures that our side relies on."""
    import inspect

    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory, WeightTransferTrainerFactory

    transport = make_transport(name)
    assert name in WeightTransferEngineFactory._registry
    trainer = WeightTransferTrainerFactory._registry[name]()
    assert transport._info().backend == transport.backend == name  # type: ignore[attr-defined]
    assert transport._info().is_sender  # type: ignore[attr-defined]
    assert set(inspect.signature(trainer.trainer_init).parameters) == {"init_info", "client", "source"}
    from vllm.distributed.weight_transfer.base import ModuleSource

    transport._weights.tensors = {"a": torch.zeros(2, 3)}  # type: ignore[attr-defined]
    source = ModuleSource(transport._weights)  # type: ignore[attr-defined]
    declared = source.metadata  # a method up to 0.32, a property from 0.33 on
    [meta] = declared() if callable(declared) else declared
    assert (meta.name, meta.dtype, meta.shape) == ("a", torch.float32, (2, 3))
    assert [name for name, _ in source] == ["a"]


def test_a_configuration_names_it(model_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", server.api_key)
    settings = {"device": "cpu", "max_new_tokens": 3, "learning_rate": 1e-2}
    learner = learners.make("vllm", name="p", path=str(model_path), trainer="torch", server=server.url, **settings)
    assert isinstance(learner, VllmSampled)
    assert {len(c.token_ids) for c in flat(learner.act(PROMPTS, 4, seed=1))} <= {1, 2, 3}
    learner.update(lesson(learner, "ok"))
    assert {c.policy_version for c in flat(learner.act(PROMPTS, 4, seed=1))} == {1}
    learner.close()


def test_samples_that_are_dealt_to_several_connections_are_the_same(server: Server) -> None:
    """Two names of one server: weights cannot be sent to it twice at a time, samples can be dealt."""
    alone = ServerEngine(server.url, make_transport("file"), api_key=server.api_key)
    fleet = ServerEngine([server.url, server.url], make_transport("file"), api_key=server.api_key, concurrency=2)
    prompts, seeds = [np.array([5, 6, i], dtype=np.int32) for i in range(8)], list(range(8))
    one, two = (engine.sample(prompts, seeds, Sampling(258, 8)) for engine in (alone, fleet))
    assert [len(sample.token_ids) for sample in two] == [len(sample.token_ids) for sample in one]
    assert [sample.token_ids[0] for sample in two] == [sample.token_ids[0] for sample in one]
    for engine in (alone, fleet):
        engine.close()


def test_a_server_of_other_weights_is_given_those_of_now_before_it_samples(model_path: Path, server: Server) -> None:
    """As after it was started again, or after another program's transfer."""
    engine = ServerEngine(server.url, make_transport("file"), api_key=server.api_key)
    try:
        learner = sampled(model_path, engine)
        learner.update(lesson(learner, "ok"))
        groups = learner.act(PROMPTS, 4, seed=1)
        sampled(model_path, engine)  # the first weights, where a version says so
        engine._version = "1"  # which this client does not know of
        assert [c.text for c in flat(learner.act(PROMPTS, 4, seed=1))] == [c.text for c in flat(groups)]
        assert disagreement(learner, groups) < AGREEMENT
    finally:
        engine.close()


def test_a_key_that_is_wrong_is_refused(server: Server) -> None:
    with pytest.raises(InvalidInputError, match="401"):
        ServerEngine(server.url, make_transport("file"), api_key="wrong")


def test_a_turn_goes_on_from_what_the_turn_before_computed(model_path: Path, local: KeptOpen) -> None:
    engine = local.engine
    assert isinstance(engine, LocalEngine)
    policy = sampled(model_path, local, learning_rate=1e-3)
    prompt = "0123456789" * 16  # more than one block of the CPU's cache, which has 128 tokens
    [[first]] = policy.act([Context(prompt)], 1, seed=1)
    spared = engine.cached_tokens
    answered = Context(prompt, (Turn(first, Reply("?")),))
    policy.act([answered], 1, seed=2)
    assert engine.cached_tokens - spared >= 128
    policy.update(lesson(policy, "1"))
    spared = engine.cached_tokens
    policy.act([answered], 1, seed=2)
    assert engine.cached_tokens == spared  # other weights computed it


def test_an_engine_that_was_killed_is_started_again_with_the_weights_of_now(model_path: Path, local: KeptOpen) -> None:
    import psutil

    learner = sampled(model_path, local.engine)
    learner.update(lesson(learner, "ok"))
    before = [c.text for c in flat(learner.act(PROMPTS, 4, seed=1))]
    [core] = [child for child in psutil.Process().children() if "EngineCore" in child.name()]
    core.kill()
    assert [c.text for c in flat(learner.act(PROMPTS, 4, seed=1))] == before
    assert learner.version == 1


def test_an_engine_that_was_killed_is_an_error_that_says_so(model_path: Path, local: KeptOpen) -> None:
    """The last one: there is no engine afterwards."""
    import psutil

    learner = sampled(model_path, local)
    [core] = [child for child in psutil.Process().children() if "EngineCore" in child.name()]
    core.kill()
    for call in (lambda: learner.act(PROMPTS, 4, seed=1), lambda: learner.update(lesson(learner, "ok"))):
        with pytest.raises(TrainingError, match="engine process died"):
            call()
