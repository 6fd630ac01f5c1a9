"""Policies that learn: one protocol, several backends behind it, and the batch that every strategy compiles down to."""

from learners.batch import Batch, build_batch
from learners.example import Example
from learners.protocol import Learner
from learners.registry import make, names, register
from learners.seat import seated

__all__ = ["Batch", "Example", "Learner", "build_batch", "make", "names", "register", "seated"]
