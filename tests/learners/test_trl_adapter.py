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

from learners.adapters.trl import TRLRollouts, own_generation
from mutual_env.adapters.trl import TRLTasks
from mutual_env.errors import InvalidInputError

pytestmark = pytest.mark.torch


def characters() -> PreTrainedTokenizerFast:
    """Bytes."""
    pieces = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


def two_steps(directory: Path, **changes: Any) -> GRPOConfig:
    """Of four samples of four tokens each."""
    return GRPOConfig(
        output_dir=str(directory), use_cpu=True, bf16=False, max_steps=2, per_device_train_batch_size=4,
        num_generations=4, max_completion_length=4, report_to=[], save_strategy="no", **changes,
    )  # fmt: skip


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

        config = two_steps(tmp_path)
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


def test_trls_trainer_plays_conversations_and_learns_from_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = characters()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **shape))
    rounds: list[int] = []

    def generate(trainer: Any, contexts: list[list[int]]) -> Any:
        """In the first step the model's own; in the second the first sample is right at once."""
        rounds.append(trainer.state.global_step)
        if trainer.state.global_step == 0:
            return own_generation(trainer, contexts)
        right = [str(eval(tokenizer.decode(ids).rstrip("=?"))) if len(contexts) == 4 else "x" for ids in contexts]
        return [tokenizer.encode(text if i == 0 else "x") for i, text in enumerate(right)], None

    options: dict[str, Any] = {"family": "mutual/arithmetic-v0", "digits": 1, "hint": "?", "generate": generate}
    with TRLRollouts("mutual/retries-v0", tokenizer=tmp_path / "tokenizer", n=8, **options) as rollouts:
        played: list[dict[str, Any]] = []

        def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
            played.append(rollouts.rollout(prompts, trainer))
            return dict(played[-1])

        config = two_steps(tmp_path, learning_rate=1e-2)
        before = model.lm_head.weight.detach().clone()
        GRPOTrainer(
            model=model, args=config, train_dataset=Dataset.from_list(rollouts.rows()), rollout_func=rollout,
            reward_funcs=rollouts.reward, processing_class=tokenizer,
        ).train()  # fmt: skip
    assert rounds == [0, 0, 1, 1]  # each step two turns
    for each in played:
        assert len(each["completion_ids"]) == 4
        for ids, mask in zip(each["completion_ids"], each["env_mask"], strict=True):
            assert len(ids) == len(mask)
            replies = [i for i, own in zip(ids, mask, strict=True) if not own]
            assert replies in (tokenizer.encode("?"), [])  # what the world said, and it alone
    assert played[1]["episode_reward"] == [1.0, 0.0, 0.0, 0.0]
    assert played[1]["env_mask"] == [[1] * len(played[1]["completion_ids"][0]), *[[1, 0, 1]] * 3]
    assert not torch.equal(before, model.lm_head.weight)


def test_a_rollout_is_rewarded_by_what_its_last_turn_came_to_and_debaters_meet(tmp_path: Path) -> None:
    tokenizer = characters()
    tokenizer.save_pretrained(tmp_path)
    said = iter(["1", "2", "3", "4"])

    def generate(trainer: Any, contexts: list[list[int]]) -> Any:
        ids = [tokenizer.encode(next(said)) for _ in contexts]
        return ids, [[-0.5] * len(each) for each in ids]

    with TRLRollouts(
        "mutual/debate-v0", tokenizer=tmp_path, n=3, family="mutual/arithmetic-v0", digits=1, turns=2,
        template="={answers}?", line="{text}", generate=generate,
    ) as rollouts:  # fmt: skip
        [row, *_] = rollouts.rows()
        found = rollouts.rollout([row["prompt"]] * 2, None)
        heard = [
            tokenizer.decode([i for i, own in zip(ids, mask, strict=True) if not own])
            for ids, mask in zip(found["completion_ids"], found["env_mask"], strict=True)
        ]
        assert heard == ["=2?", "=1?"]
        assert found["logprobs"] == [[-0.5, 0.0, 0.0, 0.0, -0.5]] * 2
        answer = eval(row["prompt"].rstrip("="))
        assert found["episode_reward"] == [float(answer == 3), float(answer == 4)]
        assert rollouts.reward(completions=[], episode_reward=[1.0, None], trainer_state=None) == [1.0, None]
        with pytest.raises(InvalidInputError, match="none of rows"):
            rollouts.rollout(["never asked"], None)
