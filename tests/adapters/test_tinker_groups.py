"""Tinker's own types and rollout loop over our families, with a scripted policy and no service."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tinker_cookbook")
import tinker
import torch
from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs
from tinker_cookbook.rl.data_processing import assemble_training_data
from tinker_cookbook.rl.rollouts import do_group_rollout
from tinker_cookbook.rl.types import EnvGroupBuilder, TrajectoryGroup
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from learners.adapters.tinker import FamilyGroup, FamilyGroups
from mutual_env.errors import VerificationError

pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes, and an end."""
    pieces = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    directory = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    fast.save_pretrained(directory)
    return directory


class Scripted(TokenCompleter):
    """Says what it finds for the text so far; the end of it is the tokenizer's."""

    def __init__(self, path: Path, says: Any) -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
        self.says, self.read = says, []

    async def __call__(
        self, model_input: tinker.ModelInput, stop: Any, *, max_tokens: int | None = None
    ) -> TokensWithLogprobs:
        self.read.append(self.tokenizer.decode(model_input.to_ints()))
        assert stop == [self.tokenizer.eos_token_id]
        ids = [*self.tokenizer.encode(self.says(self.read[-1])), *stop]
        return TokensWithLogprobs(tokens=ids, maybe_logprobs=[-0.1] * len(ids))


def played(group: EnvGroupBuilder, policy: TokenCompleter) -> TrajectoryGroup:
    return asyncio.run(do_group_rollout(group, policy))


def test_a_guess_is_played_by_tinkers_own_loop_and_becomes_its_training_data(path: Path) -> None:
    groups = FamilyGroups("mutual/guess-v0", tokenizer=path, batches=3, groups_per_batch=2, group_size=2, limit=4)
    assert len(groups) == 3
    [group, _] = groups.get_batch(1)
    policy = Scripted(path, lambda text: str(1 + text.count("higher")))
    found = played(pickle.loads(pickle.dumps(group)), policy)
    for trajectory in found.trajectories_G:
        *before, last = trajectory.transitions
        assert [t.reward for t in before] == [0.0] * len(before)
        assert last.episode_done
        assert last.reward == 1.0 or last.metrics["stop/max_turns"] == 1.0
        for one, other in zip(trajectory.transitions, trajectory.transitions[1:], strict=False):
            ids = [*one.ob.to_ints(), *one.ac.tokens]
            assert other.ob.to_ints()[: len(ids)] == ids  # what was sampled is never rendered again
    data, _ = assemble_training_data([found], [torch.tensor([0.5, -0.5])])
    assert len(data) == 2  # a conversation is one sequence: each turn goes on from the one before


def test_a_family_of_one_turn_is_a_group_of_one_step(path: Path) -> None:
    group = FamilyGroup("mutual/arithmetic-v0", 0, str(path), 3, options={"digits": 1})
    policy = Scripted(path, lambda text: str(eval(text.rstrip("="))))
    found = played(group, policy)
    assert found.get_total_rewards() == [1.0] * 3
    assert [t.transitions[-1].metrics["correct"] for t in found.trajectories_G] == [1.0] * 3


def test_players_of_a_game_wait_for_each_other_and_meet(path: Path) -> None:
    group = FamilyGroup("mutual/undercut-v0", 0, str(path), 2, options={"turns": 2})
    first = iter("54")

    def says(text: str) -> str:
        """What this player said in its first turn, as the other's number tells."""
        return next(first) if "others" not in text else "5" if text.endswith("4\n") else "4"

    found = played(group, Scripted(path, says))
    assert sorted(found.get_total_rewards()) == [0.0, 1.0]  # 4 undercuts 5, twice


def test_what_got_no_verdict_is_no_zero(path: Path) -> None:
    group = FamilyGroup(
        "mutual/arithmetic-v0", 0, str(path), 1,
        options={"verifier": {"name": "tests.adapters.broken:Broken"}},
    )  # fmt: skip
    with pytest.raises(VerificationError, match="no verdict"):
        played(group, Scripted(path, lambda text: "1"))
