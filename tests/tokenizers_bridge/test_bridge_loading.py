import argparse
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tiktoken
import tokenizers
from rich.console import Console
from tokenizers import decoders, models, normalizers, pre_tokenizers

from learners.commands.bridge import add_arguments, run
from mutual_env.errors import InvalidInputError, MutualEnvError, StorageError, UnknownNameError
from tests.tokenizers_bridge.corpus import SCRIPTS
from tests.tokenizers_bridge.reference import completion_of
from tokenizers_bridge import (
    CharTokenizer,
    PairTokenizer,
    TokenizerBridge,
    UnicodeForm,
    WordTokenizer,
    check_tokenizer,
    load,
)
from tokenizers_bridge.declaration import Declaration, declaration_of
from tokenizers_bridge.edits import edits_between
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.templates import ChatTemplate
from tokenizers_bridge.kinds.transformers import generation_stops
from tokenizers_bridge.protocol import Role

BYTES = [f"<0x{b:02X}>" for b in range(256)]


def byte_level(*merges: tuple[str, str], special: tuple[str, ...] = ("<|endoftext|>",)) -> tokenizers.Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate([*alphabet, *(a + b for a, b in merges)])}
    built = tokenizers.Tokenizer(models.BPE(vocab, list(merges)))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(list(special))
    return built


def unigram(byte_fallback: bool, prepend: str = "always") -> tokenizers.Tokenizer:
    pieces = ["<unk>", "</s>", *(BYTES if byte_fallback else ()), "▁", *"abcdehlorw,", "▁hello", "world"]
    scored = [(p, -float(i)) for i, p in enumerate(pieces)]
    built = tokenizers.Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=byte_fallback))
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    fallback = [decoders.ByteFallback(), decoders.Fuse()] if byte_fallback else []
    built.decoder = decoders.Sequence([*fallback, decoders.Metaspace(prepend_scheme=prepend)])
    built.add_special_tokens(["</s>"])
    return built


def test_a_byte_level_tokenizer_is_read_and_the_callers_own_is_left_alone() -> None:
    source = byte_level(("h", "e"), ("Ġ", "he"))
    source.enable_padding(length=64)
    tokenizer = load(source)
    (ids,) = tokenizer.encode_batch(["he he<|endoftext|>"])
    assert tokenizer.token_bytes(ids) == b"he he<|endoftext|>"
    assert not set(ids.tolist()) & set(tokenizer.specials)
    assert source.encode("<|endoftext|>").ids[0] == tokenizer.stop_id
    assert len(source.encode("he").ids) == 64
    source.no_padding()
    assert load(source).fingerprint == tokenizer.fingerprint
    assert load(byte_level(("h", "e"))).fingerprint != tokenizer.fingerprint
    assert load(tokenizer) is tokenizer


def test_a_unigram_tokenizer_is_read_with_its_prefix_space() -> None:
    for prepend, prefix in (("always", True), ("never", False)):
        tokenizer = load(unigram(byte_fallback=True, prepend=prepend))
        assert declaration_of(tokenizer).prefix_space is prefix
        (ids,) = tokenizer.encode_batch(["hello, 日本\r\n"])
        assert tokenizer.decode(ids) == "hello, 日本\r\n"
    # without byte fallback a character outside the vocabulary becomes <unk>: the row is flagged, not silently wrong
    narrow = load(unigram(byte_fallback=False))
    author = WordTokenizer([])
    rows = [completion_of(author, author.encode_batch([text])[0]) for text in ("hello world", "hello 日")]
    good, bad = TokenizerBridge([author, narrow]).translate(rows, narrow)
    assert (good.verdict, bad.verdict) == ("exact", "failed")  # a completion goes on: no prefix space before it


def test_a_declared_normaliser_is_undone_piece_by_piece() -> None:
    source = byte_level()
    source.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer = load(source)
    assert declaration_of(tokenizer).names == ("NFKC+Lowercase",)
    author = WordTokenizer([])
    said = completion_of(author, author.encode_batch(["a Big ﬁsh of 5㎏ x"])[0])
    (translation,) = TokenizerBridge([author, tokenizer]).translate([said], tokenizer)
    assert tokenizer.decode(translation.token_ids) == "a big fish of 5kg x"
    assert (translation.verdict, translation.action) == ("lossy", "reject")  # a capital is gone
    assert (~translation.chunk_exact).sum() == 3  # B, ﬁ, ㎏


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["model"].update(type="WordLevel"), "WordLevel models are not supported"),
        (lambda d: d["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (lambda d: d.update(decoder=None), "decoder: none"),
        (lambda d: d.update(decoder={"type": "CTC", "pad_token": "p"}), "CTC"),
        (lambda d: d.update(added_tokens=[]), "name the stop token"),
    ],
)  # fmt: skip
def test_kinds_that_cannot_be_read_are_refused_with_a_sentence(change, message: str, tmp_path: Path) -> None:
    definition = json.loads(byte_level().to_str())
    change(definition)

    class Backend:
        """Any definition, as a `tokenizers.Tokenizer` would hand it over."""

        def to_str(self) -> str:
            return json.dumps(definition)

    Backend.__module__ = "tokenizers"
    with pytest.raises(InvalidInputError, match=message):
        load(Backend())


def test_wordpiece_is_refused() -> None:
    wordpiece = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()
    with pytest.raises(InvalidInputError, match="WordPiece models are not supported, because their ids do not say"):
        load(wordpiece)


def test_a_tokenizer_that_loses_bytes_without_saying_so_fails_its_test() -> None:
    source = byte_level()
    source.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(InvalidInputError, match="no declared change explains that"):
        load(source)


def test_tiktoken_and_sentencepiece_objects_and_files_are_read(tmp_path: Path) -> None:
    ranks = {bytes([b]): b for b in range(256)} | {b"ab": 256, b" ab": 257}
    encoding = tiktoken.Encoding(
        "small", pat_str=r"\s?\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 258}
    )
    tokenizer = load(encoding)
    assert tokenizer.encode_batch(["ab ab"])[0].tolist() == [256, 257]
    assert tokenizer.stop_id == 258

    sentences = [word for text in SCRIPTS.values() for word in (text, "hello world, this is a model")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(tmp_path / "small"), vocab_size=700, model_type="unigram",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    model = load(tmp_path / "small.model")
    assert declaration_of(model).prefix_space
    assert model.decode(model.encode_batch(["hello world"])[0]) == "hello world"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small.model"))
    assert load(processor).fingerprint == model.fingerprint
    # its normaliser folds white space and applies NFKC: known, and undone segment by segment
    author = WordTokenizer([])
    said = completion_of(author, author.encode_batch(["hello  world ﬁ hello"])[0])
    (translation,) = TokenizerBridge([author, model]).translate([said], model)
    assert model.decode(translation.token_ids) == "hello world fi hello"
    assert (translation.verdict, translation.action) == ("lossy", "reject")  # a space and a ligature are gone
    assert (~translation.chunk_exact).sum() == 2  # double space, ﬁ


def test_directories_and_files_are_read_and_wrong_paths_are_explained(tmp_path: Path) -> None:
    byte_level(("h", "e")).save(str(tmp_path / "tokenizer.json"))
    assert load(tmp_path).fingerprint == load(tmp_path / "tokenizer.json").fingerprint
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|endoftext|>",
                "chat_template": "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}",
            }
        )
    )
    chat = load(tmp_path)
    assert chat.decode(chat.render_prompt("he")) == "[user] he\n"
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for path, error, message in (
        (tmp_path / "broken.json", InvalidInputError, "is not JSON"),
        (tmp_path / "other.json", InvalidInputError, "neither a 'model' nor a 'vocab'"),
        (tmp_path / "empty", InvalidInputError, "has no tokenizer.json"),
        (tmp_path / "absent.model", InvalidInputError, "does not exist"),
        (tmp_path / "pipe.json", InvalidInputError, "neither a file nor a directory"),
        ("nosuchname", UnknownNameError, "unknown tokenizer 'nosuchname'"),
        (42, InvalidInputError, "cannot read a tokenizer from int"),
    ):
        with pytest.raises(error, match=message):
            load(path)


def test_declared_changes_are_found_one_by_one_and_others_as_one_middle() -> None:
    nothing, nfc = Declaration(), Declaration(form=UnicodeForm("NFC"), form_name="NFC")
    found = edits_between("xe\u0301y\u212bz".encode(), "xéyÅz".encode(), nothing, nfc)
    assert found.rows.tolist() == [[1, 4, 1, 3], [5, 8, 4, 6]]
    assert found.declared
    backwards = edits_between("xéy".encode(), "xe\u0301y".encode(), nfc, nothing)
    assert backwards.rows.tolist() == [[1, 3, 1, 4]]
    prefix = edits_between(b"hi", b" hi", nothing, Declaration(prefix_space=True))
    assert prefix.rows.tolist() == [[0, 0, 0, 1]]
    other = edits_between(b"abcXdef", b"abcYYdef", nothing, nothing)
    assert other.rows.tolist() == [[3, 4, 3, 5]]
    assert not other.declared


def test_every_toy_that_writes_any_text_passes_the_shipped_test() -> None:
    check_tokenizer(WordTokenizer(["hello", "日本"]))


def test_the_report_shows_both_directions_and_fails_where_a_sample_does(tmp_path: Path) -> None:
    byte_level(("h", "e")).save(str(tmp_path / "a.json"))
    unigram(byte_fallback=True).save(str(tmp_path / "b.json"))
    unigram(byte_fallback=False).save(str(tmp_path / "narrow.json"))
    text = tmp_path / "text.txt"
    text.write_text("hello world\n\nhe said [/b] <|endoftext|>", "utf-8")
    shown, code = reported(str(tmp_path / "a.json"), str(tmp_path / "b.json"), str(text))
    assert code == 0
    assert "prefix space" in shown
    assert "injected" in shown
    assert "sample 2" in shown
    _, code = reported(str(tmp_path / "a.json"), str(tmp_path / "narrow.json"), str(text))
    assert code == 1
    with pytest.raises(StorageError, match="cannot read"):
        reported(str(tmp_path / "a.json"), str(tmp_path / "b.json"), str(tmp_path / "absent.txt"))
    text.write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match="not UTF-8 at byte 0"):
        reported(str(tmp_path / "a.json"), str(tmp_path / "b.json"), str(text))


def reported(*arguments: str) -> tuple[str, int]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    console = Console(file=io.StringIO(), width=160)
    code = run(parser.parse_args(arguments), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), code


def test_ids_are_int32_rows_of_one_dimension() -> None:
    for tokenizer in (load(byte_level()), load(unigram(byte_fallback=True)), WordTokenizer(["a"])):
        rows = tokenizer.encode_batch(["", "hello", "日"])
        assert all(row.dtype == np.int32 and row.ndim == 1 for row in rows)
        assert tokenizer.encode_batch([]) == []


def test_the_code_of_the_documentation_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bridge.md").read_text("utf-8")
    blocks = page.split("```python\n")[1:]
    assert blocks
    for block in blocks:
        exec(block.partition("```")[0], {})


def test_a_kind_is_named_with_its_options() -> None:
    assert load({"kind": "char", "alphabet": "abc"}).fingerprint == CharTokenizer("abc").fingerprint
    pair = load({"kind": "pair", "alphabet": "abc", "merges": ["ab", ["ab", "c"]]})
    assert pair.fingerprint == PairTokenizer("abc", [("a", "b"), ("ab", "c")]).fingerprint


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "chars", "alphabet": "abc"}, "unknown tokenizer kind 'chars': did you mean 'char'"),
        ({"alphabet": "abc"}, "unknown tokenizer kind None"),
        ({"kind": "char", "letters": "abc"}, "unknown option of tokenizer kind 'char' 'letters'"),
        ({"kind": "char"}, "tokenizer kind 'char' needs the option 'alphabet'"),
    ],
)
def test_a_kind_that_is_not_there_or_takes_other_options_is_a_sentence(spec: dict[str, str], message: str) -> None:
    with pytest.raises(MutualEnvError, match=message):
        load(spec)


def test_what_is_no_number_in_a_generation_config_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [true, 2, "3", 2.0, null]}')
    assert generation_stops(tmp_path) == [2]


def test_a_generation_config_that_knows_of_no_turns_does_not_take_the_turns_end_away() -> None:
    """A base model's names the end of the text alone, and its policy ends turns all the same."""
    marks = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend = byte_level(special=marks)
    text, _, turn = (backend.token_to_id(mark) for mark in marks)
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    def stops(*told: int) -> tuple[int, ...]:
        template = ChatTemplate(source, {})
        eos: dict[Role, str] = {"eos": marks[0]}
        return from_huggingface(backend, special_texts=eos, template=template, also_stops=told).stop_ids

    assert stops() == stops(text) == stops(turn, text) == (turn, text)
    assert stops(turn) == (turn,)
