"""The repeated layer of a decoder as torch.compile makes it: a trainer's forward and backward in fewer passes.

The last digits of a compiled program hang on the sizes that it was compiled at, and a run that goes on after a kill
meets its batches in another order than one that was never killed. So nothing is ever compiled at a batch: the first of
a kind (see `Kind`) has the program made at an example that the kind alone decides, for any number of rows and tokens.
What none of these programs takes is computed as it is without them.
"""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from learners.torch.attention import CausalRows, Layout, PackedGroups
from learners.torch.compiler import require_compiler
from mutual_env.errors import InvalidInputError

ROWS, LENGTH = 2, 127  # of an example, where its kind leaves them open
PROGRAMS = 256
"""How many programs of one function torch may keep. Its own 8 are soon full: all policies of a process count together,
and a function that had one too many is never compiled again."""

_ONE_AT_A_TIME = threading.Lock()


class Computes(Protocol):
    """A decoder that is asked for hidden states."""

    device: torch.device

    def hidden(self, ids: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What parts one program from another. `far`: which of the model's windows are shorter than the sequences."""

    is_packed: bool
    is_one_row: bool
    is_one_token: bool
    far: tuple[bool, ...]
    learns: bool  # a backward follows
    is_trained: bool  # the weights are, whether or not a backward follows now
    threads: int

    @classmethod
    def of(cls, shape: Sequence[int], layout: Layout, windows: Sequence[int], *, is_trained: bool) -> Kind:
        rows, length = shape
        is_packed = isinstance(layout, PackedGroups)
        span = layout.span if isinstance(layout, PackedGroups) else length
        far = tuple(span > window for window in windows)
        learns, threads = torch.is_grad_enabled(), torch.get_num_threads()
        return cls(is_packed, rows == 1, length == 1, far, learns, is_trained, threads)

    def example(self, windows: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, Layout]:
        """Ids, positions and layout of a batch of this kind, the same each time."""
        rows = 1 if self.is_one_row else ROWS
        within = [window for window, is_far in zip(windows, self.far, strict=True) if not is_far]
        beyond = [window + 1 for window, is_far in zip(windows, self.far, strict=True) if is_far]
        length = 1 if self.is_one_token else max([min([LENGTH, *within]), *beyond])
        positions = torch.arange(length, device=device).repeat(rows, 1)
        layout: Layout = CausalRows()
        if self.is_packed:
            layout = PackedGroups((positions >= length // 2).long(), positions)
        return torch.zeros(rows, length, dtype=torch.long, device=device), positions, layout


class CompiledLayers:
    """The layers of one policy and of its copies."""

    def __init__(self, decoder: nn.Module, config: Any, device: torch.device) -> None:
        require_compiler(device)
        _layers(decoder)
        self._windows = _windows(config)
        self._known: set[Kind] = set()
        self._is_making = False
        self._backend = self._make  # one object: torch tells programs apart by it
        self._layer = torch.compile(_layer, backend=self._backend, dynamic=True, fullgraph=True)
        self.programs = self.unforeseen = 0

    def __deepcopy__(self, memo: object) -> CompiledLayers:
        """Layers come with each call, so that a copied model can use the same programs."""
        return self

    @contextmanager
    def within(self, model: Computes, decoder: nn.Module, shape: Sequence[int], layout: Layout) -> Iterator[None]:
        """Inside, forwards of this shape and layout, and their backward, are compiled ones."""
        layers = _layers(decoder)
        kind = Kind.of(shape, layout, self._windows, is_trained=any(p.requires_grad for p in layers.parameters()))
        for layer in layers:
            layer._compiled_call_impl = partial(self._layer, layer)
        try:
            if kind not in self._known:
                self._prepare(model, layers, kind)
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None

    def _prepare(self, model: Computes, layers: nn.ModuleList, kind: Kind) -> None:
        trained = [parameter for parameter in layers.parameters() if parameter.requires_grad]
        with _ONE_AT_A_TIME, _settings(), _explained(type(layers[0]).__name__):
            self._is_making = True
            try:
                hidden = model.hidden(*kind.example(self._windows, model.device))
                if kind.learns:  # nothing is added to the parameters' own gradients
                    torch.autograd.grad(hidden.sum(), trained, allow_unused=True)
            finally:
                self._is_making = False
        self._known.add(kind)

    def _make(self, graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        from torch._inductor.compile_fx import compile_fx

        if not self._is_making:
            self.unforeseen += 1
            warnings.warn("compile: a forward that no compiled layer takes is computed without", stacklevel=2)
            return graph  # type: ignore[no-any-return]
        self.programs += 1
        # one thread: workers of the compiler would outlive what they compile for, to save seconds of a single layer
        patches: dict[str, Any] = {"compile_threads": 1}
        if hasattr(importlib.import_module("torch._inductor.config"), "deterministic"):
            patches["deterministic"] = True  # no choice by timing, which would give other digits in the next process
        return compile_fx(graph, inputs, config_patches=patches)  # type: ignore[no-any-return]


def _layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return layer._call_impl(*args, **kwargs)


def _layers(decoder: nn.Module) -> nn.ModuleList:
    for child in decoder.children():
        if isinstance(child, nn.ModuleList):
            return child
    raise InvalidInputError(f"compile=True: {type(decoder).__name__} has no list of layers to compile: leave it out")


def _windows(config: Any) -> tuple[int, ...]:
    """Of the layers that see a number of tokens back: a program asks whether sequences are longer."""
    window = getattr(config, "sliding_window", None)
    return () if window is None else (int(window),)


@contextmanager
def _settings() -> Iterator[None]:
    """Sizes that are equal by accident stay different ones."""
    dynamo: Any = importlib.import_module("torch._dynamo").config
    shapes: Any = importlib.import_module("torch.fx.experimental._config")
    dynamo.recompile_limit = max(dynamo.recompile_limit, PROGRAMS)  # stays: what is compiled must be found again
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, PROGRAMS)
    before, shapes.use_duck_shape = shapes.use_duck_shape, False
    try:
        yield
    finally:
        shapes.use_duck_shape = before


@contextmanager
def _explained(layer: str) -> Iterator[None]:
    """A boundary: whatever the compiler fails of, what is to be done is the same."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = lines[:1] or [type(error).__name__]
        why = "; ".join(dict.fromkeys([*first, *[line for line in lines if "error:" in line][:1]]))
        raise InvalidInputError(
            f"compile=True: {layer} could not be compiled here ({why}): leave compile out"
        ) from error
