"""Groups of samples: a prompt is computed once, its samples are decoded side by side, finished ones leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from learners.torch.attention import GroupDecode, Prefill, layouts
from learners.torch.model import LanguageModel
from mutual_env.errors import TrainingError
from mutual_env.seeding import generator
from mutual_env.types import Completion, Floats, Ids
from tokenizers_bridge.protocol import Tokenizer

BLOCK = 256  # of a large vocabulary: sampling looks for the block first, then inside it
DROP_SHARE = 16  # finished rows leave once they are one in so many: dropping copies the cache


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that is sampled from, and how far."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    max_rows: int
    stop_id: int


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The sampled ids, the stop token included, and their log-probabilities under the distribution sampled from."""

    token_ids: Ids
    logprobs: Floats

    def completion(self, tokenizer: Tokenizer, version: int) -> Completion:
        """What a policy of this tokenizer and version says it wrote: it stopped by itself if the stop token came."""
        stopped = bool(self.token_ids.size) and int(self.token_ids[-1]) == tokenizer.stop_id
        return Completion(
            text=tokenizer.decode(self.token_ids),
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            finish_reason="stop" if stopped else "length",
            policy_version=version,
            tokenizer=tokenizer.fingerprint,
        )


def sample_groups(
    model: LanguageModel, prompts: Sequence[Ids], seeds_PG: Sequence[Sequence[int]], sampling: Sampling
) -> list[tuple[Sample, ...]]:
    """A group for each prompt, one sample for each of its seeds: the same sample whatever else is in the call."""
    groups: list[tuple[Sample, ...]] = [()] * len(prompts)
    if not prompts:
        return groups
    per_pass = max(1, sampling.max_rows // max(1, len(seeds_PG[0])))
    by_length = sorted(range(len(prompts)), key=lambda i: prompts[i].size)
    with torch.inference_mode(), layouts(model.config):
        for start in range(0, len(by_length), per_pass):
            chosen = by_length[start : start + per_pass]
            samples = _decode(model, [prompts[i] for i in chosen], [seeds_PG[i] for i in chosen], sampling)
            for i, group in zip(chosen, samples, strict=True):
                groups[i] = group
    return groups


def _decode(
    model: LanguageModel, prompts: Sequence[Ids], seeds_PG: Sequence[Sequence[int]], sampling: Sampling
) -> list[tuple[Sample, ...]]:
    group = len(seeds_PG[0])
    lengths = torch.tensor([prompt.size for prompt in prompts], device=model.device)
    prefill = Prefill()
    logits = _prefill(model, prompts, lengths, prefill).repeat_interleave(group, dim=0)
    layout = GroupDecode(prefill, lengths, group, sampling.max_new_tokens)
    uniforms = np.stack([generator(seed).random(sampling.max_new_tokens) for seeds in seeds_PG for seed in seeds])
    uniforms_RT = torch.from_numpy(uniforms).to(model.device)
    positions = lengths.repeat_interleave(group)
    track = _Track(len(prompts) * group, sampling.max_new_tokens)
    for step in range(sampling.max_new_tokens):
        tokens, logprobs = pick(logits, uniforms_RT[:, step], sampling)
        track.record(step, tokens, logprobs, sampling.stop_id)
        if track.done or step + 1 == sampling.max_new_tokens:
            break
        keep = track.drop()
        if keep is not None:
            rows = keep.to(model.device)
            layout.keep(rows)
            tokens, positions, uniforms_RT = tokens[rows], positions[rows], uniforms_RT[rows]
        layout.begin(step)
        logits = model.head.logits(model.next_hidden(tokens, positions + step, layout))
    return track.groups(group)


def _prefill(model: LanguageModel, prompts: Sequence[Ids], lengths: torch.Tensor, prefill: Prefill) -> torch.Tensor:
    ids = np.zeros((len(prompts), max(prompt.size for prompt in prompts)), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : prompt.size] = prompt
    positions = torch.arange(ids.shape[1], device=model.device).expand(len(prompts), -1)
    hidden = model.hidden(torch.from_numpy(ids).to(model.device), positions, prefill)
    return model.head.logits(hidden[torch.arange(len(prompts), device=model.device), lengths - 1])


class _Track:
    """What has been sampled, row by row, and which rows are still in the batch."""

    def __init__(self, rows: int, steps: int) -> None:
        self._tokens = np.zeros((rows, steps), dtype=np.int32)
        self._logprobs = np.zeros((rows, steps))
        self._lengths = np.zeros(rows, dtype=np.int64)
        self._rows = np.arange(rows)  # in the batch
        self._open = np.ones(rows, dtype=np.bool_)  # of those, not finished

    @property
    def done(self) -> bool:
        return not self._open.any()

    def record(self, step: int, tokens: torch.Tensor, logprobs: torch.Tensor, stop_id: int) -> None:
        tokens_R: npt.NDArray[np.int64] = tokens.cpu().numpy()
        live = self._rows[self._open]
        self._tokens[live, step] = tokens_R[self._open]
        self._logprobs[live, step] = logprobs.cpu().numpy()[self._open]
        self._lengths[live] = step + 1
        self._open &= tokens_R != stop_id

    def drop(self) -> torch.Tensor | None:
        """The places in the batch to go on with, or None to go on with all."""
        finished = self._open.size - int(self._open.sum())
        if finished == 0 or finished * DROP_SHARE < self._open.size:
            return None
        keep = np.flatnonzero(self._open)
        self._rows, self._open = self._rows[keep], self._open[keep]
        return torch.from_numpy(keep)

    def groups(self, size: int) -> list[tuple[Sample, ...]]:
        samples = [
            Sample(self._tokens[row, :length], self._logprobs[row, :length])
            for row, length in enumerate(self._lengths.tolist())
        ]
        return [tuple(samples[i : i + size]) for i in range(0, len(samples), size)]


def pick(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row, by inverting the distribution function at its uniform number; its log-probability.

    Overwrites `logits`.
    """
    if sampling.temperature != 1.0:
        logits = logits.div_(sampling.temperature)
    if 0 < sampling.top_k < logits.shape[1] or sampling.top_p < 1.0:
        logits = _restrict(logits, sampling)
    peak = logits.amax(dim=-1, keepdim=True)
    mass = logits.sub_(peak).exp_()
    rows, size = mass.shape
    width = BLOCK if size > 8 * BLOCK else size
    spare = -size % width
    blocks = (torch.nn.functional.pad(mass, (0, spare)) if spare else mass).view(rows, -1, width)
    cumulative = blocks.sum(dim=-1).double().cumsum(-1)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise TrainingError(
            "the policy's logits are NaN or infinite: its weights are broken; go back to the last checkpoint and lower "
            "learning_rate"
        )
    aim = uniforms[:, None] * total
    block = torch.searchsorted(cumulative, aim, right=True).clamp_(max=cumulative.shape[1] - 1)
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp_(min=0)), 0.0)
    inside = blocks[torch.arange(rows, device=mass.device), block[:, 0]].double().cumsum(-1)
    # The last piece of a block's mass can be lost to rounding: then its last token that has any is meant.
    last = torch.searchsorted(inside, inside[:, -1:].contiguous())
    offset = torch.minimum(torch.searchsorted(inside, aim - before, right=True), last)
    token = block * width + offset
    logprob = mass.gather(1, token).double().log_() - total.log()
    return token[:, 0], logprob[:, 0]


def _restrict(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """-inf outside the top_k most likely tokens, then outside the fewest of them that hold top_p of the mass."""
    size = logits.shape[1]
    count = min(sampling.top_k, size) if sampling.top_k else size
    values, indices = logits.topk(count, dim=-1)
    if sampling.top_p < 1.0:
        probabilities = values.softmax(dim=-1)
        values = values.masked_fill(probabilities.cumsum(-1) - probabilities >= sampling.top_p, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter_(1, indices, values)
