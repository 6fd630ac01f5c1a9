import pickle
import tracemalloc

import numpy as np
import pytest

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from tests.tokenizers_bridge.fuzz import run
from tests.tokenizers_bridge.reference import completion_of
from tokenizers_bridge import (
    CharTokenizer,
    PairTokenizer,
    Tokenizer,
    TokenizerBridge,
    WordTokenizer,
    align,
    residual_metrics,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz 0123456789+=.<>|_"
CHAR = CharTokenizer(LETTERS)
PAIR = PairTokenizer(LETTERS, [("t", "h"), ("th", "e"), (" ", "a"), ("1", "2")])
WORD = WordTokenizer(["the ", "hello", " world", "日本", "é"])
ALL: list[Tokenizer] = [CHAR, PAIR, WORD]


def said(tokenizer: Tokenizer, text: str, stopped: bool = True) -> Completion:
    ids = tokenizer.encode_batch([text])[0].tolist() + ([tokenizer.stop_id] if stopped else [])
    return completion_of(tokenizer, ids, "stop" if stopped else "length")


def test_toys_are_tokenizers_that_give_back_their_text() -> None:
    for tokenizer in ALL:
        assert isinstance(tokenizer, Tokenizer)
        ids = tokenizer.encode_batch(["hello the world 12+1=13"])[0]
        assert tokenizer.decode(ids) == "hello the world 12+1=13"
        assert int(tokenizer.byte_lengths(ids).sum()) == len(tokenizer.token_bytes(ids)) == 23
        again = pickle.loads(pickle.dumps(tokenizer))
        assert again.fingerprint == tokenizer.fingerprint
        assert np.array_equal(again.encode_batch(["the"])[0], tokenizer.encode_batch(["the"])[0])
    assert CharTokenizer("ab").fingerprint == CharTokenizer("ab").fingerprint != CharTokenizer("ba").fingerprint
    # bos, eos, a..: "the" is t+h, then th+e, one piece after the 44 letters and the merge "th".
    assert PAIR.encode_batch(["the"])[0].tolist() == [2 + len(LETTERS) + 1]


def test_toys_refuse_what_they_cannot_be_made_of_or_prompted_with() -> None:
    with pytest.raises(InvalidInputError, match="distinct"):
        CharTokenizer("aa")
    with pytest.raises(InvalidInputError, match="neither in the alphabet"):
        PairTokenizer("ab", [("ab", "a")])
    with pytest.raises(InvalidInputError, match=r"outside the alphabet, \['A'\]"):
        CHAR.render_prompt("A")
    assert CHAR.render_prompt("ab").tolist() == [0, 2, 3]
    prompt = ({"role": "user", "content": "hi"},)
    assert WORD.decode(WORD.render_prompt(prompt)) == "user: hi\nassistant:"


def test_the_same_tokenizer_gets_the_sampled_ids_untouched() -> None:
    # "the" sampled letter by letter: encoding the text again would give one token.
    sampled = completion_of(PAIR, [*CHAR.encode_batch(["the"])[0].tolist(), PAIR.stop_id], "stop")
    (translation,) = TokenizerBridge(ALL).translate([sampled], PAIR)
    assert np.array_equal(translation.token_ids, sampled.token_ids)
    assert np.array_equal(translation.logprobs, sampled.logprobs)
    assert translation.exact.all()
    assert (translation.verdict, translation.action) == ("exact", "accept")
    assert translation.residual.token_share == translation.residual.mass_share == 0


def test_the_stop_token_is_there_exactly_where_the_author_stopped() -> None:
    bridge = TokenizerBridge(ALL)
    stopped, cut = bridge.translate([said(PAIR, "the end"), said(PAIR, "the end", stopped=False)], CHAR)
    assert stopped.token_ids[-1] == CHAR.stop_id
    assert stopped.exact.all()
    assert stopped.token_ids[:-1].tolist() == cut.token_ids.tolist()
    assert CHAR.stop_id not in cut.token_ids
    # stopped on a string, without a stop token of its own: there is no log-probability for the reader's, so it is not
    # exact.
    words = completion_of(PAIR, PAIR.encode_batch(["the"])[0], "stop")
    (without,) = bridge.translate([words], CHAR)
    assert without.token_ids[-1] == CHAR.stop_id
    assert np.isclose(without.logprobs.sum(), words.logprobs.sum())
    assert not without.exact[-1]


def test_each_token_names_its_chunk_and_those_outside_exact_chunks_name_none() -> None:
    bridge = TokenizerBridge(ALL)
    # the| |end of the author's is the one token "the " and e|n|d of the reader's, then the stop tokens
    ids = [*PAIR.encode_batch(["the end"])[0].tolist(), PAIR.stop_id]
    (translation,) = bridge.translate([completion_of(PAIR, ids, "stop")], WORD)
    assert translation.chunks.tolist() == [0, 1, 2, 3, 4]
    letters = bridge.translate([completion_of(WORD, [*WORD.encode_batch(["the end"])[0].tolist()])], CHAR)[0]
    assert letters.chunks.tolist() == [0, 0, 0, 0, 1, 2, 3]
    # a control token in the middle spoils "hello", and nothing behind it
    hello, world = WORD.encode_batch(["hello world"])[0].tolist()
    (spoiled,) = bridge.translate([completion_of(WORD, [hello, 0, world, WORD.stop_id], "stop")], CHAR)
    assert spoiled.chunks.tolist() == [-1] * 5 + [1] * 6 + [2]
    assert bridge.translate([Completion.from_text("the")], CHAR)[0].chunks.tolist() == [-1] * 4
    alignment = align(WORD.encode_batch(["the x"])[0], WORD, CHAR.encode_batch(["the y"])[0], CHAR)
    assert alignment.chunk_ids("author").tolist() == [0, 1]
    assert alignment.chunk_ids().tolist() == [0, 0, 0, 0, 1]
    assert alignment.chunk_ids(exact_only=True).tolist() == [0, 0, 0, 0, -1]


def test_text_that_spells_a_control_token_stays_text() -> None:
    bridge = TokenizerBridge(ALL)
    (translation,) = bridge.translate([said(WORD, "a<eos>b<bos>")], CHAR)
    assert translation.token_ids[:-1].tolist() == CHAR.encode_batch(["a<eos>b<bos>"])[0].tolist()
    assert not set(translation.token_ids[:-1].tolist()) & set(CHAR.specials)
    assert (translation.verdict, translation.action) == ("injected-special", "accept-and-flag")
    assert "'<eos>'" in translation.reason


def test_a_control_token_in_the_middle_is_left_out_and_counted() -> None:
    ids = WORD.encode_batch(["hello world"])[0].tolist()
    middle = completion_of(WORD, [ids[0], 0, ids[1], WORD.stop_id], "stop")
    (translation,) = TokenizerBridge(ALL).translate([middle], CHAR)
    assert CHAR.decode(translation.token_ids) == "hello world"
    assert (translation.verdict, translation.action) == ("lost-special", "reject")
    assert translation.exact.tolist() == [False] * 5 + [True] * 7
    # the bos went with "hello": two of the four log-probabilities lie outside exact chunks.
    lost = -middle.logprobs[:2].sum() / -middle.logprobs.sum()
    assert np.isclose(translation.residual.mass_share, lost)


def test_a_cut_in_the_middle_of_a_character_is_trimmed_or_carried_and_said() -> None:
    # "a" and the first two of three bytes of 日
    cut = completion_of(WORD, [2 + ord("a"), 2 + 0xE6, 2 + 0x97], "length")
    other = WordTokenizer(["zz"])
    (trimmed,) = TokenizerBridge([WORD, other]).translate([cut], other)
    assert other.token_bytes(trimmed.token_ids) == b"a"
    assert (trimmed.verdict, trimmed.action) == ("truncated", "accept-and-flag")
    assert np.isclose(trimmed.logprobs.sum(), cut.logprobs.sum())
    (carried,) = TokenizerBridge([WORD, other], truncation="carry").translate([cut], other)
    assert other.token_bytes(carried.token_ids) == b"a\xe6\x97"
    assert carried.exact.all()
    assert carried.verdict == "truncated"


def test_bytes_that_are_no_text_are_carried_byte_by_byte() -> None:
    broken = completion_of(WORD, [2 + ord("a"), 2 + 0xFF, 2 + ord("b"), WORD.stop_id], "stop")
    other = WordTokenizer(["ab"])
    (translation,) = TokenizerBridge([WORD, other]).translate([broken], other)
    assert other.token_bytes(translation.token_ids) == b"a\xffb"
    assert translation.verdict == "exact"


def test_text_alone_gets_ids_but_no_logprobs() -> None:
    (translation,) = TokenizerBridge(ALL).translate([Completion.from_text("the end")], PAIR)
    assert translation.token_ids.tolist() == [*PAIR.encode_batch(["the end"])[0].tolist(), PAIR.stop_id]
    assert not translation.has_logprobs
    assert not translation.exact.any()
    assert translation.verdict == "exact"


def test_bad_rows_are_flagged_and_good_rows_come_back() -> None:
    good = said(PAIR, "the end")
    nothing = np.empty(0, np.int32)
    bad = {
        "none of the bridge's 3 tokenizers": Completion("a", nothing, np.empty(0), "stop", 0, "feedbeef"),
        "token id 60000 is outside": Completion("a", np.array([60000]), np.array([-1.0]), "stop", 0, PAIR.fingerprint),
        "token id -5 is outside": Completion("a", np.array([-5]), np.array([-1.0]), "stop", 0, PAIR.fingerprint),
        "must be finite": Completion("a", np.array([2]), np.array([np.nan]), "stop", 0, PAIR.fingerprint),
        "not what its token_ids decode to": Completion(
            "something else", good.token_ids, good.logprobs, "stop", 0, PAIR.fingerprint
        ),
        "lone surrogate": Completion.from_text("a\ud800"),
        "no token for byte": said(WORD, "é"),
    }
    rows = [good, *bad.values(), good]
    first, *failed, last = TokenizerBridge(ALL).translate(rows, CHAR)
    assert first.verdict == last.verdict == "exact"
    assert first.token_ids.tolist() == last.token_ids.tolist()
    for message, translation in zip(bad, failed, strict=True):
        assert (translation.verdict, translation.action) == ("failed", "reject"), message
        assert message in translation.reason


class Stumbling(WordTokenizer):
    """Cannot encode one text, and takes the whole batch down with it."""

    def encode_batch(self, texts):
        if "stumble" in texts:
            raise RuntimeError("cannot")
        return super().encode_batch(texts)


def test_a_reader_that_raises_on_one_text_still_gets_the_others() -> None:
    reader = Stumbling(["x"])
    rows = TokenizerBridge([*ALL, reader]).translate([said(PAIR, t) for t in ("the", "stumble", "end")], reader)
    assert [t.verdict for t in rows] == ["exact", "failed", "exact"]
    assert "RuntimeError: cannot" in rows[1].reason


class Counting(WordTokenizer):
    """Remembers what it was asked to encode."""

    def encode_batch(self, texts):
        self.asked = [*getattr(self, "asked", []), *texts]
        return super().encode_batch(texts)


def test_a_text_is_encoded_once_however_many_agents_share_a_tokenizer() -> None:
    reader = Counting(["the "])
    bridge = TokenizerBridge([*ALL, reader])
    rows = [said(PAIR, "the end"), said(CHAR, "the end"), said(PAIR, "another"), said(PAIR, "the end")]
    for _ in range(16):  # agents with the same tokenizer
        bridge.translate(rows, reader)
    assert reader.asked == ["the end", "another"]


def test_memory_stays_within_the_budget_and_nothing_is_lost_without_a_cache() -> None:
    text = "the end " * 500
    rows = [said(WORD, f"{i} {text}") for i in range(200)]
    budget = 2 << 20
    bridge = TokenizerBridge(ALL, cache_bytes=budget)
    bridge.translate(rows[:2], PAIR)
    tracemalloc.start()
    for row in rows:
        bridge.translate([row], CHAR)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bridge.cache_bytes_used <= budget
    assert held <= 1.2 * budget
    uncached = TokenizerBridge(ALL, cache_bytes=0)
    assert uncached.translate(rows[:1], CHAR)[0].verdict == "exact"
    assert uncached.cache_bytes_used == 0
    with pytest.raises(InvalidInputError, match="cache_bytes"):
        TokenizerBridge(ALL, cache_bytes=-2)


def test_what_to_do_on_a_verdict_can_be_chosen_and_metrics_add_up() -> None:
    bridge = TokenizerBridge(ALL, actions={"injected-special": "reject"})
    rows = bridge.translate([said(WORD, "<eos>"), said(WORD, "hello")], CHAR)
    assert [t.action for t in rows] == ["reject", "accept"]
    metrics = residual_metrics(rows)
    assert (metrics["bridge/exact"], metrics["bridge/injected-special"], metrics["bridge/failed"]) == (1, 1, 0)
    # 6 of 6 tokens 1:1 ("<eos>" byte by byte, stop), 1 of 6 ("hello" is 5 to 1): (6 * 0 + 6 * 5/6) / 12
    assert np.isclose(metrics["bridge/token_share"], 5 / 12)
    assert metrics["bridge/largest_chunk"] == 5


def test_random_completions_of_toys_hold_every_promise() -> None:
    small = WordTokenizer(["ab", "\n  ", " x", "日"])
    verdicts = run([WORD, small, WordTokenizer([])], cases=3000, seed=1)
    assert verdicts["exact"] > 1500
    assert verdicts["failed"] == 0
