"""The Tokenizer Heterogeneity Layer: what a peer wrote, in a reader's own tokens, and what was lost on the way."""

from tokenizers_bridge.bridge import TokenizerBridge
from tokenizers_bridge.declaration import Declaration, UnicodeForm
from tokenizers_bridge.distillation.batches import BatchAlignment, align_batch
from tokenizers_bridge.distillation.canonical import Canonical, canonical
from tokenizers_bridge.distillation.marginal import Marginal, first_bytes, marginal
from tokenizers_bridge.distillation.spellings import Spellings
from tokenizers_bridge.distillation.vocabularies import Projection, VocabularyMap
from tokenizers_bridge.kinds.loading import load
from tokenizers_bridge.kinds.toy import CharTokenizer, PairTokenizer, WordTokenizer
from tokenizers_bridge.protocol import Role, RowCoding, Spelling, Tokenizer
from tokenizers_bridge.rows import Rows
from tokenizers_bridge.testing import check_tokenizer
from tokenizers_bridge.translation.align import Alignment, align
from tokenizers_bridge.types import ACTIONS, Action, Fidelity, Residual, Translation, residual_metrics

__all__ = [
    "ACTIONS",
    "Action",
    "Alignment",
    "BatchAlignment",
    "Canonical",
    "CharTokenizer",
    "Declaration",
    "Fidelity",
    "Marginal",
    "PairTokenizer",
    "Projection",
    "Residual",
    "Role",
    "RowCoding",
    "Rows",
    "Spelling",
    "Spellings",
    "Tokenizer",
    "TokenizerBridge",
    "Translation",
    "UnicodeForm",
    "VocabularyMap",
    "WordTokenizer",
    "align",
    "align_batch",
    "canonical",
    "check_tokenizer",
    "first_bytes",
    "load",
    "marginal",
    "residual_metrics",
]
