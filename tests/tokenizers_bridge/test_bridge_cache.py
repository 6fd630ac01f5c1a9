"""The cache of the bridge: groups of entries, bounded in bytes."""

from collections import Counter
from collections.abc import Sequence

import pytest

import learners
import mutual_env
import sharing
from learners.run.loop import Loop
from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tests.tokenizers_bridge.reference import completion_of
from tokenizers_bridge import PairTokenizer, TokenizerBridge
from tokenizers_bridge.translation.cache import ENTRY_OVERHEAD, ByteBudgetCache


def test_what_was_put_in_together_leaves_together_the_least_recently_used_first() -> None:
    # Two entries of 1,024 bytes each and 952 of payload are 3,000: three such groups fit 9,000, a fourth does not.
    cache: ByteBudgetCache[str, int] = ByteBudgetCache(9_000)
    assert 2 * ENTRY_OVERHEAD + 952 == 3_000
    for group in ("ab", "cd", "ef"):
        cache.put(dict.fromkeys(group, 1), 952)
    assert (cache.used, len(cache)) == (9_000, 6)
    assert cache.get("ax") == [1, None]  # a was used, and so were a and b
    cache.put({"g": 2, "h": 2}, 952)
    assert cache.get("abcdefgh") == [1, 1, None, None, 1, 1, 2, 2]
    assert cache.used == 9_000


def test_an_entry_that_was_put_in_again_outlives_its_first_group() -> None:
    cache: ByteBudgetCache[str, int] = ByteBudgetCache(6_000)
    cache.put({"a": 1, "b": 1}, 952)
    cache.put({"a": 2, "c": 2}, 952)
    cache.put({"d": 3, "e": 3}, 952)  # the first group leaves
    assert cache.get("abcde") == [2, None, 2, 3, 3]
    # and where the second group leaves before the first, the entry goes with the value that it has
    other: ByteBudgetCache[str, int] = ByteBudgetCache(6_000)
    other.put({"a": 1, "b": 1}, 952)
    other.put({"a": 2, "c": 2}, 952)
    assert other.get("b") == [1]
    other.put({"d": 3, "e": 3}, 952)
    assert other.get("abcde") == [None, 1, None, 3, 3]
    other.put({"f": 4, "g": 4}, 952)
    assert other.get("abdf") == [None, None, 3, 4]
    assert other.used == 6_000


def test_a_group_larger_than_the_budget_is_not_kept_and_costs_nobody_a_place() -> None:
    cache: ByteBudgetCache[str, int] = ByteBudgetCache(3_000)
    cache.put({"a": 1}, 1_000)
    cache.put({"b": 2}, 3_000)
    cache.put({}, 0)
    assert cache.get("ab") == [1, None]
    assert cache.used == 1_000 + ENTRY_OVERHEAD
    with pytest.raises(InvalidInputError, match="cache_bytes must be 0 or more"):
        ByteBudgetCache(-1)


def test_while_it_is_held_nothing_leaves_whatever_the_budget() -> None:
    cache: ByteBudgetCache[str, int] = ByteBudgetCache(3_000)
    with cache.held(), cache.held():
        for key in "abcdef":
            cache.put({key: 1}, 5_000)  # each more than the budget
        assert cache.get("abcdef") == [1] * 6
    assert (cache.used, cache.get("abcdef")) == (0, [None] * 6)
    off: ByteBudgetCache[str, int] = ByteBudgetCache(0)
    with off.held():
        off.put({"a": 1}, 1)
        assert off.get("a") == [None]


ALPHABET = "0123456789+=()% abcdefghijklmnopqrstuvwxyz"


class Counting(PairTokenizer):
    """Counts how often it encodes each text."""

    def __init__(self, merges: Sequence[str]) -> None:
        super().__init__(ALPHABET, merges)
        self.encoded: Counter[str] = Counter()

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        self.encoded.update(texts)
        return super().encode_batch(texts)

    def encode_continuations(self, texts: Sequence[str]) -> list[Ids]:
        self.encoded.update(texts)
        return super().encode_continuations(texts)


def counting() -> list[Counting]:
    return [Counting([]), Counting(["ab"]), Counting(["bc", "cd"]), Counting(["01"])]


def test_a_round_encodes_each_text_once_for_each_distinct_tokenizer_at_any_size() -> None:
    # 8 agents of 4 tokenizers, 32 texts each: as a text needs more than 1 KiB of cache, 8 KiB hold a fortieth of them.
    tokenizers = counting()
    texts = [[f"agent {a} says {i} abcd" for i in range(32)] for a in range(8)]
    written = [
        completion_of(tokenizers[a % 4], ids, seed=a)
        for a in range(8)
        for ids in PairTokenizer.encode_batch(tokenizers[a % 4], texts[a])
    ]
    for held in (True, False):
        bridge = TokenizerBridge(tokenizers, cache_bytes=8 << 10)
        for tokenizer in tokenizers:
            tokenizer.encoded.clear()
        readers = [tokenizers[a % 4] for a in range(8)]
        if held:
            with bridge.round():
                found = [bridge.translate(written, reader) for reader in readers]
        else:
            found = [bridge.translate(written, reader) for reader in readers]
        assert {t.verdict for row in found for t in row} == {"exact"}
        most = max(max(t.encoded.values()) for t in tokenizers)
        assert most == (1 if held else 2)
        assert all(len(t.encoded) == 6 * 32 for t in tokenizers)  # what its own two agents wrote it does not encode
        assert bridge.cache_bytes_used <= 8 << 10


def test_a_round_of_training_encodes_each_text_once_for_each_distinct_tokenizer() -> None:
    tokenizers = {
        name: kind for kind in counting()[:2] for name in (f"{kind.fingerprint[:3]}a", f"{kind.fingerprint[:3]}b")
    }
    env = sharing.make("prp", mutual_env.make("mutual/arithmetic-v0", agents=list(tokenizers), digits=1, modulus=10))
    options = {"alphabet": "0123456789", "max_new_tokens": 3}
    policies = {name: learners.make("tabular", name=name, tokenizer=t, **options) for name, t in tokenizers.items()}
    loop = Loop(env, policies, 0, 8, TokenizerBridge(tokenizers.values(), cache_bytes=4 << 10))
    for tokenizer in tokenizers.values():
        tokenizer.encoded.clear()
    texts = {e.completion.text for info in loop.round(0).values() for group in info["groups"] for e in group}
    for tokenizer in tokenizers.values():
        said = {text: n for text, n in tokenizer.encoded.items() if text in texts}
        assert said
        assert set(said.values()) == {1}
    env.close()
