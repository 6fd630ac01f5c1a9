"""The policy that training began with, which a KL term pulls to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from torch.nn import Parameter

from learners.torch.model import LanguageModel
from learners.torch.offload import offload, restore


class _Freezes(Protocol):
    def requires_grad_(self, requires_grad: bool = True) -> object: ...

    def parameters(self) -> Iterable[Parameter]: ...


P = TypeVar("P", bound=_Freezes)


class InitialPolicy(Generic[P]):
    """A frozen copy of `policy` as it is now, or none where `model` trains adapters: then it is the model without them.

    Nothing is copied where the coefficient of the term is 0. `prepare` is what is done to the copy before it is used.
    """

    def __init__(
        self, policy: P, model: LanguageModel, coefficient: float, prepare: Callable[[P], P] = lambda copied: copied
    ) -> None:
        self._model = model
        self._frozen: P | None = None
        if coefficient != 0.0 and not model.lora:
            frozen = copy.deepcopy(policy)
            frozen.requires_grad_(False)
            self._frozen = prepare(frozen)

    def offload(self) -> None:
        if self._frozen is not None:
            offload(self._frozen)

    def restore(self) -> None:
        if self._frozen is not None:
            restore(self._frozen, self._model.device)

    @contextmanager
    def within(self, policy: P) -> Iterator[P]:
        """What is to be asked in place of `policy`, the one that trains."""
        if self._frozen is not None:
            yield self._frozen
            return
        with self._model.adapted.disable_adapter():
            yield policy
