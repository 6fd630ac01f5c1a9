"""Any learner, sampled by vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from learners.example import Example
from learners.protocol import Finished, Learner, Movable, longest_sequence, save_aside
from learners.sampling import Sample, Sampling, asked_for, room_for, where_room_is
from learners.vllm.adapter import SwapsAdapters, exporter_of
from learners.vllm.engine import Ended, EngineDiedError, Revivable, SamplingEngine, Sleeps, Streams, Weights
from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.replies import Conversing

SLEEPING = ("weights", "kv_cache")
"""vLLM's tags for what an engine holds on its device."""

FORGOTTEN = object()
"""In the place of what says which weights an engine has: none of the learner's."""


@runtime_checkable
class ExportsWeights(Protocol):
    """A learner whose weights a sampler can take over."""

    def export_weights(self) -> Weights:
        """Every weight under the name it has in the model's directory, adapters merged in."""


class Groups:
    """Told of samples in any order, it tells of a group of n when its last one has ended."""

    def __init__(self, n: int, groups: int, read: Callable[[Sample], Completion], finished: Finished) -> None:
        self._n, self._read, self._finished = n, read, finished
        self._ended: list[dict[int, Completion]] = [{} for _ in range(groups)]

    def __call__(self, place: int, sample: Sample) -> None:
        group, member = divmod(place, self._n)
        ended = self._ended[group]
        ended[member] = self._read(sample)
        if len(ended) == self._n:
            self._finished(group, tuple(ended[m] for m in range(self._n)))


class VllmSampled:
    """A learner whose `act` goes to a vLLM engine; everything else is the learner's own.

    The engine gets the learner's weights at the start, after each update that changed them (where the learner says
    so, by `weights_stamp`) and after `load`, so a completion's `policy_version` is always the version of the weights
    that wrote it. An engine in this program that dies while it samples is started again once, and given the weights
    again. The seed of a sample is derived as every learner derives it; the numbers drawn from it are vLLM's, so
    samples differ from those of the learner's own sampler, and their last digits may depend on what else vLLM
    computes at the same time. `longest`: tokens that the engine takes at most, where that is known (`max_model_len`).

    `adapters`: the engine has the model directory's weights for good, and gets the learner's LoRA adapter alone.
    """

    def __init__(
        self,
        learner: Learner,
        engine: SamplingEngine,
        sampling: Sampling,
        *,
        longest: int | None = None,
        adapters: bool = False,
    ) -> None:
        if not isinstance(learner, ExportsWeights):
            raise InvalidInputError(
                f"learner {learner.name!r} ({type(learner).__name__}) has no export_weights(): vLLM can sample for "
                "learners of language models only, such as 'torch' and 'openrlhf'"
            )
        self._learner = learner
        self._conversing = Conversing(learner.tokenizer)
        self._exporter: ExportsWeights = learner
        if longest is not None and sampling.max_new_tokens >= longest:
            raise InvalidInputError(
                f"max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt: vLLM's engine takes {longest} "
                "tokens (max_model_len). Raise that, or lower max_new_tokens"
            )
        self._engine = engine
        self._swapped = exporter_of(learner) if adapters else None
        self._sampling = sampling
        self._longest = longest
        self._sent: object = FORGOTTEN  # which weights the engine has; None: the learner does not say
        self._asleep: tuple[str, ...] = ()  # of SLEEPING, what the engine has no memory for now
        self.sync()

    @property
    def name(self) -> str:
        return self._learner.name

    @property
    def version(self) -> int:
        return self._learner.version

    @property
    def tokenizer(self) -> Tokenizer:
        return self._learner.tokenizer

    @property
    def max_sequence(self) -> int | None:
        return longest_sequence(self._learner)

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        """A group of n completions for each prompt, written by vLLM."""
        return self._act(prompts, n, seed, None)

    def act_and_tell(
        self, prompts: Sequence[Prompt | Context], n: int, finished: Finished, *, seed: int
    ) -> list[tuple[Completion, ...]]:
        """The same; groups are told of as they end, and at the end those of conversations that go on."""
        told: set[int] = set()

        def tell(place: int, group: tuple[Completion, ...]) -> None:
            told.add(place)
            finished(place, group)

        go_on = any(isinstance(prompt, Context) and prompt.turns for prompt in prompts)
        groups = self._act(prompts, n, seed, None if go_on else tell)
        for place, group in enumerate(groups):
            if place not in told:
                finished(place, group)
        return groups

    def _act(
        self, prompts: Sequence[Prompt | Context], n: int, seed: int, finished: Finished | None
    ) -> list[tuple[Completion, ...]]:
        if self._sent is FORGOTTEN:  # an update failed, or a transfer
            self.sync()
        self._wake_up()
        asked = asked_for(prompts, n, seed, self.name, self._conversing)

        def sample(prompt_ids: list[Ids], seeds_PG: list[tuple[int, ...]]) -> list[tuple[Completion, ...]]:
            flat = [ids for ids in prompt_ids for _ in range(n)]
            heard = None if finished is None else Groups(n, len(prompt_ids), self._completion, finished)
            samples = self._sample(flat, [s for seeds in seeds_PG for s in seeds], heard)
            completions = [self._completion(one) for one in samples]
            return [tuple(completions[i * n : (i + 1) * n]) for i in range(len(prompt_ids))]

        self._check_prompts(prompts, asked[0])
        longest = min((b for b in (self.max_sequence, self._longest) if b is not None), default=None)
        room = room_for(longest, self._sampling.max_new_tokens)
        return where_room_is(prompts, asked, room, Completion.no_room(self.version, self.tokenizer.fingerprint), sample)

    def _check_prompts(self, prompts: Sequence[Prompt | Context], prompt_ids: Sequence[Ids]) -> None:
        """vLLM cuts off answers that do not fit behind a prompt, and a conversation that has grown just ends."""
        room = room_for(self._longest, self._sampling.max_new_tokens)
        begun = [
            ids.size for p, ids in zip(prompts, prompt_ids, strict=True) if not (isinstance(p, Context) and p.turns)
        ]
        if room is not None and max(begun, default=0) > room:
            raise InvalidInputError(
                f"a prompt of {max(begun)} tokens and max_new_tokens {self._sampling.max_new_tokens} are more than the "
                f"{self._longest} tokens that vLLM's engine takes: raise its max_model_len, or lower max_new_tokens"
            )

    def _completion(self, sample: Sample) -> Completion:
        return sample.up_to_end(self._sampling.endings).completion(self.tokenizer, self.version)

    def _sample(self, prompts: Sequence[Ids], seeds: Sequence[int], heard: Ended | None) -> list[Sample]:
        """Once more on another engine, where it dies: the same weights and seeds."""
        engine = self._engine
        try:
            if heard is not None and isinstance(engine, Streams):
                return engine.sample_and_tell(prompts, seeds, self._sampling, heard)
            return engine.sample(prompts, seeds, self._sampling)
        except EngineDiedError:
            if not isinstance(engine, Revivable):
                raise
            engine.revive()
            self._sent, self._asleep = FORGOTTEN, ()
            self.sync()
            return engine.sample(prompts, seeds, self._sampling)

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        return self._learner.score(prompt_ids, response_ids)

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The learner's update, then the new weights to vLLM, which sleeps meanwhile if it was started so: the trainer
        has the device for itself."""
        self._fall_asleep(level=1 if self._swapped else 2)  # an adapter does not bring the weights that it adds to
        metrics = self._learner.update(examples)
        self.sync()
        return metrics

    def offload(self) -> None:
        """The engine's memory and the learner's make room for another policy."""
        self._fall_asleep(level=1)
        if isinstance(self._learner, Movable):
            self._learner.offload()

    def restore(self) -> None:
        """The learner's memory; the engine wakes up where it is asked, since an update has no use for it."""
        if isinstance(self._learner, Movable):
            self._learner.restore()

    def sync(self) -> None:
        """Give the engine the learner's present weights, unless it has them."""
        stamp = getattr(self._learner, "weights_stamp", None)
        if stamp is not None and stamp == self._sent:
            self._wake_up()
            return
        self._wake_up("weights")  # room for the cache is made when the old weights are gone
        self._sent = FORGOTTEN  # until all of them are there
        self._send()
        self._sent = stamp
        self._wake_up()

    def _send(self) -> None:
        if self._swapped is None:
            self._engine.load_weights(self._exporter.export_weights(), self._learner.version)
        elif isinstance(self._engine, SwapsAdapters):
            self._engine.load_adapter(partial(self._swapped.save_pretrained, adapter=True), self._learner.version)
        else:
            raise InvalidInputError(f"{type(self._engine).__name__} takes no adapters: use transport 'file'")

    def save(self, directory: Path) -> None:
        self._learner.save(directory)

    def save_aside(self, directory: Path) -> Callable[[], None]:
        return save_aside(self._learner, directory)

    def load(self, directory: Path) -> None:
        self._learner.load(directory)
        self.sync()

    def export_weights(self) -> Weights:
        return self._exporter.export_weights()

    def _fall_asleep(self, level: int) -> None:
        if isinstance(self._engine, Sleeps) and self._engine.can_sleep and not self._asleep:
            self._engine.sleep(level)
            self._asleep = SLEEPING
            self._sent = self._sent if level == 1 else FORGOTTEN

    def _wake_up(self, *tags: str) -> None:
        wanted = [tag for tag in self._asleep if not tags or tag in tags]
        if wanted and isinstance(self._engine, Sleeps):
            self._engine.wake_up(wanted)
            self._asleep = tuple(tag for tag in self._asleep if tag not in wanted)

    def close(self) -> None:
        self._engine.close()
        self._learner.close()
