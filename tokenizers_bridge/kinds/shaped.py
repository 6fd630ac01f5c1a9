"""A tokenizer whose prompts take a shape of their own: one policy is shown examples, another one asked in a chat."""

from __future__ import annotations

from dataclasses import dataclass

from mutual_env.errors import InvalidInputError
from mutual_env.prompts import PromptShape
from mutual_env.types import Ids, Prompt
from tokenizers_bridge.kinds.adapted import PromptFormat
from tokenizers_bridge.kinds.prompts import PlainPrompt
from tokenizers_bridge.protocol import Promptable, Tokenizer

_PROBE = "0"


def in_shape(tokenizer: Tokenizer, shape: PromptShape) -> Tokenizer:
    """The same vocabulary and fingerprint; `render_prompt` renders what the shape makes of a prompt. With `chat` False
    that is text without the chat template."""
    if shape == PromptShape():
        return tokenizer
    if not isinstance(tokenizer, Promptable):
        raise InvalidInputError(
            f"a {type(tokenizer).__name__} takes no `prompt`: give it a method with_prompts(prompt_format), or shape "
            "the prompts of the env instead (env.options.prompt)"
        )
    rendered = _without_template(tokenizer) if shape.chat is False else tokenizer.render_prompt
    return tokenizer.with_prompts(ShapedPrompt(shape, rendered))


@dataclass(frozen=True, slots=True)
class ShapedPrompt:
    """A prompt format behind a shape."""

    shape: PromptShape
    rendered: PromptFormat

    def __call__(self, prompt: Prompt) -> Ids:
        return self.rendered(self.shape(prompt))


def _without_template(tokenizer: Tokenizer) -> PromptFormat:
    """bos, if the policy's prompts begin with one that stands for nothing else, and the text."""
    text = tokenizer.encode_batch([_PROBE])[0]
    rendered = tokenizer.render_prompt(_PROBE).tolist()
    if rendered[-text.size :] == text.tolist() and len(rendered) <= text.size + 1:
        return tokenizer.render_prompt  # there is no template
    first = rendered[0]
    is_bos = tokenizer.specials.get(first) == "bos" and rendered.count(first) == 1  # <|im_start|> begins every turn
    return PlainPrompt(tokenizer.encode_batch, first if is_bos else None, tokenizer.stop_id)
