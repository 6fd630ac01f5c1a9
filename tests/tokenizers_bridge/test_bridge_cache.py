"""The cache of the bridge: groups of entries, bounded in bytes."""

import pytest

from mutual_env.errors import InvalidInputError
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
