"""What could be sampled and not be trained on is refused before a round, and before an evaluation, is sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from learners import registry
from learners.run.config import load_run
from learners.run.training import train
from learners.torch.make import try_torch
from mutual_env.errors import ConfigError, InvalidInputError

pytestmark = pytest.mark.torch

RUN = """
name: r
rounds: 1
env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2, options: {digits: 1, modulus: 10}}
policies:
  ada: {learner: tiny, options: &one {width: 16, layers: 1, tokenizer: {kind: char, alphabet: "0123456789+=()%"}}}
  bob: {learner: tiny, options: *one}
"""


@pytest.mark.parametrize(("row", "fits"), [(17, False), (18, True)])
def test_a_prompt_and_its_longest_response_are_held_against_a_row(tmp_path: Path, row: int, fits: bool) -> None:
    # "(1+2)%10=" with its opening has 10 tokens, 8 are written, and the last of them is never fed: 17. The second
    # policy has no room, and the first has sampled nothing when that is said.
    path = tmp_path / "run.yaml"
    path.write_text(f"{RUN}output: {tmp_path}\n")
    sizes = [f"policies.{name}.options.max_new_tokens=8" for name in ("ada", "bob")]
    config = load_run(path, [*sizes, f"policies.bob.options.micro_batch_tokens={row - 1}"])
    if fits:
        assert train(config).rounds == 1
        return
    with pytest.raises(
        ConfigError, match=rf"policies.bob: .* \(max_new_tokens\) do not fit micro_batch_tokens={row - 1}"
    ):
        train(config)
    assert not (tmp_path / "r" / "samples.jsonl").exists()


def test_a_response_that_fits_no_row_is_refused_before_anything_is_built() -> None:
    with pytest.raises(InvalidInputError, match="micro_batch_tokens=63: raise it above 64, or lower max_new_tokens"):
        try_torch(model=object(), max_new_tokens=64, micro_batch_tokens=63)
    try_torch(model=object(), max_new_tokens=64, micro_batch_tokens=64)


def test_the_value_of_an_option_is_what_is_given_or_the_default_of_who_takes_it() -> None:
    assert registry.value("torch", {}, "micro_batch_tokens") == 4096
    assert registry.value("vllm", {"trainer": "openrlhf_ray", "zero_stage": 3}, "zero_stage") == 3
    assert registry.value("vllm", {"trainer": "openrlhf_ray"}, "zero_stage") == 2
    assert registry.value("tabular", {}, "micro_batch_tokens") is None
