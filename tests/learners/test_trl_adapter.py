"""TRL's own trainer, on our tasks and rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from mutual_env.adapters.trl import TRLTasks
from mutual_env.errors import InvalidInputError

pytestmark = pytest.mark.torch


def characters() -> PreTrainedTokenizerFast:
    alphabet = ["<pad>", "<eos>", *"0123456789+-*()%=? "]
    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


def test_trls_trainer_learns_from_our_verifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = characters()
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **shape))
    with TRLTasks("mutual/arithmetic-v0", n=16, digits=1) as tasks:
        paid: list[float | None] = []

        def reward(**given: Any) -> list[float | None]:
            paid.extend(tasks.reward(**given))
            return paid[-len(given["completions"]) :]

        config = GRPOConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, max_steps=2, per_device_train_batch_size=4,
            num_generations=4, max_completion_length=4, report_to=[], save_strategy="no",
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, args=config, train_dataset=Dataset.from_list(tasks.rows()), reward_funcs=reward,
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.train()
    assert len(paid) == 8
    assert set(paid) <= {0.0, 1.0}


def test_rewards_are_the_verifiers_for_texts_and_for_messages() -> None:
    with TRLTasks("mutual/arithmetic-v0", n=2, chat=True) as tasks:
        rows = tasks.rows()
        assert rows[0]["prompt"][0]["role"] == "user"
        answers = [task.answer for task in tasks._tasks.values()]
        said = [[{"role": "assistant", "content": answers[0]}], "no number", answers[1]]
        ids = [rows[0]["task_id"], rows[0]["task_id"], rows[1]["task_id"]]
        assert tasks.reward(prompts=[], completions=said, task_id=ids, trainer_state=None) == [1.0, 0.0, 1.0]


def test_a_family_of_several_turns_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a reward function sees one"):
        TRLTasks("mutual/guess-v0", n=2)
