"""Groups of samples: a prompt is computed once, its samples are decoded side by side, finished ones leave the batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from learners.sampling import Sample, Sampling
from learners.torch.attention import OneByOne, Prefill, layouts
from learners.torch.contexts import ContextCache, Continued, Keeper
from learners.torch.decoding import GroupDecode
from learners.torch.lean import Step
from learners.torch.model import LanguageModel
from mutual_env.errors import TrainingError
from mutual_env.types import Ids

Tell: TypeAlias = Callable[[int, tuple[Sample, ...]], None]
"""Told of a group: its prompt's place, and its samples."""

BLOCK = 256  # of a large vocabulary: sampling looks for the block first, then inside it
DROP_SHARE = 16  # finished rows leave once they are one in so many
PREFILL_TOKENS = 2048  # padded prompt tokens of one forward
UNSEEN_STEPS = 16
"""On a GPU the host looks at what was sampled every so many steps: each look waits for the device. A row that has
ended meanwhile is decoded on, and what it wrote after its end is dropped."""


def sample_groups(
    model: LanguageModel,
    prompts: Sequence[Ids],
    seeds_PG: Sequence[Sequence[int]],
    sampling: Sampling,
    max_rows: int,
    cache: ContextCache | None = None,
    tell: Tell | None = None,
) -> list[tuple[Sample, ...]]:
    """A group for each prompt, one sample for each of its seeds: the same sample whatever else is in the call.

    At most `max_rows` samples are decoded side by side, whole groups of them. `cache`: conversations go on from what is
    known of them there, and are kept in it. `tell`: told of each group when its last sample has ended.
    """
    groups: list[tuple[Sample, ...]] = [()] * len(prompts)
    if not prompts:
        return groups
    per_pass = max(1, max_rows // max(1, len(seeds_PG[0])))
    by_length = sorted(range(len(prompts)), key=lambda i: prompts[i].size)
    with torch.inference_mode(), layouts(model.config):
        step = model.decoding(max(prompt.size for prompt in prompts) + sampling.max_new_tokens)
        for start in range(0, len(by_length), per_pass):
            chosen = by_length[start : start + per_pass]
            pairs = [prompts[i] for i in chosen], [seeds_PG[i] for i in chosen]
            told = None if tell is None else partial(_tell_of, tell, chosen)
            samples = _decode(model, step, *pairs, sampling, cache, told)
            for i, group in zip(chosen, samples, strict=True):
                groups[i] = group
    return groups


def _tell_of(tell: Tell, places: Sequence[int], place: int, group: tuple[Sample, ...]) -> None:
    tell(places[place], group)


def _decode(
    model: LanguageModel,
    step: Step,
    prompts: Sequence[Ids],
    seeds_PG: Sequence[Sequence[int]],
    sampling: Sampling,
    cache: ContextCache | None,
    tell: Tell | None,
) -> list[tuple[Sample, ...]]:
    group = len(seeds_PG[0])
    lengths = torch.tensor([prompt.size for prompt in prompts], device=model.device)
    prefill = _layout(prompts, lengths, cache)
    logits = model.head.logits(prefilled(model, step, prompts, prefill)).repeat_interleave(group, dim=0)
    layout = GroupDecode(prefill, lengths, group, sampling.max_new_tokens)
    keeper = None if cache is None else Keeper(cache, prompts, prefill, group)
    uniforms_RT = torch.from_numpy(uniforms_of(seeds_PG, sampling.max_new_tokens)).to(model.device)
    positions = lengths.repeat_interleave(group)
    track, looks = Track(len(prompts) * group, sampling), looks_every(model.device)
    ended = None if tell is None else Ended(track, group, tell)
    for at in range(sampling.max_new_tokens):
        tokens, logprobs = pick(logits, uniforms_RT[:, at], sampling, seen=looks == 1)
        last = at + 1 == sampling.max_new_tokens
        track.record(at, tokens, logprobs, look=last or (at + 1) % looks == 0)
        if ended is not None:
            ended.look()
        if track.done or last:
            break
        if track.is_crowded and keeper is not None:
            keeper.take(layout, *track.finished())
        keep = track.drop()
        if keep is not None:
            rows = keep.to(model.device)
            layout.keep(rows)
            tokens, positions, uniforms_RT = tokens[rows], positions[rows], uniforms_RT[rows]
        layout.begin(at)
        logits = model.head.logits(step(tokens, positions + at, layout))
    if keeper is not None:
        keeper.take(layout, *track.all())
    return track.groups(group)


def looks_every(device: torch.device) -> int:
    """After how many steps the host looks at what was sampled: after each, where that costs nothing."""
    return 1 if device.type == "cpu" else UNSEEN_STEPS


def _layout(prompts: Sequence[Ids], lengths: torch.Tensor, cache: ContextCache | None) -> Prefill:
    """Where something is known of a prompt, that is gone on from."""
    known = [None if cache is None else cache.find(prompt) for prompt in prompts]
    if all(k is None for k in known):
        return Prefill(rows=len(prompts), longest=max(prompt.size for prompt in prompts))
    return Continued(known, lengths)


def uniforms_of(seeds_PG: Sequence[Sequence[int]], count: int) -> npt.NDArray[np.float64]:
    """(R, count) numbers in [0, 1) with 53 random bits each: the first of an endless stream hashed from its seed."""
    streams = [hashlib.shake_128(seed.to_bytes(8, "big")).digest(8 * count) for seeds in seeds_PG for seed in seeds]
    bits = np.frombuffer(b"".join(streams), dtype="<u8").reshape(-1, count) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def prefilled(model: LanguageModel, step: Step, prompts: Sequence[Ids], prefill: Prefill) -> torch.Tensor:
    """The last hidden state of each prompt, (P, width); the prompts are in the order of their lengths."""
    states: list[torch.Tensor] = []
    start = 0
    while start < len(prompts):
        end = start + 1
        longest = prompts[start].size
        while end < len(prompts) and max(longest, prompts[end].size) * (end + 1 - start) <= PREFILL_TOKENS:
            end += 1
        prefill.begin(slice(start, end))
        states.append(_last_states(model, step, prompts[start:end], prefill))
        start = end
    return torch.cat(states)


def _last_states(model: LanguageModel, step: Step, prompts: Sequence[Ids], prefill: Prefill) -> torch.Tensor:
    known = prefill.offsets(len(prompts))
    rest = [prompt[skipped:] for prompt, skipped in zip(prompts, known, strict=True)]
    ids = np.zeros((len(rest), max(new.size for new in rest)), dtype=np.int64)
    for row, new in enumerate(rest):
        ids[row, : new.size] = new
    places = np.minimum(np.arange(ids.shape[1]) + np.array(known)[:, None], max(p.size for p in prompts) - 1)
    positions = torch.from_numpy(places.flatten()).to(model.device)  # of padding too, where there are rotations
    hidden = step(torch.from_numpy(ids).to(model.device).flatten(), positions, OneByOne(prefill, len(prompts)))
    last = torch.tensor([row * ids.shape[1] + new.size - 1 for row, new in enumerate(rest)], device=model.device)
    return hidden[last]


Left: TypeAlias = tuple[list[int], list[int], list[npt.NDArray[np.int32]]]


class Track:
    """What has been sampled, row by row, and which rows are still in the batch."""

    def __init__(self, rows: int, sampling: Sampling) -> None:
        self._stops, self._endings = sampling.stops, sampling.endings
        self._tokens = np.zeros((rows, sampling.max_new_tokens), dtype=np.int32)
        self._logprobs = np.zeros((rows, sampling.max_new_tokens))
        self._lengths = np.zeros(rows, dtype=np.int64)
        self._met_stop_string = np.zeros(rows, dtype=np.bool_)
        self._begun = np.zeros(rows, dtype=np.int64)  # at which step each began
        self._rows = np.arange(rows)  # in the batch
        self._open = np.ones(rows, dtype=np.bool_)  # of those, not finished
        self._states = np.zeros(rows, dtype=np.int16)  # of those, how much of a stop string was read
        self._unseen: list[tuple[int, torch.Tensor, torch.Tensor]] = []  # steps that the host has not looked at

    @property
    def done(self) -> bool:
        return not self._open.any()

    def record(self, step: int, tokens: torch.Tensor, logprobs: torch.Tensor, *, look: bool = True) -> None:
        """`look`: at this step and those before it that were not looked at. Rows stay where they are in between."""
        self._unseen.append((step, tokens, logprobs))
        if look:
            steps, tokens_ST, logprobs_ST = zip(*self._unseen, strict=True)
            self._unseen = []
            seen = _on_host(tokens_ST), _on_host(logprobs_ST)
            if len(steps) > 1 and not np.isfinite(seen[1]).all():  # of a single one `pick` has seen to that
                raise _broken()
            for number, tokens_R, logprobs_R in zip(steps, *seen, strict=True):
                self._see(number, tokens_R, logprobs_R)

    def _see(self, step: int, tokens_R: npt.NDArray[np.int64], logprobs_R: npt.NDArray[np.float64]) -> None:
        rows = self._rows[self._open]
        at = step - self._begun[rows]
        self._tokens[rows, at] = tokens_R[self._open]
        self._logprobs[rows, at] = logprobs_R[self._open]
        self._lengths[rows] = at + 1
        if self._endings is not None:
            self._states = self._endings.after[self._states, tokens_R]
            met = self._open & (self._states == self._endings.ended)
            self._met_stop_string[self._rows[met]] = True
            self._open &= ~met
        for stop_id in self._stops:
            self._open &= tokens_R != stop_id
        self._open &= self._lengths[self._rows] < self._tokens.shape[1]

    def admit(self, rows: int, step: int) -> None:
        """So many more, whose first token is of this step."""
        count = self._lengths.size
        self._tokens = np.concatenate((self._tokens, np.zeros((rows, self._tokens.shape[1]), dtype=np.int32)))
        self._logprobs = np.concatenate((self._logprobs, np.zeros((rows, self._tokens.shape[1]))))
        self._lengths = np.concatenate((self._lengths, np.zeros(rows, dtype=np.int64)))
        self._begun = np.concatenate((self._begun, np.full(rows, step)))
        self._met_stop_string = np.concatenate((self._met_stop_string, np.zeros(rows, dtype=np.bool_)))
        self._rows = np.concatenate((self._rows, np.arange(count, count + rows)))
        self._open = np.concatenate((self._open, np.ones(rows, dtype=np.bool_)))
        self._states = np.concatenate((self._states, np.zeros(rows, dtype=np.int16)))

    @property
    def is_crowded(self) -> bool:
        """Whether so many rows have finished that they should leave."""
        finished = 0 if self._unseen else int((~self._open).sum())
        return finished > 0 and finished * DROP_SHARE >= self._open.size

    def finished(self) -> Left:
        """Of the rows in the batch that have finished: their places, their numbers, what was sampled."""
        return self._at(np.flatnonzero(~self._open))

    def all(self) -> Left:
        return self._at(np.arange(self._rows.size))

    def _at(self, places: npt.NDArray[np.int64]) -> Left:
        rows = self._rows[places].tolist()
        return places.tolist(), rows, [self._tokens[row, : self._lengths[row]] for row in rows]

    def drop(self, *, at_once: bool = False) -> torch.Tensor | None:
        """Which row of the batch is at each place from here on, or None to go on with all. `at_once`: however few.

        The last ones take the places of the finished ones, the others stay where they are.
        """
        if not self.is_crowded and (self._open.all() or not at_once):
            return None
        left = int(self._open.sum())
        keep = np.arange(left)
        keep[~self._open[:left]] = left + np.flatnonzero(self._open[left:])
        self._rows, self._open = self._rows[keep], np.ones(left, dtype=np.bool_)
        self._states = self._states[keep]
        return torch.from_numpy(keep)

    @property
    def open_rows(self) -> npt.NDArray[np.int64]:
        """The numbers of those that have not finished, as far as was looked."""
        return self._rows[self._open]

    @property
    def size(self) -> int:
        """How many rows there are, finished ones too."""
        return self._lengths.size

    def groups(self, size: int) -> list[tuple[Sample, ...]]:
        return [self.group(first, size) for first in range(0, self.size, size)]

    def group(self, first: int, size: int) -> tuple[Sample, ...]:
        """What the rows from the first on have written."""
        return tuple(
            Sample(self._tokens[row, :length], self._logprobs[row, :length], bool(self._met_stop_string[row]))
            for row, length in enumerate(self._lengths[first : first + size].tolist(), first)
        )


class Ended:
    """Tells of each group when its last sample has ended."""

    def __init__(self, track: Track, group: int, tell: Tell) -> None:
        self._track, self._group, self._tell = track, group, tell
        self._ended = 0  # rows, when it was looked last
        self._told: set[int] = set()

    def look(self) -> None:
        rows = self._track.open_rows
        if self._track.size - rows.size == self._ended:
            return
        self._ended = self._track.size - rows.size
        ended = set(range(self._track.size // self._group)) - self._told - set((rows // self._group).tolist())
        self._told |= ended
        for number in sorted(ended):
            self._tell(number, self._track.group(number * self._group, self._group))


def _on_host(steps: Sequence[torch.Tensor]) -> npt.NDArray[Any]:
    """(S, R) of S steps, in one transfer."""
    together = steps[0][None] if len(steps) == 1 else torch.stack(list(steps))
    found: npt.NDArray[Any] = together.cpu().numpy()
    return found


def pick(
    logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling, *, seen: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row, by inverting the distribution function at its uniform number; its log-probability.

    May overwrite `logits`. Logits that are no numbers raise; where that is not to be `seen` here, because it would wait
    for the device, the log-probability is NaN.
    """
    if sampling.temperature != 1.0:
        logits = logits.div_(sampling.temperature)
    if 0 < sampling.top_k < logits.shape[1] or sampling.top_p < 1.0:
        logits = _restrict(logits, sampling)
    mass = torch.softmax(logits, dim=-1)
    inside, aim, start, total = _one_block(mass, uniforms) if mass.shape[1] <= 8 * BLOCK else _blocks(mass, uniforms)
    if seen:
        _check(total)
    # The last piece of the mass can be lost to rounding: then the last token that has any is meant.
    last = torch.searchsorted(inside, inside[:, -1:].contiguous())
    token = torch.minimum(torch.searchsorted(inside, aim, right=True), last).add_(start)
    if not seen:
        token.clamp_(max=mass.shape[1] - 1)  # of numbers that are none, any place may come out
    logprob = mass.gather(1, token).double().log_().sub_(total.log_())
    return token[:, 0], logprob[:, 0]


Search: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor | int, torch.Tensor]
"""Cumulative masses (R, width), the mass to reach (R, 1), the token at which they start, and each row's whole mass."""


def _one_block(mass: torch.Tensor, uniforms: torch.Tensor) -> Search:
    inside = mass.cumsum(-1, dtype=torch.float64)
    total = inside[:, -1:].clone()
    return inside, uniforms[:, None] * total, 0, total


def _blocks(mass: torch.Tensor, uniforms: torch.Tensor) -> Search:
    """The block in which the mass is reached; its beginning is taken off the aim."""
    rows, size = mass.shape
    spare = -size % BLOCK
    blocks = (torch.nn.functional.pad(mass, (0, spare)) if spare else mass).view(rows, -1, BLOCK)
    cumulative = blocks.sum(dim=-1).cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:].clone()
    aim = uniforms[:, None] * total
    block = torch.searchsorted(cumulative, aim, right=True).clamp_(max=cumulative.shape[1] - 1)
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp_(min=0)), 0.0)
    inside = blocks[torch.arange(rows, device=mass.device), block[:, 0]].cumsum(-1, dtype=torch.float64)
    return inside, aim - before, block * BLOCK, total


def _check(total: torch.Tensor) -> None:
    if not math.isfinite(float(total.sum())):
        raise _broken()


def _broken() -> TrainingError:
    return TrainingError(
        "the policy's logits are NaN or infinite: its weights are broken; go back to the last checkpoint and lower "
        "learning_rate"
    )


def _restrict(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """-inf outside the top_k most likely tokens, then outside the fewest of them that hold top_p of the mass."""
    size = logits.shape[1]
    count = min(sampling.top_k, size) if sampling.top_k else size
    values, indices = logits.topk(count, dim=-1)
    if sampling.top_p < 1.0:
        probabilities = values.softmax(dim=-1)
        values = values.masked_fill(probabilities.cumsum(-1) - probabilities >= sampling.top_p, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter_(1, indices, values)
