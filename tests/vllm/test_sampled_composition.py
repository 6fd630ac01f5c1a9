"""A learner wrapped by the vLLM sampler, with an engine that is not vLLM: what goes where, and when."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learners import registry
from learners.example import Example
from learners.seeds import sample_seeds
from learners.tabular import TabularLearner
from learners.vllm import Sample, Sampling, VllmSampled, make_transport, transport
from learners.vllm.client import ServerClient
from learners.vllm.engine import Ended, EngineDiedError, Weights
from learners.vllm.server import _flags
from learners.vllm.transport import untied
from mutual_env.errors import InvalidInputError, TrainingError, UnknownNameError
from mutual_env.types import Completion, Context, Ids, Metrics, Reply, Turn
from tokenizers_bridge import CharTokenizer

TOKENIZER = CharTokenizer("ab=")
A = 2  # ids 0 and 1 are bos and eos


class Policy(TabularLearner):
    """With one weight to export: its version."""

    def export_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "version", torch.tensor(float(self.version))


class Recorder:
    """Writes "a" and as many more as the seed says, then stops; remembers what it was given."""

    def __init__(self) -> None:
        self.weights: list[tuple[int, float]] = []
        self.asked: list[tuple[list[int], int]] = []
        self.closed = 0

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        self.asked += [(prompt.tolist(), seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        lengths = [1 + seed % sampling.max_new_tokens for seed in seeds]
        ids = [np.array([A] * n + [sampling.stop_id] * (n < sampling.max_new_tokens), np.int32) for n in lengths]
        return [Sample(i, np.full(i.size, -0.5)) for i in ids]

    def load_weights(self, weights: Weights, version: int) -> None:
        self.weights += [(version, float(tensor)) for _, tensor in weights]

    def close(self) -> None:
        self.closed += 1


def test_samples_carry_the_seeds_of_the_protocol_and_the_version_of_the_weights() -> None:
    engine = Recorder()
    learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id, max_new_tokens=3))
    groups = learner.act(["a=", "b=", "a="], 2, seed=9)
    expected = [s for seeds in sample_seeds(9, "p", ["a=", "b=", "a="], 2) for s in seeds]
    assert [seed for _, seed in engine.asked] == expected
    assert [prompt for prompt, _ in engine.asked[:3]] == [[0, 2, 4], [0, 2, 4], [0, 3, 4]]
    for completion, seed in zip((c for group in groups for c in group), expected, strict=True):
        full = 1 + seed % 3 == 3
        assert completion.finish_reason == ("length" if full else "stop")
        assert completion.text == "a" * (1 + seed % 3)
        assert (completion.policy_version, completion.tokenizer) == (0, TOKENIZER.fingerprint)


def test_an_engine_is_not_asked_for_a_conversation_that_is_longer_than_it_takes() -> None:
    engine = Recorder()
    policy = Policy(TOKENIZER, name="toy", max_new_tokens=3)
    learner = VllmSampled(policy, engine, Sampling(TOKENIZER.stop_id, max_new_tokens=3), longest=9)
    short, full = (Context("a=", (Turn(Completion.from_text("a"), Reply(said)),)) for said in ("bb", "bbb"))
    [[first], [none]] = learner.act([short, full], 1, seed=0)
    assert (first.found_no_room, none.found_no_room) == (False, True)
    assert [c.found_no_room for c in learner.act([full], 2, seed=0)[0]] == [True, True]
    assert [len(prompt) for prompt, _ in engine.asked] == [6]


def test_the_engine_gets_the_weights_at_the_start_after_each_update_and_after_load(tmp_path: Path) -> None:
    engine = Recorder()
    learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    example = Example(TOKENIZER.render_prompt("a="), np.array([A], np.int32), np.ones(1, np.bool_), np.ones(1))
    learner.update([example])
    learner.save(tmp_path)
    learner.update([])
    learner.load(tmp_path)
    assert engine.weights == [(0, 0.0), (1, 1.0), (2, 2.0), (1, 1.0)]
    assert learner.version == 1
    learner.close()
    assert engine.closed == 1


def test_a_learner_without_weights_to_export_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="has no export_weights"):
        VllmSampled(TabularLearner(TOKENIZER), Recorder(), Sampling(TOKENIZER.stop_id))


@pytest.mark.parametrize(
    ("field", "value"), [("max_new_tokens", 0), ("temperature", 0.0), ("top_p", 0.0), ("top_p", 1.5), ("top_k", -1)]
)
def test_a_distribution_that_cannot_be_sampled_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"{field} must"):
        Sampling(1, **{field: value})


def test_a_tied_tensor_travels_once() -> None:
    shared, other = torch.ones(2, 2), torch.zeros(2, 2)
    sent = dict(untied([("embed", shared), ("head", shared), ("other", other)]))
    assert list(sent) == ["embed", "other"]


class Sleeper(Recorder):
    """As `Recorder`, on a device whose memory it gives back; complains where it is asked without what it needs."""

    def __init__(self, *, can_sleep: bool = True) -> None:
        super().__init__()
        self.can_sleep = can_sleep
        self.here = {"weights", "kv_cache"}
        self.calls: list[str] = []

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        assert self.here == {"weights", "kv_cache"}
        return super().sample(prompts, seeds, sampling)

    def load_weights(self, weights: Weights, version: int) -> None:
        assert "weights" in self.here
        self.calls.append(f"load {version}")
        super().load_weights(weights, version)

    def sleep(self, level: int) -> None:
        assert self.can_sleep
        self.calls.append(f"sleep {level}")
        self.here.clear()

    def wake_up(self, tags: Sequence[str]) -> None:
        self.calls.append(f"wake {' '.join(tags)}")
        self.here.update(tags)


def lesson() -> Example:
    return Example(TOKENIZER.render_prompt("a="), np.array([A], np.int32), np.ones(1, np.bool_), np.ones(1))


def test_an_engine_sleeps_while_its_trainer_works_and_has_the_new_weights_before_its_cache() -> None:
    engine = Sleeper()
    learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    learner.update([lesson()])
    assert engine.calls == ["load 0", "sleep 2", "wake weights", "load 1", "wake kv_cache"]
    assert learner.act(["a="], 2, seed=0)


def test_a_policy_that_makes_room_takes_its_engine_along_and_is_back_where_it_is_asked() -> None:
    engine = Sleeper()
    learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    before = learner.act(["a="], 4, seed=0)
    learner.offload()
    assert (engine.here, engine.calls[1:]) == (set(), ["sleep 1"])
    assert learner.act(["a="], 4, seed=0) == before
    learner.offload()
    learner.restore()  # for the trainer: the engine wakes up where it is asked
    assert engine.calls[1:] == ["sleep 1", "wake weights kv_cache", "sleep 1"]
    learner.update([lesson()])  # asleep already: its weights are given again, and its cache made, afterwards
    assert engine.calls[4:] == ["wake weights", "load 1", "wake kv_cache"]


def test_an_engine_that_was_not_started_so_never_sleeps() -> None:
    engine = Sleeper(can_sleep=False)
    learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    learner.update([lesson()])
    learner.offload()
    assert learner.act(["a="], 2, seed=0)
    assert engine.calls == ["load 0", "load 1"]


class Stamped(Policy):
    """Says whether its weights have changed: an update of nothing changes none."""

    weights_stamp = 0

    def update(self, examples: Sequence[Example]) -> Metrics:
        self.weights_stamp += bool(examples)
        return super().update(examples)


def test_nothing_is_sent_where_nothing_changed() -> None:
    engine = Recorder()
    learner = VllmSampled(Stamped(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    learner.update([])
    learner.update([lesson()])
    learner.update([])
    assert [version for version, _ in engine.weights] == [0, 2]
    assert learner.act(["a="], 1, seed=0)[0][0].policy_version == 3


def test_an_engine_that_forgot_its_weights_asleep_is_given_them_also_where_nothing_changed() -> None:
    engine = Sleeper()
    learner = VllmSampled(Stamped(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    learner.update([])
    assert engine.calls == ["load 0", "sleep 2", "wake weights", "load 1", "wake kv_cache"]


class Failing(Stamped):
    """An update that is refused before any weight is touched."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        raise TrainingError("the loss is nan; the weights were not touched")


def test_what_an_engine_forgot_for_an_update_that_failed_is_there_before_it_samples() -> None:
    """Also where the policy was then asked to make room, and came back."""
    engine = Sleeper()
    learner = VllmSampled(Failing(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    with pytest.raises(TrainingError):
        learner.update([lesson()])
    assert engine.here == set()
    learner.offload()
    learner.restore()
    assert learner.act(["a="], 2, seed=0)
    assert engine.calls == ["load 0", "sleep 2", "wake weights", "load 0", "wake kv_cache"]
    learner.act(["a="], 2, seed=1)
    assert engine.calls[5:] == []


class Interrupted(Recorder):
    """The first transfer after the start is cut off."""

    def load_weights(self, weights: Weights, version: int) -> None:
        super().load_weights(weights, version)
        if len(self.weights) == 2:
            raise TrainingError("the server does not answer")


def test_weights_whose_transfer_was_cut_off_are_sent_again_before_anything_is_sampled() -> None:
    engine = Interrupted()
    learner = VllmSampled(Stamped(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    with pytest.raises(TrainingError):
        learner.update([lesson()])
    learner.act(["a="], 1, seed=0)
    learner.act(["a="], 1, seed=1)
    assert [version for version, _ in engine.weights] == [0, 1, 1]


class Telling(Recorder):
    """Ends samples one after the other, the last one first."""

    def sample_and_tell(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ended: Ended
    ) -> list[Sample]:
        samples = self.sample(prompts, seeds, sampling)
        for place in reversed(range(len(samples))):
            ended(place, samples[place])
        return samples


@pytest.mark.parametrize(("engine", "order"), [(Telling(), [2, 1, 0]), (Recorder(), [0, 1, 2])])
def test_groups_are_told_of_as_they_end_and_at_the_latest_with_the_last(engine: Recorder, order: list[int]) -> None:
    learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id))
    told: list[tuple[int, tuple[Completion, ...]]] = []
    groups = learner.act_and_tell(["a=", "b=", "ab="], 4, lambda *of: told.append(of), seed=7)
    assert [place for place, _ in told] == order
    assert dict(told) == dict(enumerate(groups))
    assert groups == learner.act(["a=", "b=", "ab="], 4, seed=7)


class Mortal(Recorder):
    """Dies while it samples, and can be started again."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths, self.starts = deaths, 1

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        if self.starts <= self.deaths:
            raise EngineDiedError("gone")
        return super().sample(prompts, seeds, sampling)

    def revive(self) -> None:
        self.starts += 1


def test_an_engine_that_dies_is_started_again_once_and_given_the_weights_again() -> None:
    mortal, healthy = Mortal(deaths=1), Recorder()
    learner = VllmSampled(Stamped(TOKENIZER, name="p"), mortal, Sampling(TOKENIZER.stop_id))
    other = VllmSampled(Stamped(TOKENIZER, name="p"), healthy, Sampling(TOKENIZER.stop_id))
    assert learner.act(["a="], 4, seed=0) == other.act(["a="], 4, seed=0)
    assert ([version for version, _ in mortal.weights], mortal.starts) == ([0, 0], 2)
    hopeless = VllmSampled(Policy(TOKENIZER, name="p"), Mortal(deaths=9), Sampling(TOKENIZER.stop_id))
    with pytest.raises(EngineDiedError):
        hopeless.act(["a="], 1, seed=0)


def test_weights_that_find_no_room_in_memory_backed_storage_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MEMORY", Path.cwd())
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 << 20))  # Docker's own /dev/shm
    assert transport.roomy(10 << 20) == Path.cwd()
    assert transport.roomy(60 << 20) == Path(tempfile.gettempdir())


class Posted:
    """Remembers what is posted, where a server would answer."""

    def __init__(self) -> None:
        self.routes: list[str] = []

    def post(self, route: str, body: object = None) -> dict[str, bool]:
        self.routes.append(route)
        return {"success": True}


def test_every_server_of_several_is_given_the_weights() -> None:
    servers: Any = [Posted(), Posted()]
    carrier = make_transport("file")
    carrier.send(ServerClient(servers), [("w", torch.zeros(2))], 3)
    steps = ["/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"]
    assert [server.routes for server in servers] == [steps, steps]


def test_transports_are_named() -> None:
    with pytest.raises(InvalidInputError, match="transport must be one of file, ipc, nccl or adapter, got 'smoke'"):
        make_transport("smoke")


def test_server_arguments_become_flags() -> None:
    settings = {"max_model_len": 256, "enforce_eager": True, "enable_prefix_caching": False}
    assert _flags(settings) == ["--max-model-len", "256", "--enforce-eager", "--no-enable-prefix-caching"]


def test_a_vllm_learner_takes_the_options_of_the_trainer_inside_it() -> None:
    cluster = {"path": "m", "trainer": "openrlhf_ray", "gpus_per_node": 4, "zero_stage": 3, "engine": {}}
    registry.check_options("vllm", cluster)
    assert "zero_stage" in registry.options("vllm", cluster)
    with pytest.raises(UnknownNameError, match="option of learner 'vllm' around 'torch' 'zero_stage'"):
        registry.check_options("vllm", {"path": "m", "zero_stage": 3})
    with pytest.raises(UnknownNameError, match="did you mean 'zero_stage'"):
        registry.check_options("vllm", {**cluster, "zero_stag": 3})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_rows": 4}, "max_rows is no option of learner 'vllm': vLLM samples.*engine.max_num_seqs"),
        ({"conversation_mb": 4}, "conversation_mb is no option .*enable_prefix_caching"),
        ({"server_options": {"timeout": 9.0}}, "server_options are of a client of servers"),
        ({"server": "http://a:8000", "engine": {"max_model_len": 9}}, "a server is given its own"),
        ({"engine": {"logprobs_mode": "raw_logprobs"}}, "engine.logprobs_mode is settled here, got 'raw_logprobs'"),
        ({"engine": {"timeout": "long"}}, "'timeout' of engine must be a finite number, got 'long'"),
        ({"transport": "ipc", "transport_options": {"port": 1}}, "transport 'ipc' has no transport_options, got port"),
        (
            {"transport": "adapter", "lora_rank": 4, "transport_options": {"directory": "/tmp"}},
            "transport 'adapter' has no transport_options, got directory: leave them out",
        ),
        (
            {"transport": "nccl", "transport_options": {"port": "next"}},
            "option 'port' of transport 'nccl' must be a whole number, got 'next'",
        ),
        ({"transport": "nccl", "transport_options": {"port": 70000}}, "port of transport_options must lie between"),
        ({"transport": "nccl", "transport_options": {"engine_workers": 0}}, "engine_workers of .*, got 0"),
        ({"transport_options": {"directory": 5}}, "option 'directory' of transport 'file' must be .*, got 5"),
    ],
)
def test_what_would_change_nothing_or_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(InvalidInputError, match=said):
        registry.check("vllm", {"path": "nowhere", **given})
    with pytest.raises(InvalidInputError, match=said):
        registry.make("vllm", path="nowhere", **given)


def test_an_adapter_is_sent_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from learners.vllm.adapter import settings

    given = {"path": "nowhere", "server": "", "transport": "adapter"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for options, said in (({}, "lora_rank is 0"), ({"lora_rank": 513}, "lora_rank 513 is above 512")):
        with pytest.raises(InvalidInputError, match=said):
            registry.check("vllm", {**given, **options})
    assert [settings(rank)["max_lora_rank"] for rank in (1, 2, 8, 9, 512)] == [1, 8, 8, 16, 512]
    with pytest.raises(InvalidInputError, match="cannot write its adapter alone"):
        VllmSampled(Policy(TOKENIZER), Recorder(), Sampling(TOKENIZER.stop_id), adapters=True)
