"""Arithmetic over chunks for NumPy arrays and torch tensors alike: a tensor keeps its device and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def is_tensor(values: Any) -> bool:
    return hasattr(values, "detach")


def as_numpy(values: Any) -> npt.NDArray[Any]:
    """The values in this process's memory, without a gradient."""
    return np.asarray(values.detach().cpu() if is_tensor(values) else values)


def beside(array: npt.NDArray[Any], tensor: Any) -> Any:
    """A NumPy array as a tensor on the device of another."""
    import torch

    return torch.from_numpy(np.array(array)).to(tensor.device)


def sums_by_chunk(values: Any, chunks: npt.NDArray[np.int64], count: int) -> Any:
    """The sums of `values` (..., T) over equal numbers in `chunks` (..., T), as (..., count); -1 is in none.

    An array's sums are float64. A tensor's are of its own precision, float32 at least, and differentiable.
    """
    places = np.where(chunks < 0, count, chunks)  # one more place, for what is in no chunk
    if is_tensor(values):
        wide = values.float() if values.element_size() < 4 else values
        sums = wide.new_zeros((*wide.shape[:-1], count + 1)).scatter_add(-1, beside(places, wide), wide)
        return sums[..., :count]
    rows = int(np.prod(chunks.shape[:-1], dtype=np.int64))
    flat = (np.arange(rows)[:, None] * (count + 1) + places.reshape(rows, chunks.shape[-1])).ravel()
    weights = np.asarray(values, np.float64).ravel()
    # What is in no chunk must not spoil its neighbours: padding may be NaN or infinite.
    kept = chunks.ravel() >= 0
    sums = np.bincount(flat[kept], weights=weights[kept], minlength=rows * (count + 1))
    return sums.reshape(*chunks.shape[:-1], count + 1)[..., :count]


def of_chunks(sums: Any, chunks: npt.NDArray[np.int64]) -> Any:
    """For each token the number of its chunk: `sums` (..., C) at `chunks` (..., T), 0 where that is -1."""
    places = np.maximum(chunks, 0)
    if is_tensor(sums):
        if not sums.shape[-1]:
            return sums.new_zeros(chunks.shape)
        # What is in no chunk stands at the first for the while, whose sum may be infinite: 0 times that is no number.
        return sums.gather(-1, beside(places, sums)).masked_fill(beside(chunks < 0, sums), 0.0)
    if not sums.shape[-1]:
        return np.zeros(chunks.shape)
    return np.where(chunks >= 0, np.take_along_axis(sums, places, -1), 0.0)


def shape_of(values: Any) -> tuple[int, ...]:
    return tuple(values.shape) if hasattr(values, "shape") else np.asarray(values).shape
