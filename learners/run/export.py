"""A policy of a run as a model directory for everybody: weights, tokenizer, licence, and a card that says how it came
about."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from learners.model_directory import open_to_others
from learners.protocol import Learner
from learners.run.build import make_learner
from learners.run.check import check_place
from learners.run.config import PolicyConfig
from learners.run.subject import Subject
from learners.torch.options import TorchOptions
from mutual_env.catalogue import load
from mutual_env.errors import IdentityMismatchError, InvalidInputError, StorageError, WrongPathError
from mutual_env.types import Floats, Ids
from tokenizers_bridge.kinds.toy_files import write_toy

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
"""By how much log-probabilities may differ after they were written and read back: merging an adapter rounds."""

_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*",
    "*.tiktoken", "spiece.model", "tekken.json",
)  # fmt: skip
_NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "*TERMS*")
_TRAINED_AS_TORCH = ("torch", "openrlhf", "openrlhf_ray", "vllm")  # one checkpoint format


@dataclass(frozen=True, slots=True)
class Exported:
    """Where it is, and by how much its log-probabilities differ from the policy's once loaded by transformers."""

    directory: Path
    difference: float


def export(subject: Subject, policy: str, directory: Path, card: str, *, adapter: bool = False) -> Exported:
    """Write, load again with transformers, compare; only then the directory has its name."""
    _check_free(directory)
    described = _as_torch(subject.only([policy]).config.policies[policy], policy)
    aside = directory.with_name(f".{directory.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        difference = _write(subject, policy, described, aside, adapter=adapter)
        (aside / "README.md").write_text(card, encoding="utf-8")
        open_to_others(aside)
        shutil.rmtree(directory, ignore_errors=True)
        aside.rename(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Exported(directory, difference)


def _check_free(directory: Path) -> None:
    """Before the model is loaded: it takes the directory's place when it is whole."""
    if directory.resolve() == Path.cwd():
        raise WrongPathError(f"{directory} is where you are, and cannot be replaced: name a directory to be made")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise WrongPathError(f"{directory} is there already and not empty: name another directory, or move it away")
    check_place(directory, "the directory")


def _as_torch(policy: PolicyConfig, name: str) -> PolicyConfig:
    """The learner that reads the checkpoint without what only training or another sampler needs."""
    if policy.learner == "tiny":
        return PolicyConfig("tiny", {**policy.options, "warm_start": None, "device": "cpu"})
    if policy.learner not in _TRAINED_AS_TORCH:
        raise InvalidInputError(
            f"{name} is trained by learner {policy.learner!r}, which has no form that transformers reads: exported can "
            f"be what tiny, {', '.join(_TRAINED_AS_TORCH)} have trained"
        )
    known = {"path", "tokenizer", *(field.name for field in dataclasses.fields(TorchOptions))}
    options = {key: value for key, value in policy.options.items() if key in known}
    return PolicyConfig("torch", {**options, "device": "cpu"})


def _write(subject: Subject, policy: str, described: PolicyConfig, aside: Path, *, adapter: bool) -> float:
    if subject.checkpoint is None:
        raise StorageError(f"{subject.title} has no checkpoint yet: there is nothing that was trained to export")
    with closing(_loaded(subject, policy, described)) as learner:
        if adapter:
            _require_base(described, policy)
        learner.save_pretrained(aside, adapter=adapter)  # type: ignore[attr-defined]  # a torch learner
        _write_tokenizer(described, aside)
        probes = _probes(learner)
        expected = learner.score(*probes)
        dtype = described.options.get("dtype", "float32")
        fingerprint = learner.tokenizer.fingerprint
    with closing(_reloaded(described, policy, aside, adapter=adapter)) as again:
        if again.tokenizer.fingerprint != fingerprint:
            raise IdentityMismatchError(f"{policy}: the exported tokenizer is another one than was trained with")
        difference = _largest(expected, again.score(*probes))
    if not difference <= TOLERANCE[dtype]:
        raise StorageError(
            f"{policy}: log-probabilities differ by {difference:.3g} after the export was loaded, {TOLERANCE[dtype]:g} "
            f"is what {dtype} explains: nothing was kept"
        )
    return difference


def _loaded(subject: Subject, policy: str, described: PolicyConfig) -> Learner:
    config = replace(subject.config, policies={policy: described})
    return replace(subject, config=config).learner(policy)


def _reloaded(described: PolicyConfig, policy: str, aside: Path, *, adapter: bool) -> Learner:
    """By transformers, and peft where it is an adapter, as anybody would load it. A toy tokenizer stays the toy: what
    it writes is checked where it is written, and other than itself it is not fit to train with."""
    options: dict[str, Any] = {"device": "cpu", "dtype": described.options.get("dtype", "float32")}
    options["temperature"] = described.options.get("temperature", 1.0)
    toy = described.options.get("tokenizer")
    options["tokenizer"] = toy if isinstance(toy, Mapping) else str(aside)
    if adapter:
        load_adapted = load("the reader of adapters", "learners.torch.export:load_adapted")
        options["model"] = load_adapted(described.options["path"], aside)
    else:
        options["path"] = str(aside)
    return make_learner(policy, PolicyConfig("torch", options), 0)


def _require_base(described: PolicyConfig, policy: str) -> None:
    if "path" not in described.options:
        raise InvalidInputError(f"{policy} was built in the run: an adapter would have no model to belong to")


def _write_tokenizer(described: PolicyConfig, directory: Path) -> None:
    """The files as they were, so that the tokenizer stays the one that was trained with; licences go along."""
    source = described.options.get("tokenizer", described.options.get("path"))
    if isinstance(source, Mapping):
        write_toy(source, directory)
        return
    folder = Path(str(source))
    if not folder.is_dir():
        raise InvalidInputError(f"tokenizer {str(source)!r} is no directory: its files cannot be put beside the model")
    for pattern in _TOKENIZER:
        for file in folder.glob(pattern):
            shutil.copyfile(file, directory / file.name)
    for pattern in _NOTICES:
        for file in Path(str(described.options.get("path", folder))).glob(pattern):
            shutil.copyfile(file, directory / file.name)


def _probes(learner: Learner) -> tuple[list[Ids], list[Ids]]:
    """Ids from all over the vocabulary: what they mean does not matter, every weight is gone through."""
    spread = np.linspace(0, learner.tokenizer.vocab_size - 1, 24).astype(np.int32)
    return [spread[:4], spread[8:16]], [spread[4:12], spread[16:]]


def _largest(expected: list[Floats], got: list[Floats]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, got, strict=True))
