"""SentencePiece models: byte-pair and unigram, with byte fallback or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.machine import cores
from mutual_env.types import Ids
from tokenizers_bridge.declaration import Declaration
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer, PromptFormat
from tokenizers_bridge.kinds.prompts import PlainPrompt
from tokenizers_bridge.kinds.vocabulary import SPACE, Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import role_of


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


def from_sentencepiece(
    model: Any, *, name: str = "sentencepiece", prompt_format: PromptFormat | None = None
) -> AdaptedTokenizer:
    """A model file, its bytes, or a `SentencePieceProcessor`."""
    processor = _processor(model)
    size = processor.get_piece_size()
    pieces, roles, texts = [b""] * size, dict[int, Role](), dict[int, str]()
    for i in range(size):
        piece = processor.id_to_piece(i)
        if processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i):
            roles[i] = "unk" if processor.is_unknown(i) else role_of(piece)
            texts[i] = piece
        elif processor.is_byte(i):
            pieces[i] = bytes([int(piece[3:5], 16)])
        else:
            pieces[i] = piece.replace(SPACE, " ").encode()
    stop_id = processor.eos_id()
    if stop_id < 0:
        raise InvalidInputError(
            f"{name}: this SentencePiece model has no end-of-sentence id, so no completion could end"
        )
    roles[stop_id] = "eos"
    bos_id = processor.bos_id() if processor.bos_id() >= 0 else None
    if bos_id is not None:
        roles[bos_id] = "bos"
    prefix = str(processor.normalize("a")).startswith(SPACE)
    encoder = SentencePieceEncoder(processor)
    return AdaptedTokenizer(
        name=name,
        vocabulary=Vocabulary.of(pieces, roles),
        encoder=encoder,
        prompt_format=prompt_format or PlainPrompt(encoder, bos_id, stop_id),
        stop_id=stop_id,
        declaration=Declaration(prefix, SentencePieceForm(processor, prefix), "SentencePiece normaliser", texts),
        definition=("sentencepiece", processor.serialized_model_proto()),
    )


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
