"""A policy that is a table: no torch, exact probabilities, closed-form gradients. It really learns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from learners.checks import check_examples, check_finite, check_sequences
from learners.example import Example
from learners.losses import example_loss, pull
from learners.registry import takes
from learners.sampling import Sample, asked_for
from learners.step import Step, Stepped
from learners.stopping import Endings
from learners.update import UpdateOptions, update
from mutual_env.errors import IdentityMismatchError, InvalidInputError, StorageError
from mutual_env.prompts import PromptShape
from mutual_env.seeding import generator
from mutual_env.types import Completion, Context, Floats, Ids, Metrics, Prompt
from tokenizers_bridge.kinds.shaped import in_shape
from tokenizers_bridge.kinds.toy import CharTokenizer, PairTokenizer
from tokenizers_bridge.protocol import Tokenizer, stop_ids_of
from tokenizers_bridge.replies import Conversing

PRINTABLE = "\n" + "".join(chr(code) for code in range(32, 127))
FORMAT = "mutual-env tabular 1"

Table: TypeAlias = dict[tuple[int, ...], Floats]


@takes(UpdateOptions)
class TabularLearner:
    """A softmax over the next token for each (prompt, position, last `context` tokens), trained by gradient descent.

    Every row starts at zero logits, uniform over the vocabulary; control tokens other than the stop token, and with an
    `alphabet` every token that spells anything outside it, start at `-aversion` instead: rarely sampled, never
    impossible.
    Without a `tokenizer`, tokens are printable characters and the pairs of pieces in `merges`, in order of priority.
    Rows are made when they are first trained on, so memory grows with what was learnt. `options` are `UpdateOptions`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        *,
        name: str = "tabular",
        merges: Sequence[Sequence[str]] = (),
        max_new_tokens: int = 8,
        context: int = 1,
        alphabet: str = "",
        aversion: float = 20.0,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
        prompt: Mapping[str, Any] | None = None,
        learning_rate: float = 10.0,
        **options: Any,
    ) -> None:
        if max_new_tokens < 1:
            raise InvalidInputError(f"max_new_tokens of learner {name!r} must be at least 1, got {max_new_tokens}")
        if not temperature > 0.0:
            raise InvalidInputError(f"temperature of learner {name!r} must be above 0, got {temperature}")
        if context < 0 or learning_rate < 0:
            raise InvalidInputError(
                f"context and learning_rate of learner {name!r} must be at least 0, got {context} and {learning_rate}"
            )
        self._name = name
        self._tokenizer = tokenizer = in_shape(tokenizer or _toy_tokenizer(merges), PromptShape.of(prompt))
        self._conversing = Conversing(tokenizer)
        self._max_new_tokens = max_new_tokens
        self._context = context
        self._temperature = temperature
        self._endings = Endings.of(stop, tokenizer)
        self._learning_rate = learning_rate
        self._options = UpdateOptions(**{"constant_length": max_new_tokens, **options})
        self._initial = _initial_logits(tokenizer, alphabet, aversion)
        self._table: Table = {}
        self._reference: Table = {}
        self._version = 0

    @classmethod
    def dry_run(cls, **options: Any) -> None:
        """Built at once, there is nothing to hold back."""
        cls(**options)

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int:
        return self._version

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        """A group of n completions for each prompt."""
        rendered, seeds_PG = asked_for(prompts, n, seed, self._name, self._conversing)
        sizes = [self._prompt_size(prompt, ids) for prompt, ids in zip(prompts, rendered, strict=True)]
        return [
            tuple(self._sample(ids[:size], ids[size:], s) for s in seeds)
            for ids, size, seeds in zip(rendered, sizes, seeds_PG, strict=True)
        ]

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π(response | prompt) for each response token, at the temperature of `act`."""
        check_sequences(prompt_ids, response_ids, self._tokenizer.vocab_size)
        return [self._logprobs(p, r) for p, r in zip(prompt_ids, response_ids, strict=True)]

    def update(self, examples: Sequence[Example]) -> Metrics:
        """One update: a step of gradient descent for each minibatch that has something to teach."""
        check_examples(examples, self._tokenizer.vocab_size)
        metrics = update(examples, self, self._options)
        self._version += 1
        if self._options.resets_after(self._version):
            self._reference = dict(self._table)  # a step puts new rows in the place of old ones
        return metrics

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""
        return self._learning_rate

    def current(self, examples: Sequence[Example]) -> list[Floats]:
        """log π of every response token, now."""
        return [self._logprobs(e.prompt_ids, e.response_ids) for e in examples]

    def reference(self, examples: Sequence[Example]) -> list[Floats]:
        """The same before any update, or at the last reset."""
        return [self._logprobs(e.prompt_ids, e.response_ids, self._reference) for e in examples]

    def step(self, step: Step) -> Stepped:
        """One step of gradient descent."""
        gradients: Table = {}
        total = 0.0
        seen: list[Floats] = []
        for part in step.parts:
            example = part.example
            logprobs = self._logprobs(example.prompt_ids, example.response_ids)
            anchor = logprobs if part.anchor is None else part.anchor
            weights = step.weights(part, logprobs[example.mask])
            loss, slope = example_loss(example, logprobs, anchor, step.minibatch, weights)
            loss, slope = part.scale * loss, part.scale * slope
            if part.reference is not None:
                value, by_logprobs = pull(example, logprobs, part.reference)
                loss, slope = loss + part.kl_scale * value, slope + part.kl_scale * by_logprobs
            total += loss
            seen.append(logprobs[example.mask])
            self._accumulate(gradients, example, slope)
            if part.entropy_scale != 0.0:
                total -= part.entropy_scale * self._add_entropy(gradients, example, part.entropy_scale)
        norm = float(np.sqrt(sum(float(g @ g) for g in gradients.values())))
        check_finite(self._name, total, norm)
        for key, gradient in gradients.items():
            self._table[key] = self._logits(key) - self._learning_rate * gradient
        return Stepped(total, norm, tuple(seen))

    def save(self, directory: Path) -> None:
        state = {
            "format": FORMAT,
            "version": self._version,
            "tokenizer": self._tokenizer.fingerprint,
            "keys": [list(key) for key in self._table],
        }
        if self._options.reference_reset:
            state["reference"] = [list(key) for key in self._reference]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            np.save(directory / "table.npy", self._rows(self._table), allow_pickle=False)
            if self._options.reference_reset:
                np.save(directory / "reference.npy", self._rows(self._reference), allow_pickle=False)
            (directory / "state.json").write_text(json.dumps(state))
        except OSError as error:
            sentence = f"{directory} could not be written ({error}): free some space or save elsewhere"
            raise StorageError(sentence) from error

    def load(self, directory: Path) -> None:
        try:
            state = json.loads((directory / "state.json").read_text())
            table = np.load(directory / "table.npy", allow_pickle=False)
            resets = bool(self._options.reference_reset) and "reference" in state
            reference = np.load(directory / "reference.npy", allow_pickle=False) if resets else None
        except (OSError, ValueError, EOFError) as error:
            raise StorageError(f"{directory} holds no whole tabular checkpoint: {error}") from error
        if state.get("format") != FORMAT:
            raise StorageError(f"{directory}/state.json has format {state.get('format')!r}, this code reads {FORMAT!r}")
        own = self._tokenizer.fingerprint
        if state["tokenizer"] != own:
            raise IdentityMismatchError(f"{directory} was saved with tokenizer {state['tokenizer']}, learner has {own}")
        self._require_fit(directory / "table.npy", table, state["keys"])
        if reference is not None:
            self._require_fit(directory / "reference.npy", reference, state["reference"])
            self._reference = _table_of(state["reference"], reference)
        self._table = _table_of(state["keys"], table)
        self._version = int(state["version"])

    def _rows(self, table: Table) -> Floats:
        return np.array(list(table.values()), dtype=np.float64).reshape(len(table), self._initial.size)

    def _require_fit(self, file: Path, rows: Floats, keys: Sequence[Sequence[int]]) -> None:
        if rows.shape != (len(keys), self._initial.size):
            raise StorageError(f"{file} has shape {rows.shape}, state.json speaks of another table")

    def close(self) -> None:
        """Nothing is held."""

    def _key(self, prompt_ids: Ids, response: Sequence[int] | Ids, position: int) -> tuple[int, ...]:
        recent = response[max(0, position - self._context) : position]
        return (*prompt_ids.tolist(), -1, position, *(int(token) for token in recent))

    def _logits(self, key: tuple[int, ...]) -> Floats:
        return self._table.get(key, self._initial)

    def _logprobs(self, prompt_ids: Ids, response_ids: Ids, table: Table | None = None) -> Floats:
        table = self._table if table is None else table
        keys = (self._key(prompt_ids, response_ids, t) for t in range(response_ids.size))
        rows = (_log_softmax(table.get(key, self._initial) / self._temperature) for key in keys)
        return np.array([row[token] for row, token in zip(rows, response_ids, strict=True)], dtype=np.float64)

    def _prompt_size(self, prompt: Prompt | Context, ids: Ids) -> int:
        """Where the response begins: what was said in earlier turns is part of it, in sampling as in training."""
        return self._tokenizer.render_prompt(prompt.prompt).size if isinstance(prompt, Context) else ids.size

    def _sample(self, prompt_ids: Ids, said: Ids, seed: int) -> Completion:
        """What follows the prompt and what was said since."""
        uniforms = generator(seed).random(self._max_new_tokens)
        ids, stops = said.tolist(), stop_ids_of(self._tokenizer)
        logprobs: list[float] = []
        for position, u in enumerate(uniforms, start=said.size):
            row = _log_softmax(self._logits(self._key(prompt_ids, ids, position)) / self._temperature)
            cumulative = np.cumsum(np.exp(row))
            token = min(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")), row.size - 1)
            ids.append(token)
            logprobs.append(float(row[token]))
            if token in stops or (self._endings is not None and self._endings.length(ids[said.size :])):
                break
        sample = Sample(np.array(ids[said.size :], dtype=np.int32), np.array(logprobs))
        return sample.up_to_end(self._endings).completion(self._tokenizer, self._version)

    def _add_entropy(self, gradients: Table, example: Example, scale: float) -> float:
        """The entropy at the masked tokens; minus its gradient, scaled, is added: -dH/dz = p (log p + H)."""
        total = 0.0
        for t in np.flatnonzero(example.mask):
            key = self._key(example.prompt_ids, example.response_ids, int(t))
            row = _log_softmax(self._logits(key) / self._temperature)
            entropy = -float(np.exp(row) @ row)
            gradients[key] = gradients.get(key, 0.0) + scale / self._temperature * np.exp(row) * (row + entropy)
            total += entropy
        return total

    def _accumulate(self, gradients: Table, example: Example, slope: Floats) -> None:
        """Add the gradient by the rows of the table, from the one by the log-probabilities."""
        for t in np.flatnonzero(slope):
            key = self._key(example.prompt_ids, example.response_ids, int(t))
            row = -np.exp(_log_softmax(self._logits(key) / self._temperature))
            row[example.response_ids[t]] += 1.0
            gradients[key] = gradients.get(key, 0.0) + slope[t] / self._temperature * row


def _table_of(keys: Sequence[Sequence[int]], rows: Floats) -> Table:
    return {tuple(key): row.copy() for key, row in zip(keys, rows, strict=True)}


def _toy_tokenizer(merges: Sequence[Sequence[str]]) -> Tokenizer:
    """Printable characters, one id each, and the given pairs of pieces merged."""
    pairs = [(str(left), str(right)) for left, right in merges]
    return PairTokenizer(PRINTABLE, pairs) if pairs else CharTokenizer(PRINTABLE)


def _initial_logits(tokenizer: Tokenizer, alphabet: str, aversion: float) -> Floats:
    logits = np.zeros(tokenizer.vocab_size)
    allowed = set(alphabet)
    for token in range(tokenizer.vocab_size):
        foreign = bool(allowed) and not set(tokenizer.decode([token])) <= allowed
        if token != tokenizer.stop_id and (token in tokenizer.specials or foreign):
            logits[token] = -aversion
    return logits


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max()
    normalised: Floats = shifted - np.log(np.exp(shifted).sum())
    return normalised
