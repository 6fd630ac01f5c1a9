"""OpenRLHF's real classes behind our protocol, on the CPU (make test-openrlhf)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from learners import registry
from learners.example import Example
from learners.losses import CappedSequence, ShapedProbability, example_loss
from learners.testing import check_learner
from learners.torch.learner import TorchLearner
from learners.torch.tiny import make_model
from mutual_env.errors import InvalidInputError, TrainingError, UnknownNameError
from mutual_env.types import CrossEntropy, LossSpec, NamedLoss, PolicyGradient
from tests.learners.outside_loss import install
from tokenizers_bridge import CharTokenizer

pytestmark = pytest.mark.openrlhf

TOKENIZER = CharTokenizer("0123456789+= abcdefgh")
PROMPTS = ("1+2=", "3+4=", "12+34=")

LOSSES: dict[str, LossSpec] = {
    "token ratio": PolicyGradient(),
    "token ratio, wide clip": PolicyGradient(clip_low=0.5, clip_high=3.0),
    "token ratio, capped": PolicyGradient(clip_low=0.2, clip_high=math.inf, ratio_cap=1.5),
    "sequence ratio": PolicyGradient(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "sequence ratio, wide clip": PolicyGradient(ratio="sequence", clip_low=0.5, clip_high=3.0),
    "sequence ratio, capped": PolicyGradient(ratio="sequence", clip_high=math.inf, ratio_cap=1.02),
    "no ratio": PolicyGradient(ratio="none"),
    "cross entropy": CrossEntropy(),
    "shaped probability": ShapedProbability(),
    "capped sequence": CappedSequence(),
    "capped sequence, wide": CappedSequence(floor=0.1, cap=5.0, alpha=0.5),
}


def build(name: str, **options: Any) -> TorchLearner:
    architecture = options.pop("architecture", "llama")
    model = make_model(architecture, TOKENIZER, width=32, layers=2, heads=4, seed=1)
    settings = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, "max_gradient_norm": 0.0, **options}
    learner = registry.make(name, name="toy", model=model, tokenizer=TOKENIZER, **settings)
    assert isinstance(learner, TorchLearner)
    return learner


def examples_of(learner: TorchLearner, loss: LossSpec, *, anchored: bool = True) -> list[Example]:
    """Twelve examples of uneven length with holes in their masks, uneven weights and anchors near and far."""
    numbers = np.random.default_rng(3)
    examples = []
    for prompt, group in zip(PROMPTS, learner.act(PROMPTS, 4, seed=7), strict=True):
        for index, completion in enumerate(group):
            size = completion.token_ids.size
            mask = np.ones(size, np.bool_) if size == 1 else numbers.random(size) < 0.8
            mask[0] = True
            examples.append(
                Example(
                    TOKENIZER.render_prompt(prompt),
                    completion.token_ids,
                    mask,
                    np.where(mask, numbers.normal(size=size), np.nan),
                    loss,
                    weight=(0.5, 1.0, 2.0, 0.25)[index],
                    anchor=completion.logprobs + numbers.normal(0.0, 0.3, size) if anchored and index % 2 else None,
                    reference=np.where(
                        numbers.random(size) < 0.5, np.nan, completion.logprobs + numbers.normal(size=size)
                    ),
                    kl_weight=(0.0, 0.02, 0.0, 0.1)[index],
                )
            )
    return examples


def loss_and_gradients(learner: TorchLearner, examples: Sequence[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the update's one optimizer step, which is not applied."""
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    optimizer = learner._optimizer

    def capture(loss: float) -> float:
        gradients = {name: p.grad.clone() for name, p in optimizer._parameters.items() if p.grad is not None}
        seen.append((loss, gradients))
        optimizer.zero_grad()
        return 0.0

    optimizer.step = capture
    learner.update(examples)
    [(loss, gradients)] = seen
    return loss, gradients


def assert_same(first: tuple[float, dict[str, torch.Tensor]], second: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert first[0] == pytest.approx(second[0], rel=1e-5, abs=1e-7)
    assert first[1].keys() == second[1].keys()
    largest = max(float(g.norm()) for g in first[1].values())
    assert largest > 0.0
    for name, gradient in first[1].items():
        difference = float((gradient - second[1][name]).norm())
        assert difference <= 1e-5 * max(float(gradient.norm()), 1e-2 * largest), name


@pytest.mark.parametrize("kind", LOSSES)
def test_openrlhf_and_torch_give_the_same_loss_and_gradients(kind: str) -> None:
    ours, theirs = build("torch"), build("openrlhf")
    examples = examples_of(ours, LOSSES[kind])
    assert_same(loss_and_gradients(ours, examples), loss_and_gradients(theirs, examples))


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_step_of_every_loss_kind_at_once_is_the_same_in_both(architecture: str) -> None:
    ours, theirs = build("torch", architecture=architecture), build("openrlhf", architecture=architecture)
    kinds = list(LOSSES.values())
    mixed = [replace(e, loss=kinds[i % len(kinds)]) for i, e in enumerate(examples_of(ours, PolicyGradient()))]
    assert_same(loss_and_gradients(ours, mixed), loss_and_gradients(theirs, mixed))


def test_a_negative_weight_turns_the_whole_term_around() -> None:
    ours, theirs = build("torch"), build("openrlhf")
    examples = [replace(e, weight=-e.weight) for e in examples_of(ours, PolicyGradient())]
    assert_same(loss_and_gradients(ours, examples), loss_and_gradients(theirs, examples))


def test_a_reference_far_away_still_pulls() -> None:
    # OpenRLHF caps its estimate at 10, with no slope beyond; exp(d) - d - 1 is 12.5 at d = 2.8.
    ours, theirs = build("torch"), build("openrlhf")
    base = examples_of(ours, PolicyGradient())
    scores = ours.score([e.prompt_ids for e in base], [e.response_ids for e in base])
    still = [np.zeros_like(e.advantages) for e in base]
    far = [
        replace(e, advantages=a, reference=s + 2.8, kl_weight=0.1) for e, a, s in zip(base, still, scores, strict=True)
    ]
    assert_same(loss_and_gradients(ours, far), loss_and_gradients(theirs, far))


@pytest.mark.parametrize(
    "options",
    [
        {"kl_coefficient": 0.05},
        {"lora_rank": 4, "kl_coefficient": 0.05},
        {"kl_coefficient": 0.5, "reference_reset": 2},
        {"kl_coefficient": 0.5, "reference_reset": 1, "optimizer_reset": True},
        {"lora_rank": 4, "kl_coefficient": 0.5, "reference_reset": 1},
        {"minibatches": 3, "temperature": 0.7},
        {"entropy_coefficient": 0.1, "temperature": 0.7, "epochs": 2, "aggregation": "constant"},
    ],
)
def test_several_updates_with_each_option_keep_the_two_together(options: dict[str, Any]) -> None:
    ours, theirs = build("torch", **options), build("openrlhf", **options)
    for _ in range(3):
        examples = examples_of(ours, PolicyGradient(), anchored=False)
        first, second = ours.update(examples), theirs.update(examples)
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4, abs=1e-6)
    prompts, responses = [e.prompt_ids for e in examples], [e.response_ids for e in examples]
    worst = max(
        float(np.abs(a - b).max())
        for a, b in zip(ours.score(prompts, responses), theirs.score(prompts, responses), strict=True)
    )
    assert worst < 1e-3


def test_the_loss_is_that_of_the_reference_implementation() -> None:
    learner = build("openrlhf")
    example = replace(examples_of(learner, PolicyGradient())[1], weight=1.0)
    logprobs = learner.score([example.prompt_ids], [example.response_ids])[0]
    expected, _ = example_loss(example, logprobs, example.anchor)
    loss, _ = loss_and_gradients(learner, [example])
    assert loss == pytest.approx(expected / example.mask.sum(), rel=1e-5)


@pytest.mark.parametrize("kind", ["token ratio", "token ratio, wide clip", "no ratio", "cross entropy"])
def test_where_openrlhf_has_the_same_loss_it_has_the_same_value_and_slope(kind: str) -> None:
    # OpenRLHF's own classes as oracles: PolicyLoss, SFTLoss and its k3, divided by our denominator in place of theirs.
    from openrlhf.models import PolicyLoss, SFTLoss
    from openrlhf.models.utils import compute_approx_kl

    loss, numbers = LOSSES[kind], np.random.default_rng(5)
    logprobs = torch.from_numpy(np.log(numbers.uniform(0.05, 0.95, (3, 6)))).requires_grad_()
    anchor = logprobs.detach() - torch.from_numpy(numbers.normal(0.0, 0.4, (3, 6)))
    advantages, mask = torch.from_numpy(numbers.normal(size=(3, 6))), torch.from_numpy(numbers.random((3, 6)) < 0.7)
    if isinstance(loss, PolicyGradient):
        against = logprobs.detach() if loss.ratio == "none" else anchor
        theirs = PolicyLoss(loss.clip_low, loss.clip_high)(
            logprobs, against, advantages, action_mask=mask.double(), batch_num_tokens=1.0
        )[0]
    else:
        theirs = SFTLoss()(logprobs, mask.double(), batch_num_tokens=1.0)
    theirs = theirs + 0.3 * (compute_approx_kl(logprobs, anchor, kl_estimator="k3") * mask).sum()
    (gradient,) = torch.autograd.grad(theirs, logprobs)
    value, slope = 0.0, np.zeros((3, 6))
    for row in range(3):
        at = [t[row].detach().numpy() for t in (logprobs, anchor, advantages, mask)]
        example = Example(np.ones(1, np.int32), np.ones(6, np.int32), at[3], at[2], loss)
        one, slope[row] = example_loss(replace(example, reference=at[1], kl_weight=0.3), at[0], at[1])
        value += one
    assert float(theirs.detach()) == pytest.approx(value, abs=1e-5)  # its KL is in float32
    np.testing.assert_allclose(slope, gradient.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}, {"aggregation": "sequence_mean"}])
def test_the_openrlhf_learner_conforms(options: dict[str, Any]) -> None:
    def make(**changes: Any) -> Callable[[], TorchLearner]:
        return lambda: build("openrlhf", **{"max_gradient_norm": 1.0, **options, **changes})

    # 24 tokens: the longest toy sequence is 7 + 10, so a forward holds one or two.
    whole, parts = make(learning_rate=1e-4), make(learning_rate=1e-4, micro_batch_tokens=24)
    check_learner(make(), split=(whole, parts))


def test_padding_of_the_vocabulary_is_no_token() -> None:
    def padded(name: str) -> TorchLearner:
        model = make_model("llama", TOKENIZER, width=32, layers=2, heads=4, seed=1)
        model.resize_token_embeddings(TOKENIZER.vocab_size + 9, mean_resizing=False)
        settings = {"device": "cpu", "max_new_tokens": 10, "max_gradient_norm": 0.0}
        return registry.make(name, name="toy", model=model, tokenizer=TOKENIZER, **settings)  # type: ignore[return-value]

    torch.manual_seed(0)
    ours = padded("torch")
    torch.manual_seed(0)
    theirs = padded("openrlhf")
    examples = examples_of(ours, PolicyGradient())
    assert_same(loss_and_gradients(ours, examples), loss_and_gradients(theirs, examples))


def test_a_loss_that_is_not_finite_touches_nothing() -> None:
    learner = build("openrlhf")
    examples = examples_of(learner, PolicyGradient())
    with torch.no_grad():
        learner.model.get_output_embeddings().weight[3, 0] = torch.nan
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    with pytest.raises(TrainingError, match="loss is nan"):
        learner.update(examples)
    assert learner.version == 0
    assert all(torch.equal(p.nan_to_num(), before[name].nan_to_num()) for name, p in learner.model.named_parameters())


def test_a_checkpoint_of_one_backend_loads_into_the_other(tmp_path: Any) -> None:
    ours, theirs = build("torch"), build("openrlhf")
    examples = examples_of(theirs, PolicyGradient())
    theirs.update(examples)
    theirs.save(tmp_path)
    ours.load(tmp_path)
    assert ours.version == 1
    assert ours.act(PROMPTS, 2, seed=1) == theirs.act(PROMPTS, 2, seed=1)


def test_a_loss_from_outside_gives_the_same_here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path)))
    ours, theirs = build("torch"), build("openrlhf")
    examples = examples_of(ours, NamedLoss.of("tempered", power=0.7))
    assert_same(loss_and_gradients(ours, examples), loss_and_gradients(theirs, examples))


@pytest.mark.parametrize("name", ["torch", "openrlhf"])
def test_the_share_of_clipped_tokens_is_reported_alike(name: str) -> None:
    learner = build(name)
    examples = examples_of(learner, PolicyGradient())
    scores = learner.score([e.prompt_ids for e in examples], [e.response_ids for e in examples])
    clipped = tokens = 0
    for example, logprobs in zip(examples, scores, strict=True):
        anchor = logprobs if example.anchor is None else example.anchor
        ratio, credit = np.exp(logprobs - anchor)[example.mask], example.advantages[example.mask]
        clipped += int((((ratio > 1.2) & (credit > 0)) | ((ratio < 0.8) & (credit < 0))).sum())
        tokens += ratio.size
    assert learner.update(examples)["clip_share"] == pytest.approx(clipped / tokens)
    assert clipped > 5


def test_options_that_do_not_apply_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="logits_chunk_mib is no option of learner 'openrlhf'"):
        build("openrlhf", logits_chunk_mib=64)
    with pytest.raises(UnknownNameError, match="learning_rate"):
        build("openrlhf", learning_rat=1.0)


def test_the_actor_is_openrlhfs_own_and_no_stand_in_stays() -> None:
    import sys

    from openrlhf.models import Actor

    learner = build("openrlhf")
    assert type(learner._trainer._actor) is Actor  # type: ignore[attr-defined]
    assert not [name for name in sys.modules if name.startswith("flash_attn")]
    from transformers.utils import is_flash_attn_2_available

    assert not is_flash_attn_2_available()


class Louder(LlamaForCausalLM):
    """Does something between its decoder and its logits that nobody can see from outside."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2.0
        return output


def test_an_architecture_that_the_torch_learner_refuses_is_trained_here_and_sampled_elsewhere() -> None:
    def louder() -> Louder:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        return Louder(LlamaConfig(vocab_size=TOKENIZER.vocab_size, **sizes, initializer_range=0.2))

    settings = {"name": "toy", "tokenizer": TOKENIZER, "device": "cpu", "learning_rate": 1e-2}
    with pytest.raises(InvalidInputError, match="Louder cannot be sampled or trained by learner 'torch'"):
        registry.make("torch", model=louder(), **settings)
    learner = registry.make("openrlhf", model=louder(), **settings)
    prompt, response = TOKENIZER.render_prompt("1+2="), TOKENIZER.encode_batch(["3"])[0]
    example = Example(prompt, response, np.ones(1, np.bool_), np.zeros(1), CrossEntropy())
    before = learner.score([prompt], [response])[0]
    learner.update([example])
    assert learner.score([prompt], [response])[0] > before
    with pytest.raises(InvalidInputError, match="sample it with 'vllm'"):
        learner.act(["1+2="], 1, seed=1)
