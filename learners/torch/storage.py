"""A torch learner on disk: safetensors and JSON, nothing that could run code when it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from learners.torch.model import LanguageModel
from learners.torch.optimizer import Optimizer
from learners.torch.reference import ReferencePolicy
from mutual_env.errors import IdentityMismatchError, StorageError

FORMAT = "mutual-env torch 1"
WEIGHTS, OPTIMIZER, REFERENCE = "weights.safetensors", "optimizer.safetensors", "reference.safetensors"
MOST_PARTS = 100_000


class State(TypedDict):
    """state.json. `parts`: in how many files each of the others lies, where that is more than one."""

    format: str
    version: int
    optimizer_steps: int
    tokenizer: str
    parts: NotRequired[int]


@dataclass(frozen=True, slots=True)
class Part:
    """Which of the files that make a checkpoint together."""

    number: int = 0
    of: int = 1

    def named(self, name: str) -> str:
        stem, _, suffix = name.partition(".")
        return name if self.of == 1 else f"{stem}-{self.number + 1:05}-of-{self.of:05}.{suffix}"

    @property
    def all(self) -> list[Part]:
        return [Part(number, self.of) for number in range(self.of)]


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """All that a checkpoint holds, or that one of several processes adds to it, in the machine's memory. `reference`:
    the weights of the policy that is pulled to, where it is another one from time to time."""

    weights: Mapping[str, torch.Tensor]
    moments: Mapping[str, torch.Tensor]
    state: State
    reference: Mapping[str, torch.Tensor] | None = None
    part: Part = Part()

    def write(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._write(directory, WEIGHTS, self.weights)
            self._write(directory, OPTIMIZER, self.moments)
            if self.reference is not None:
                self._write(directory, REFERENCE, self.reference)
            if self.part.number == 0:
                parts = {"parts": self.part.of} if self.part.of > 1 else {}
                (directory / "state.json").write_text(json.dumps({**self.state, **parts}))
        except (OSError, SafetensorError) as error:
            sentence = f"{directory} could not be written ({error}): free some space or save elsewhere"
            raise StorageError(sentence) from error

    def _write(self, directory: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        save_file(dict(tensors), directory / self.part.named(name))


class Stored(Mapping[str, torch.Tensor]):
    """The tensors of the files that make one: each is read when it is asked for."""

    def __init__(self, directory: Path, name: str, part: Part) -> None:
        files: list[Any] = [safe_open(directory / one.named(name), framework="pt") for one in part.all]
        self._files: dict[str, Any] = {key: file for file in files for key in file.keys()}  # noqa: SIM118

    def __getitem__(self, key: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[key].get_tensor(key)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shapes(self) -> dict[str, torch.Size]:
        """What is read of each for that is its place in the file."""
        return {key: torch.Size(file.get_slice(key).get_shape()) for key, file in self._files.items()}


def state_of(version: int, optimizer_steps: int, tokenizer: str) -> State:
    return State(format=FORMAT, version=version, optimizer_steps=optimizer_steps, tokenizer=tokenizer)


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
    moments = optimizer.tensors(copy=True) if copy else optimizer.tensors()
    return Saved(weights, moments, state_of(version, optimizer.steps, tokenizer), reference)


def load(
    directory: Path, model: LanguageModel, optimizer: Optimizer, tokenizer: str, reference: ReferencePolicy[Any]
) -> int:
    """Everything is read and checked before anything is changed; returns the version."""
    try:
        state: State = json.loads((directory / "state.json").read_text())
        part = Part(of=_parts(state))
        weights, moments = (Stored(directory, name, part) for name in (WEIGHTS, OPTIMIZER))
        with_reference = reference.is_renewed and (directory / part.named(REFERENCE)).is_file()
        pulled_to = Stored(directory, REFERENCE, part) if with_reference else None
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
    _check_fit(directory, {n: p.shape for n, p in parameters.items()}, weights.shapes())
    if pulled_to:  # nothing: the model without its adapters
        _check_fit(directory, weights.shapes(), pulled_to.shapes())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    if pulled_to is not None:
        reference.load(pulled_to)
    optimizer.load(moments, state["optimizer_steps"])
    return state["version"]


def _parts(state: State) -> int:
    parts = state.get("parts", 1)
    if not (isinstance(parts, int) and 1 <= parts <= MOST_PARTS):
        raise ValueError(f"state.json says that it has {parts!r} parts")
    return parts


def _check_fit(directory: Path, expected: dict[str, torch.Size], got: dict[str, torch.Size]) -> None:
    for name in sorted({*expected, *got}):
        if expected.get(name) != got.get(name):
            raise IdentityMismatchError(
                f"{directory}/weights.safetensors does not fit this model: {name} has shape {got.get(name)}, "
                f"expected {expected.get(name)}: load it with the path and lora_rank it was saved with"
            )
