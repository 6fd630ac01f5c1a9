"""Seconds and memory from a model's size and a GPU: against published figures, and in the plans of shipped files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from learners.cli import main
from learners.resources.demand import Node, Supply
from learners.resources.estimate import FIRST_ROOM, Setup, Work, estimate, mfu
from learners.resources.hardware import GPUS, gpu_named, gpu_of_size
from learners.resources.plan import parse_devices
from learners.resources.shapes import KNOWN, ModelShape, shape_of
from learners.run.check import check
from learners.run.config import load_run
from learners.run.places import read_places
from mutual_env.errors import MutualEnvError

CONFIGS = Path(__file__).parents[2] / "configs"
H100 = GPUS["H100"]
LONG = [
    f"policies.{p}.options.{o}"
    for p in ("qwen", "llama")
    for o in ("max_new_tokens=8192", "micro_batch_tokens=16384", "engine.max_model_len=9216")
]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen2.5-1.5B", 1.54),
        ("Qwen2.5-7B", 7.61),
        ("Qwen3-8B", 8.19),
        ("Llama-3.2-1B", 1.23),
        ("Llama-3.1-8B", 8.03),
        ("Qwen2.5-14B", 14.7),
        ("Qwen2.5-32B", 32.5),
        ("Qwen2.5-72B", 72.7),
        ("Qwen3-14B", 14.8),
        ("Qwen3-32B", 32.8),
        ("Llama-3.1-70B", 70.6),
    ],
)
def test_a_model_has_as_many_parameters_as_its_card_says(name: str, billions: float) -> None:
    assert KNOWN[name].parameters / 1e9 == pytest.approx(billions, rel=0.009)


def test_a_model_is_known_by_its_directory_or_by_its_name(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 50, "tie_word_embeddings": True}))
    assert shape_of(tmp_path) == ModelShape(2, 64, 4, 4, 16, 96, 50, True)
    # by hand: 2 x (2 x 64 x 16 x 8 of attention + 3 x 64 x 96 of the MLP) + 50 x 64
    assert ModelShape(2, 64, 4, 4, 16, 96, 50, True).parameters == 2 * (16_384 + 18_432) + 3200
    assert shape_of("models/Qwen2.5-1.5B-Instruct") == KNOWN["Qwen2.5-1.5B"]
    assert shape_of("models/mine") is None


def test_a_token_of_qwen_1_5b_takes_28_kib_of_cache() -> None:
    assert KNOWN["Qwen2.5-1.5B"].kv_bytes() == 2 * 28 * 2 * 128 * 2  # keys and values, layers, heads, width, bytes


def test_decoding_comes_to_what_vllm_publishes_of_llama_8b_on_an_h100() -> None:
    # 256 rows that all go on to 1,000 tokens from a prompt of 500: 1,000 tokens of context in the middle
    work = Work(prompts=256, group=1, prompt=500, mean=10**9, longest=1000)
    found = estimate(KNOWN["Llama-3.1-8B"], H100, work, Setup(engine=True, lora=True))  # all rows have room
    reading = 2 * 8.03e9 * 256 * 500 / (989e12 * 0.33)
    assert 256 * 1000 / (found.seconds["act"] - reading) == pytest.approx(12_500, rel=0.15)


def test_training_is_as_fast_as_others_measured_it() -> None:
    assert (mfu(0.6e9), mfu(4.0e9), mfu(8.0e9), mfu(70e9)) == pytest.approx((0.111, 0.217, 0.33, 0.33))
    assert 0.111 < mfu(1.5e9) < 0.217
    # torchtitan: 5,762 tokens a second and GPU of Llama-3.1-8B, with recomputation of some activations only
    work = Work(prompts=1, group=1, prompt=1, mean=10**9, longest=100_000)
    seconds = estimate(KNOWN["Llama-3.1-8B"], H100, work, Setup()).seconds["update"]
    assert 100_001 / seconds == pytest.approx(5762, rel=0.2)


def test_the_state_of_a_trained_model_is_14_bytes_a_parameter_and_that_of_an_adapter_2() -> None:
    shape, work = KNOWN["Qwen2.5-1.5B"], Work(32, 8, 200, 256, 512)
    assert estimate(shape, H100, work, Setup()).weights == 14 * shape.parameters
    assert estimate(shape, H100, work, Setup(gpus=4)).weights == (2 + 3) * shape.parameters  # 12 / 4 of the optimizer
    assert estimate(shape, H100, work, Setup(lora=True)).weights == 2 * shape.parameters


def test_long_responses_fit_side_by_side_and_our_own_sampler_waits_for_its_host() -> None:
    work = Work(32, 8, 200, 2048, 8192)
    # half of the room is full at 512, 1,024, 2,048 and 4,096 tokens: e^-(1/4, 1/2, 1, 2) of the rows are left then
    assert work.room == pytest.approx(max(512, 0.7788 * 1024, 0.6065 * 2048, 0.3679 * 4096, 0.1353 * 8192), rel=1e-3)
    ours = estimate(KNOWN["Qwen2.5-1.5B"], H100, work, Setup(checkpointing=True))
    engine = estimate(KNOWN["Qwen2.5-1.5B"], H100, work, Setup(checkpointing=True, engine=True))
    assert engine.seconds["act"] < ours.seconds["act"] < 2 * engine.seconds["act"]
    assert ours.memory["act"] < H100.memory
    assert ours.bound["act"] < 0.5 < engine.bound["act"]


def test_gpus_are_known_by_our_name_the_driver_s_and_their_memory() -> None:
    assert gpu_named("NVIDIA H100 80GB HBM3") is H100
    assert gpu_named("NVIDIA A100-SXM4-40GB") is GPUS["A100-40"]
    assert gpu_named("NVIDIA GeForce RTX 4090") is GPUS["RTX4090"]
    assert gpu_of_size(80 * 1024**3) is H100
    assert gpu_of_size(24 * 1024**3) is GPUS["RTX4090"]
    assert parse_devices("1x2:H200").nodes[0].gpu_memory == 141 * 10**9
    with pytest.raises(MutualEnvError, match="did you mean 'H100'"):
        parse_devices("1x2:H10")


@pytest.mark.torch
def test_the_room_that_is_reckoned_with_is_that_of_the_sampler() -> None:
    decoding = pytest.importorskip("learners.torch.decoding")
    assert FIRST_ROOM == decoding.FIRST_ROOM


@pytest.mark.parametrize("config", ["qwen-llama-1b-eight", "qwen-llama-8b-eight"])
def test_what_a_policy_on_eight_gpus_takes_does_not_hang_on_the_machine_that_starts_the_run(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for local in (Supply((Node("local", 2.0),)), Supply((Node("local", 64.0, 3, 24 << 30),))):
        monkeypatch.setattr(Supply, "local", classmethod(lambda cls, local=local: local))
        places = read_places(load_run(CONFIGS / f"{config}.yaml"))
        assert all(demand.phases["act"].gpus == 1.0 and demand.phases["act"].gang == 4 for demand in places.demands)
        found.append((places.demands, places.supply))
    assert found[0] == found[1]


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    """The two shares that a plan prints: GPUs that are leased, GPUs that are the bottleneck."""
    assert main(["plan", *arguments]) == 0
    out = capsys.readouterr().out
    assert "assumed" not in out  # no phase whose seconds nobody knows
    return {
        "used": int(re.search(r"used +(\d+)% of the GPUs", out)[1]) / 100,  # type: ignore[index]
        "bound": int(re.search(r"bound +(\d+)%", out)[1]) / 100,  # type: ignore[index]
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "devices"),
    [("qwen-llama-1b", "1x1:80"), ("qwen-llama-1b-eight", "1x8:80"), ("qwen-llama-8b-eight", "1x8:80")],
)
def test_the_shipped_files_are_laid_out_from_model_and_gpu_and_say_what_is_unproven(
    config: str, devices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = CONFIGS / f"{config}.yaml"
    assert "UNPROVEN" in "".join(path.read_text().splitlines()[:3])
    assert not re.search(r"^[^#]*seconds:", path.read_text(), re.M)
    assert planned(capsys, str(path), "--devices", devices)["used"] > 0.7
    check(load_run(path), here=False)


def test_two_of_1_5b_on_one_card_use_more_than_55_percent_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    more = ["resources.assumptions.response_tokens=2048", "policies.llama.options.path=models/Qwen2.5-1.5B-Instruct"]
    shares = planned(capsys, str(CONFIGS / "qwen-llama-1b.yaml"), "--devices", "1x1:H100", *LONG, *more)
    assert min(shares.values()) >= 0.55


@pytest.mark.parametrize(
    ("config", "more", "sentence"),
    [
        (
            "qwen-llama-1b",
            ["--devices", "1x1:RTX4090"],
            "'qwen', phase 'update' .* 28.7 GiB on each GPU, and RTX4090 has 22.4",
        ),
        (
            "qwen-llama-8b-eight",
            ["--devices", "1x8:A100-40"],
            "'qwen', phase 'update' .* A100-40 has 37.3: set lora_rank",
        ),
        (
            "qwen-llama-1b",
            ["--devices", "1x1:H100", "policies.qwen.options.path=Qwen2.5-72B"],
            "'qwen', phase 'update'",
        ),
    ],
)
def test_what_a_card_has_no_room_for_is_a_misfit_with_the_remedy(
    config: str, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(CONFIGS / f"{config}.yaml"), *more]) == 1
    assert re.search(f"misfit +policy {sentence}", capsys.readouterr().out)


@pytest.mark.parametrize("lora", ["RTX4090", "L4", "A100-40"])
def test_adapters_fit_a_small_card(lora: str, capsys: pytest.CaptureFixture[str]) -> None:
    adapters = [f"policies.{p}.options.lora_rank=16" for p in ("qwen", "llama")]
    planned(capsys, str(CONFIGS / "qwen-llama-1b.yaml"), "--devices", f"1x1:{lora}", *adapters)


def test_answers_that_the_engine_has_no_room_for_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", str(CONFIGS / "qwen-llama-1b.yaml"), "--devices", "1x1:H100"]
    assert main([*plan, "policies.qwen.options.max_new_tokens=2000"]) == 2
    assert "prompts of 200 tokens or more and max_new_tokens 2000 of models/Qwen2.5" in capsys.readouterr().err


def test_a_card_that_is_not_known_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", str(CONFIGS / "qwen-llama-1b.yaml"), "--devices", "1x1:V100"])
    assert "unknown GPU 'V100': did you mean 'H100'" in capsys.readouterr().err


@pytest.mark.long
def test_two_of_8b_on_eight_use_more_than_60_percent_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    shares = planned(capsys, str(CONFIGS / "qwen-llama-8b-eight.yaml"), "--devices", "1x8:H100")
    assert min(shares.values()) >= 0.60


def test_what_a_configuration_says_of_a_phase_is_kept_and_the_rest_is_estimated() -> None:
    demands = "resources.demands={qwen: {phases: {act: {gpus: 1, seconds: 7}, update: {gpus: 1}}}}"
    places = read_places(load_run(CONFIGS / "qwen-llama-1b.yaml", [demands]), parse_devices("1x1:H100"))
    qwen = next(demand for demand in places.demands if demand.policy == "qwen")
    assert qwen.phases["act"].seconds == 7.0
    found = places.estimates["qwen"]
    assert qwen.phases["act"].memory == found.memory["act"]
    assert (qwen.phases["update"].seconds, qwen.weights) == (found.seconds["update"], found.weights)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resources.assumptions={response_token: 5}", "did you mean 'response_tokens'"),
        ("resources.assumptions={prompt_tokens: 0}", "must be a whole number of at least 1, got 0"),
    ],
)
def test_assumptions_that_make_no_sense_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(MutualEnvError, match=re.escape(sentence)):
        read_places(load_run(CONFIGS / "qwen-llama-1b.yaml", [override]))


def test_a_run_does_not_start_on_gpus_that_its_configuration_names_and_the_machine_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    places = read_places(load_run(CONFIGS / "qwen-llama-1b.yaml", ["resources.devices=1x1:80"]))
    with pytest.raises(MutualEnvError, match="names 1 GPUs, and this machine shows 0"):
        places.start()
