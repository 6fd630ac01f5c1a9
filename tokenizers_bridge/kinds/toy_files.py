"""A toy tokenizer in the files of transformers, so that a policy that was trained with one can be given away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mutual_env.errors import IdentityMismatchError, InvalidInputError, MissingExtraError
from tokenizers_bridge.kinds.loading import described
from tokenizers_bridge.kinds.toy import BOS, EOS

_CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def write_toy(spec: Mapping[str, Any], directory: Path) -> None:
    """`spec` as a configuration has it, of kind char or pair: both are byte-pair encodings of a small alphabet."""
    if spec.get("kind") not in ("char", "pair"):
        raise InvalidInputError(f"a tokenizer of kind {spec.get('kind')!r} has no form that transformers reads")
    try:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, processors
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtraError.of("writing a tokenizer", "torch") from error
    toy = described(spec)
    pieces = [toy.decode([token]) for token in range(2, toy.vocab_size)]
    vocabulary = {BOS: 0, EOS: 1, **{piece: token for token, piece in enumerate(pieces, start=2)}}
    merges = [(pair[0], pair[1]) for pair in spec.get("merges", ())]
    backend = Backend(models.BPE(vocab=vocabulary, merges=list(dict.fromkeys(merges))))
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    _check(backend, toy, spec["alphabet"])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS, chat_template=_CHAT)
    fast.save_pretrained(directory)


def _check(backend: Any, toy: Any, alphabet: str) -> None:
    """The same ids for what the alphabet can spell: every pair of its letters, one after the other."""
    text = "".join(a + b for a in alphabet for b in alphabet)
    got = np.array(backend.encode(text, add_special_tokens=False).ids, dtype=np.int32)
    if not np.array_equal(got, toy.encode_batch([text])[0]):
        raise IdentityMismatchError(f"{toy!r} encodes otherwise once it is written: it cannot be exported")
