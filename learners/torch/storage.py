"""A torch learner on disk: safetensors and JSON, nothing that could run code when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from learners.torch.model import LanguageModel
from learners.torch.optimizer import Optimizer
from learners.torch.reference import ReferencePolicy
from mutual_env.errors import IdentityMismatchError, StorageError

FORMAT = "mutual-env torch 1"
REFERENCE = "reference.safetensors"


class State(TypedDict):
    """state.json"""

    format: str
    version: int
    optimizer_steps: int
    tokenizer: str


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """All that a checkpoint holds, in the machine's memory. `reference`: the weights of the policy that is pulled to,
    where it is another one from time to time."""

    weights: Mapping[str, torch.Tensor]
    moments: Mapping[str, torch.Tensor]
    state: State
    reference: Mapping[str, torch.Tensor] | None = None

    def write(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            save_file(dict(self.weights), directory / "weights.safetensors")
            save_file(dict(self.moments), directory / "optimizer.safetensors")
            if self.reference is not None:
                save_file(dict(self.reference), directory / REFERENCE)
            (directory / "state.json").write_text(json.dumps(self.state))
        except (OSError, SafetensorError) as error:
            sentence = f"{directory} could not be written ({error}): free some space or save elsewhere"
            raise StorageError(sentence) from error


def saved(
    model: LanguageModel,
    optimizer: Optimizer,
    version: int,
    tokenizer: str,
    reference: Mapping[str, torch.Tensor] | None,
    *,
    copy: bool,
) -> Saved:
    """`copy`: of its own, however the policy goes on; else what lies in the machine's memory already is not copied."""
    weights = {name: p.detach().to("cpu", copy=copy).contiguous() for name, p in model.trainable().items()}
    state = State(format=FORMAT, version=version, optimizer_steps=optimizer.steps, tokenizer=tokenizer)
    return Saved(weights, optimizer.tensors(copy=True) if copy else optimizer.tensors(), state, reference)


def save(
    directory: Path,
    model: LanguageModel,
    optimizer: Optimizer,
    version: int,
    tokenizer: str,
    reference: Mapping[str, torch.Tensor] | None,
) -> None:
    saved(model, optimizer, version, tokenizer, reference, copy=False).write(directory)


def load(
    directory: Path, model: LanguageModel, optimizer: Optimizer, tokenizer: str, reference: ReferencePolicy[Any]
) -> int:
    """Everything is read and checked before anything is changed; returns the version."""
    try:
        state: State = json.loads((directory / "state.json").read_text())
        weights = load_file(directory / "weights.safetensors")
        moments = load_file(directory / "optimizer.safetensors")
        with_reference = reference.is_renewed and (directory / REFERENCE).is_file()
        pulled_to = load_file(directory / REFERENCE) if with_reference else {}
    except (OSError, ValueError, SafetensorError) as error:
        raise StorageError(f"{directory} holds no whole torch checkpoint: {error}") from error
    if state.get("format") != FORMAT:
        raise StorageError(f"{directory}/state.json has format {state.get('format')!r}, this code reads {FORMAT!r}")
    if state["tokenizer"] != tokenizer:
        raise IdentityMismatchError(
            f"{directory} was saved with tokenizer {state['tokenizer']}, learner has {tokenizer}"
        )
    if not all(isinstance(state.get(key), int) for key in ("optimizer_steps", "version")):
        raise StorageError(f"{directory}/state.json was damaged: it says neither optimizer_steps nor version")
    parameters = model.trainable()
    _check_fit(directory, {n: p.shape for n, p in parameters.items()}, {n: w.shape for n, w in weights.items()})
    if pulled_to:  # nothing: the model without its adapters
        _check_fit(directory, {n: w.shape for n, w in weights.items()}, {n: w.shape for n, w in pulled_to.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    if with_reference:
        reference.load(pulled_to)
    optimizer.load(moments, state["optimizer_steps"])
    return state["version"]


def _check_fit(directory: Path, expected: dict[str, torch.Size], got: dict[str, torch.Size]) -> None:
    for name in sorted({*expected, *got}):
        if expected.get(name) != got.get(name):
            raise IdentityMismatchError(
                f"{directory}/weights.safetensors does not fit this model: {name} has shape {got.get(name)}, "
                f"expected {expected.get(name)}: load it with the path and lora_rank it was saved with"
            )
