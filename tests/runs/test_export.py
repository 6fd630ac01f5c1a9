"""A policy that is given away is the policy that was trained: the same log-probabilities in transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learners.cli import main
from learners.run.config import load_run
from learners.run.subject import find
from learners.run.training import train
from mutual_env.errors import InvalidInputError
from mutual_env.types import Task, Verdict

pytestmark = pytest.mark.torch

CONFIG = """
name: {name}
rounds: 2
output: {output}
env: {{group_size: 4, prompts_per_round: 2, options: {{digits: 1, verifier: "export_probe:Early"}}}}
sharing: {{strategy: prp}}
policies: {{ada: {{learner: {learner}, options: {options}}}, bob: {{learner: {learner}, options: {options}}}}}
checkpoint: {{every: 1, keep: 2}}
evaluation: {{every: 1, prompts: 4}}
"""


class Early:
    """Right where the text begins in the lower half of the alphabet: a policy that knows nothing is right half the
    time, and has something to learn."""

    id = "early"
    inline = True

    def verify(self, task: Task, text: str) -> Verdict:
        early = text[:1] < "M"
        return Verdict.scored(float(early), correct=early)


sys.modules["export_probe"] = probe = ModuleType("export_probe")
vars(probe)["Early"] = Early


def trained(tmp_path: Path, name: str, options: str, learner: str = "torch") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(CONFIG.format(name=name, output=tmp_path, learner=learner, options=options))
    return train(load_run(path)).directory


def logprobs_in_transformers(directory: Path, prompt: str, answer: str) -> list[float]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    ids = tokenizer(prompt)["input_ids"] + tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(logits[i - 1, ids[i]]) for i in range(len(ids) - len(answer), len(ids))]


@pytest.mark.parametrize("options", ["", ", lora_rank: 4, lora_alpha: 64"])
def test_an_exported_policy_says_in_transformers_what_it_said_in_the_run(
    model: Path, tmp_path: Path, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "r", f"{{path: {model}, max_new_tokens: 4, learning_rate: 0.05{options}}}")
    learner = find(run).learner("ada")
    prompt, answer = "3+4=", "72"
    ids = [learner.tokenizer.render_prompt(prompt)], list(learner.tokenizer.encode_batch([answer]))
    expected = learner.score(*ids)[0]
    assert main(["export", str(run), "ada", str(tmp_path / "out")]) == 0
    assert "log-probabilities within" in capsys.readouterr().out
    assert logprobs_in_transformers(tmp_path / "out", prompt, answer) == pytest.approx(expected, abs=1e-4)
    assert logprobs_in_transformers(model, prompt, answer) != pytest.approx(expected, abs=1e-2)  # it has learnt
    card = (tmp_path / "out" / "README.md").read_text()
    for word in ("base_model", "strategy `prp`", "together with bob", "after 2 rounds", "| accuracy |"):
        assert word.replace("after 2 rounds", "for 2 rounds") in card
    assert (tmp_path / "out" / "LICENSE").read_text() == "Apache-2.0"


def test_an_adapter_is_read_by_peft_over_its_model(model: Path, tmp_path: Path) -> None:
    import peft

    run = trained(tmp_path, "r", f"{{path: {model}, max_new_tokens: 4, learning_rate: 0.05, lora_rank: 4}}")
    assert main(["export", str(run), "bob", str(tmp_path / "merged")]) == 0
    assert main(["export", str(run), "bob", str(tmp_path / "adapter"), "--adapter"]) == 0
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert len({file.stat().st_mode for file in (tmp_path / "merged").iterdir()}) == 1
    ids = torch.arange(2, 10)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5)


def test_the_wrong_way_to_save_lora_is_refused_and_the_right_one_named(model: Path, tmp_path: Path) -> None:
    """transformers would write `q_proj.base_layer.weight`, and read random weights back with no more than a warning."""
    run = trained(tmp_path, "r", f"{{path: {model}, max_new_tokens: 4, lora_rank: 4}}")
    learner = find(run).learner("ada")
    with pytest.raises(InvalidInputError, match=r"read back as random ones. Use learner\.save_pretrained"):
        learner.model.save_pretrained(tmp_path / "wrong")  # type: ignore[attr-defined]


def test_a_policy_built_in_the_run_is_exported_with_its_toy_tokenizer(tmp_path: Path) -> None:
    tokenizer_ = '{kind: pair, alphabet: "0123456789+-=()%", merges: ["1+"]}'
    options = f"{{architecture: gpt_neox, max_new_tokens: 4, tokenizer: {tokenizer_}}}"
    run = trained(tmp_path, "r", options, learner="tiny")
    assert main(["export", str(run), "ada", str(tmp_path / "out"), "--round", "1"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    learner = find(run).learner("ada")
    assert tokenizer("1+2=")["input_ids"] == learner.tokenizer.render_prompt("1+2=").tolist()
    assert tokenizer.decode(tokenizer("1+21+", add_special_tokens=False)["input_ids"]) == "1+21+"


def test_an_exported_model_can_be_evaluated_and_trained_again(model: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, "r", f"{{path: {model}, max_new_tokens: 4, learning_rate: 0.05}}")
    assert main(["export", str(run), "ada", str(tmp_path / "out")]) == 0
    arguments = ["eval", str(tmp_path / "out"), "--like", str(run), "--out", str(tmp_path / "e")]
    assert main([*arguments, "--max-new-tokens", "4"]) == 0
    assert (tmp_path / "e" / "samples.jsonl").read_text().count("\n") == 4
    again = trained(tmp_path, "again", f"{{path: {tmp_path / 'out'}, max_new_tokens: 4}}")
    first = find(again).sampled_with({}).learner("ada")
    assert np.isfinite(first.score([first.tokenizer.render_prompt("1+1=")], [np.array([3], np.int32)])[0]).all()


def test_what_cannot_be_exported_is_said_and_leaves_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "r", f"{{path: {model}, max_new_tokens: 4}}")
    target = tmp_path / "out"
    for words, sentence in (
        ([str(run), "adda", str(target)], "unknown policy 'adda': did you mean 'ada'"),
        ([str(run), "ada", str(target), "--adapter"], "all weights were trained (lora_rank is 0)"),
        ([str(run), "ada", str(model)], "is there already and not empty"),
        ([str(run), "ada", str(run / "run.json")], "is there already and not empty"),
        ([str(run), "ada", str(run / "run.json" / "x")], "cannot be written to (Not a directory)"),
        ([str(run), "ada", str(target), "--round", "9"], "keeps no checkpoint after 9 rounds"),
    ):
        assert main(["export", *words]) == 2
        assert sentence in capsys.readouterr().err
    assert not target.exists()
    tabular = trained(tmp_path, "t", "{max_new_tokens: 2}", learner="tabular")
    assert main(["export", str(tabular), "ada", str(target)]) != 0
    assert "no form that transformers reads" in capsys.readouterr().err
