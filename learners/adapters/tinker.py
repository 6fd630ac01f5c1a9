"""Our families as Tinker's groups of environments: `pip install tinker tinker-cookbook`.

groups = FamilyGroups("mutual/guess-v0", tokenizer=path, batches=100, groups_per_batch=16, group_size=8, limit=8)
config = tinker_cookbook.rl.train.Config(dataset_builder=..., ...)      # whose builder returns (groups, None)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tinker
from tinker_cookbook.rl import types as rl

from learners.adapters.table import Ended, Table, answers_together, written_by
from mutual_env.errors import InvalidInputError, VerificationError
from mutual_env.types import Completion, Context
from mutual_env.verifiers import VerifierPool
from tokenizers_bridge import load
from tokenizers_bridge.protocol import stop_ids_of
from tokenizers_bridge.replies import Conversing

PATIENCE = 600.0
"""Seconds that one player waits for the others' turns."""


class FamilyGroups(rl.RLDataset):  # type: ignore[misc]  # Tinker's cookbook is not checked
    """The rounds of a family in batches: a group is one prompt, which `group_size` conversations are about.

    `tokenizer` is the model's, as a path or a name that `tokenizers_bridge.load` takes, so that a group can be sent to
    another process. Options are the family's and those of `mutual_env.make`.
    """

    def __init__(
        self,
        id: str,
        /,
        *,
        tokenizer: str | Path,
        batches: int,
        groups_per_batch: int,
        group_size: int,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self._made: dict[str, Any] = {
            "id": id,
            "tokenizer": str(tokenizer),
            "size": group_size,
            "seed": seed,
            "options": options,
        }
        self._batches, self._per_batch = batches, groups_per_batch

    def get_batch(self, index: int) -> list[FamilyGroup]:
        start = index * self._per_batch
        return [FamilyGroup(round=start + i, **self._made) for i in range(self._per_batch)]

    def __len__(self) -> int:
        return self._batches


@dataclass
class FamilyGroup(rl.EnvGroupBuilder):  # type: ignore[misc]
    """`size` conversations on the prompt of one round. Where the world answers all of them together (debates, games)
    they wait for each other's turns and meet; otherwise each goes at its own pace.

    A conversation pays once, at its end, what its verdict says. One without a verdict raises VerificationError there,
    and Tinker's rollout strategy says what becomes of it. Text alone goes to the world; a policy's sampled ids are kept
    as they are, and replies put between them by the chat template.
    """

    id: str
    round: int
    tokenizer: str
    size: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    _open: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    async def make_envs(self) -> Sequence[rl.Env]:
        return await asyncio.to_thread(self._made)

    async def cleanup(self) -> None:
        """Safe to call twice."""
        opened, self._open = self._open, []
        for each in opened:
            await asyncio.to_thread(each.close)

    def logging_tags(self) -> list[str]:
        return [self.id.replace("/", "_")]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": []}

    def _made(self) -> list[rl.Env]:
        conversing = Conversing(load(self.tokenizer))
        pool = VerifierPool()
        joint = answers_together(self.id, self.options)
        tables = [self._table(self.size if joint else 1, pool) for _ in range(1 if joint else self.size)]
        self._open += [pool, *tables]
        return [
            ConversationEnv(turns, place, conversing) for turns in map(_Turns, tables) for place in range(turns.size)
        ]

    def _table(self, size: int, pool: VerifierPool) -> Table:
        table = Table(self.id, size=size, seed=self.seed, pool=pool, options=self.options)
        table.begin(self.round)
        return table


class _Turns:
    """A table whose turn is over when everybody who is asked has written."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._written: dict[int, Completion] = {}
        self._answered: asyncio.Future[None] | None = None

    @property
    def size(self) -> int:
        return len(self.table.contexts)

    async def write(self, place: int, completion: Completion) -> None:
        """Comes back when the world has answered everybody."""
        self._written[place] = completion
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
        answered = self._answered
        asked = {i for i, context in enumerate(self.table.contexts) if context is not None}
        if self._written.keys() == asked:
            written, self._written, self._answered = self._written, {}, None
            try:
                await asyncio.to_thread(self.table.step, [written.get(i) for i in range(self.size)])
            except Exception as error:
                answered.set_exception(error)
            else:
                answered.set_result(None)
        await asyncio.wait_for(asyncio.shield(answered), PATIENCE)


class ConversationEnv(rl.Env):  # type: ignore[misc]
    """One conversation as Tinker plays it: ids in, ids out."""

    def __init__(self, turns: _Turns, place: int, conversing: Conversing) -> None:
        self._turns, self._place, self._conversing = turns, place, conversing
        self._stops = list(stop_ids_of(conversing.tokenizer))

    async def initial_observation(self) -> tuple[tinker.ModelInput, list[int]]:
        context = self._context
        if context is None:
            raise InvalidInputError("the conversation is over: an env plays one episode")
        return self._observed(context), self._stops

    async def step(self, action: list[int], *, extra: rl.ActionExtra | None = None) -> rl.StepResult:
        await self._turns.write(self._place, written_by(self._conversing.tokenizer, action))
        context, table = self._context, self._turns.table
        if context is not None:
            return rl.StepResult(0.0, False, self._observed(context), self._stops)
        end = table.ended[self._place]
        if end is None:
            raise InvalidInputError("a conversation that is over before its agent is done has no reward yet")
        return rl.StepResult(_paid(end), True, tinker.ModelInput.from_ints([]), [], metrics=_metrics(end))

    @property
    def _context(self) -> Context | None:
        return self._turns.table.contexts[self._place]

    def _observed(self, context: Context) -> tinker.ModelInput:
        return tinker.ModelInput.from_ints(self._conversing.context(context).tolist())


def _paid(end: Ended) -> float:
    if end.reward is None:
        raise VerificationError("a conversation got no verdict, and is worth nothing rather than zero")
    return end.reward


def _metrics(end: Ended) -> dict[str, float]:
    why = rl.StopReason.MAX_TURNS if end.is_cut else rl.StopReason.COMPLETED
    return {"correct": float(end.correct), f"{rl.STOP_METRIC_PREFIX}{why}": 1.0}
