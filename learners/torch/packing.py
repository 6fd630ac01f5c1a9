"""Sequences laid out as rows of tokens: no position is computed that nothing is trained on or that nothing needs.

A row is one sequence, or one prompt with several responses to it. Rows of similar length go into one micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from learners.torch.attention import CausalRows, Layout, PackedGroups
from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids

Indices = npt.NDArray[np.int64]

EFFICIENT = 512  # tokens: matrix products are no faster with more of them
PADDING = 1 / 8  # of the tokens of a micro-batch that is large enough without


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One sequence, and at which of its response tokens the log-probability is wanted (ascending)."""

    prompt_ids: Ids
    response_ids: Ids
    wanted: Indices

    @property
    def fed(self) -> int:
        """How many response tokens the model has to read: all before the last wanted one."""
        return int(self.wanted[-1]) if self.wanted.size else 0


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A prompt and the items (by index) that follow it."""

    prompt_ids: Ids
    members: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """One forward: tokens and positions (B, L); for each wanted token, item by item, its place and its target (N)."""

    ids: torch.Tensor
    positions: torch.Tensor
    layout: Layout
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    members: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of a forward: `token` for each token, `pair` for each query-key pair."""

    token: float
    pair: float

    def sharing_pays(self, prompt: int, fed: Sequence[int]) -> bool:
        """Whether one row for all is less work than a row for each."""
        together = prompt + sum(fed)
        saved = self.token * prompt * (len(fed) - 1)
        return saved > self.pair * (together**2 - sum((prompt + f) ** 2 for f in fed))


def micro_batches(items: Sequence[Item], tokens: int, cost: Cost | None, device: torch.device) -> Iterator[MicroBatch]:
    """Cover all items that want something, at most `tokens` padded tokens each; `cost` None: a row for each item.

    The longest rows come first: what does not fit fails at once, and they meet the fewest gradients in memory.
    """
    rows = sorted(_rows(items, tokens, cost), key=lambda row: (row.length, row.members))
    for batch in reversed(_batches(rows, tokens)):
        yield _lay_out(items, batch, device)


def _batches(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    batches: list[list[Row]] = []
    for row in rows:
        if row.length > tokens:
            raise InvalidInputError(
                f"micro_batch_tokens is {tokens}, a sequence has {row.length} tokens: raise it, or drop the sequence"
            )
        if not batches or _is_full(batches[-1], row, tokens):
            batches.append([])
        batches[-1].append(row)
    return batches


def _is_full(batch: Sequence[Row], longer: Row, tokens: int) -> bool:
    """Whether a further row, at least as long, does not fit or would make too much of it padding."""
    real = sum(row.length for row in batch)
    padded = longer.length * (len(batch) + 1)
    return padded > tokens or (real >= EFFICIENT and padded - real - longer.length > padded * PADDING)


def _rows(items: Sequence[Item], tokens: int, cost: Cost | None) -> Iterator[Row]:
    by_prompt: dict[bytes, list[int]] = {}
    for index, item in enumerate(items):
        if item.wanted.size:
            by_prompt.setdefault(item.prompt_ids.tobytes(), []).append(index)
    for members in by_prompt.values():
        prompt = items[members[0]].prompt_ids
        fed = [items[m].fed for m in members]
        if cost is not None and len(members) > 1 and cost.sharing_pays(prompt.size, fed):
            yield from _shared_rows(prompt, members, fed, tokens)
        else:
            yield from (Row(prompt, (m,), prompt.size + f) for m, f in zip(members, fed, strict=True))


def _shared_rows(prompt: Ids, members: Sequence[int], fed: Sequence[int], tokens: int) -> Iterator[Row]:
    taken: list[int] = []
    length = int(prompt.size)
    for member, extra in zip(members, fed, strict=True):
        if taken and length + extra > tokens:
            yield Row(prompt, tuple(taken), length)
            taken, length = [], int(prompt.size)
        taken.append(member)
        length += extra
    yield Row(prompt, tuple(taken), length)


def _lay_out(items: Sequence[Item], rows: Sequence[Row], device: torch.device) -> MicroBatch:
    shape = (len(rows), max(row.length for row in rows))
    ids, positions, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    columns = [_write(items, row, ids[r], positions[r], segments[r]) for r, row in enumerate(rows)]
    members = tuple(member for row in rows for member in row.members)
    targets = np.concatenate([items[m].response_ids[items[m].wanted] for m in members]).astype(np.int64)

    def there(array: Indices) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    shared = len(members) > len(rows)
    return MicroBatch(
        ids=there(ids),
        positions=there(positions),
        layout=PackedGroups(there(segments), there(positions)) if shared else CausalRows(),
        rows=there(np.repeat(np.arange(len(rows)), [c.size for c in columns])),
        columns=there(np.concatenate(columns)),
        targets=there(targets),
        members=members,
        counts=tuple(int(items[m].wanted.size) for m in members),
    )


def _write(items: Sequence[Item], row: Row, ids: Indices, positions: Indices, segments: Indices) -> Indices:
    """Write one row; returns the column whose hidden state predicts each wanted token."""
    prompt = row.prompt_ids.size
    ids[:prompt], positions[:prompt], segments[:prompt] = row.prompt_ids, np.arange(prompt), 0
    columns: list[Indices] = []
    start = prompt
    for segment, member in enumerate(row.members, start=1):
        item = items[member]
        end = start + item.fed
        ids[start:end] = item.response_ids[: item.fed]
        positions[start:end] = prompt + np.arange(item.fed)
        segments[start:end] = segment
        # Response token t is predicted at token t - 1; the first one at the prompt's last.
        columns.append(np.where(item.wanted == 0, prompt - 1, start + item.wanted - 1))
        start = end
    return np.concatenate(columns)
