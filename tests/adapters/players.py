"""Two players of Nim: texts in, moves out."""

from __future__ import annotations

import re


def piles(heard: str) -> list[int]:
    """As the board that was shown last has them."""
    board = re.findall(r"pile (\d+): (\d+)", heard)[-3:]
    return [int(size) for _, size in board]


def greedy(heard: str, seed: int) -> str:
    """Takes the first pile that is left, whole."""
    return next(f"[{i} {size}]" for i, size in enumerate(piles(heard)) if size)


def best(heard: str) -> str:
    """Leaves piles whose sum without carrying is 0, where it can."""
    left = piles(heard)
    total = left[0] ^ left[1] ^ left[2]
    for i, size in enumerate(left):
        if size ^ total < size:
            return f"[{i} {size - (size ^ total)}]"
    return greedy(heard, 0)
