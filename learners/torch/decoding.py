"""Attention of one new token a row over its prompt, computed once for the group, and over the tokens of its own row.

Shapes: P prompts, G samples of each, R live rows, K key-value heads, r queries for each of those, D width of a head,
T width of the padded prompts.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from learners.torch.attention import Prefill

COPIED = 32
"""Prompts up to so many tokens are copied to their rows: one product a row then costs less than two."""

FIRST_ROOM = 512
"""New tokens that a row has room for at first. When that is full there is room for twice as many, for the rows that are
still there: most responses are far shorter than the longest that is allowed."""

Masks: TypeAlias = tuple[torch.Tensor | None, torch.Tensor | None]
"""What is added to the scores of the rows' caches, and of the shared prompts: -inf where a key is not seen."""


class _Cache:
    """One layer's keys (N, width, D) and values (N, D, width): so both products run along contiguous memory.

    N counts rows or prompts, and key-value heads within each.
    """

    __slots__ = ("_keys", "_values", "keys_across", "values_across")

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """From (owners, K, width, D) and (owners, K, D, width)."""
        self._keys = keys
        self._values = values
        self.keys_across = keys.flatten(0, 1).mT  # (N, D, width)
        self.values_across = values.flatten(0, 1).mT  # (N, width, D)

    def write(self, at: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """(owners, K, D) of each at one place."""
        self._keys[:, :, at] = keys
        self._values[:, :, :, at] = values

    def of(self, owners: torch.Tensor) -> _Cache:
        """Of these alone."""
        return _Cache(self._keys.index_select(0, owners), self._values.index_select(0, owners))

    def widened(self, width: int) -> _Cache:
        """With room for so many tokens."""
        owners, heads, there, size = self._keys.shape
        keys = self._keys.new_empty(owners, heads, width, size)
        values = self._values.new_empty(owners, heads, size, width)
        keys[:, :, :there], values[..., :there] = self._keys, self._values
        return _Cache(keys, values)

    def joined(self, other: _Cache) -> _Cache:
        """With the owners of another after these: as wide, where these are known and beyond."""
        keys, values = (
            torch.cat((mine, theirs)) for mine, theirs in ((self._keys, other._keys), (self._values, other._values))
        )
        return _Cache(keys, values)

    def cleared(self, places: slice) -> None:
        """What nobody sees weighs nothing, and must be a number."""
        self._keys[:, :, places] = 0.0
        self._values[:, :, :, places] = 0.0

    def shifted(self, first: int, by: int, count: int) -> None:
        """The `count` places from `first` on, so many places earlier."""
        for tensor, dim in ((self._keys, 2), (self._values, 3)):
            tensor.narrow(dim, first, count).copy_(tensor.narrow(dim, first + by, count).clone())

    def of_row(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(K, width, D) and (K, D, width)."""
        return self._keys[row], self._values[row]

    def moved(self, sources: torch.Tensor, targets: torch.Tensor, left: int) -> _Cache:
        """The first `left`, after these have moved to those places: nothing else is copied."""
        if targets.numel():
            for tensor in (self._keys, self._values):
                tensor.index_copy_(0, targets, tensor.index_select(0, sources))
        return _Cache(self._keys[:left], self._values[:left])


class GroupDecode:
    """A `Layout` of one token a row. A row that ends gives its place to the last one, and caches grow with the rows.

    Rows that are admitted later begin at a later place of the caches, and see nothing before it; when all rows that
    filled the first places are gone, what is left moves there.
    """

    def __init__(self, prefill: Prefill, lengths: torch.Tensor, group: int, new_tokens: int) -> None:
        prompts, self._kv_heads, self._longest, _ = prefill.keys[0].shape
        self._lengths = lengths  # of each prompt that has rows
        self._prompt_of = torch.arange(prompts, device=lengths.device).repeat_interleave(group)
        self._slots: torch.Tensor | None = None  # where the rows lie among (P, places), None: they fill it
        self._places = group
        self._start = self._longest if self._longest <= COPIED else 0  # of a row's own tokens in its cache
        self._capacity = new_tokens
        self._room = min(new_tokens, FIRST_ROOM)
        self._step = -1
        self._starts: torch.Tensor | None = None  # of each prompt's rows in the caches, None: all began at once
        pairs = list(zip(prefill.keys, prefill.values, strict=True))
        self._caches = [self._cache(key, value) for key, value in pairs]
        self._shared = [] if self._start else [_Cache(k, v.mT) for k, v in pairs]
        self._nothing = pairs[0][0].new_zeros(1, 1, 1)
        self._padding = self._masks(None)
        self._sliding: dict[int, Masks] = {}

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt that there is room for."""
        longest: int = self._longest
        return longest

    def _cache(self, key: torch.Tensor, value: torch.Tensor) -> _Cache:
        """Of the rows, with their prompts where those are copied."""
        rows, width = self._prompt_of.numel(), self._start + self._room
        keys = key.new_empty(rows, self._kv_heads, width, key.shape[3])
        values = value.new_empty(rows, self._kv_heads, value.shape[3], width)
        if self._start:
            keys.unflatten(0, (-1, self._places))[..., : self._start, :] = key[:, None]
            values.unflatten(0, (-1, self._places))[..., : self._start] = value.mT[:, None]
        return _Cache(keys, values)

    def begin(self, step: int) -> None:
        """What follows is the forward of the step-th new token of each row."""
        if step >= self._room:
            self._grow()
        self._step = step
        self._sliding = {}

    def go_on(self) -> None:
        """What follows is the forward of the next token of each row, whichever of its own that is."""
        following = self._step + 1
        if following >= self._room:
            following -= self._make_room()
        self.begin(following)

    def _make_room(self) -> int:
        """By so many places what is known has moved."""
        first = 0 if self._starts is None else int(self._starts[self._prompt_of].min())
        if 2 * first < self._room:
            self._capacity = max(self._capacity, 2 * self._room)
            self._grow()
            first = 0
        for cache in self._caches if first else ():
            cache.shifted(self._start, first, self._step + 1 - first)
        if self._starts is not None:
            self._starts = self._starts - first
        self._padding = self._masks(None)
        return first

    def admit(self, prefill: Prefill, lengths: torch.Tensor, group: int) -> None:
        """Groups of rows of further prompts, no longer than the longest before, after those that are there; their first
        tokens are of the next step."""
        known = self._lengths.numel()
        starts = self._lengths.new_zeros(known) if self._starts is None else self._starts
        self._starts = torch.cat((starts, starts.new_full((lengths.numel(),), self._step + 1)))
        self._lengths = torch.cat((self._lengths, lengths))
        new = torch.arange(lengths.numel(), device=lengths.device).repeat_interleave(group)
        before, places = self._prompt_of, self._places
        self._prompt_of, self._places = new, group
        for layer, (key, value) in enumerate(zip(prefill.keys, prefill.values, strict=True)):
            fresh = self._cache(key, value)
            fresh.cleared(slice(self._start, self._start + self._step + 1))
            self._caches[layer] = self._caches[layer].joined(fresh)
            if self._shared:
                self._shared[layer] = self._shared[layer].joined(_Cache(key, value.mT))
        self._prompt_of, self._places = torch.cat((before, known + new)), places
        if self._shared:
            self._find_places()
        self._padding = self._masks(None)

    def _grow(self) -> None:
        """One layer after the other: only one is there twice."""
        self._room = min(self._capacity, 2 * self._room)
        for layer, cache in enumerate(self._caches):
            self._caches[layer] = cache.widened(self._start + self._room)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone: the i-th of them is at place i from here on."""
        targets = (rows != torch.arange(rows.numel(), device=rows.device)).nonzero()[:, 0]
        sources = rows[targets]
        self._caches = [cache.moved(sources, targets, rows.numel()) for cache in self._caches]
        self._prompt_of = self._prompt_of[rows]
        if self._shared:
            self._find_places()
            self._padding = self._masks(None)
        elif self._padding[0] is not None:
            by_row = self._padding[0].unflatten(0, (-1, self._kv_heads))
            self._padding = by_row.index_select(0, rows).flatten(0, 1), None

    def computed(self, layer: int, row: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (K, count, D) of the first new tokens of a row of the batch."""
        keys, values = self._caches[layer].of_row(row)
        own = slice(self._start, self._start + count)
        return keys[:, own], values[:, :, own].mT

    def _find_places(self) -> None:
        """Where each row lies among those of its prompt; prompts without rows are left out."""
        live, owners, counts = torch.unique(self._prompt_of, return_inverse=True, return_counts=True)
        if live.numel() < self._lengths.numel():
            self._lengths = self._lengths[live]
            self._starts = None if self._starts is None else self._starts[live]
            self._shared = [cache.of(live) for cache in self._shared]
        self._prompt_of = owners
        self._places = int(counts.max())
        order = torch.argsort(owners, stable=True)
        first = (torch.cumsum(counts, 0) - counts)[owners]
        self._slots = owners * self._places - first
        self._slots[order] += torch.arange(owners.numel(), device=owners.device)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        rows, heads, _, width = query.shape
        cache, at = self._caches[layer], self._start + self._step
        cache.write(at, key[:, :, 0], value[:, :, 0])
        keys, values = cache.keys_across[:, :, : at + 1], cache.values_across[:, : at + 1]
        queries = query.reshape(rows * self._kv_heads, -1, width)
        own_mask, prompt_mask = self._seen_through(window)
        scores = self._scores(queries, keys, scaling, None if own_mask is None else own_mask[:, :, : at + 1])
        if not self._shared:
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
            return torch.bmm(weights, values).view(rows, heads, 1, width)
        shared = self._shared[layer]
        prompt_scores = self._scores(self._to_prompts(queries), shared.keys_across, scaling, prompt_mask)
        scores = torch.cat((self._to_rows(prompt_scores, queries.shape[1]), scores), dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        prompt_weights, own_weights = weights.split((self._longest, at + 1), dim=-1)
        output = self._to_rows(torch.bmm(self._to_prompts(prompt_weights), shared.values_across), queries.shape[1])
        return torch.baddbmm(output, own_weights, values).view(rows, heads, 1, width)

    def _scores(
        self, queries: torch.Tensor, keys: torch.Tensor, scaling: float, mask: torch.Tensor | None
    ) -> torch.Tensor:
        if mask is None:
            return torch.baddbmm(self._nothing, queries, keys, beta=0, alpha=scaling)
        return torch.baddbmm(mask, queries, keys, alpha=scaling)

    def _to_prompts(self, rows: torch.Tensor) -> torch.Tensor:
        """(R·K, r, X) to (P·K, places·r, X)."""
        by_row = rows.unflatten(0, (-1, self._kv_heads))
        if self._slots is not None:
            spread = by_row.new_zeros(self._lengths.numel() * self._places, *by_row.shape[1:])
            by_row = spread.index_copy_(0, self._slots, by_row)
        return by_row.unflatten(0, (-1, self._places)).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _to_rows(self, prompts: torch.Tensor, repeats: int) -> torch.Tensor:
        """(P·K, places·r, X) to (R·K, r, X)."""
        by_prompt = prompts.view(-1, self._kv_heads, self._places, repeats, prompts.shape[-1])
        by_row = by_prompt.transpose(1, 2).flatten(0, 1)
        if self._slots is not None:
            by_row = by_row.index_select(0, self._slots)
        return by_row.flatten(0, 1)

    def _seen_through(self, window: int | None) -> Masks:
        if window is None or self._longest + self._step < window:
            return self._padding
        if window not in self._sliding:
            self._sliding[window] = self._masks(window)
        return self._sliding[window]

    def _masks(self, window: int | None) -> Masks:
        lengths = self._lengths[:, None]
        place = torch.arange(self._longest, device=lengths.device)
        own = torch.arange(self._capacity, device=lengths.device)
        if window is None:
            if self._starts is None and int(lengths.min()) == self._longest:
                return None, None
            prompt_seen, own_seen = place < lengths, own >= 0
        else:
            begun = 0 if self._starts is None else self._starts[:, None]
            prompt_seen = (place < lengths) & (lengths + self._step - begun - place < window)
            own_seen = self._step - own < window
        if self._starts is not None:
            own_seen = own_seen & (own >= self._starts[:, None])
        if self._shared:
            of_rows = own_seen[None] if self._starts is None else self._by_row(own_seen)
            return self._mask(of_rows), self._mask(prompt_seen.repeat_interleave(self._kv_heads, dim=0))
        row_seen = torch.cat((prompt_seen, own_seen.expand(lengths.shape[0], -1)), dim=1)
        return self._mask(self._by_row(row_seen)), None

    def _by_row(self, by_prompt: torch.Tensor) -> torch.Tensor:
        """(P, X) to (R·K, X)."""
        return by_prompt[self._prompt_of].repeat_interleave(self._kv_heads, dim=0)

    def _mask(self, seen: torch.Tensor) -> torch.Tensor:
        return self._nothing.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)[:, None]
