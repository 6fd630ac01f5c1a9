"""What is leased: a GPU, or the CPUs of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU by its number in the node; None: the node's CPUs, with its memory.

    `str` gives the text under which a record knows it, "node0/gpu1" or "node0/cpu", and `read` takes that back.
    """

    node: str
    gpu: int | None = None

    def __str__(self) -> str:
        return f"{self.node}/cpu" if self.gpu is None else f"{self.node}/gpu{self.gpu}"

    @classmethod
    def read(cls, text: str) -> Device:
        """A text without a kind is the CPUs of what it names: the serial executor records "local"."""
        node, separator, kind = text.rpartition("/")
        if separator and kind == "cpu":
            return cls(node)
        if separator and kind.startswith("gpu") and kind.removeprefix("gpu").isdecimal():
            return cls(node, int(kind.removeprefix("gpu")))
        return cls(text)
