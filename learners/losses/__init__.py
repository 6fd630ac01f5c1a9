"""What an update can minimise: one file a loss, with its term in torch, its slope in NumPy and what it needs."""

from learners.losses.capped_sequence import CappedSequence
from learners.losses.cross_entropy import CrossEntropyLoss
from learners.losses.objective import (
    arrays_of,
    example_loss,
    is_own,
    kl_k3,
    own_scales,
    pull,
    scales,
    term_of,
    units_of_terms,
)
from learners.losses.policy_gradient import PolicyGradientLoss
from learners.losses.protocol import MAX_LOG_RATIO, Arrays, Loss, Needs, Tensors
from learners.losses.registry import loss_of, names, needs_of, register
from learners.losses.shaped_probability import ShapedProbability

__all__ = [
    "MAX_LOG_RATIO",
    "Arrays",
    "CappedSequence",
    "CrossEntropyLoss",
    "Loss",
    "Needs",
    "PolicyGradientLoss",
    "ShapedProbability",
    "Tensors",
    "arrays_of",
    "example_loss",
    "is_own",
    "kl_k3",
    "loss_of",
    "names",
    "needs_of",
    "own_scales",
    "pull",
    "register",
    "scales",
    "term_of",
    "units_of_terms",
]
