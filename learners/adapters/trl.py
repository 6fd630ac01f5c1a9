"""Our families of any number of turns, played by TRL's GRPOTrainer: `pip install trl`. Nothing of TRL is imported here.

rollouts = TRLRollouts("mutual/guess-v0", tokenizer=path, n=1000, limit=8)
GRPOTrainer(
    model=path, train_dataset=Dataset.from_list(rollouts.rows()), rollout_func=rollouts.rollout,
    reward_funcs=rollouts.reward, ...
)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from learners.adapters.table import Table, written_by
from mutual_env.errors import InvalidInputError
from mutual_env.spec import whole_number
from mutual_env.types import Completion, Context, Prompt
from mutual_env.verifiers import VerifierPool
from tokenizers_bridge import load
from tokenizers_bridge.replies import Conversing

Generate: TypeAlias = Callable[[Any, list[list[int]]], tuple[list[list[int]], list[list[float]] | None]]
"""From the trainer and contexts in its tokens to what is written after each, and its log-probabilities if known."""


class TRLRollouts:
    """The first `n` rounds of a family, a prompt each: rows for a data set, the rollout function that plays them turn
    by turn, and the reward function that says what they came to.

    `tokenizer` is the model's, as `tokenizers_bridge.load` takes it. Sampled ids are kept as they are, replies are put
    between them by the chat template and masked (TRL's `env_mask`). A conversation without a verdict has the reward
    None, which TRL leaves out. Conversations on one prompt are a group; where the world answers them together (debates,
    games) they meet each other. `generate` samples; the default is the trainer's own generation, of up to
    `max_completion_length` tokens a turn. Options are the family's and those of `mutual_env.make`. Close it, or use it
    as a context manager.
    """

    def __init__(
        self,
        id: str,
        /,
        *,
        tokenizer: Any,
        n: int,
        seed: int = 0,
        pool: VerifierPool | None = None,
        generate: Generate | None = None,
        **options: Any,
    ) -> None:
        self._id, self._seed, self._options = id, seed, options
        self._conversing = Conversing(load(tokenizer))
        self._owns_pool, self._pool = pool is None, VerifierPool() if pool is None else pool
        self._generate = own_generation if generate is None else generate
        self._idle: dict[int, list[Table]] = {}
        self._rounds: dict[str, int] = {}
        for round in range(whole_number("n", n, 1)):
            with self._tables([(round, 1)]) as [table]:
                self._rounds.setdefault(_key(table.prompt), round)  # a prompt that comes again is one row

    def rows(self) -> list[dict[str, Any]]:
        return [{"prompt": json.loads(key)} for key in self._rounds]

    def rollout(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """What TRL calls a rollout function: a conversation for each prompt that is given."""
        keys = [_key(prompt) for prompt in prompts]
        for key in keys:
            if key not in self._rounds:
                raise InvalidInputError(f"rollout: the prompt {key:.200} is none of rows()")
        asked = [(self._rounds[key], keys.count(key)) for key in dict.fromkeys(keys)]
        with self._tables(asked) as tables:
            at = dict(zip(dict.fromkeys(keys), tables, strict=True))
            return self._played([(at[key], keys[:i].count(key)) for i, key in enumerate(keys)], trainer)

    def _played(self, seated: Sequence[tuple[Table, int]], trainer: Any) -> dict[str, Any]:
        """The conversations, each at its place of a table, to their ends."""
        told = [_Told(self._conversing, table.prompt) for table, _ in seated]
        while waiting := [i for i, (table, place) in enumerate(seated) if table.contexts[place] is not None]:
            written = self._written({i: _open(seated[i]) for i in waiting}, trainer)
            for table in {id(seated[i][0]): seated[i][0] for i in waiting}.values():
                table.step([written.get(i) for i, (at, _) in enumerate(seated) if at is table])
            for i, completion in written.items():
                table, place = seated[i]
                told[i].add(completion, table.contexts[place])
        ends = [table.ended[place] for table, place in seated]
        return {
            "prompt_ids": [self._conversing.prompt(table.prompt).tolist() for table, _ in seated],
            "completion_ids": [each.ids for each in told],
            "logprobs": None if any(each.is_unknown for each in told) else [each.logprobs for each in told],
            "env_mask": [each.mask for each in told],
            "episode_reward": [None if end is None else end.reward for end in ends],
        }

    def _written(self, contexts: dict[int, Context], trainer: Any) -> dict[int, Completion]:
        """What comes next in each."""
        ids = [self._conversing.context(context).tolist() for context in contexts.values()]
        sampled, logprobs = self._generate(trainer, ids)
        known = [None] * len(sampled) if logprobs is None else logprobs
        tokenizer = self._conversing.tokenizer
        return {
            i: written_by(tokenizer, *each) for i, each in zip(contexts, zip(sampled, known, strict=True), strict=True)
        }

    def reward(
        self, *, completions: Sequence[Any], episode_reward: Sequence[float | None], **columns: Any
    ) -> list[float | None]:
        """What TRL calls a reward function."""
        return list(episode_reward)

    def close(self) -> None:
        if self._owns_pool:
            self._pool.close()

    def __enter__(self) -> TRLRollouts:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _tables(self, asked: Sequence[tuple[int, int]]) -> Iterator[list[Table]]:
        """A table for each round and size. They are made once and used again."""
        tables = []
        for round, size in asked:
            idle = self._idle.setdefault(size, [])
            tables.append(idle.pop() if idle else self._made(size))
            tables[-1].begin(round)
        yield tables
        for table, (_, size) in zip(tables, asked, strict=True):
            self._idle[size].append(table)

    def _made(self, size: int) -> Table:
        return Table(self._id, size=size, seed=self._seed, pool=self._pool, options=self._options)


class _Told:
    """One conversation as a completion: what was sampled, and the replies between."""

    def __init__(self, conversing: Conversing, prompt: Prompt) -> None:
        self._conversing, self._prompt = conversing, prompt
        self.ids: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.is_unknown = False

    def add(self, completion: Completion, goes_on: Context | None) -> None:
        """A turn, and the reply to it where there is one."""
        self._said(completion.token_ids.tolist(), completion.logprobs.tolist(), own=1)
        self.is_unknown |= bool((completion.logprobs != completion.logprobs).any())
        if goes_on is not None:
            reply = self._conversing.after(self._prompt, goes_on.turns[-1].reply, completion.token_ids).tolist()
            self._said(reply, [0.0] * len(reply), own=0)

    def _said(self, ids: list[int], logprobs: list[float], *, own: int) -> None:
        self.ids += ids
        self.logprobs += logprobs
        self.mask += [own] * len(ids)


def own_generation(trainer: Any, contexts: list[list[int]]) -> tuple[list[list[int]], list[list[float]] | None]:
    """As the trainer generates where it has no rollout function: vLLM, or its model."""
    ids, logprobs = trainer._generate_single_turn(contexts, None, {}, 1)
    return ids, logprobs


def _open(seat: tuple[Table, int]) -> Context:
    context = seat[0].contexts[seat[1]]
    assert context is not None
    return context


def _key(prompt: Any) -> str:
    """What tells prompts apart, as rows hold them."""
    return json.dumps(prompt if isinstance(prompt, str) else [dict(message) for message in prompt])
