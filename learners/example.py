"""All that a learner sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from learners.units import Ints, Mask, Units
from mutual_env.errors import InvalidInputError, MisalignedError
from mutual_env.types import Aggregation, Floats, Ids, LossSpec, PolicyGradient

__all__ = ["Example", "Mask"]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sequence in the reader's tokens: prompt, then response.

    `prompt_ids` (N) and `response_ids` (T); everything else aligns with `response_ids`:
    `mask`        True where a token is trained on
    `advantages`  credit of each token
    `anchor`      log-probability that the ratio is taken against; None: that of the policy at the start of the update
    `units`       tokens of equal numbers are compared with their anchor as one, by their sums; None: each by itself
    `reference`   log-probability under the policy that a KL term pulls to, NaN where there is none; None: no KL term
    `reference_units`   the same as `units`, for that term
    `kl_weight`   the coefficient of that term
    `own`         whether the reader wrote it: what it regularises itself by (its KL) is taken on own samples alone
    `aggregation` how its loss is averaged; None: as the learner does
    `behaviour`   log-probability under the policy that sampled it, where that is the reader's own, of whatever version
                  and engine, and its loss is an expectation under the policy at the start of the update; NaN where it
                  is not known; None: nothing is to be corrected
    """

    prompt_ids: Ids
    response_ids: Ids
    mask: Mask
    advantages: Floats
    loss: LossSpec = field(default_factory=PolicyGradient)
    weight: float = 1.0
    order: int = 0
    anchor: Floats | None = None
    reference: Floats | None = None
    kl_weight: float = 0.0
    units: Ints | None = None
    reference_units: Ints | None = None
    behaviour: Floats | None = None
    own: bool = True
    aggregation: Aggregation | None = None
    _found: list[Units] = field(default_factory=list, init=False, repr=False)

    @property
    def trained_units(self) -> Units:
        """The units of the masked tokens, found once: every step, weight and metric of an update asks for them."""
        if not self._found:
            self._found.append(Units.among(self.mask, self.units))
        return self._found[0]

    def __post_init__(self) -> None:
        for name in ("mask", "advantages", "anchor", "reference", "units", "reference_units", "behaviour"):
            values = getattr(self, name)
            if values is not None and values.shape != self.response_ids.shape:
                raise MisalignedError.of(f"Example.{name}", "response_ids", self.response_ids.size, values.size)
        if self.prompt_ids.size == 0:
            raise InvalidInputError(
                "Example.prompt_ids is empty: the first response token would have nothing to follow"
            )
        if not np.all(np.isfinite(self.advantages[self.mask])):
            raise InvalidInputError("Example.advantages must be finite where the mask is True")
        if self.anchor is not None and not np.all(np.isfinite(self.anchor[self.mask])):
            raise InvalidInputError("Example.anchor must be finite where the mask is True")
        if self.behaviour is not None and np.isinf(self.behaviour[self.mask]).any():
            raise InvalidInputError("Example.behaviour must be finite, or NaN where it is not known")
        for name in ("units", "reference_units"):
            self._check_units(name, getattr(self, name))

    def _check_units(self, name: str, units: Ints | None) -> None:
        """What is compared as one is trained on as one."""
        if units is None:
            return
        if np.any(units[1:] < units[:-1]):
            raise InvalidInputError(f"Example.{name} must not fall: the tokens of a unit stand side by side")
        inside = units[1:] == units[:-1]
        if np.any(self.mask[1:][inside] != self.mask[:-1][inside]):
            raise InvalidInputError(f"Example.mask must be the same for all tokens of one of its {name}")
        if name == "reference_units" and self.reference is not None:
            known = np.isfinite(self.reference)
            if np.any(known[1:][inside] != known[:-1][inside]):
                raise InvalidInputError("Example.reference must be known for all tokens of one of its reference_units")
