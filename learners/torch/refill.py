"""Groups of samples where the next prompts take the places of samples that have ended, before a pass is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from learners.sampling import Sample, Sampling
from learners.torch.attention import Prefill, layouts
from learners.torch.decoding import GroupDecode
from learners.torch.lean import Step
from learners.torch.model import LanguageModel
from learners.torch.sampler import Ended, Tell, Track, looks_every, pick, prefilled, uniforms_of
from mutual_env.types import Ids

FREE_SHARE = 8
"""Prompts are taken in once their rows are one in so many of those that fit: each time costs a copy of the caches."""


def refilled_groups(
    model: LanguageModel,
    prompts: Sequence[Ids],
    seeds_PG: Sequence[Sequence[int]],
    sampling: Sampling,
    max_rows: int,
    tell: Tell | None = None,
) -> list[tuple[Sample, ...]]:
    """As `sample_groups`. The longest prompts come first, so that the others find room beside them."""
    groups: list[tuple[Sample, ...]] = [()] * len(prompts)
    if not prompts:
        return groups
    order = sorted(range(len(prompts)), key=lambda i: -prompts[i].size)
    with torch.inference_mode(), layouts(model.config):
        step = model.decoding(prompts[order[0]].size + sampling.max_new_tokens + looks_every(model.device))
        waiting = _Waiting([prompts[i] for i in order], [seeds_PG[i] for i in order])
        batch = _Batch(model, step, waiting, sampling, max_rows)
        found = batch.all(None if tell is None else lambda place, group: tell(order[place], group))
    for i, group in zip(order, found, strict=True):
        groups[i] = group
    return groups


@dataclass(slots=True)
class _Waiting:
    """Prompts that have not begun, the next of them first."""

    prompts: Sequence[Ids]
    seeds_PG: Sequence[Sequence[int]]
    begun: int = 0

    @property
    def group(self) -> int:
        return len(self.seeds_PG[0])

    @property
    def left(self) -> int:
        return len(self.prompts) - self.begun

    def take(self, count: int) -> tuple[Sequence[Ids], Sequence[Sequence[int]]]:
        chosen = slice(self.begun, self.begun + count)
        self.begun += count
        return self.prompts[chosen], self.seeds_PG[chosen]


class _Batch:
    """The rows that are decoded side by side: what each is about to write, where, and its numbers."""

    def __init__(self, model: LanguageModel, step: Step, waiting: _Waiting, sampling: Sampling, max_rows: int) -> None:
        self._model, self._step, self._waiting, self._sampling = model, step, waiting, sampling
        self._room = max(1, max_rows // waiting.group)  # for groups
        self._track = Track(0, sampling)
        self._steps = 0
        self._layout: GroupDecode | None = None
        device = model.device
        self._positions = torch.zeros(0, dtype=torch.long, device=device)  # of the first new token
        self._written = torch.zeros(0, dtype=torch.long, device=device)  # how many new tokens there are
        self._uniforms_RT = torch.zeros(0, sampling.max_new_tokens, dtype=torch.float64, device=device)
        self._logits = torch.zeros(0, model.head.size, device=device)

    def all(self, tell: Tell | None) -> list[tuple[Sample, ...]]:
        """Every group, in the order of the prompts that wait."""
        looks = looks_every(self._model.device)
        ended = None if tell is None else Ended(self._track, self._waiting.group, tell)
        self._take_in()
        while not self._track.done:
            seen = (self._steps + 1) % looks == 0
            tokens = self._write(look=seen, waits=looks == 1)
            if seen and ended is not None:
                ended.look()
            if seen:
                tokens = self._leave(tokens)
            if tokens.numel():
                self._go_on(tokens)
            if seen:
                self._take_in()
        return self._track.groups(self._waiting.group)

    def _write(self, *, look: bool, waits: bool) -> torch.Tensor:
        """A token a row."""
        at = self._written.clamp(max=self._sampling.max_new_tokens - 1)
        uniforms = self._uniforms_RT.gather(1, at[:, None])[:, 0]
        tokens, logprobs = pick(self._logits, uniforms, self._sampling, seen=waits)
        self._track.record(self._steps, tokens, logprobs, look=look)
        self._steps += 1
        return tokens

    def _leave(self, tokens: torch.Tensor) -> torch.Tensor:
        """Finished rows, where they are many, or keep others waiting; the tokens of those that stay."""
        keep = self._track.drop(at_once=self._waiting.left > 0)
        if keep is None or self._layout is None:
            return tokens
        rows = keep.to(self._model.device)
        self._positions, self._written = self._positions[rows], self._written[rows]
        self._uniforms_RT, self._logits = self._uniforms_RT[rows], self._logits[rows]
        if rows.numel():
            self._layout.keep(rows)
        else:
            self._layout = None
        return tokens[rows]

    def _go_on(self, tokens: torch.Tensor) -> None:
        """The logits of what follows."""
        assert self._layout is not None
        self._layout.go_on()
        self._logits = self._model.head.logits(self._step(tokens, self._positions + self._written, self._layout))
        self._written = self._written + 1

    def _take_in(self) -> None:
        """The next prompts, where there is room for enough of them."""
        group, rows = self._waiting.group, self._positions.numel()
        count = min(self._room - -(-rows // group), self._waiting.left)
        few = count * FREE_SHARE < self._room and count < self._waiting.left
        if count <= 0 or (rows and few):
            return
        prompts, seeds_PG = self._waiting.take(count)
        device, longest = self._model.device, self._sampling.max_new_tokens
        lengths = torch.tensor([prompt.size for prompt in prompts], device=device)
        prefill = Prefill(rows=count, longest=prompts[0].size if self._layout is None else self._layout.longest)
        logits = self._model.head.logits(prefilled(self._model, self._step, prompts, prefill))
        if self._layout is None:
            self._layout = GroupDecode(prefill, lengths, group, longest)
        else:
            self._layout.admit(prefill, lengths, group)
        self._track.admit(count * group, self._steps)
        self._logits = torch.cat((self._logits, logits.repeat_interleave(group, dim=0)))
        self._positions = torch.cat((self._positions, lengths.repeat_interleave(group)))
        self._written = torch.cat((self._written, self._written.new_zeros(count * group)))
        fresh = torch.from_numpy(uniforms_of(seeds_PG, longest)).to(device)
        self._uniforms_RT = torch.cat((self._uniforms_RT, fresh))
