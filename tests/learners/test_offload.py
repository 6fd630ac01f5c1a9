"""A policy's state into the machine's memory and back: bit for bit, wherever it is asked next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learners.example import Example
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from learners.torch.tiny import make_model
from mutual_env.types import PolicyGradient
from tests.tiers import rest_long
from tokenizers_bridge import CharTokenizer

pytestmark = pytest.mark.torch

TOKENIZER = CharTokenizer("0123456789+= abcdefgh")
PROMPTS = ("1+2=", "3+4=", "12+34=")
KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "an adapter": {"lora_rank": 4},
    "a KL term": {"kl_coefficient": 0.1},
}


def learner(**options: Any) -> TorchLearner:
    model = make_model("llama", TOKENIZER, width=32, layers=2, heads=4, seed=1)
    settings = {"device": "cpu", "max_new_tokens": 8, "learning_rate": 1e-2, **options}
    return TorchLearner(model, TOKENIZER, name="toy", options=TorchOptions.of(settings))


def examples_of(one: TorchLearner, seed: int) -> list[Example]:
    groups = one.act(PROMPTS, 3, seed=seed)
    found = []
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for index, completion in enumerate(group):
            size = completion.token_ids.size
            credit = np.full(size, index - 1.0)
            ids = TOKENIZER.render_prompt(prompt)
            found.append(Example(ids, completion.token_ids, np.ones(size, np.bool_), credit, PolicyGradient()))
    return found


def history(one: TorchLearner, between: Callable[[TorchLearner], None]) -> list[Any]:
    """Three rounds, with something done before each of their calls."""
    found: list[Any] = []
    for round in range(3):
        between(one)
        examples = examples_of(one, round)
        between(one)
        found.append(
            [s.tolist() for s in one.score([e.prompt_ids for e in examples], [e.response_ids for e in examples])]
        )
        between(one)
        found.append(one.update(examples))
    return found


@pytest.mark.parametrize("kind", rest_long(KINDS, quick=1))
def test_a_policy_that_was_away_between_all_of_its_calls_learns_the_same_bit_for_bit(kind: str) -> None:
    def away(one: TorchLearner) -> None:
        one.offload()
        one.offload()  # twice is once

    def there_and_back(one: TorchLearner) -> None:
        one.offload()
        one.restore()

    stayed = history(learner(**KINDS[kind]), lambda one: None)
    assert history(learner(**KINDS[kind]), away) == stayed
    assert history(learner(**KINDS[kind]), there_and_back) == stayed


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_was_on_the_device_is_elsewhere_afterwards(kind: str) -> None:
    one = learner(**KINDS[kind])
    one.update(examples_of(one, 0))
    held = held_by(one)  # kept, so that no address is given out again
    one.offload()
    assert {storage.data_ptr() for storage in held}.isdisjoint(storage.data_ptr() for storage in held_by(one))


def held_by(one: TorchLearner) -> list[torch.UntypedStorage]:
    """The storages of weights, masters, moments and of the frozen copy."""
    optimizer, trainer = one._optimizer, one._trainer
    tensors = [*one._model.parameters(), *optimizer._masters.values()]
    tensors += [value for state in optimizer._adam.state.values() for value in state.values()]
    frozen = trainer.pulled_to._frozen  # type: ignore[attr-defined]
    tensors += list(frozen.parameters()) if frozen is not None else []
    return [tensor.untyped_storage() for tensor in tensors]


def test_a_policy_that_is_away_is_saved_as_it_is_and_a_saved_one_is_loaded_into_it(tmp_path: Path) -> None:
    one, other = learner(dtype="bfloat16"), learner(dtype="bfloat16")
    for policy in (one, other):
        policy.update(examples_of(policy, 0))
    one.offload()
    one.save(tmp_path / "away")
    other.save(tmp_path / "there")
    for file in sorted((tmp_path / "there").iterdir()):
        assert (tmp_path / "away" / file.name).read_bytes() == file.read_bytes()
    fresh = learner(dtype="bfloat16")
    fresh.offload()
    fresh.load(tmp_path / "away")
    assert fresh.update(examples_of(fresh, 1)) == other.update(examples_of(other, 1))


def gradients(parts: int) -> dict[str, dict[str, torch.Tensor]]:
    """Of each parameter after many micro-batches, in bfloat16 and, from the same weights, in float64 in one piece."""
    one = learner(dtype="bfloat16", micro_batch_tokens=24, logits_chunk_mib=1)
    numbers = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (parts, 12), generator=numbers)
    exact = make_model("llama", TOKENIZER, width=32, layers=2, heads=4, seed=1).bfloat16().double()
    for row in ids:
        for model in (one.model, exact):
            model(input_ids=row[None], labels=row[None]).loss.backward()
    found = {name: master.grad for name, master in one._optimizer._masters.items()}
    wanted = dict(exact.named_parameters())
    return {name: {"got": g.double(), "exact": wanted[name].grad} for name, g in found.items() if g is not None}


@pytest.mark.long
def test_gradients_of_a_bfloat16_policy_are_summed_in_float32_however_many_parts_there_are() -> None:
    few, many = gradients(8), gradients(512)
    assert many
    for name in many:
        one, other = (float((g["got"] - g["exact"]).norm() / g["exact"].norm()) for g in (few[name], many[name]))
        # Each part has bfloat16's own error (about 1 %), which the mean over many parts makes smaller. Summed in
        # bfloat16 the total loses parts below 1/256 of itself: 1.6 % to 3.0 % of error, by parameter, at 512 of them.
        assert other < 0.015, f"{name}: {one:.4f} in 8 parts, {other:.4f} in 512"
