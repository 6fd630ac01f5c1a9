"""What transformers leaves out of a GGUF file without a word: mended where its configuration has a place for it, else
refused, because the model would be another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of every Llama 3 with scaled positions: only the factor differs, and files hold what comes of it."""
_FREQUENCIES = "rope_freqs.weight"
_FACTORS = ("rope_factors_long.weight", "rope_factors_short.weight")


def check_whole(file: Path, told: Mapping[str, Any]) -> None:
    """`told`: what `from_pretrained` says of its loading. Weights that it did not find it makes up at random."""
    absent = sorted(told["missing_keys"])
    if absent:
        some = f"{', '.join(absent[:3])}{', ...' if absent[3:] else ''}"
        raise InvalidInputError(
            f"{file} holds no weights for {some} that transformers finds: get the whole file, or its safetensors"
        )


def keep(file: Path, model: Any) -> None:
    """Scaled positions go into the model's configuration; biases that it has no place for are refused."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    _check_biases(file, list(tensors), list(model.state_dict()))
    architecture = reader.fields["general.architecture"].contents()
    prefix = f"{architecture}.rope.scaling."
    scaling = {name.removeprefix(prefix): f.contents() for name, f in reader.fields.items() if name.startswith(prefix)}
    frequencies = tensors.get(_FREQUENCIES)
    parameters = getattr(model.config, "rope_parameters", None) or {}
    whole = parameters.get("full_attention", parameters)  # of Gemma 3; positions in its windows are never scaled
    if whole.get("rope_type", "default") != "default":  # transformers has read it
        return
    if any(name in tensors for name in _FACTORS):
        raise _not_read(file, "longrope")
    if frequencies is not None and not np.all(frequencies == 1):
        whole |= _llama3(file, frequencies, float(whole["rope_theta"]))
    else:
        whole |= _scaled(file, scaling)


def _scaled(file: Path, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """The same in transformers' words, as far as both compute the same."""
    factor = float(scaling.get("factor", 1.0))
    kind = scaling.get("type", "linear")
    if kind == "none" or factor == 1.0:
        return {}
    unknown = scaling.keys() - {"type", "factor", "finetuned", "original_context_length"}
    if kind == "linear" and not unknown:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and not unknown and "original_context_length" in scaling:
        original = int(scaling["original_context_length"])
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise _not_read(file, ", ".join([str(kind), *sorted(unknown)]))


def _llama3(file: Path, frequencies: npt.NDArray[np.float32], theta: float) -> dict[str, Any]:
    """`frequencies`: by what each of the rotary frequencies is divided."""
    factor = float(frequencies.max())
    plain = theta ** (-np.arange(len(frequencies)) / len(frequencies))
    wave = 2 * math.pi / plain
    original, low, high = (
        LLAMA3[name] for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    smooth = (original / wave - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    expected = np.where(wave < original / high, 1.0, np.where(wave > original / low, factor, between))
    if not np.allclose(frequencies, expected, rtol=1e-3):
        raise _not_read(file, f"{_FREQUENCIES} other than Llama 3's")
    return {"rope_type": "llama3", "factor": factor, **LLAMA3}


def _not_read(file: Path, how: str) -> InvalidInputError:
    return InvalidInputError(
        f"{file} scales its positions ({how}), which transformers does not read from GGUF: use the model's safetensors"
    )


def _check_biases(file: Path, stored: Sequence[str], loaded: Sequence[str]) -> None:
    """Experts' are stored by themselves, and loaded together."""
    biases = [name for name in stored if name.endswith(".bias") and "exp" not in name]
    if len(biases) > sum(name.endswith(".bias") for name in loaded):
        raise InvalidInputError(
            f"{file} holds biases, {', '.join(biases[:2])} among them, that transformers leaves out: use the model's "
            "safetensors"
        )
