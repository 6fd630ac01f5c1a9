"""What was computed of conversations, kept from one turn to the next: the keys and values of their first tokens.

A turn then costs what is new in it, the reply and what is written, and not the conversation so far. What decoding left
differs from what computing the prompt again would give by rounding alone (sums in another order): see docs/turns.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from learners.torch.attention import Prefill, sdpa
from learners.torch.decoding import GroupDecode
from mutual_env.types import Ids


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """Of the first `length` tokens of a sequence, by layer, (K, length, D) each."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        return int(self.keys[0].shape[1])

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


class ContextCache:
    """What was computed of the conversations of one version of a policy, at most `megabytes` of it. What finds no room
    is computed again when it is needed."""

    def __init__(self, megabytes: float) -> None:
        self._room = self._limit = int(megabytes * 2**20)
        self._kept: dict[bytes, Computed] = {}
        self._lengths: set[int] = set()

    def clear(self) -> None:
        """The weights have changed, or a new round begins."""
        self._room = self._limit
        self._kept, self._lengths = {}, set()

    def move(self, device: torch.device) -> None:
        """All of it lies there from here on."""
        for ids, computed in self._kept.items():
            keys, values = (tuple(t.to(device) for t in tensors) for tensors in (computed.keys, computed.values))
            self._kept[ids] = Computed(keys, values)

    def find(self, ids: Ids) -> Computed | None:
        """The longest beginning that is known, short of the last token: its state is what is sampled from."""
        for length in sorted(self._lengths, reverse=True):
            if length < ids.size:
                found = self._kept.get(ids[:length].tobytes())
                if found is not None:
                    return found
        return None

    def keep(self, ids: Ids, computed: Computed) -> None:
        """`ids` are the tokens that it was computed of. What was kept first makes room: earlier turns, as a rule."""
        if computed.size > self._limit or ids.tobytes() in self._kept:
            return
        while computed.size > self._room:
            self._room += self._kept.pop(next(iter(self._kept))).size
        self._room -= computed.size
        self._kept[ids.tobytes()] = computed
        self._lengths.add(ids.size)


class Continued(Prefill):
    """Rows of which the beginnings are known (None: nothing is): only the tokens after them are computed."""

    def __init__(self, known: Sequence[Computed | None], lengths: torch.Tensor) -> None:
        super().__init__(rows=len(known), longest=int(lengths.max()))
        self._known = known
        self._skipped = torch.tensor([0 if k is None else k.length for k in known], device=lengths.device)
        self._lengths = lengths

    def offsets(self, rows: int) -> list[int]:
        found: list[int] = self._skipped[self._at].tolist()
        return found

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        offsets = self._skipped[self._at]
        new = query.shape[2]
        places = offsets[:, None] + torch.arange(new, device=query.device)
        real = places < self._lengths[self._at][:, None]
        rows, columns = real.nonzero(as_tuple=True)
        where = self._at.start + rows, places[rows, columns]
        for kept, fresh, is_key in ((self.keys, key, True), (self.values, value, False)):
            if layer == len(kept):
                kept.append(self._begun(layer, fresh, is_key=is_key))
            kept[layer][where[0], :, where[1]] = fresh[rows, :, columns]
        end = int(self._lengths[self._at].max())
        distance = places[:, :, None] - torch.arange(end, device=query.device)
        seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        keys, values = (kept[layer][self._at, :, :end] for kept in (self.keys, self.values))
        return sdpa(query, keys, values, scaling, seen[:, None])

    def _begun(self, layer: int, fresh: torch.Tensor, *, is_key: bool) -> torch.Tensor:
        """(P, K, longest, D) with what is known in its place."""
        begun = fresh.new_empty(self._rows, fresh.shape[1], self._longest, fresh.shape[3])
        for row, known in enumerate(self._known):
            length = 0 if known is None else known.length
            if known is not None:
                begun[row, :, :length] = (known.keys if is_key else known.values)[layer]
            begun[row, :, length:] = 0.0  # what is not computed yet weighs nothing, and must be a number
        return begun


class Keeper:
    """Takes from a batch what was computed of the rows that leave it."""

    def __init__(self, cache: ContextCache, prompts: Sequence[Ids], prefill: Prefill, group: int) -> None:
        self._cache, self._prompts, self._prefill, self._group = cache, prompts, prefill, group

    def take(
        self, layout: GroupDecode, places: Sequence[int], rows: Sequence[int], tokens: Sequence[npt.NDArray[np.int32]]
    ) -> None:
        """`places` in the batch, numbers of the rows, and what was sampled: all but the last token was computed."""
        for place, row, sampled in zip(places, rows, tokens, strict=True):
            p, prompt = row // self._group, self._prompts[row // self._group]
            keys, values = [], []
            for layer, (key, value) in enumerate(zip(self._prefill.keys, self._prefill.values, strict=True)):
                own_key, own_value = layout.computed(layer, place, sampled.size - 1)
                keys.append(torch.cat((key[p, :, : prompt.size], own_key), dim=1))
                values.append(torch.cat((value[p, :, : prompt.size], own_value), dim=1))
            self._cache.keep(np.concatenate((prompt, sampled[:-1])), Computed(tuple(keys), tuple(values)))
