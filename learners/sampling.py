"""What `act` is asked for and what it answers, whatever samples: our own sampler, vLLM, a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

from learners.seeds import sample_seeds
from learners.stopping import Endings
from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion, Context, Floats, Ids, Prompt
from tokenizers_bridge.protocol import Tokenizer, stop_ids_of
from tokenizers_bridge.replies import Conversing


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that is sampled from, and how far. `top_k` 0: all tokens; `endings`: of the stop strings. A
    sample ends with `stop_id`, the policy's own stop token, or with one of `also_stops`."""

    stop_id: int
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    endings: Endings | None = None
    also_stops: tuple[int, ...] = ()

    @property
    def stops(self) -> tuple[int, ...]:
        """Every token that ends a sample."""
        return (self.stop_id, *self.also_stops)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidInputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not self.temperature > 0.0:
            raise InvalidInputError(f"temperature must be above 0, got {self.temperature}: use top_k=1 for argmax")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidInputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise InvalidInputError(f"top_k must not be negative, got {self.top_k}")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The sampled ids, the stop token included, and their log-probabilities under the distribution sampled from. A
    stop string that was met is part of what was sampled."""

    token_ids: Ids
    logprobs: Floats
    met_stop_string: bool = False

    def up_to_end(self, endings: Endings | None) -> Sample:
        """The same up to the first stop string, for samplers that do not look for them."""
        length = None if endings is None else endings.length(self.token_ids)
        return self if length is None else Sample(self.token_ids[:length], self.logprobs[:length], True)

    def completion(self, tokenizer: Tokenizer, version: int) -> Completion:
        """What a policy of this tokenizer and version says it wrote: it stopped by itself if a stop token came."""
        stopped = bool(self.token_ids.size) and int(self.token_ids[-1]) in stop_ids_of(tokenizer)
        return Completion(
            text=tokenizer.decode(self.token_ids),
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            finish_reason="stop" if stopped else "stop_string" if self.met_stop_string else "length",
            policy_version=version,
            tokenizer=tokenizer.fingerprint,
        )


def room_for(longest: int | None, max_new_tokens: int) -> int | None:
    """Tokens that a conversation may have where its policy takes so many at most, its next turn among them."""
    return None if longest is None else longest - max_new_tokens


def where_room_is(
    prompts: Sequence[Prompt | Context],
    asked: tuple[Sequence[Ids], Sequence[tuple[int, ...]]],
    room: int | None,
    full: Completion,
    sample: Callable[[list[Ids], list[tuple[int, ...]]], list[tuple[Completion, ...]]],
) -> list[tuple[Completion, ...]]:
    """The groups that `sample` makes of what was asked for, and `full` for conversations that have grown longer than
    `room`, in tokens. They grow by what the world says, and just end; a prompt that is too long is a mistake in the
    configuration, and is sampled, or refused by `sample`."""
    fits = [
        room is None or ids.size <= room or not (isinstance(prompt, Context) and prompt.turns)
        for prompt, ids in zip(prompts, asked[0], strict=True)
    ]
    is_asked = any(fits) or not fits
    written = iter(sample(list(compress(asked[0], fits)), list(compress(asked[1], fits))) if is_asked else [])
    return [next(written) if is_fit else (full,) * len(seeds) for is_fit, seeds in zip(fits, asked[1], strict=True)]


def asked_for(
    prompts: Sequence[Prompt | Context], n: int, seed: int, name: str, conversing: Conversing
) -> tuple[list[Ids], list[tuple[int, ...]]]:
    """The prompts in a policy's tokens, and the seeds of the n samples of each. A context is its prompt with what was
    said since."""
    if n < 1:
        raise InvalidInputError(f"n must be at least 1, got {n}: a group has at least one completion")
    rendered = [conversing.context(p) if isinstance(p, Context) else conversing.prompt(p) for p in prompts]
    return rendered, sample_seeds(seed, name, prompts, n)
