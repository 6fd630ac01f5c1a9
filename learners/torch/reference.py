"""The policy that a KL term pulls to: the one that training began with, or a later one that took its place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch.nn import Parameter

from learners.torch.model import LanguageModel
from learners.torch.offload import offload, restore
from learners.update import UpdateOptions


class _Freezes(Protocol):
    def requires_grad_(self, requires_grad: bool = True) -> object: ...

    def parameters(self) -> Iterable[Parameter]: ...


P = TypeVar("P", bound=_Freezes)
Whole: TypeAlias = Callable[[Parameter], AbstractContextManager[Any]]


class ReferencePolicy(Generic[P]):
    """A frozen copy of `policy` as it is now, or none where `model` trains adapters: then it is the model without them.

    Nothing is copied where the coefficient of the term is 0. `copied` makes the copy, `prepare` is what is done to it
    before it is used; inside `whole` a weight is whole and may be written, where something cuts weights. `renew` makes
    it the policy as it is then; with adapters these are kept, and put in the place of the trained ones while the
    reference is asked.
    """

    def __init__(
        self,
        policy: P,
        model: LanguageModel,
        options: UpdateOptions,
        prepare: Callable[[P], P] = lambda copied: copied,
        copied: Callable[[P], P] = copy.deepcopy,
        whole: Whole = nullcontext,
    ) -> None:
        self._model = model
        self._whole = whole
        self._trained = model.trainable()
        self._frozen: P | None = None
        self._copies: dict[str, Parameter] = {}  # of the trained weights, in the frozen policy
        self._adapters: dict[str, torch.Tensor] = {}  # those of the reference; none: it has none
        self.is_renewed = options.kl_coefficient != 0.0 and options.reference_reset > 0
        if options.kl_coefficient != 0.0 and not model.lora:
            frozen = copied(policy)
            frozen.requires_grad_(False)
            names = {id(parameter): name for name, parameter in self._trained.items()}
            for trained, held in zip(policy.parameters(), frozen.parameters(), strict=True):
                if id(trained) in names:
                    self._copies[names[id(trained)]] = held
            self._frozen = prepare(frozen)

    def offload(self) -> None:
        if self._frozen is not None:
            offload(self._frozen)

    def restore(self) -> None:
        if self._frozen is not None:
            restore(self._frozen, self._model.device)

    def renew(self) -> None:
        """The trained policy, as it is now, from here on; one weight after the other."""
        if self._frozen is None:
            self._adapters = self._read(self._trained)
        else:
            for name, parameter in self._trained.items():
                self._write({name: self._copies[name]}, self._read({name: parameter}))

    def tensors(self, names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps of it; of these `names` alone, where they are given."""
        if self._frozen is not None:
            return self._read(self._copies, names)
        return {name: tensor for name, tensor in self._adapters.items() if names is None or name in names}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        if self._frozen is not None:
            self._write(self._copies, tensors)
        else:
            self._adapters = {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    @contextmanager
    def within(self, policy: P) -> Iterator[P]:
        """What is to be asked in place of `policy`, the one that trains."""
        if self._frozen is not None:
            yield self._frozen
        elif self._adapters:
            trained = self._read(self._trained)
            self._write(self._trained, self._adapters)
            try:
                yield policy
            finally:
                self._write(self._trained, trained)
        else:
            with self._model.adapted.disable_adapter():
                yield policy

    def _read(self, weights: Mapping[str, Parameter], names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
        found = {}
        for name, parameter in weights.items():
            with self._whole(parameter):
                if names is None or name in names:
                    found[name] = parameter.detach().to("cpu", copy=True).contiguous()
        return found

    def _write(self, weights: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in weights.items():
            with self._whole(parameter), torch.no_grad():
                parameter.data.copy_(tensors[name])
