"""tiktoken encodings, and everything that is one inside: Qwen, Llama 3 and 4, GPT-2, Mistral's Tekken."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.machine import cores
from mutual_env.types import Ids
from tokenizers_bridge.declaration import NOTHING, Boundary, Declaration, Form
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer, PromptFormat
from tokenizers_bridge.kinds.prompts import ChatFormat, ChatFormatPrompt, PlainPrompt
from tokenizers_bridge.kinds.vocabulary import Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import STOP_ROLES, is_plain_tag, is_tag, role_of
from tokenizers_bridge.rows import Rows

# tiktoken's regular expression overflows its stack on longer texts without a break, as the publishers of Llama found.
MAX_RUN = 25_000
# Characters that are encoded in about ten times what it takes to start a thread.
LEAST_SHARE = 30_000


@dataclass(frozen=True, slots=True)
class TiktokenEncoder:
    """Ordinary encoding of an `Encoding`, ids shifted by `shift`. `form` is applied first. Of its special tokens, text
    that spells one of `tags` becomes that one; texts that do not spell `separator` are encoded in one call, in which it
    stands between them: what is on one side of a special token has no part in how the other is cut."""

    encoding: Any
    form: Form | None = None
    shift: int = 0
    tags: frozenset[str] = frozenset()
    separator: str | None = None

    ordinary: ClassVar[bool] = True

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [row.copy() for row in self.rows(texts)]

    def rows(self, texts: Sequence[str]) -> Rows:
        shares = _shares(texts, min(len(texts), cores()))
        if len(shares) < 2:
            return self._encode(texts)
        with ThreadPoolExecutor(len(shares)) as pool:
            return Rows.joined(list(pool.map(self._encode, shares)))

    def _encode(self, texts: Sequence[str]) -> Rows:
        if self.form is not None:
            texts = [text if text.isascii() else self.form(text) for text in texts]
        rows = self._at_once(texts) if max(map(len, texts), default=0) <= MAX_RUN else None
        if rows is None:
            rows = Rows.of([self._one(text) for text in texts])
        return Rows(rows.ids + np.int32(self.shift), rows.starts, rows.sizes) if self.shift else rows

    def _at_once(self, texts: Sequence[str]) -> Rows | None:
        """None where the separator would not say where each text ends."""
        if self.separator is None:
            return None
        joined = self.separator.join([*texts, ""])
        if joined.count(self.separator) != len(texts):
            return None
        ids = self._ids(joined, {self.separator, *self._tags_in(joined)})
        ends = (ids == self.encoding._special_tokens[self.separator]).nonzero()[0]
        if ends.size != len(texts):  # one that overlaps with another special token
            return None
        starts = np.zeros(ends.size, np.int64)
        starts[1:] = ends[:-1] + 1
        return Rows(ids, starts, ends - starts)

    def _one(self, text: str) -> Ids:
        parts = [self._ids(run, self._tags_in(run)) for run in _runs(text)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _ids(self, text: str, allowed: Collection[str]) -> Ids:
        # The call inside encode_to_numpy: what that adds to it is a tenth of a short text's time.
        data = self.encoding._core_bpe.encode_to_tiktoken_buffer(text, frozenset(allowed))
        return np.frombuffer(data, np.int32)

    def _tags_in(self, text: str) -> frozenset[str]:
        return self.tags if any(tag in text for tag in self.tags) else _NONE_ALLOWED


_NONE_ALLOWED: frozenset[str] = frozenset()


def _separator(specials: Iterable[str]) -> str | None:
    """A special token of which no two can overlap, as its first character comes once in it."""
    return next((text for text in specials if len(text) > 1 and text.count(text[0]) == 1 and not is_tag(text)), None)


def _shares(texts: Sequence[str], workers: int) -> list[Sequence[str]]:
    """The texts in runs of about equal size, one a worker; fewer where a thread would cost more than it saves."""
    ends = np.fromiter(map(len, texts), np.int64, len(texts)).cumsum()
    workers = min(workers, 1 + int(ends[-1]) // LEAST_SHARE) if texts else 0
    cuts = ends.searchsorted(np.arange(1, workers) * (ends[-1] / workers)).tolist() if workers > 1 else []
    return [texts[a:b] for a, b in itertools.pairwise([0, *cuts, len(texts)]) if b > a]


def _runs(text: str) -> Iterator[str]:
    """The text, cut where it goes on for more than MAX_RUN characters without a change between space and non-space."""
    if len(text) <= MAX_RUN:
        yield text
        return
    start = at = 0
    for _, group in itertools.groupby(text, str.isspace):
        end = at + sum(1 for _ in group)
        while end - at > MAX_RUN:
            at += MAX_RUN
            yield text[start:at]
            start = at
        at = end
    yield text[start:]


def from_tiktoken(
    encoding: Any,
    *,
    name: str = "",
    form: Form | None = None,
    form_name: str = "",
    chat: ChatFormat | None = None,
    bos: str | None = None,
    stop: str | Sequence[str] | None = None,
) -> AdaptedTokenizer:
    """An `Encoding`. `form` is a change the publisher makes before encoding; `chat`, `bos`, `stop` are how it is
    prompted."""
    ranks: Mapping[bytes, int] = encoding._mergeable_ranks
    specials: Mapping[str, int] = encoding._special_tokens
    pieces = [b""] * encoding.n_vocab
    for piece, rank in ranks.items():
        pieces[rank] = piece
    stops = _stops(specials, stop, encoding.name)
    tags = frozenset(text for text in specials if is_plain_tag(text))
    plain = TiktokenEncoder(encoding, form, separator=_separator(specials))
    bare = PlainPrompt(plain, specials[bos] if bos else None, specials[stops[0]])
    boundary = chat.boundary if chat else Boundary(continues=True)
    return _adapted(
        name or encoding.name, pieces, specials, replace(plain, tags=tags), encoding._pat_str,
        Declaration(form=form, form_name=form_name, boundary=boundary),
        stops, ChatFormatPrompt(chat, plain, specials) if chat else bare,
    )  # fmt: skip


def _stops(specials: Mapping[str, int], stop: str | Sequence[str] | None, name: str) -> list[str]:
    given = [stop] if isinstance(stop, str) else list(stop or [])
    given = given or [text for text in specials if role_of(text) == "eos"][:1] or ["<eos>"]
    for text in given:
        if text not in specials:
            raise InvalidInputError(f"{name}: stop token {text!r} is not among {sorted(specials)[:8]}: name another")
    return given


def from_tekken(
    path: Path,
    *,
    name: str = "",
    prompt_format: PromptFormat | None = None,
    stop: str | Sequence[str] | None = None,
) -> AdaptedTokenizer:
    """Mistral's Tekken file: the special tokens come first, the ranks of a tiktoken encoding behind them."""
    try:
        import tiktoken
    except ImportError as error:
        raise MissingExtraError.of("a Tekken tokenizer", "tokenizers") from error
    data = json.loads(path.read_text("utf-8"))
    config = data["config"]
    n_special = int(config["default_num_special_tokens"])
    n_ranks = int(config["default_vocab_size"]) - n_special
    ranks = {base64.b64decode(row["token_bytes"]): int(row["rank"]) for row in data["vocab"][:n_ranks]}
    specials = {f"<SPECIAL_{i}>": i for i in range(n_special)}
    named = data.get("special_tokens") or [{"rank": i, "token_str": text} for i, text in enumerate(_TEKKEN_SPECIALS)]
    for row in named:
        del specials[f"<SPECIAL_{row['rank']}>"]
        specials[row["token_str"]] = int(row["rank"])
    # Its own special tokens are none of the encoding's, which has one to be told apart by.
    separator = "<|separator|>"
    encoding = tiktoken.Encoding(
        path.stem, pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={separator: n_ranks}
    )
    pieces = [b""] * n_special + [b""] * n_ranks
    for piece, rank in ranks.items():
        pieces[n_special + rank] = piece
    encoder = TiktokenEncoder(encoding, shift=n_special, separator=separator)
    stops = _stops(specials, stop or "</s>", name or path.stem)
    prompt_format = prompt_format or PlainPrompt(encoder, specials["<s>"], specials[stops[0]])
    return _adapted(name or path.stem, pieces, specials, encoder, config["pattern"], NOTHING, stops, prompt_format)


# Files of version 7 and before leave their special tokens out; these are their ranks, in order.
_TEKKEN_SPECIALS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip


def _adapted(
    name: str,
    pieces: list[bytes],
    specials: Mapping[str, int],
    encoder: TiktokenEncoder,
    pattern: str,
    declaration: Declaration,
    stops: Sequence[str],
    prompt_format: PromptFormat,
) -> AdaptedTokenizer:
    roles: dict[int, Role] = {i: role_of(text) for text, i in specials.items() if not is_tag(text)}
    roles |= {specials[text]: "eos" for text in stops if role_of(text) not in STOP_ROLES}
    tags = {i: role_of(text) for text, i in specials.items() if i not in roles}
    for text, i in specials.items():
        pieces[i] = text.encode() if i in tags else b""
    definition = ("tiktoken", pattern, declaration.form_name, *_flat(pieces), json.dumps(sorted(specials.items())))
    controls = {i: text for text, i in specials.items() if i in roles}
    return AdaptedTokenizer(
        name=name,
        vocabulary=Vocabulary.of(pieces, roles),
        encoder=encoder,
        prompt_format=prompt_format,
        stop_id=specials[stops[0]],
        stop_ids=[specials[text] for text in stops],
        declaration=replace(declaration, control_texts=controls, tags=tags),
        definition=definition,
        verbatim=encoder.form is None,
    )


def _flat(pieces: list[bytes]) -> tuple[bytes, bytes]:
    return np.fromiter(map(len, pieces), np.int32, len(pieces)).tobytes(), b"".join(pieces)
