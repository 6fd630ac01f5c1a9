"""What a loss is: a frozen dataclass that states what it needs, and gives its term in torch and its slope in NumPy.

No loss imports torch: a term is written with the methods of the tensors it is given.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.types import Floats, LossSpec

if TYPE_CHECKING:
    import torch

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped here: e^20 is beyond every clip, and its gradient (zero) is not a NaN."""

Denominator: TypeAlias = Literal["policy_gradient", "others_policy_gradient", "own"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a loss asks of those that compute it.

    `anchor`           its ratio is taken against an anchor, which must be known when the policy has moved on
    `whole_sequences`  a term depends on other tokens of its sequence, so that a sequence is never cut
    `minibatch`        it changes with the index of the minibatch within the update
    `advantage`        without one it has nothing to teach
    `denominator`      whose tokens it is averaged over: "policy_gradient", all that share a step's credit, its own
                       among them; "others_policy_gradient", the same without being counted among them; or "own",
                       those with a loss of the same kind, so that its weight means the same whatever the batch
    """

    anchor: bool = False
    whole_sequences: bool = False
    minibatch: bool = False
    advantage: bool = True
    denominator: Denominator = "policy_gradient"


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """The trained tokens of one example, each (N): log π, what its ratio is taken against, its credit.

    What is compared as one counts as one token here, by its sums; not for a loss that needs whole sequences, whose
    means are over tokens. For a loss that takes `several_sequences` each may be (S, N), of sequences of one length.
    """

    log_pi: Floats
    anchor: Floats
    advantages: Floats
    minibatch: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """The same of several examples in one row, each (N); `owners` (N) numbers the example of each token."""

    log_pi: torch.Tensor
    anchor: torch.Tensor
    advantages: torch.Tensor
    owners: torch.Tensor
    minibatch: int = 0

    def among(self, chosen: torch.Tensor) -> Tensors:
        """Some of them, by their places."""
        rows = (self.log_pi[chosen], self.anchor[chosen], self.advantages[chosen], self.owners[chosen])
        return Tensors(*rows, self.minibatch)

    def mean_by_example(self, values: torch.Tensor) -> torch.Tensor:
        """Each token's value replaced by the mean over its example."""
        return self.sum_by_example(values) / self.sum_by_example(values.new_ones(values.shape))

    def sum_by_example(self, values: torch.Tensor) -> torch.Tensor:
        """Each token's value replaced by the sum over its example."""
        size = int(self.owners.max()) + 1 if self.owners.numel() else 0
        return values.new_zeros(size).index_add(0, self.owners, values)[self.owners]


class Loss(LossSpec):
    """A loss that can be computed. `learners.testing.check_loss` holds its term and its slope together.

    Ours extend the `LossSpec` that strategies name them by; a loss of another package is its own spec, and reaches
    every learner under its name in the entry-point group `mutual_env.losses`.
    """

    __slots__ = ()
    several_sequences: ClassVar[bool] = False
    """Of a loss that needs whole sequences: `slope` and `beyond_cap` take several at once, their tokens along the last
    axis. Metrics of an update ask for them, one sequence after the other where it is False."""

    @property
    def needs(self) -> Needs:
        return Needs()

    def beyond_cap(self, at: Arrays) -> npt.NDArray[np.bool_] | None:
        """(N): where a ratio has passed the loss's own cap on it, whatever that does; None: there is no cap."""
        return None

    @abstractmethod
    def term(self, at: Tensors) -> torch.Tensor:
        """(N): what each token adds to the loss; gradients are autograd's."""

    @abstractmethod
    def slope(self, at: Arrays) -> tuple[Floats, Floats]:
        """(N) each: the same term, and the gradient of its sum by `log_pi`."""
