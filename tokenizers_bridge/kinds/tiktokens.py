"""tiktoken encodings, and everything that is one inside: Qwen, Llama 3 and 4, GPT-2, Mistral's Tekken."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
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

# tiktoken's regular expression overflows its stack on longer texts without a break, as the publishers of Llama found.
MAX_RUN = 25_000
# Characters that are encoded in about ten times what it takes to start a thread.
LEAST_SHARE = 30_000


@dataclass(frozen=True, slots=True)
class TiktokenEncoder:
    """Ordinary encoding of an `Encoding`, ids shifted by `shift`. `form` is applied first. Of its special tokens, text
    that spells one of `tags` becomes that one."""

    encoding: Any
    form: Form | None = None
    shift: int = 0
    tags: frozenset[str] = frozenset()

    ordinary: ClassVar[bool] = True

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        shares = _shares(texts, min(len(texts), cores()))
        if len(shares) < 2:
            return self._encode(texts)
        with ThreadPoolExecutor(len(shares)) as pool:
            return list(itertools.chain.from_iterable(pool.map(self._encode, shares)))

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        # The call inside encode_to_numpy: what that adds to it is a tenth of a short text's time.
        encode = self.encoding._core_bpe.encode_to_tiktoken_buffer
        if self.form is not None:
            texts = [text if text.isascii() else self.form(text) for text in texts]
        longest, joined = max(map(len, texts), default=0), "\n".join(texts) if self.tags else ""
        if longest <= MAX_RUN and not any(tag in joined for tag in self.tags):
            rows = [np.frombuffer(encode(text, _NONE_ALLOWED), np.int32) for text in texts]
        else:
            whole = [b"".join([encode(run, self._allowed(run)) for run in _runs(text)]) for text in texts]
            rows = [np.frombuffer(data, np.int32) for data in whole]
        return [row + self.shift for row in rows] if self.shift else rows

    def _allowed(self, run: str) -> frozenset[str]:
        return self.tags if any(tag in run for tag in self.tags) else _NONE_ALLOWED


_NONE_ALLOWED: frozenset[str] = frozenset()


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
    plain = TiktokenEncoder(encoding, form)
    bare = PlainPrompt(plain, specials[bos] if bos else None, specials[stops[0]])
    boundary = chat.boundary if chat else Boundary(continues=True)
    return _adapted(
        name or encoding.name, pieces, specials, TiktokenEncoder(encoding, form, tags=tags), encoding._pat_str,
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
    encoding = tiktoken.Encoding(path.stem, pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})
    pieces = [b""] * n_special + [b""] * n_ranks
    for piece, rank in ranks.items():
        pieces[n_special + rank] = piece
    encoder = TiktokenEncoder(encoding, shift=n_special)
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
