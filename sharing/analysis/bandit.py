"""The contextual bandit: a context is a prompt, an arm is a response, a policy is a softmax over the arms.

Letters: A agents (row 0 is the reader), K arms. Parameters are the logits of one context; contexts share none, so an
update of the whole bandit is the concatenation of the updates of its contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError, MisalignedError
from mutual_env.types import Floats

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One prompt: who answers it how.

    `policies_AK`  probability of each arm under each agent; the reader is row 0, a teacher is row 1
    `correct_K`    which arms the verifier accepts (reward 1, else 0)
    `residual_K`   probability that a copy of this arm, carried between the reader's tokenizer and another agent's, has
                   no exact chunk: a peer's copy is then masked where its author's log-probability would be needed, and
                   a teacher has no opinion of it. The verifier's reward is not affected.
    `tokens`       how many a response has
    `divergent`    how many of them carry the choice, each with as much of the response's log-probability and score; the
                   others follow from these with certainty under every policy (0: all carry it)
    `chunk`        how many of those that carry it are compared as one, because the author's tokens are so much longer
    """

    name: str
    policies_AK: Floats
    correct_K: Bools
    residual_K: Floats
    tokens: int = 1
    divergent: int = 0
    chunk: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.divergent <= self.tokens or self.chunk < 1 or self.places % self.chunk:
            raise InvalidInputError(
                f"Context: of {self.tokens} tokens {self.divergent} cannot carry the choice in chunks of {self.chunk}"
            )
        arms = self.policies_AK.shape[-1]
        for field in ("correct_K", "residual_K"):
            if getattr(self, field).shape != (arms,):
                raise MisalignedError.of(f"Context.{field}", "policies_AK", arms, getattr(self, field).size)
        if np.any(self.policies_AK <= 0) or not np.allclose(self.policies_AK.sum(axis=1), 1.0, atol=1e-12):
            raise InvalidInputError("Context.policies_AK must be positive and sum to 1 in each row: take a softmax")

    @property
    def reader_K(self) -> Floats:
        reader: Floats = self.policies_AK[0]
        return reader

    @property
    def scores_KK(self) -> Floats:
        """Row y is ∇ log π(y) = e_y - π, the score of arm y in the reader's logits."""
        return np.eye(self.reader_K.size) - self.reader_K

    @property
    def places(self) -> int:
        """How many tokens carry the choice."""
        return self.divergent or self.tokens

    @property
    def units(self) -> int:
        """In how many chunks these are compared."""
        return self.places // self.chunk

    @property
    def ratios_AK(self) -> Floats:
        """Ratio of reader to author on a chunk that carries choice, (π/β)^(1/units). Row 0 is exactly 1."""
        return self._ratios(self.units)

    @property
    def mean_ratios_AK(self) -> Floats:
        """The geometric mean of token ratios, (π/β)^(1/tokens)."""
        return self._ratios(self.tokens)

    def _ratios(self, parts: int) -> Floats:
        return np.asarray(np.exp((np.log(self.reader_K) - np.log(self.policies_AK)) / parts), dtype=np.float64)

    @property
    def success(self) -> float:
        """The reader's probability of a correct response, p."""
        return float(self.reader_K @ self.correct_K)

    @property
    def gradient_K(self) -> Floats:
        """The true policy gradient ∇ p = π ⊙ (r - p)."""
        return self.reader_K * (self.correct_K - self.success)

    @property
    def growth_K(self) -> Floats:
        """∇ log p = π(· | correct) - π: the same direction, in a length that does not vanish where p does."""
        return self.gradient_K / self.success


def softmax(logits_K: Sequence[float] | Floats) -> Floats:
    shifted = np.asarray(logits_K, dtype=np.float64) - np.max(logits_K)
    return np.asarray(np.exp(shifted) / np.exp(shifted).sum(), dtype=np.float64)


def chi_square(reader_K: Floats, author_K: Floats) -> float:
    """χ²(π || β) = Σ π²/β - 1 = E_β[(π/β)²] - 1: how far the second moment of the importance ratio is above 1."""
    return float(np.sum(reader_K**2 / author_K) - 1.0)


CORRECT_K: Bools = np.array([True, True, False, False, False])

# What the reader and a peer that disagrees fully answer, as unnormalised masses on two correct and three wrong arms.
READER_AND_PEER: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "contested": ((0.35, 0.15, 0.30, 0.15, 0.05), (0.15, 0.35, 0.05, 0.15, 0.30)),
    "reader ahead": ((0.50, 0.25, 0.15, 0.07, 0.03), (0.05, 0.15, 0.20, 0.25, 0.35)),
    "peer ahead": ((0.05, 0.15, 0.45, 0.25, 0.10), (0.25, 0.50, 0.05, 0.10, 0.10)),
    "reader only": ((0.80, 0.10, 0.06, 0.03, 0.01), (0.01, 0.01, 0.38, 0.30, 0.30)),
    "rescue": ((0.001, 0.001, 0.598, 0.30, 0.10), (0.30, 0.30, 0.05, 0.10, 0.25)),
    "faint rescue": ((0.001, 0.001, 0.598, 0.30, 0.10), (0.06, 0.04, 0.30, 0.40, 0.20)),
    "beyond both": ((1e-5, 1e-5, 0.60, 0.30, 0.10), (1e-5, 1e-5, 0.20, 0.30, 0.50)),
    "mastered": ((0.80, 0.199, 0.0005, 0.00025, 0.00025), (0.30, 0.60, 0.05, 0.03, 0.02)),
}


def contexts(
    disagreement: float,
    residual: float,
    *,
    agents: int = 2,
    tokens: int = 1,
    divergent: int = 0,
    chunk: int = 1,
) -> tuple[Context, ...]:
    """The bandit at one point of the sweep.

    A peer's logits are (1-d) of the reader's and d of the table's: at d = 0 all agents are one policy, at d = 1 the
    peer is the table's. Every second further peer has its correct and its wrong arms in reversed order. The residual is
    the same for every arm.
    """
    if not (0.0 <= disagreement <= 1.0 and 0.0 <= residual <= 1.0):
        raise InvalidInputError(f"disagreement and residual lie in [0, 1], got {disagreement!r} and {residual!r}")
    reversed_arms = np.array([1, 0, 4, 3, 2])
    made = []
    for name, (reader, peer) in READER_AND_PEER.items():
        reader_logits, peer_logits = np.log(reader), np.log(peer)
        rows = [reader_logits]
        for index in range(1, agents):
            target = peer_logits if index % 2 else peer_logits[reversed_arms]
            rows.append((1.0 - disagreement) * reader_logits + disagreement * target)
        policies_AK = np.stack([softmax(row) for row in rows])
        residual_K = np.full(CORRECT_K.size, residual)
        made.append(Context(name, policies_AK, CORRECT_K, residual_K, tokens, divergent, chunk))
    return tuple(made)
