"""The options of the torch learner. Importing this loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from learners.sampling import Sampling
from learners.stopping import Endings, checked
from learners.update import UpdateOptions
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.prompts import PromptShape
from tokenizers_bridge.kinds.shaped import in_shape
from tokenizers_bridge.protocol import Tokenizer, stop_ids_of


@dataclass(frozen=True, slots=True)
class TorchOptions(UpdateOptions):
    """How a torch learner samples and trains.

    Sampling: `max_new_tokens`, `temperature`, `top_p`, `top_k` (0: all), `max_rows` (samples decoded side by side),
    `refill` (as samples end, further prompts take their places, where else they wait until the longest of those side by
    side has ended; the last digits are others),
    `stop` (texts: a completion ends with the first that it holds), `prompt` (the fields of a `PromptShape`: how this
    policy is asked), `conversation_mb` (what is kept of conversations from turn to turn, at most; 0: each turn computes
    all of them again).
    Optimizer: AdamW with `learning_rate`, `weight_decay` (not of biases and norms), `beta1`, `beta2`; `schedule` over
    `total_steps` optimizer steps, the first `warmup_steps` rising; `max_gradient_norm` (0: no clipping).
    `optimizer_reset`: at each reset of the reference its moments begin anew, and the schedule goes on.
    Update: those of `UpdateOptions`.
    Memory: `micro_batch_tokens` (padded tokens of one forward), `logits_chunk_mib`, `gradient_checkpointing`,
    `share_prompts` (examples of one prompt are trained with the prompt computed once, where that saves work).
    Speed: `compile` (the model's layers are compiled for training and scoring: minutes at the first start, for a GPU).
    LoRA: `lora_rank` (0: all parameters are trained), `lora_alpha`, `lora_targets` ("all-linear" or names, separated by
    commas), `seed` of its initial weights.
    """

    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_rows: int = 256
    refill: bool = False
    conversation_mb: int = 512
    stop: Sequence[str] = ()
    prompt: Mapping[str, Any] | None = None
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    total_steps: int = 0
    max_gradient_norm: float = 1.0
    optimizer_reset: bool = False
    micro_batch_tokens: int = 4096
    logits_chunk_mib: int = 128
    gradient_checkpointing: bool = False
    share_prompts: bool = True
    compile: bool = False
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: str = "all-linear"
    seed: int = 0

    def __post_init__(self) -> None:
        UpdateOptions.__post_init__(self)
        object.__setattr__(self, "stop", checked(self.stop))
        PromptShape.of(self.prompt)
        hints = get_type_hints(type(self))
        for name in ("dtype", "schedule"):
            if getattr(self, name) not in get_args(hints[name]):
                raise InvalidInputError(f"{name} must be one of {get_args(hints[name])}, got {getattr(self, name)!r}")
        for name in ("max_new_tokens", "max_rows", "micro_batch_tokens", "logits_chunk_mib"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for name in (
            "top_k",
            "conversation_mb",
            "warmup_steps",
            "total_steps",
            "lora_rank",
            "learning_rate",
            "weight_decay",
            "max_gradient_norm",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"{name} must not be negative, got {getattr(self, name)!r}")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InvalidInputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)!r}")
        if not self.temperature > 0.0:
            raise InvalidInputError(
                f"temperature must be above 0, got {self.temperature!r}: use top_k=1 for the most likely token"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidInputError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        self._check_steps()

    def _check_steps(self) -> None:
        if self.schedule == "cosine" and self.total_steps <= self.warmup_steps:
            raise InvalidInputError(
                f"schedule 'cosine' needs total_steps above warmup_steps ({self.warmup_steps}), got {self.total_steps}"
            )
        if self.optimizer_reset and not self.reference_reset:
            raise InvalidInputError(
                "optimizer_reset=True resets the optimizer whenever the reference is reset, which it never is: give a "
                "reference_reset above 0"
            )

    @property
    def length(self) -> int:
        """That of a sequence, where a loss is averaged over sequences of a constant length."""
        return self.constant_length or self.max_new_tokens

    def sampling(self, tokenizer: Tokenizer) -> Sampling:
        """The distribution that a policy with this tokenizer samples from."""
        endings = Endings.of(self.stop, tokenizer)
        first, *others = stop_ids_of(tokenizer)
        length = self.max_new_tokens
        return Sampling(first, length, self.temperature, self.top_p, self.top_k, endings, tuple(others))

    def prompted(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer with this policy's prompts."""
        return in_shape(tokenizer, PromptShape.of(self.prompt))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TorchOptions:
        """From a configuration's mapping; an unknown key is refused with the nearest right one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in options:
            if key not in known:
                raise UnknownNameError.of(
                    "option of learner 'torch'", key, [*known, "path", "model", "tokenizer", "name"]
                )
        return cls(**options)
