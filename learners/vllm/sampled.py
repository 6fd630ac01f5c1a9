"""Any learner, sampled by vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from learners.example import Example
from learners.protocol import Learner, longest_sequence
from learners.sampling import Sampling, asked_for
from learners.vllm.engine import SamplingEngine, Weights
from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge.protocol import Tokenizer


@runtime_checkable
class ExportsWeights(Protocol):
    """A learner whose weights a sampler can take over."""

    def export_weights(self) -> Weights:
        """Every weight under the name it has in the model's directory, adapters merged in."""


class VllmSampled:
    """A learner whose `act` goes to a vLLM engine; everything else is the learner's own.

    The engine gets the learner's weights at the start, after each update and after `load`, so a completion's
    `policy_version` is always the version of the weights that wrote it. The seed of a sample is derived as every
    learner derives it; the numbers drawn from it are vLLM's, so samples differ from those of the learner's own sampler,
    and their last digits may depend on what else vLLM computes at the same time.
    """

    def __init__(self, learner: Learner, engine: SamplingEngine, sampling: Sampling) -> None:
        if not isinstance(learner, ExportsWeights):
            raise InvalidInputError(
                f"learner {learner.name!r} ({type(learner).__name__}) has no export_weights(): vLLM can sample for "
                "learners of language models only, such as 'torch' and 'openrlhf'"
            )
        self._learner = learner
        self._exporter: ExportsWeights = learner
        self._engine = engine
        self._sampling = sampling
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
        prompt_ids, seeds_PG = asked_for(prompts, n, seed, self.name, self.tokenizer)
        flat = [ids for ids in prompt_ids for _ in range(n)]
        samples = self._engine.sample(flat, [s for seeds in seeds_PG for s in seeds], self._sampling)
        whole = [sample.up_to_end(self._sampling.endings) for sample in samples]
        completions = [sample.completion(self.tokenizer, self.version) for sample in whole]
        return [tuple(completions[i * n : (i + 1) * n]) for i in range(len(prompts))]

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        return self._learner.score(prompt_ids, response_ids)

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The learner's update, then the new weights to vLLM."""
        metrics = self._learner.update(examples)
        self.sync()
        return metrics

    def sync(self) -> None:
        """Give the engine the learner's present weights."""
        self._engine.load_weights(self._exporter.export_weights(), self._learner.version)

    def save(self, directory: Path) -> None:
        self._learner.save(directory)

    def load(self, directory: Path) -> None:
        self._learner.load(directory)
        self.sync()

    def export_weights(self) -> Weights:
        return self._exporter.export_weights()

    def close(self) -> None:
        self._engine.close()
        self._learner.close()
