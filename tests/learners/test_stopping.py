"""Stop strings: where samples end, in every sampler, and what goes on with them afterwards."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.protocol import Learner
from learners.sampling import Sample, Sampling
from learners.stopping import Endings
from learners.tabular import TabularLearner
from learners.testing import check_learner
from learners.torch.options import TorchOptions
from learners.vllm.engine import request
from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from sharing.codec import decode, encode
from sharing.records import Origin, Rollout, Success
from tests.learners.tiny_policies import TOKENIZER, gemma, learner, llama, neox
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

PAIRS = PairTokenizer("ab\n<", [("a", "b"), ("ab", "\n"), ("\n", "\n"), ("b", "<"), ("<", "a")])


@given(
    strings=st.lists(st.text("ab\n<", min_size=1, max_size=4), min_size=1, max_size=4),
    ids=st.lists(st.integers(0, PAIRS.vocab_size - 1), max_size=12),
)
def test_the_first_token_after_which_the_text_holds_a_stop_string_is_found(strings: list[str], ids: list[int]) -> None:
    endings = Endings.of(strings, PAIRS)
    assert endings is not None
    texts = [PAIRS.token_bytes(ids[:n]).decode() for n in range(1, len(ids) + 1)]
    expected = next((n for n, text in enumerate(texts, 1) if any(s in text for s in strings)), None)
    assert endings.length(ids) == expected
    assert set(endings.tokens) == {
        i for i in range(PAIRS.vocab_size) if any(s in PAIRS.token_bytes([i]).decode() for s in strings)
    }


def test_a_string_of_several_bytes_may_be_spread_over_tokens_of_one_byte() -> None:
    class Bytes(CharTokenizer):
        """A token for each byte, as byte-level vocabularies have them."""

        vocab_size = 256

        def token_bytes(self, ids: Any) -> bytes:
            return bytes(int(i) for i in ids)

        def byte_lengths(self, ids: Any) -> Any:
            return np.ones(len(ids), dtype=np.int64)

    endings = Endings.of(["é中"], Bytes("ab"))
    assert endings is not None
    said = list("aéé中b".encode())
    assert endings.length(said) == len("aéé中".encode())
    assert endings.tokens == ()


def test_no_strings_are_no_endings_and_what_cannot_be_one_is_refused() -> None:
    assert Endings.of([], PAIRS) is None
    assert TorchOptions(stop="\n").stop == ("\n",)  # type: ignore[arg-type]
    for wrong in ("", ["a", ""], [3], ["a" * 300]):
        with pytest.raises(InvalidInputError, match="stop must"):
            TorchOptions(stop=wrong)  # type: ignore[arg-type]


def test_endings_cross_process_borders_with_the_distribution_they_are_part_of() -> None:
    sampling = Sampling(1, endings=Endings.of(["ab"], PAIRS))
    again = pickle.loads(pickle.dumps(sampling))
    assert again.endings.length([2, 3]) == sampling.endings.length([2, 3])  # type: ignore[union-attr]


MAKERS: dict[str, Callable[..., Learner]] = {
    "tabular": lambda **o: TabularLearner(TOKENIZER, name="p", max_new_tokens=12, **o),
    "llama": lambda **o: learner(llama(), max_new_tokens=12, **o),
    "neox": lambda **o: learner(neox(), max_new_tokens=12, **o),
    "gemma": lambda **o: learner(gemma(), max_new_tokens=12, **o),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_sample_is_what_it_would_have_been_up_to_its_first_stop_string(make: Callable[..., Learner]) -> None:
    prompts, strings = ["1+1=", "2+2=", "a b"], ["1", "+", "ab", "  "]
    whole = [c for group in make().act(prompts, 16, seed=3) for c in group]
    ended = [c for group in make(stop=strings).act(prompts, 16, seed=3) for c in group]
    endings = Endings.of(strings, TOKENIZER)
    assert endings is not None
    reasons = set()
    for free, cut in zip(whole, ended, strict=True):
        length = endings.length(free.token_ids)
        size = free.token_ids.size if length is None else length
        np.testing.assert_array_equal(cut.token_ids, free.token_ids[:size])
        np.testing.assert_allclose(cut.logprobs, free.logprobs[:size], atol=1e-5)
        assert cut.text == TOKENIZER.decode(cut.token_ids)
        assert cut.finish_reason == (free.finish_reason if length is None else "stop_string")
        reasons.add(cut.finish_reason)
    assert "stop_string" in reasons
    assert len(reasons) > 1


def test_a_learner_with_stop_strings_is_a_learner_like_any_other() -> None:
    check_learner(lambda: MAKERS["tabular"](stop=["1", "+"]), prompts=["1+1=", "2+2="])


def test_vllm_is_told_the_tokens_that_hold_a_stop_string_and_the_rest_is_cut_off() -> None:
    endings = Endings.of(["ab", "\n"], PAIRS)
    assert endings is not None
    holding = {i for i in range(PAIRS.vocab_size) if "ab" in PAIRS.decode([i]) or "\n" in PAIRS.decode([i])}
    asked = request(Sampling(PAIRS.stop_id, endings=endings), seed=1)["stop_token_ids"]
    assert asked == [PAIRS.stop_id, *endings.tokens]
    assert set(endings.tokens) == holding
    ids = np.array([*PAIRS.encode_batch(["a"])[0], *PAIRS.encode_batch(["b<"])[0], PAIRS.stop_id], np.int32)
    sample = Sample(ids, np.full(ids.size, -0.5)).up_to_end(endings)
    assert (sample.token_ids.size, sample.logprobs.size, sample.met_stop_string) == (2, 2, True)
    assert sample.completion(PAIRS, 0).finish_reason == "stop_string"
    untouched = Sample(ids[:1], np.full(1, -0.5))
    assert untouched.up_to_end(endings) is untouched


def stopped_by(reason: Any, text: str = "7\n") -> Completion:
    tokenizer = CharTokenizer("0123456789\n")
    ids = tokenizer.encode_batch([text])[0]
    ids = np.append(ids, tokenizer.stop_id).astype(np.int32) if reason == "stop" else ids
    return Completion(text, ids, np.full(ids.size, -0.5), reason, 0, tokenizer.fingerprint)


def test_why_a_completion_ended_is_kept_in_a_record() -> None:
    for reason in ("stop", "stop_string", "length"):
        written = stopped_by(reason)
        origin = Origin("t", "ada", 0, 0, written.tokenizer, "exact")
        rollout = Rollout(origin, 0, written, 1.0, True)
        success = Success(origin, 0, "7\n", reason, 1.0)  # type: ignore[arg-type]
        assert decode(encode(rollout)) == rollout
        assert decode(encode(success)) == success


def test_a_reader_is_taught_no_stop_token_where_its_author_wrote_none() -> None:
    author, reader = CharTokenizer("0123456789\n"), PairTokenizer("0123456789\n", [("7", "\n")])
    bridge = TokenizerBridge([author, reader])
    for reason, last in (("stop", reader.stop_id), ("stop_string", None)):
        (translation,) = bridge.translate([stopped_by(reason)], reader)
        ids = translation.token_ids.tolist()
        assert (ids[-1] == reader.stop_id) == (last is not None)
        assert reader.decode(ids) == "7\n"
