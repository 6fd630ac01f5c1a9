"""A transformers causal language model as a policy that samples and learns, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from transformers import PreTrainedModel

from learners.checks import check_examples, check_sequences
from learners.example import Example
from learners.protocol import Finished
from learners.sampling import Sample, asked_for, room_for, where_room_is
from learners.torch import storage
from learners.torch.contexts import ContextCache
from learners.torch.export import write_adapter, write_model
from learners.torch.model import PROBE, LanguageModel, load_pretrained, release_freed_memory
from learners.torch.offload import offload, release, restore
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.reference import ReferencePolicy
from learners.torch.refill import refilled_groups
from learners.torch.sampler import sample_groups
from learners.torch.trainer import Trainer, memory_errors
from mutual_env.errors import IdentityMismatchError, InvalidInputError, TrainingError
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge import Tokenizer
from tokenizers_bridge.kinds.loading import load as load_tokenizer
from tokenizers_bridge.replies import Conversing


class Trains(Protocol):
    """What scores and trains the model: `Trainer`, or another library's classes in its place."""

    @property
    def pulled_to(self) -> ReferencePolicy[Any]:
        """The policy that its KL term pulls to."""

    @property
    def max_sequence(self) -> int | None:
        """Tokens of the longest sequence that fits one forward; None: any length is taken, at its cost in memory."""

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]: ...

    def update(self, examples: Sequence[Example]) -> Metrics: ...

    def offload(self) -> None:
        """What the trainer holds beside model and optimizer, into the machine's memory."""

    def restore(self) -> None: ...


MakeTrainer: TypeAlias = Callable[[LanguageModel, Optimizer, TorchOptions, str], Trains]


class TorchLearner:
    """Owns its model from here on: it is moved, cast, and its dropout switched off."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        name: str,
        options: TorchOptions | None = None,
        trainer: MakeTrainer = Trainer,
    ) -> None:
        self._options = options = options or TorchOptions()
        self._name = name
        self._tokenizer = tokenizer = options.prompted(tokenizer)
        self._conversing = Conversing(tokenizer)
        with memory_errors(name):
            self._model = LanguageModel(model, tokenizer.vocab_size, options, probe_of(tokenizer))
            self._optimizer = Optimizer(self._model.trainable(), options, name)
            self._trainer = trainer(self._model, self._optimizer, options, name)
        if tokenizer.stop_id >= self._model.head.size:
            raise IdentityMismatchError(
                f"{name}: the tokenizer's stop token {tokenizer.stop_id} is outside the model's vocabulary of "
                f"{self._model.head.size}: give the tokenizer that belongs to the model"
            )
        self.sampling = options.sampling(tokenizer)
        self._conversations = ContextCache(options.conversation_mb if self._model.is_resumable else 0)
        self._version = 0
        self._loads = 0
        self._away = False  # in the machine's memory instead of the device's
        self._torn = False  # an update failed between two of its optimizer steps: the weights are no version's

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int:
        return self._version

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model itself, with LoRA layers in place where there are any."""
        return self._model.base

    @property
    def language_model(self) -> LanguageModel:
        """The model as this learner uses it: decoder, head, device."""
        return self._model

    @property
    def device(self) -> str:
        """What it computes on."""
        return str(self._model.device)

    @property
    def weights_stamp(self) -> tuple[int, int]:
        """Changes whenever the weights do: checkpoints loaded, optimizer steps taken."""
        return self._loads, self._optimizer.steps

    @property
    def max_sequence(self) -> int | None:
        """Prompt and response tokens of the longest example that `update` takes: what the trainer's memory and the
        model's positions leave room for. None: there is no such bound."""
        positions = getattr(self._model.base.config.get_text_config(), "max_position_embeddings", None)
        bounds = [bound for bound in (self._trainer.max_sequence, positions) if bound is not None]
        return min(bounds, default=None)

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        """A group of n completions for each prompt."""
        return self._act(prompts, n, seed, None)

    def act_and_tell(
        self, prompts: Sequence[Prompt | Context], n: int, finished: Finished, *, seed: int
    ) -> list[tuple[Completion, ...]]:
        """The same; groups are told of as their last samples end, unless prompts are conversations that go on."""
        go_on = any(isinstance(prompt, Context) and prompt.turns for prompt in prompts)
        return self._act(prompts, n, seed, None if go_on else finished)

    def _act(
        self, prompts: Sequence[Prompt | Context], n: int, seed: int, finished: Finished | None
    ) -> list[tuple[Completion, ...]]:
        self._require_version()
        self.restore()
        asked = asked_for(prompts, n, seed, self._name, self._conversing)
        self._model.require_parts()
        cache = self._conversations if any(isinstance(prompt, Context) for prompt in prompts) else None
        if all(not isinstance(prompt, Context) or prompt.is_new for prompt in prompts):
            self._conversations.clear()  # a new round

        def sample(rendered: list[Ids], seeds_PG: list[tuple[int, ...]]) -> list[tuple[Completion, ...]]:
            return self._sample(rendered, seeds_PG, cache, finished)

        full = Completion.no_room(self._version, self._tokenizer.fingerprint)
        return where_room_is(prompts, asked, room_for(self.max_sequence, self._options.max_new_tokens), full, sample)

    def _sample(
        self,
        rendered: list[Ids],
        seeds_PG: list[tuple[int, ...]],
        cache: ContextCache | None,
        finished: Finished | None,
    ) -> list[tuple[Completion, ...]]:
        check_sequences(rendered, [ids[:0] for ids in rendered], self._model.head.size)
        self._require_room(rendered)
        told: dict[int, tuple[Completion, ...]] = {}

        def tell(place: int, group: tuple[Sample, ...]) -> None:
            told[place] = self._completions(group)
            if finished is not None:
                finished(place, told[place])

        with memory_errors(self._name):
            sampling, rows, heard = self.sampling, self._options.max_rows, finished and tell
            if self._options.refill and cache is None:
                groups = refilled_groups(self._model, rendered, seeds_PG, sampling, rows, heard)
            else:
                groups = sample_groups(self._model, rendered, seeds_PG, sampling, rows, cache, heard)
        return [told.get(place) or self._completions(group) for place, group in enumerate(groups)]

    def _completions(self, group: Sequence[Sample]) -> tuple[Completion, ...]:
        return tuple(sample.completion(self._tokenizer, self._version) for sample in group)

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π(response | prompt) for each response token, at the temperature of `act`."""
        self._require_version()
        self.restore()
        check_sequences(prompt_ids, response_ids, self._model.head.size)
        return self._trainer.score(prompt_ids, response_ids)

    def update(self, examples: Sequence[Example]) -> Metrics:
        """Learn from these examples in one update. If it fails after some of its optimizer steps, `load` comes next."""
        self._require_version()
        self._conversations.clear()
        self.restore()
        check_examples(examples, self._model.head.size)
        before = self._optimizer.steps
        try:
            metrics = self._trainer.update(examples)
        except BaseException as error:
            applied = self._optimizer.steps - before
            self._torn = applied > 0
            if not self._torn or not isinstance(error, Exception):
                raise
            raise TrainingError(
                f"{error}. {applied} earlier optimizer steps of this update had been applied, so the weights are no "
                f"longer those of version {self._version}: go on from the last checkpoint (mutual-env train --resume)"
            ) from error
        self._version += 1
        if self._options.resets_after(self._version):
            self._reset()
        return metrics

    def _reset(self) -> None:
        """What is pulled to is from now on the policy as it is, and the optimizer new, where that is asked for."""
        self._trainer.pulled_to.renew()
        if self._options.optimizer_reset:
            self._optimizer.forget()

    def export_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights a sampler elsewhere needs to follow this policy, under the model's own names, LoRA merged in."""
        self.restore()
        return self._model.merged_weights()

    def save_pretrained(self, directory: Path, *, adapter: bool = False) -> None:
        """What `from_pretrained` reads, LoRA merged in; or the adapter alone, as peft reads it. No tokenizer."""
        self._require_version()
        self.restore()
        if adapter:
            write_adapter(self._model, directory, self._model.base.config.name_or_path)
        else:
            write_model(self._model, directory)

    def save(self, directory: Path) -> None:
        self._saved(copy=False).write(directory)

    def save_aside(self, directory: Path) -> Callable[[], None]:
        return partial(self._saved(copy=True).write, directory)

    def _saved(self, *, copy: bool) -> storage.Saved:
        self._require_version()
        pulled_to, fingerprint = self._trainer.pulled_to, self._tokenizer.fingerprint
        kept = pulled_to.tensors() if pulled_to.is_renewed else None
        return storage.saved(self._model, self._optimizer, self._version, fingerprint, kept, copy=copy)

    def load(self, directory: Path) -> None:
        self._conversations.clear()
        self.restore()
        self._loads += 1
        pulled_to, fingerprint = self._trainer.pulled_to, self._tokenizer.fingerprint
        self._version = storage.load(directory, self._model, self._optimizer, fingerprint, pulled_to)
        self._torn = False

    def offload(self) -> None:
        """All that is held on the device, into the machine's memory: room for another policy. It comes back by itself
        where it is needed; `save` needs none of it."""
        if not self._away:
            self._away = True
            self._conversations.move(torch.device("cpu"))
            self._optimizer.offload()
            self._trainer.offload()
            offload(self._model)
            release()

    def restore(self) -> None:
        """Back on the device. Nothing is done where it is there."""
        if self._away:
            with memory_errors(self._name):
                restore(self._model, self._model.device)
                self._optimizer.restore()
                self._trainer.restore()
                self._conversations.move(self._model.device)
            self._away = False

    def memory(self) -> tuple[int, int] | None:
        """Bytes that this process holds on the device, and the most since it was last asked; None without a GPU."""
        device = self._model.device
        if device.type != "cuda":
            return None
        held, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        return held, peak

    def close(self) -> None:
        """Nothing outlives the object."""

    def _require_room(self, prompts: Sequence[Ids]) -> None:
        """What is sampled must be small enough to be trained on: said before a round is sampled, not after it."""
        longest = max((ids.size for ids in prompts), default=0)
        sequence = longest + self._options.max_new_tokens
        room = self._trainer.max_sequence
        if room is not None and sequence > room:
            raise InvalidInputError(
                f"{self._name}: a prompt of {longest} tokens and a response of up to {self._options.max_new_tokens} "
                f"(max_new_tokens) do not fit micro_batch_tokens={self._options.micro_batch_tokens}: "
                f"raise it to at least {sequence - 1}, or lower max_new_tokens"
            )

    def _require_version(self) -> None:
        if self._torn:
            raise TrainingError(
                f"{self._name}: an update failed after some of its optimizer steps: the weights belong to no version, "
                "load a checkpoint before anything else (mutual-env train --resume)"
            )


def probe_of(tokenizer: Tokenizer) -> Sequence[int] | Ids:
    """Ids of ordinary text; none where the tokenizer cannot write it."""
    try:
        return tokenizer.encode_batch([PROBE])[0]
    except InvalidInputError:
        return ()


def build_torch(
    path: str, *, name: str, model: PreTrainedModel | None, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> TorchLearner:
    """What `learners.torch.make.make_torch` makes."""
    if model is None:
        model = load_pretrained(Path(path))
        tokenizer = tokenizer or load_tokenizer(Path(path))
        release_freed_memory()
    if tokenizer is None:
        raise InvalidInputError("tokenizer is missing: a model built in code comes with its tokenizer")
    return TorchLearner(model, tokenizer, name=name, options=TorchOptions.of(options))
