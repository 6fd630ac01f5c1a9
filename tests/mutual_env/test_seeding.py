"""Seeds are a function of their parts, and seeds made together are those made one by one."""

from __future__ import annotations

from mutual_env.seeding import derive_seed, derive_seeds


def test_seeds_made_together_are_those_made_one_by_one() -> None:
    parts = (3, "act", "ada", "1+2=\ud800", 0)
    assert derive_seeds(*parts, count=12) == tuple(derive_seed(*parts, index) for index in range(12))


def test_a_number_and_its_digits_are_different_parts_and_so_is_where_a_text_is_cut() -> None:
    seeds = {derive_seed(1, 2), derive_seed("1", 2), derive_seed("12"), derive_seed("1", "2"), derive_seed(12)}
    assert len(seeds) == 5
