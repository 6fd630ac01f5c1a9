"""Families whose files are their own: read, or refused with what to do instead; and what the shipped test sees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import decoders, pre_tokenizers

from mutual_env.errors import ConformanceError, InvalidInputError, MutualEnvError
from mutual_env.types import Prompt, Reply
from tests.tokenizers_bridge.official import folder_of
from tests.tokenizers_bridge.reference import completion_of
from tests.tokenizers_bridge.test_bridge_loading import byte_level, unigram
from tokenizers_bridge import Tokenizer, TokenizerBridge, WordTokenizer, check_tokenizer, load
from tokenizers_bridge.declaration import Boundary, Declaration, declaration_of
from tokenizers_bridge.kinds.definitions import Kind
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.prompts import ChatFormat, ChatFormatPrompt
from tokenizers_bridge.replies import Conversing


def test_byt5_is_read_from_its_directory_byte_for_byte(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ByT5Tokenizer()
    theirs.save_pretrained(tmp_path)
    byt5 = load(tmp_path)
    text = "aé\n日 </s>x"
    (ids,) = byt5.encode_batch([text])
    assert byt5.token_bytes(ids) == text.encode()
    assert theirs("aé\n", add_special_tokens=False)["input_ids"] == byt5.encode_batch(["aé\n"])[0].tolist()
    assert declaration_of(byt5).control_texts[byt5.stop_id] == "</s>"
    assert load(theirs).fingerprint == byt5.fingerprint
    author = WordTokenizer(["日本"])
    said = completion_of(author, [*author.encode_batch([text])[0].tolist(), author.stop_id], "stop")
    (translation,) = TokenizerBridge([author, byt5]).translate([said], byt5)
    assert translation.verdict == "injected-special"  # the text spells </s>, and stays text
    assert byt5.decode(translation.token_ids) == text
    with pytest.raises(InvalidInputError, match="stop token '<end>' is not among"):
        load(tmp_path, stop="<end>")


def test_claudes_kind_needs_its_stop_token_named_and_takes_it(tmp_path: Path) -> None:
    byte_level(("h", "e"), special=("<EOT>", "<META>")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidInputError, match=r"name the stop token, load\(\.\.\., stop=\.\.\.\)"):
        load(tmp_path)
    claude = load(tmp_path, stop="<EOT>")
    assert claude.specials[claude.stop_id] == "eos"
    author = WordTokenizer([])
    said = completion_of(author, [*author.encode_batch(["he"])[0].tolist(), author.stop_id], "stop")
    (translation,) = TokenizerBridge([author, claude]).translate([said], claude)
    assert (translation.verdict, translation.chunk_exact.tolist()) == ("exact", [True, True])


def written(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_no_error_of_another_library_leaves_load(tmp_path: Path) -> None:
    broken = json.loads(byte_level(("h", "e")).to_str())
    broken["model"]["merges"] = [["h", "nothing"]]
    rwkv, files = {"rwkv_vocab_v20230424.txt": "1 '\\x00' 1\n"}, {"vocab.json": "{}", "merges.txt": "#version"}
    torn = {"tokenizer.json": json.dumps(broken)}
    remote = {"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["code.T", null]}}'}
    cases = {
        "rwkv": (written(tmp_path / "a", rwkv), "RWKV vocabulary"),
        "bert": (written(tmp_path / "b", {"vocab.txt": "[PAD]\n[UNK]\nthe\n##s\n"}), "word list"),
        "gpt2 files": (written(tmp_path / "c", files), "without a tokenizer.json"),
        "spm only": (written(tmp_path / "d", {"tokenizer.model": b"x"}), "load .*tokenizer.model itself"),
        "remote code": (written(tmp_path / "e", remote), "has no tokenizer.json"),
        "broken merges": (written(tmp_path / "f", torn), "take its files as published"),
        "broken config": (
            written(tmp_path / "g", {"tokenizer.json": byte_level().to_str(), "tokenizer_config.json": "["}),
            "is not JSON",
        ),
        "no model": (written(tmp_path / "h", {"tokenizer.json": '{"model": {}}'}), "take its files as published"),
    }  # fmt: skip
    for name, (source, message) in cases.items():
        with pytest.raises(MutualEnvError, match=message) as refused:
            load(source)
        assert ":" in str(refused.value), name  # what is wrong, and what to do
    for file in ("a/rwkv_vocab_v20230424.txt", "b/vocab.txt", "d/tokenizer.model"):
        with pytest.raises(MutualEnvError):
            load(tmp_path / file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("merges.txt", "#version: 0.2\nh e\n", "do not say how text is cut: save the fast tokenizer"),
        ("encoder.vocab", '{"h": 0}', "do not say how text is cut: save the fast tokenizer"),
        ("base.tiktoken", "IQ== 0\nIg== 1\n", "give load a tiktoken.Encoding that is made of them"),
        ("ranks.model", "IQ== 0\nIg== 1\n", "give load a tiktoken.Encoding that is made of them"),
        ("bert.vocab", "[PAD]\n[UNK]\nthe\n", "word list"),
    ],
)
def test_a_vocabulary_that_is_no_model_is_named_for_what_it_is(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load(tmp_path / name)


def test_a_directory_with_code_of_its_own_says_what_of_it_can_be_loaded(tmp_path: Path) -> None:
    remote = {"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["code.T", null]}}'}
    with pytest.raises(InvalidInputError, match=r"load .*ice_text\.model itself, if it is a SentencePiece model"):
        load(written(tmp_path / "a", {**remote, "ice_text.model": b"x"}))
    with pytest.raises(InvalidInputError, match=r"base\.tiktoken has the ranks of a tiktoken encoding"):
        load(written(tmp_path / "b", {**remote, "base.tiktoken": "IQ== 0\n"}))


def test_llama_2_is_read_where_its_file_is_whole_and_refused_where_it_is_damaged(tmp_path: Path) -> None:
    # A published copy of it has spaces where the vocabulary has no-break spaces, so that merges have three parts.
    text = (folder_of("llama2") / "tokenizer.json").read_text("utf-8")
    with pytest.raises(InvalidInputError, match="save it again with the library that its model is published for"):
        load(folder_of("llama2"))
    definition = json.loads(text)
    nbsp = lambda piece: piece.replace(" ", "\xa0")  # noqa: E731
    model = definition["model"]
    model["vocab"] = {nbsp(piece): i for piece, i in model["vocab"].items()}
    torn = {"   ": "\xa0 \xa0", "     ": "\xa0\xa0 \xa0\xa0", "▁  ": "▁ \xa0"}
    model["merges"] = [torn.get(merge, merge) for merge in model["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    llama = load(tmp_path)
    assert llama.decode(llama.encode_batch(["a\xa0b\n  c"])[0]) == "a\xa0b\n  c"


def test_t5_is_refused_because_its_ids_do_not_say_where_lines_end() -> None:
    with pytest.raises(InvalidInputError, match=r"WhitespaceSplit drops white space.*or load the SentencePiece model"):
        load(folder_of("t5-small"))


STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def replacing(mark: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": mark}, "content": " "}


def in_turn(*decoders: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "decoders": list(decoders)}


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "fancy": 1}, "argument fancy"),
        ({"type": "Fuse", "with": "-"}, "argument with"),
        ({"type": "Replace", "pattern": {"String": "_"}, "content": " "}, "Replace with pattern"),
        ({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}, "replacement '_'"),
        ({"type": "Strip", "content": "x", "start": 1, "stop": 0}, "Strip with content 'x'"),
        # The same decoder twice: each counts, and not the last alone.
        (in_turn(replacing("_"), replacing("▁")), "Replace with pattern"),
        (in_turn(replacing("▁"), {"type": "Strip", "content": "x", "start": 1, "stop": 0}, STRIP), "content 'x'"),
        (in_turn(BYTES, replacing("▁")), "a decoder of ByteLevel beside Replace is not known"),
        (in_turn(BYTES, STRIP), "a decoder of ByteLevel beside Strip is not known"),
        ({"type": "Fuse"}, "a decoder of Fuse alone is not known"),
        (in_turn({"type": "ByteFallback"}, {"type": "Fuse"}), "a decoder of ByteFallback, Fuse alone is not known"),
    ],
)
def test_a_decoder_with_arguments_that_are_not_known_is_refused(decoder: dict[str, Any], message: str) -> None:
    definition = json.loads(unigram(byte_fallback=True).to_str())
    definition["decoder"] = decoder

    class Backend:
        def to_str(self) -> str:
            return json.dumps(definition)

    with pytest.raises(InvalidInputError, match=message):
        from_huggingface(Backend())


@pytest.mark.parametrize("piece", ["<0x4A>", "<0x4a>", "<0x4g>"])
def test_a_byte_is_what_the_library_takes_for_one(piece: str) -> None:
    read = Kind(byte_level=False, prefix_space=False, byte_pieces=True, verbatim=False).piece_bytes(piece)
    assert read.decode() == decoders.ByteFallback().decode([piece])


def test_known_decoders_with_their_known_arguments_are_read() -> None:
    source = unigram(byte_fallback=True)
    source.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert load(source).decode(load(source).encode_batch(["hello"])[0]) == "hello"
    level = byte_level()
    level.decoder = decoders.ByteLevel()
    level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert declaration_of(load(level)).prefix_space


class Reshaped:
    """A tokenizer with another boundary, or other prompts."""

    def __init__(self, of: Tokenizer, boundary: Boundary, chat: ChatFormat | None = None) -> None:
        self.of = of
        says = declaration_of(of)
        self.declaration = Declaration(
            says.prefix_space, says.form, says.form_name, says.control_texts, says.tags, boundary
        )
        ids = {text: i for i, text in says.control_texts.items()}
        self.render = of.render_prompt if chat is None else ChatFormatPrompt(chat, of.encode_batch, ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    def render_prompt(self, prompt: Prompt) -> np.ndarray:
        return self.render(prompt)


TURNS = {"*": ("<|user|>", "{content}", "<|endoftext|>")}


def test_the_shipped_test_sees_where_prompts_end_and_completions_begin() -> None:
    source = from_huggingface(byte_level(("h", "e"), special=("<|endoftext|>", "<|user|>")))
    good = ChatFormat((), TURNS, ("<|user|>",))
    check_tokenizer(Reshaped(source, Boundary(), good))
    with pytest.raises(ConformanceError, match="do not end with '<think>', the opening that its boundary declares"):
        check_tokenizer(Reshaped(source, Boundary(opening="<think>"), good))
    opens = ChatFormat((), TURNS, ("<|user|>", "so: <think>\n"))
    with pytest.raises(ConformanceError, match=r"prompts open a thought with '<think>\\n': declare it"):
        check_tokenizer(Reshaped(source, Boundary(), opens))
    elsewhere = ChatFormat((), TURNS, ("<|user|>", "answer:"))
    with pytest.raises(ConformanceError, match="not what its template makes of the finished conversation"):
        check_tokenizer(Reshaped(source, Boundary(), elsewhere))
    check_tokenizer(Reshaped(source, Boundary(difference="'answer:' is not in what was said before"), elsewhere))


def test_replies_and_untraced_turns_go_on_without_a_prefix_space() -> None:
    spm = load(unigram(byte_fallback=True))
    assert declaration_of(spm).prefix_space
    conversing = Conversing(spm)
    assert spm.token_bytes(conversing.reply(Reply("world"), is_chat=False)) == b"world"
    assert spm.token_bytes(conversing.reply(Reply("hello"), is_chat=False)) == b"hello"
