"""SentencePiece models: byte-pair and unigram, with byte fallback or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.machine import cores
from mutual_env.types import Ids
from tokenizers_bridge.declaration import Boundary, Declaration
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer, PlainText, PromptFormat
from tokenizers_bridge.kinds.prompts import PlainPrompt
from tokenizers_bridge.kinds.vocabulary import SPACE, Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import STOP_ROLES, acts_as_control, is_tag, role_of


@dataclass(frozen=True, slots=True)
class SentencePieceEncoder:
    processor: Any

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        threads = min(max(len(texts), 1), cores())
        rows: list[Ids] = self.processor.encode(list(texts), return_type="numpy", num_threads=threads)
        return rows


@dataclass(frozen=True, slots=True)
class SentencePieceForm:
    """What the model's own normaliser makes of a text, the prefix space left out."""

    processor: Any
    prefix_space: bool

    def __call__(self, text: str) -> str:
        formed = str(self.processor.normalize(text))
        return (formed[1:] if self.prefix_space else formed).replace(SPACE, " ")


# A second normaliser specification behind the model is merged into its own: add_dummy_prefix is false.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


def from_sentencepiece(
    model: Any,
    *,
    name: str = "sentencepiece",
    prompt_format: PromptFormat | None = None,
    stop: str | Sequence[str] | None = None,
) -> AdaptedTokenizer:
    """A model file, its bytes, or a `SentencePieceProcessor`."""
    processor = _processor(model)
    pieces, roles, texts, tags = _table(processor)
    stops = _stops(processor, stop, name)
    for i in stops:
        roles[i] = roles[i] if roles.get(i) in STOP_ROLES else "eos"
        texts[i] = processor.id_to_piece(i)
    bos_id = processor.bos_id() if processor.bos_id() >= 0 else None
    if bos_id is not None:
        roles[bos_id] = "bos"
    prefix = str(processor.normalize("a")).startswith(SPACE)
    encoder = SentencePieceEncoder(processor)
    goes_on = SentencePieceEncoder(_processor(processor.serialized_model_proto() + _NO_DUMMY_PREFIX))
    form = SentencePieceForm(processor, prefix)
    # A prompt format is the publisher's, who puts the prefix before each text; without one an answer goes on.
    boundary = Boundary(continues=prompt_format is None)
    vocabulary = Vocabulary.of(pieces, roles)
    declaration = Declaration(prefix, form, "SentencePiece normaliser", texts, tags, boundary)
    plain = PlainText.of(encoder, goes_on if prefix else encoder, vocabulary, declaration, tags=False)
    return AdaptedTokenizer(
        name=name,
        vocabulary=vocabulary,
        encoder=encoder,
        continuation=goes_on if prefix else encoder,
        prompt_format=prompt_format or PlainPrompt(plain, bos_id, stops[0]),
        stop_id=stops[0],
        stop_ids=stops,
        declaration=declaration,
        definition=("sentencepiece", processor.serialized_model_proto()),
    )


def _table(processor: Any) -> tuple[list[bytes], dict[int, Role], dict[int, str], dict[int, Role]]:
    """Bytes of each id; roles and spellings of control tokens; roles of tags."""
    size = processor.get_piece_size()
    pieces, roles, texts, tags = [b""] * size, dict[int, Role](), dict[int, str](), dict[int, Role]()
    for i in range(size):
        piece = processor.id_to_piece(i)
        control = processor.is_control(i) or processor.is_unused(i) or acts_as_control(piece)
        if is_tag(piece):
            tags[i], pieces[i] = role_of(piece), piece.encode()
        elif processor.is_byte(i):
            pieces[i] = bytes([int(piece[3:5], 16)])
        elif control or processor.is_unknown(i):
            roles[i] = "unk" if processor.is_unknown(i) else role_of(piece)
            texts[i] = piece
        else:
            pieces[i] = piece.replace(SPACE, " ").encode()
    return pieces, roles, texts, tags


def _stops(processor: Any, stop: str | Sequence[str] | None, name: str) -> list[int]:
    texts = [stop] if isinstance(stop, str) else list(stop or [])
    ids = [processor.piece_to_id(text) for text in texts] or [processor.eos_id()]
    for text, i in zip(texts, ids, strict=False):
        if processor.id_to_piece(i) != text:
            raise InvalidInputError(f"{name}: stop token {text!r} is not in its vocabulary")
    if ids[0] < 0:
        raise InvalidInputError(
            f"{name}: this SentencePiece model has no end-of-sentence id, so no completion could end: name the stop "
            "token, load(..., stop=...)"
        )
    return ids


def _processor(model: Any) -> Any:
    if not isinstance(model, (str, Path, bytes)):
        return model
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError.of("a SentencePiece model", "tokenizers") from error
    if isinstance(model, bytes):
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    return sentencepiece.SentencePieceProcessor(model_file=str(model))
