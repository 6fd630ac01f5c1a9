"""A GGUF file as a directory that `from_pretrained` reads: weights de-quantised, tokenizer, chat template.

    mutual-env models convert FILE.gguf DIR

What was written is loaded back and compared bit for bit, and only then given its name. Nothing is fetched.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from learners import gguf_left_out
from learners.model_directory import open_to_others
from learners.vllm.transport import untied
from mutual_env.errors import InvalidInputError, MissingExtraError, StorageError, WrongPathError

ModelDtype: TypeAlias = Literal["float32", "bfloat16"]
MAGIC = b"GGUF"


def check_dtype(dtype: str) -> None:
    if dtype not in ("float32", "bfloat16"):
        raise InvalidInputError(f"dtype must be float32 or bfloat16, got {dtype!r}")


def convert(
    file: Path, target: Path, *, dtype: ModelDtype = "float32", report: Callable[[str], None] = lambda line: None
) -> Path:
    """The model of `file` at `target`, a directory that is not there yet."""
    check_dtype(dtype)
    _check_file(file)
    if target.exists():
        raise WrongPathError(f"{target} is there already: name another directory, or move it away")
    start = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    report(f"{file}: converting to {dtype}; a large vocabulary takes a minute or two")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        ready = Path(temporary) / "model"
        ready.mkdir()
        parameters = write_directory(file, ready, dtype)
        for notice in file.parent.glob("*LICENSE*"):
            shutil.copyfile(notice, ready / notice.name)
        ready.rename(target)
    report(f"{target}: {parameters / 1e6:.1f}M parameters, {dtype}, in {time.monotonic() - start:.1f} s")
    return target


def write_directory(file: Path, ready: Path, dtype: ModelDtype) -> int:
    """Tokenizer, configuration and weights into an empty directory; how many parameters there are."""
    try:
        import gguf  # noqa: F401  (transformers reads with it, and says less well that it is missing)
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError.of("a GGUF file", "models,torch") from error
    settings: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **settings)
        model = _read(file, dtype=getattr(torch, dtype), **settings)
        gguf_left_out.keep(file, model)
    except InvalidInputError:
        raise
    except Exception as error:  # a boundary: what a damaged file makes two libraries raise has no end of kinds
        raise InvalidInputError(
            f"{file} is damaged, or of a kind that transformers does not read: {type(error).__name__}: {error}"
        ) from error
    tokenizer.save_pretrained(ready)
    _save_model(model, tokenizer, ready)
    _check_reload(model, ready)
    return int(sum(p.numel() for p in model.parameters()))


def _read(file: Path, **settings: Any) -> Any:
    """The model, without transformers' warning that packed weights compute slowly: these are unpacked."""
    import transformers

    told = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, output_loading_info=True, **settings
        )
    finally:
        transformers.logging.set_verbosity(told)
    gguf_left_out.check_whole(file, found)
    return model


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise WrongPathError(f"{file} does not exist: give a .gguf file")
    with file.open("rb") as opened:
        if opened.read(4) != MAGIC:
            raise InvalidInputError(f"{file} is no GGUF file: it does not begin with {MAGIC.decode()}")
    if "-of-" in file.stem:
        raise InvalidInputError(
            f"{file} is one part of several: join them first, with `llama-gguf-split --merge` of llama.cpp"
        )


def _save_model(model: Any, tokenizer: Any, directory: Path) -> None:
    """Config and weights. A model that was read from GGUF refuses `save_pretrained`, so its parts are written here."""
    import transformers
    from safetensors.torch import save_file

    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    transformers.GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(directory)
    # `from_pretrained` ties a tied tensor's second name again.
    state = {name: tensor.contiguous() for name, tensor in untied(model.state_dict().items())}
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    open_to_others(directory)


def _check_reload(model: Any, directory: Path) -> None:
    import torch
    import transformers

    again = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=model.dtype, trust_remote_code=False)
    before, after = model.state_dict(), again.state_dict()
    if before.keys() != after.keys():
        raise StorageError(
            f"{directory}: reloaded weights have other names: {sorted(before.keys() ^ after.keys())[:4]}"
        )
    for name, tensor in before.items():
        if not torch.equal(tensor, after[name]):
            raise StorageError(f"{directory}: weight {name!r} changed when it was written and read back")
