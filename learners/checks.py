"""What every backend refuses, in the same words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from learners.example import Example
from mutual_env.errors import InvalidInputError, MisalignedError, TrainingError
from mutual_env.types import Ids


def check_sequences(prompt_ids: Sequence[Ids], response_ids: Sequence[Ids], vocab_size: int) -> None:
    """Raise unless these are prompts and responses in a vocabulary of this size."""
    if len(prompt_ids) != len(response_ids):
        raise MisalignedError.of("response_ids", "prompt_ids", len(prompt_ids), len(response_ids))
    for index, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        if len(prompt) == 0:
            raise InvalidInputError(
                f"prompt_ids[{index}] is empty: the first response token would have nothing to follow"
            )
        for name, ids in (("prompt_ids", prompt), ("response_ids", response)):
            _check_ids(f"{name}[{index}]", ids, vocab_size)


def check_examples(examples: Sequence[Example], vocab_size: int) -> None:
    """Raise unless every token of every example is in a vocabulary of this size."""
    if _all_inside([ids for e in examples for ids in (e.prompt_ids, e.response_ids)], vocab_size):
        return
    for index, example in enumerate(examples):
        _check_ids(f"examples[{index}].prompt_ids", example.prompt_ids, vocab_size)
        _check_ids(f"examples[{index}].response_ids", example.response_ids, vocab_size)


def check_finite(learner: str, loss: float, gradient_norm: float) -> None:
    """Raise before an update that would poison the weights."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"{learner}: the loss is {loss}; the weights were not touched. Lower learning_rate or temperature, "
            "or use dtype float32; an example with log-probabilities of -inf has the same effect"
        )
    if not math.isfinite(gradient_norm):
        raise TrainingError(
            f"{learner}: the gradient norm is {gradient_norm}; the weights were not touched. "
            "Lower learning_rate, or use dtype float32"
        )


def _all_inside(sequences: Sequence[Ids], vocab_size: int) -> bool:
    """At one look: a look at each costs as much as training it, where models are small."""
    if not all(isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu" for ids in sequences):
        return False
    together = np.concatenate(sequences) if sequences else np.empty(0, np.int32)
    return not together.size or (int(together.min()) >= 0 and int(together.max()) < vocab_size)


def _check_ids(name: str, ids: Ids, vocab_size: int) -> None:
    if not np.issubdtype(np.asarray(ids).dtype, np.integer) or np.ndim(ids) != 1:
        raise InvalidInputError(f"{name} must be a one-dimensional array of integers, got {ids!r}")
    if len(ids) and (int(np.min(ids)) < 0 or int(np.max(ids)) >= vocab_size):
        raise InvalidInputError(
            f"{name} holds an id outside the vocabulary of {vocab_size}: {int(np.min(ids))}..{int(np.max(ids))}"
        )
