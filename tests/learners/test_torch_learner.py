"""The torch learner against transformers' own forward and autograd, and what it does when something goes wrong."""

from __future__ import annotations

import dataclasses
import json
import pickle
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from learners import make, registry
from learners.example import Example
from learners.losses import CappedSequence, ShapedProbability, scales
from learners.tabular import TabularLearner
from learners.torch.head import backward_through_head, target_logprobs
from learners.torch.learner import TorchLearner
from learners.torch.losses import Terms
from learners.torch.model import Head
from learners.torch.optimizer import schedule_factor
from learners.torch.options import TorchOptions
from learners.torch.packing import Cost, Item, micro_batches
from learners.torch.trainer import memory_errors
from mutual_env.errors import IdentityMismatchError, InvalidInputError, StorageError, TrainingError, UnknownNameError
from mutual_env.types import CrossEntropy, LossSpec, PolicyGradient
from tests.learners.tiny_policies import TOKENIZER, gemma, learner, llama, neox

pytestmark = pytest.mark.torch

PROMPTS = ["1+2=", "12+34=", "abc"]


def examples_of(policy: TorchLearner, loss: LossSpec, n: int = 3) -> list[Example]:
    """Samples of its own with advantages of both signs, some tokens masked."""
    examples = []
    for prompt, group in zip(PROMPTS, policy.act(PROMPTS, n, seed=4), strict=True):
        for index, completion in enumerate(group):
            size = completion.token_ids.size
            mask = np.arange(size) % 4 != 3
            advantages = np.full(size, 1.0 - index)
            rendered = TOKENIZER.render_prompt(prompt)
            examples.append(Example(rendered, completion.token_ids, mask, advantages, loss, weight=0.5 + index))
    return examples


def plain_logprobs(model: PreTrainedModel, example: Example) -> torch.Tensor:
    """One sequence at a time, all logits, no padding: transformers' own forward."""
    ids = torch.tensor(np.concatenate([example.prompt_ids, example.response_ids]).astype(np.int64))[None]
    logits = model(input_ids=ids).logits[0, :, : TOKENIZER.vocab_size].float()
    start = example.prompt_ids.size
    return logits.log_softmax(-1)[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]]


@pytest.mark.parametrize("build", [llama, neox, gemma])
@pytest.mark.parametrize("share_prompts", [True, False])
def test_the_gradient_is_that_of_a_plain_forward(build: Callable[[], PreTrainedModel], share_prompts: bool) -> None:
    policy = learner(build(), share_prompts=share_prompts, learning_rate=0.0, max_gradient_norm=0.0)
    examples = examples_of(policy, PolicyGradient())
    caught: dict[str, torch.Tensor] = {}
    catch_gradients(policy, caught)
    metrics = policy.update(examples)

    reference = build()
    total = torch.zeros(())
    for example, scale in zip(examples, scales(examples), strict=True):
        logprobs = plain_logprobs(reference, example)
        mask = torch.tensor(example.mask)
        ratio = (logprobs - logprobs.detach()).exp()
        total = total - float(scale) * (ratio * torch.tensor(example.advantages, dtype=torch.float32))[mask].sum()
    total.backward()
    assert metrics["loss"] == pytest.approx(float(total.detach()), abs=1e-5)
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(caught[name], parameter.grad, rtol=1e-4, atol=1e-5), name


def catch_gradients(policy: TorchLearner, into: dict[str, torch.Tensor]) -> None:
    """Keep a copy of what the optimizer is about to use."""
    step = policy._optimizer.step

    def catching(loss: float) -> float:
        into.update({n: p.grad.clone() for n, p in policy.language_model.trainable().items() if p.grad is not None})
        return step(loss)

    policy._optimizer.step = catching  # type: ignore[method-assign]


@pytest.mark.parametrize(("build", "is_known"), [(llama, True), (neox, True), (gemma, False)])
def test_the_lean_step_of_known_families_is_taken_where_it_agrees(
    build: Callable[[], PreTrainedModel], is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (learner(build()).language_model._lean is not None) is is_known
    monkeypatch.setattr("learners.torch.lean._rotate", lambda x, cos, sin: x)  # a family computed wrongly
    wrong = learner(build())
    assert wrong.language_model._lean is None
    monkeypatch.undo()
    assert [c.text for c in wrong.act(["1+2="], 4, seed=1)[0]] == [
        c.text for c in learner(build()).act(["1+2="], 4, seed=1)[0]
    ]


def test_prompts_shared_in_one_row_cost_fewer_tokens_and_change_no_score() -> None:
    shared, plain = learner(llama()), learner(llama(), share_prompts=False)
    prompt = TOKENIZER.render_prompt("0123456789" * 3)
    responses = [TOKENIZER.encode_batch([text])[0] for text in ("1", "22", "333")]
    a, b = (policy.score([prompt] * 3, responses) for policy in (shared, plain))
    assert all(np.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))
    items = [Item(prompt, r, np.arange(r.size)) for r in responses]
    cost = Cost(token=10_000.0, pair=1.0)
    together = list(micro_batches(items, 1000, cost, torch.device("cpu")))
    apart = list(micro_batches(items, 1000, None, torch.device("cpu")))
    # bos + 30 characters once, and 0 + 1 + 2 fed response tokens: 34; apart, three rows of 31 + 2.
    assert sum(m.ids.numel() for m in together) == 34
    assert sum(m.ids.numel() for m in apart) == 99


def test_rows_of_very_different_lengths_do_not_pad_each_other_once_a_micro_batch_is_large() -> None:
    prompt = TOKENIZER.render_prompt("1")  # bos and one character; the last response token is not fed
    responses = [np.full(size, 3, np.int32) for size in (255, 255, 299, 999)]
    items = [Item(prompt, r, np.arange(r.size)) for r in responses]
    shapes = [tuple(m.ids.shape) for m in micro_batches(items, 4096, None, torch.device("cpu"))]
    # 256 + 256 is large, and 300 beside them pads 88 of 900; 1000 would pad 2188 of 4000.
    assert shapes == [(1, 1000), (3, 300)]
    # Beside a small row it may: 100 tokens are no micro-batch of their own.
    few = [items[3], Item(prompt, responses[0][:99], np.arange(99))]
    assert [tuple(m.ids.shape) for m in micro_batches(few, 4096, None, torch.device("cpu"))] == [(2, 1000)]


def test_sharing_is_left_alone_where_attention_would_cost_more_than_it_saves() -> None:
    # 2 responses of 100 after a prompt of 10: saved 10 tokens; pairs 210^2 - 2 * 110^2 = 19,900 more.
    assert Cost(token=2000.0, pair=1.0).sharing_pays(10, [100, 100])
    assert not Cost(token=1900.0, pair=1.0).sharing_pays(10, [100, 100])


def test_a_sequence_longer_than_a_micro_batch_is_refused_by_name() -> None:
    policy = learner(llama(), micro_batch_tokens=8)
    with pytest.raises(InvalidInputError, match="micro_batch_tokens is 8"):
        policy.score([TOKENIZER.render_prompt("0123456789")], [TOKENIZER.encode_batch(["1"])[0]])


def test_what_could_not_be_trained_on_is_not_sampled() -> None:
    # The prompt has bos + 10 tokens, a response at most 10: 21 tokens, of which 20 are fed.
    policy = learner(llama(), micro_batch_tokens=19, max_new_tokens=10)
    with pytest.raises(InvalidInputError, match="raise it to at least 20, or lower max_new_tokens"):
        policy.act(["0123456789"], 1, seed=0)
    assert len(learner(llama(), micro_batch_tokens=20, max_new_tokens=10).act(["0123456789"], 1, seed=0)[0]) == 1


@pytest.mark.parametrize("loss", [PolicyGradient(), PolicyGradient(ratio="sequence"), CappedSequence()])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_chunks_of_the_vocabulary_change_nothing(loss: LossSpec, softcap: float | None) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(50, 8), torch.randn(11, 8)
    targets = torch.randint(0, 50, (11,))
    terms = Terms(
        owners=torch.tensor([0] * 6 + [1] * 5),
        scale=torch.full((11,), 0.1),
        advantages=torch.tensor([1.0] * 6 + [-1.0] * 5),
        anchor=target_logprobs(Head(weight, None, 50, 1.0, softcap), hidden, targets, 99) - 0.05,
        pulls=(),
        losses=(loss,),
        kinds=torch.zeros(11, dtype=torch.int64),
        minibatch=0,
    )
    results = []
    for chunk in (99, 4):
        parameter = torch.nn.Parameter(weight.clone())
        head = Head(parameter, None, 50, 1.0, softcap)
        results.append((backward_through_head(head, hidden, targets, terms, chunk), parameter.grad))
    (whole, whole_grad), (cut, cut_grad) = results
    assert torch.allclose(whole.loss, cut.loss, atol=1e-6)
    assert torch.allclose(whole.hidden, cut.hidden, atol=1e-6)
    assert whole_grad is not None
    assert cut_grad is not None
    assert torch.allclose(whole_grad, cut_grad, atol=1e-6)


def test_later_steps_of_an_update_are_anchored_at_its_start() -> None:
    # Two steps on the same examples: the second must see ratios against the policy before the first.
    policy = learner(llama(), minibatches=2, learning_rate=0.05)
    examples = examples_of(policy, PolicyGradient(clip_low=0.01, clip_high=0.01))
    start = policy.score([e.prompt_ids for e in examples], [e.response_ids for e in examples])
    explicit = [dataclasses.replace(e, anchor=a) for e, a in zip(examples, start, strict=True)]
    metrics = policy.update([*examples, *examples])
    again = learner(llama(), minibatches=2, learning_rate=0.05).update([*explicit, *explicit])
    assert metrics["clip_share"] > 0.1
    assert metrics == pytest.approx(again, abs=1e-5)


@pytest.mark.parametrize("options", [{"lora_rank": 2}, {}], ids=["lora", "full"])
def test_the_kl_term_pulls_back_to_where_training_began(options: dict[str, Any]) -> None:
    free = learner(llama(), learning_rate=0.01, **options)
    held = learner(llama(), learning_rate=0.01, kl_coefficient=5.0, **options)
    examples = examples_of(free, PolicyGradient(clip_low=9.0, clip_high=9.0))
    asked = [e.prompt_ids for e in examples], [e.response_ids for e in examples]
    start = free.score(*asked)
    for _ in range(8):
        free.update(examples)
        held.update(examples)
    moved = [np.abs(np.concatenate(p.score(*asked)) - np.concatenate(start)).mean() for p in (free, held)]
    assert moved[1] < 0.5 * moved[0]


def test_lora_trains_its_own_weights_alone_and_exports_them_merged() -> None:
    policy = learner(llama(), lora_rank=2, learning_rate=0.05)
    assert all("lora_" in name for name in policy.language_model.trainable())
    examples = examples_of(policy, CrossEntropy())
    policy.update(examples)
    merged = llama()
    exported = dict(policy.export_weights())
    assert set(exported) == set(dict(merged.named_parameters()))
    merged.load_state_dict(exported, strict=True)
    ours = policy.score([examples[0].prompt_ids], [examples[0].response_ids])[0]
    assert np.allclose(plain_logprobs(merged, examples[0]).detach().numpy(), ours, atol=1e-4)
    assert not np.allclose(plain_logprobs(llama(), examples[0]).detach().numpy(), ours, atol=1e-3)


def test_small_steps_survive_bfloat16() -> None:
    policy = learner(llama(), dtype="bfloat16", learning_rate=1e-5, max_gradient_norm=0.0)
    examples = examples_of(policy, CrossEntropy())
    for _ in range(3):
        policy.update(examples)
    name, master = next(iter(policy._optimizer._masters.items()))
    moved = (master - dict(llama().named_parameters())[name].bfloat16().float()).abs().max()
    # 3 Adam steps of 1e-5; a bfloat16 weight near 0.2 would need 4e-4 to move at all.
    assert 1e-5 < float(moved.detach()) < 1e-4


@pytest.mark.parametrize(
    "loss", [PolicyGradient(ratio="sequence"), ShapedProbability(), CappedSequence(), CrossEntropy()]
)
def test_every_loss_trains(loss: LossSpec) -> None:
    policy = learner(llama())
    examples = [dataclasses.replace(e, advantages=np.ones_like(e.advantages)) for e in examples_of(policy, loss)]
    asked = [e.prompt_ids for e in examples], [e.response_ids for e in examples]
    before = np.concatenate(policy.score(*asked)).mean()
    for _ in range(3):
        policy.update(examples)
    assert np.concatenate(policy.score(*asked)).mean() > before


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched() -> None:
    policy = learner(llama())
    example = examples_of(policy, PolicyGradient())[0]
    before = policy.score([example.prompt_ids], [example.response_ids])[0]
    huge = dataclasses.replace(example, advantages=np.full_like(example.advantages, 1e300))
    with pytest.raises(TrainingError, match=r"the weights were not touched.*learning_rate"):
        policy.update([huge])
    assert policy.version == 0
    assert np.array_equal(policy.score([example.prompt_ids], [example.response_ids])[0], before)


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_update_that_fails_between_its_steps_says_so_and_goes_on_from_a_checkpoint_alone(tmp_path: Path) -> None:
    policy = learner(llama(), minibatches=2, minibatches_by="samples")
    good, bad = examples_of(policy, PolicyGradient())[:2]
    asked = [good.prompt_ids], [good.response_ids]
    before = policy.score(*asked)[0]
    policy.save(tmp_path / "good")
    huge = dataclasses.replace(bad, advantages=np.full_like(bad.advantages, 1e300))
    with pytest.raises(TrainingError, match=r"1 earlier optimizer steps.*no longer those of version 0.*--resume"):
        policy.update([good, huge])
    assert policy.version == 0
    for refused in (
        lambda: policy.act(["1"], 1, seed=0),
        lambda: policy.score(*asked),
        lambda: policy.update([good]),
        lambda: policy.save(tmp_path / "torn"),
    ):
        with pytest.raises(TrainingError, match="load a checkpoint"):
            refused()
    policy.load(tmp_path / "good")
    assert np.array_equal(policy.score(*asked)[0], before)
    policy.update([good])
    assert policy.version == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_to_change(error: Exception) -> None:
    with pytest.raises(TrainingError, match="Lower micro_batch_tokens"), memory_errors("policy"):
        raise error


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("policy"):
        raise RuntimeError("shapes do not match")


def test_broken_weights_are_noticed_when_sampling() -> None:
    model = llama()
    policy = learner(model)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(TrainingError, match="last checkpoint"):
        policy.act(["1"], 2, seed=0)


def test_the_schedule_rises_then_falls() -> None:
    options = TorchOptions(schedule="cosine", warmup_steps=2, total_steps=6)
    # 1/2, 1, then cosine from 1 to 0 over four steps, and 0 after.
    expected = [0.5, 1.0, 1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5, 0.5 * (1 - np.cos(np.pi / 4)), 0.0, 0.0]
    assert [schedule_factor(options, step) for step in range(8)] == pytest.approx(expected)


def test_a_checkpoint_is_read_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    policy = learner(llama())
    policy.update(examples_of(policy, PolicyGradient()))
    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, refuse)
    policy.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["optimizer.safetensors", "state.json", "weights.safetensors"]
    learner(llama()).load(tmp_path)


def test_a_checkpoint_that_does_not_belong_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    policy = learner(llama())
    policy.save(tmp_path)
    prompt, response = TOKENIZER.render_prompt("1"), TOKENIZER.encode_batch(["2"])[0]
    for other, sentence in ((learner(neox()), "does not fit"), (learner(llama(), lora_rank=2), "lora_rank")):
        before = other.score([prompt], [response])[0]
        with pytest.raises(IdentityMismatchError, match=sentence):
            other.load(tmp_path)
        assert np.array_equal(other.score([prompt], [response])[0], before)
    (tmp_path / "weights.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:-9])
    with pytest.raises(StorageError, match="no whole torch checkpoint"):
        policy.load(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(StorageError):
        policy.load(tmp_path)


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    # No file of this process may grow beyond 4 KiB for a moment; the weights need more.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    policy, table = learner(llama()), TabularLearner(TOKENIZER)
    table.update(examples_of(policy, CrossEntropy()))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        for saved in (policy, table):
            with pytest.raises(StorageError, match="could not be written"):
                saved.save(tmp_path / saved.name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_options_are_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="'learning_rate'"):
        make("torch", path="x", learning_rat=1.0)
    assert {"path", "learning_rate", "lora_rank"} <= set(registry.options("torch"))
    for option, value in (
        ("temperature", 0.0),
        ("top_p", 0.0),
        ("dtype", "float16"),
        ("max_new_tokens", 0),
        ("top_k", -1),
    ):
        with pytest.raises(InvalidInputError, match=option):
            TorchOptions.of({option: value})
    with pytest.raises(InvalidInputError, match="total_steps"):
        TorchOptions(schedule="cosine")
    with pytest.raises(InvalidInputError, match="cuda:7"):
        learner(llama(), device="cuda:7")
    with pytest.raises(StorageError, match=r"path='/nowhere' does not exist"):
        make("torch", path="/nowhere")
    with pytest.raises(InvalidInputError, match="not both"):
        make("torch")


def test_building_and_using_a_learner_leaves_the_global_generators_alone() -> None:
    model = llama()
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    policy = learner(model, lora_rank=2)
    policy.update(examples_of(policy, PolicyGradient()))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
