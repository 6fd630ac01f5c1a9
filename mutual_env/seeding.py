"""Seeds derived by hashing, so that no two uses share one and none depends on order or PYTHONHASHSEED."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for this exact sequence of parts, e.g. `derive_seed(run_seed, "act", round, policy, prompt)`."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(_bytes(part))
    return _seed(digest)


def derive_seeds(*parts: int | str, count: int) -> tuple[int, ...]:
    """`derive_seed(*parts, i)` for each i below `count`; what they have in common is hashed once."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(_bytes(part))
    seeds = []
    for index in range(count):
        last = digest.copy()
        last.update(_bytes(index))
        seeds.append(_seed(last))
    return tuple(seeds)


def _bytes(part: int | str) -> bytes:
    kind = "i" if isinstance(part, int) else "s"
    body = str(part).encode("utf-8", "surrogatepass")
    return f"{kind}{len(body)}:".encode() + body


def _seed(digest: hashlib.blake2b) -> int:
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A generator of its own for this exact sequence of parts."""
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))
