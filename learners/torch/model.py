"""A causal language model cut where this learner needs it: hidden states on one side, the vocabulary on the other."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from learners.model_directory import check_model_directory
from learners.torch.attention import CausalRows, Layout, OneByOne, Prefill, layouts
from learners.torch.compiled import LENGTH, ROWS, CompiledLayers
from learners.torch.decoding import GroupDecode
from learners.torch.devices import device_of
from learners.torch.lean import Step, lean_decoder, turns_with_length
from learners.torch.master import add_product, gradient
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.types import Ids

SELF_CHECK_TOLERANCE = 1e-3
SELF_CHECK_NATS = 0.05
"""Below float32, a divergence between next-token distributions of this size is rounding: 0.001 is usual."""

PROBE = "The answer is 42, because 6 times 7 is 42."
"""What the parts are checked on: states of ordinary text are well-conditioned, those of control tokens are not."""

_PROBE_TOKENS = 12

Gathered: TypeAlias = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]


def _as_they_are(_: Sequence[nn.Parameter]) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Head:
    """Hidden states to logits: a matrix, and what some families do after it.

    Only the first `size` rows of the matrix count: models pad theirs beyond the tokenizer's vocabulary.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    size: int
    multiplier: float
    softcap: float | None

    @classmethod
    def of(cls, model: PreTrainedModel, vocab_size: int) -> Head:
        linear = model.get_output_embeddings()
        if type(linear) is not nn.Linear:
            raise InvalidInputError(
                f"the output layer of {type(model).__name__} is {type(linear).__name__}: only nn.Linear is supported"
            )
        config = model.config.get_text_config()
        multiplier = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        size = min(vocab_size, linear.out_features)
        return cls(linear.weight, linear.bias, size, multiplier, getattr(config, "final_logit_softcapping", None))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 logits of (N, width) hidden states."""
        bias = None if self.bias is None else self.bias[: self.size]
        logits = nn.functional.linear(hidden, self.weight[: self.size], bias).float()
        if self.multiplier != 1.0:
            logits = logits * self.multiplier
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def backward(self, slope: torch.Tensor, logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """From the gradient by these logits (overwritten) to the gradient by `hidden`; the weight's is accumulated."""
        if self.softcap is not None:
            slope.mul_(1.0 - (logits / self.softcap) ** 2)
        if self.multiplier != 1.0:
            slope.mul_(self.multiplier)
        slope = slope.to(hidden.dtype)
        if self.weight.requires_grad:
            add_product(gradient(self.weight)[: self.size], slope.T, hidden)
        if self.bias is not None and self.bias.requires_grad:
            gradient(self.bias)[: self.size].add_(slope.sum(0))
        return slope @ self.weight[: self.size]


class LanguageModel:
    """The model, its decoder and its head, on one device."""

    def __init__(
        self,
        model: PreTrainedModel,
        vocab_size: int,
        options: TorchOptions,
        probe: Sequence[int] | Ids = (),
        *,
        whole: bool = True,
    ) -> None:
        """`probe`: ids of ordinary text, on which the parts are checked against the whole. `whole`: False where every
        weight lies in pieces on several devices, already of its type: then nothing is computed in parts."""
        self.device = device_of(options.device)
        self.dtype = getattr(torch, options.dtype)
        if whole:
            with exact_buffers(model):
                model = model.to(device=self.device, dtype=self.dtype)
        model.requires_grad_(True)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # sampler and trainer must agree on the policy
        self.lora = options.lora_rank > 0
        self.adapted: Any = _with_lora(model, options) if self.lora else model
        if self.lora:
            model.save_pretrained = _refuse_to_save
        self.base = model
        self.config = model.config.get_text_config()
        self.decoder = model.get_decoder()
        self.head = Head.of(model, vocab_size)
        self._lean = lean_decoder(self.decoder) if whole else None
        if options.gradient_checkpointing:
            # The name changed between transformers 5.x releases.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
            if self.lora:
                model.enable_input_require_grads()
        self.adapted.train(options.gradient_checkpointing)
        self._probe = self._probe_ids(probe)
        self._refusal = self._self_check() if whole else self._unsupported("its weights lie in pieces")
        self.compiled = CompiledLayers(self.decoder, self.config, self.device) if options.compile else None

    @property
    def is_resumable(self) -> bool:
        """Whether what was computed of a sequence holds when it has become longer."""
        return not turns_with_length(self.decoder)

    def require_parts(self) -> None:
        """Raise unless decoder and head, put together, are the model."""
        if self._refusal is not None:
            raise self._refusal

    def hidden(self, ids: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The last hidden states of (B, L) tokens at these positions: call inside `layouts(self.config)`."""
        output = self.decoder(input_ids=ids, position_ids=positions, use_cache=False, layout=layout)
        states: torch.Tensor = output.last_hidden_state
        return states

    @contextmanager
    def computing(self, shape: Sequence[int], layout: Layout) -> Iterator[None]:
        """Inside, `hidden` of (B, L) tokens in this layout and its backward are a trainer's: compiled, where that is
        asked for."""
        with layouts(self.config):
            if self.compiled is None:
                yield
            else:
                with self.compiled.within(self, self.decoder, shape, layout):
                    yield

    def try_compiled(self) -> None:
        """What cannot be compiled is known before anything is sampled."""
        if self.compiled is not None:
            with self.computing((ROWS, LENGTH), CausalRows()):
                pass

    def decoding(self, positions: int) -> Step:
        """`hidden` of one new token in each of R rows, for positions below this number and until the next update."""
        if self._lean is not None:
            return self._lean.step(positions)
        return lambda tokens, places, layout: self.hidden(tokens[:, None], places[:, None], layout)[:, 0]

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self.adapted.parameters())

    def requires_grad_(self, requires_grad: bool = True) -> None:
        """Whether the weights are trained."""
        self.base.requires_grad_(requires_grad)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.adapted.named_parameters() if p.requires_grad}

    def merged_weights(self, gathered: Gathered = _as_they_are) -> Iterator[tuple[str, torch.Tensor]]:
        """Every weight under its name in the model as it was loaded; LoRA's product is added where there is one.

        Inside `gathered` the parameters that it is given are whole: a weight holds until the next is asked for.
        """
        for name, parameter in self.base.named_parameters():
            if ".lora_" in name:
                continue
            module_name, _, leaf = name.partition(".base_layer.")
            adapted = self.base.get_submodule(module_name) if leaf == "weight" else None
            with gathered([parameter] if adapted is None else list(adapted.parameters())):
                weight = parameter.detach()
                if adapted is not None:
                    weight = weight + adapted.get_delta_weight("default").detach()
                yield (f"{module_name}.{leaf}" if leaf else name), weight

    def _self_check(self) -> InvalidInputError | None:
        """Why the parts, put together, are not the model: some architectures have something else in between."""
        ids = self._probe[None, :6]
        try:
            with torch.no_grad():
                expected = self.base(input_ids=ids, use_cache=False).logits[0, :, : self.head.size].float()
            with torch.no_grad(), layouts(self.config):
                got = self.head.logits(self.hidden(ids, torch.arange(6, device=self.device)[None], CausalRows())[0])
        except TypeError as error:
            return self._unsupported(str(error))
        if not self._agree(expected, got):
            spread = float((expected - got).abs().max())
            return self._unsupported(f"its logits differ by {spread:.2g} when computed in parts")
        if self._lean is not None and not self._steps_agree():
            self._lean = None
        if not self._steps_agree():
            return self._unsupported("its hidden states differ when a token is decoded after its prompt")
        return None

    def _steps_agree(self) -> bool:
        """Whether one token decoded after prompts of two lengths comes out as in a forward of the whole."""
        ids = self._probe.view(2, 6)
        lengths = torch.tensor([5, 3], device=self.device)
        rows, positions = torch.arange(2, device=self.device), torch.arange(6, device=self.device).expand(2, -1)
        with torch.no_grad(), layouts(self.config):
            expected = self.head.logits(self.hidden(ids, positions, CausalRows())[rows, lengths])
            prefill = Prefill(rows=2, longest=5)
            step = self.decoding(6)
            step(ids[:, :5].flatten(), positions[:, :5].flatten(), OneByOne(prefill, 2))
            layout = GroupDecode(prefill, lengths, group=1, new_tokens=1)
            layout.begin(0)
            got = self.head.logits(step(ids[rows, lengths], lengths, layout))
        return self._agree(expected, got)

    def _agree(self, expected: torch.Tensor, got: torch.Tensor) -> bool:
        """Whether two ways to the same logits differ by rounding alone.

        In float32 the logits themselves say so. With fewer bits a single logit may be far off where nothing depends on
        it, so the distributions are compared: their divergence is what a sample or a gradient would notice.
        """
        spread = float((expected - got).abs().max())
        if self.dtype == torch.float32:
            return spread <= SELF_CHECK_TOLERANCE * max(1.0, float(expected.abs().max()))
        close = spread <= 0.05 * max(1.0, float(expected.abs().max()))
        logs, others = torch.log_softmax(expected, dim=-1), torch.log_softmax(got, dim=-1)
        divergence = float((logs.exp() * (logs - others)).sum(dim=-1).mean())
        return close or divergence <= SELF_CHECK_NATS

    def _probe_ids(self, probe: Sequence[int] | Ids) -> torch.Tensor:
        """Twelve ids of ordinary text; any ids where the vocabulary cannot write it (toys)."""
        usual = [int(i) for i in probe if 0 <= int(i) < self.head.size][:_PROBE_TOKENS]
        ids = usual if len(usual) == _PROBE_TOKENS else [i % self.config.vocab_size for i in range(1, 13)]
        return torch.tensor(ids, device=self.device)

    def _unsupported(self, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"{type(self.base).__name__} cannot be sampled or trained by learner 'torch' ({why}): train it with "
            "learner 'openrlhf' and sample it with 'vllm'"
        )


def load_pretrained(path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model in a local directory; nothing is fetched and no code of the directory is run."""
    check_model_directory(path)
    with without_progress_bars():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    return model


@contextmanager
def exact_buffers(model: nn.Module) -> Iterator[None]:
    """What is cast inside is the weights. Numbers that are computed and not learnt, such as the frequencies of rotary
    positions, stay as exact as transformers makes them whatever the weights' type: rounded to bfloat16, they turn a
    token's place a thousand tokens on by as much as a radian."""
    saved = model.state_dict().keys()
    kept = {name: buffer for name, buffer in model.named_buffers() if name not in saved}
    yield
    for name, buffer in kept.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, leaf, buffer.to(getattr(module, leaf).device))


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """A run draws one bar, its own: transformers' bar of each model that it loads would stand in the middle of it."""
    were_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            transformers_logging.enable_progress_bar()


def release_freed_memory() -> None:
    """Give freed pages back to the system: reading a large vocabulary leaves hundreds of MiB of them to the process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others need no asking
    if trim is not None:
        trim(0)


def _refuse_to_save(*args: object, **kwargs: object) -> None:
    """Transformers would write adapted layers under names that no model reads back, and say so only in a warning."""
    raise InvalidInputError(
        "a model with LoRA layers in place cannot be saved by model.save_pretrained: its weights would be read back as "
        "random ones. Use learner.save_pretrained(directory), or `mutual-env export`"
    )


def _with_lora(model: PreTrainedModel, options: TorchOptions) -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError.of("lora_rank above 0", "torch") from error
    targets = options.lora_targets if options.lora_targets == "all-linear" else options.lora_targets.split(",")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        target_modules=targets,
        lora_dropout=0.0,
    )
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():  # nobody else's random numbers move
            # peft asks transformers by a name that transformers calls deprecated; a user can do nothing about it
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            torch.manual_seed(options.seed)
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise InvalidInputError(
            f"lora_targets {options.lora_targets!r} do not fit {type(model).__name__}: {error}"
        ) from error
