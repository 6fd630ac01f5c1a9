"""The torch sampler goes on with a conversation from what it computed before, and says what it would have said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import mutual_env
from learners.run.loop import Loop
from learners.torch.contexts import Computed, ContextCache
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from mutual_env import Completion, Task, VerifierSpec
from mutual_env.interaction import Conversation, InteractionSpec
from mutual_env.types import Context, Reply, Turn
from sharing import Independent
from tokenizers_bridge import CharTokenizer, TokenizerBridge

pytestmark = pytest.mark.torch


class Floods:
    """Answers with more than anybody can read."""

    inline, joint, max_turns = True, False, 3

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Reply]:
        return [Reply("?" * 300) for _ in conversations]


class FloodedTasks:
    verifier = VerifierSpec("exact")
    interaction = InteractionSpec(f"{__name__}:Floods")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"{round}.{i}", f"{i}+1=", "1") for i in range(n)]


TOKENIZER = CharTokenizer("0123456789+=? abcdefgh")
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def learner(kind: str = "llama", **options: Any) -> TorchLearner:
    torch.manual_seed(0)
    shape = {"vocab_size": TOKENIZER.vocab_size, "max_position_embeddings": 256, **SHAPE}
    match kind:
        case "llama":
            model: Any = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **shape))
        case "mistral":  # sees the last 12 tokens alone, and is called through its own modules
            model = MistralForCausalLM(MistralConfig(num_key_value_heads=2, sliding_window=12, **shape))
        case _:
            model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape))
    return TorchLearner(model, TOKENIZER, name="ann", options=TorchOptions(max_new_tokens=6, **options))


def conversed(policy: TorchLearner, turns: int, prompts: list[str], *, group: int = 3) -> list[list[Completion]]:
    """What is written in each of the turns, conversation by conversation."""
    groups = policy.act([Context(p) for p in prompts], group, seed=1)
    contexts = [Context(p) for p in prompts for _ in range(group)]
    written = [[c for g in groups for c in g]]
    for turn in range(1, turns):
        replies = [Reply("?" * (i % 3 + 1)) for i in range(len(contexts))]
        pairs = zip(contexts, written[-1], replies, strict=True)
        contexts = [Context(c.prompt, (*c.turns, Turn(said, reply))) for c, said, reply in pairs]
        written.append([g[0] for g in policy.act(contexts, 1, seed=1 + turn)])
    return written


@pytest.mark.parametrize("kind", ["llama", "mistral", "neox"])
def test_what_is_kept_changes_no_sampled_id_and_log_probabilities_by_rounding(kind: str) -> None:
    prompts = ["1+2=", "0123456789 " * 4, "7"]
    kept, again = (conversed(learner(kind, conversation_mb=mb), 4, prompts) for mb in (512, 0))
    for turn, (ours, theirs) in enumerate(zip(kept, again, strict=True)):
        for one, other in zip(ours, theirs, strict=True):
            assert one.token_ids.tolist() == other.token_ids.tolist()
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)
        if turn == 0:
            assert ours == theirs


def test_a_turn_computes_what_is_new_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner()
    computed: list[int] = []
    decoding = policy.language_model.decoding

    def counted(positions: int) -> Any:
        step = decoding(positions)

        def counting(tokens: torch.Tensor, places: torch.Tensor, layout: Any) -> torch.Tensor:
            computed.append(tokens.numel())
            return step(tokens, places, layout)

        return counting

    monkeypatch.setattr(policy.language_model, "decoding", counted)
    [[first]] = policy.act([Context("0123456789")], 1, seed=0)
    prompt = TOKENIZER.render_prompt("0123456789").size
    assert computed[0] == prompt
    computed.clear()
    context = Context("0123456789", (Turn(first, Reply("??")),))
    policy.act([context], 1, seed=1)
    assert computed[0] == 3  # the last token that was sampled and the two of the reply
    computed.clear()
    policy.act([context], 2, seed=1)  # it is kept until a round begins
    assert computed[0] == 3
    policy.act(["1"], 1, seed=0)
    computed.clear()
    policy.act([context], 1, seed=1)
    assert computed[0] == prompt + first.token_ids.size + 2


def test_an_update_forgets_what_other_weights_computed() -> None:
    policy = learner(learning_rate=0.5)
    [[first]] = policy.act([Context("12")], 1, seed=0)
    policy.update([])
    context = Context("12", (Turn(first, Reply("?")),))
    fresh = learner(learning_rate=0.5, conversation_mb=0)
    fresh.update([])
    assert (
        policy.act([context], 1, seed=1)[0][0].token_ids.tolist()
        == fresh.act([context], 1, seed=1)[0][0].token_ids.tolist()
    )


def test_a_conversation_that_finds_no_room_is_computed_again() -> None:
    one = Computed((torch.zeros(1, 64, 64),), (torch.zeros(1, 64, 64),))  # 32 KiB
    cache = ContextCache(1 / 16)  # room for two
    ids = [np.full(64, i, np.int32) for i in range(3)]
    for each in ids:
        cache.keep(each, one)
    longer = [np.append(each, np.int32(7)) for each in ids]
    assert [cache.find(each) is None for each in longer] == [True, False, False]
    assert cache.find(ids[2]) is None  # the last token's own state is what is sampled from
    ContextCache(0).keep(ids[0], one)
    assert ContextCache(1 / 64).find(longer[0]) is None


def test_the_same_conversations_in_another_order_are_sampled_alike() -> None:
    prompts = ["1+2=", "7", "a b c d"]
    there = conversed(learner(), 3, prompts, group=1)
    back = conversed(learner(max_rows=1), 3, prompts, group=1)
    assert [[c.token_ids.tolist() for c in turn] for turn in there] == [
        [c.token_ids.tolist() for c in turn] for turn in back
    ]


def test_a_conversation_that_grows_too_long_ends_and_no_round_does() -> None:
    policy = learner()  # of 256 positions
    fits, full = (Context("1+2=", (Turn(Completion.from_text("1"), Reply("?" * size)),)) for size in (200, 300))
    [[short], [none], [other]] = policy.act([fits, full, Context("2+2=")], 1, seed=0)
    assert (short.found_no_room, none.found_no_room, other.found_no_room) == (False, True, False)
    assert [c.found_no_room for c in policy.act([full], 2, seed=0)[0]] == [True, True]
    mutual_env.register("test/flooded-v0", FloodedTasks)
    env = mutual_env.make("test/flooded-v0", agents=["ann"], group_size=2, prompts_per_round=2)
    [info] = Loop(Independent(env), {"ann": policy}, 0, 2, TokenizerBridge([TOKENIZER])).round(0).values()
    assert info["metrics"]["turns/mean"] == info["metrics"]["turns/cut_share"] == 1.0
    assert policy.version == 1
