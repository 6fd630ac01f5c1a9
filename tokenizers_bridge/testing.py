"""What every tokenizer must do before the bridge can trust it. `load` runs this; a third party's tokenizer should
too."""

from __future__ import annotations

import numpy as np

from mutual_env.errors import ConformanceError
from tokenizers_bridge.declaration import NOTHING, declaration_of
from tokenizers_bridge.edits import edits_between
from tokenizers_bridge.protocol import Tokenizer

PROBES = (
    "Hello, world",
    " leading space",
    "  two,    four,\t\ttabs and trailing  ",
    "def f(x):\n        return x ** 2\n\n\n# end",
    "line\r\nline\rline\n",
    "中文和日本語のテキスト、한국어",
    "😀👩\u200d👩\u200d👧🏽 🇺🇳",
    "e\u0301 a\u0308\u0323 \u0915\u094d\u0937\u093f \u1112\u1161\u11ab",
    "مرحبا שלום ไทย",
    "\x00\x01\x1b\x7f\x85\u2028\ufeff\ufffd",
    "𝔘𝔫𝔦 \U0010fffd \ue000",
    "1234567890 3.14e-10 ∑∫√ x²",
    "▁ literal ▁▁ Ġ Ċ ##ing",
    "",
)


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raise ConformanceError, with the probe, where bytes(encode(text)) is not the text up to declared changes, where
    text that spells a control token becomes one, or where the tables disagree with each other."""
    says = declaration_of(tokenizer)
    unknown = {i for i, role in tokenizer.specials.items() if role == "unk"}
    for probe, ids in zip(PROBES, tokenizer.encode_batch(PROBES), strict=True):
        data = tokenizer.token_bytes(ids)
        edits = edits_between(probe.encode(), data, NOTHING, says)
        if not edits.declared and not unknown & set(ids.tolist()):
            raise ConformanceError(f"{tokenizer!r} turns {probe!r} into {data!r}: no declared change explains that")
        if int(tokenizer.byte_lengths(ids).sum()) != len(data):
            raise ConformanceError(f"{tokenizer!r}: byte_lengths and token_bytes disagree on {probe!r}")
    _check_controls(tokenizer, unknown)


def _check_controls(tokenizer: Tokenizer, unknown: set[int]) -> None:
    every = np.fromiter(tokenizer.specials, np.int32, len(tokenizer.specials))
    if tokenizer.byte_lengths(every).any():
        raise ConformanceError(f"{tokenizer!r}: a control token stands for bytes")
    if tokenizer.stop_id not in tokenizer.specials:
        raise ConformanceError(f"{tokenizer!r}: stop_id {tokenizer.stop_id} is not among its control tokens")
    texts = sorted({text for text in declaration_of(tokenizer).control_texts.values() if text})
    spelled = [f"a{text}b {text}" for text in texts]
    for text, ids in zip(spelled, tokenizer.encode_batch(spelled), strict=True):
        leaked = (set(ids.tolist()) & set(tokenizer.specials)) - unknown
        if leaked:
            raise ConformanceError(f"{tokenizer!r}: the text {text!r} was encoded as control tokens {sorted(leaked)}")
