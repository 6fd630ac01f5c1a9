"""Real language models that come as ordinary Python packages: `mutual-env models fetch smollm2 gemma3`.

The packages carry GGUF files. Each is checked against its published SHA-256, converted once (weights de-quantised to
the wanted dtype, tokenizer, chat template) into a safetensors directory that `from_pretrained` reads, loaded back and
compared bit for bit, and only then given its name. No hub is asked, nothing is unpickled, no remote code is run.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from learners import sealed
from learners.gguf import ModelDtype, check_dtype, write_directory
from mutual_env.errors import StorageError, UnknownNameError, WrongPathError
from tokenizers_bridge.kinds.packaged import SOURCES, ModelSource

MANIFEST = "mutual-env-model.json"
FORMAT = 2


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model directory that is ready for `from_pretrained`. `seconds` is what this call spent on it."""

    name: str
    path: Path
    parameters: int
    bytes: int
    seconds: float
    converted: bool


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What a converted directory says of itself; written last, so a directory with one is whole."""

    format: int
    name: str
    title: str
    licence: str
    source_sha256: str
    dtype: str
    parameters: int


def fetch(
    names: Sequence[str],
    directory: Path,
    *,
    dtype: ModelDtype = "float32",
    report: Callable[[str], None] = lambda line: None,
) -> list[FetchedModel]:
    """Each named model as a directory below `directory`, converted where it is not there yet, verified where it is."""
    check_dtype(dtype)
    sources = []
    for name in names:
        if name not in SOURCES:
            raise UnknownNameError.of("model", name, SOURCES)
        sources.append(SOURCES[name])
    return [fetch_one(source, Path(directory), dtype=dtype, report=report) for source in sources]


def fetch_one(
    source: ModelSource, directory: Path, *, dtype: ModelDtype, report: Callable[[str], None]
) -> FetchedModel:
    """One model: from its source to `directory/name`."""
    start = time.monotonic()
    target = directory / source.name
    converted = not target.exists()
    if converted:
        directory.mkdir(parents=True, exist_ok=True)
        report(f"{source.name}: converting {source.title} ({source.licence})")
        with tempfile.TemporaryDirectory(prefix=f".{source.name}-", dir=directory) as temporary:
            ready = _convert(source, Path(temporary), dtype)
            _rename(ready, target)
    manifest = verify(target, source=source, dtype=dtype)
    fetched = FetchedModel(
        name=source.name,
        path=target,
        parameters=manifest.parameters,
        bytes=sum(file.stat().st_size for file in target.iterdir()),
        seconds=time.monotonic() - start,
        converted=converted,
    )
    report(
        f"{fetched.name}: {fetched.path} ({fetched.parameters / 1e6:.1f}M parameters, {manifest.dtype}, "
        f"{fetched.bytes / 1e6:.0f} MB), {'converted' if converted else 'verified'} in {fetched.seconds:.1f} s"
    )
    return fetched


def verify(path: Path, *, source: ModelSource, dtype: ModelDtype) -> _Manifest:
    """The manifest of a converted directory, every file's hash checked against it."""
    try:
        content = sealed.check(path, MANIFEST, alone=False)
        manifest = _Manifest(**{key: value for key, value in content.items() if key != "files"})
    except (StorageError, TypeError) as cause:
        raise StorageError(f"{cause}: move {path} away and fetch anew") from cause
    wanted = (FORMAT, source.sha256, dtype)
    found = (manifest.format, manifest.source_sha256, manifest.dtype)
    if wanted != found:
        raise WrongPathError(
            f"{path} was converted with (format, source, dtype) {found}, wanted {wanted}: use another directory"
        )
    return manifest


def _convert(source: ModelSource, work: Path, dtype: ModelDtype) -> Path:
    """Everything `from_pretrained` needs, in a new directory below `work`."""
    ready = work / "model"
    ready.mkdir()
    _assemble(source, work / "source.gguf")
    parameters = write_directory(work / "source.gguf", ready, dtype)
    for notice in source.notices:
        shutil.copyfile(notice.path(), ready / notice.file)
    manifest = _Manifest(FORMAT, source.name, source.title, source.licence, source.sha256, dtype, parameters)
    sealed.seal(ready, MANIFEST, asdict(manifest))
    return ready


def _assemble(source: ModelSource, target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for part in source.parts:
            for block in _blocks(part.path()):
                digest.update(block)
                out.write(block)
    if digest.hexdigest() != source.sha256:
        where = ", ".join(part.distribution for part in source.parts)
        raise StorageError(
            f"model {source.name!r}: the packaged file has SHA-256 {digest.hexdigest()}, published is {source.sha256}: "
            f"reinstall {where}"
        )


def _rename(ready: Path, target: Path) -> None:
    """Give the finished directory its name; where another process was first, its directory stands and is verified."""
    try:
        sealed.give_name(ready, target)
    except OSError:
        if not (target / MANIFEST).exists():
            raise


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
