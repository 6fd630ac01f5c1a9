"""Small policies from scratch: the models, and the warm start that teaches each of them one part of a task family.

A warm start teaches a policy to answer one part of a task family, and to answer the rest in the right form with letters
that mean nothing. Two policies that know different parts are the smallest setting in which there is something to share.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from learners.example import Example
from learners.numerics import level
from learners.protocol import Learner
from learners.run.directory import WARM_STARTS, versions
from learners.tiny import WarmStart
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from mutual_env.errors import UnknownNameError
from mutual_env.seeding import derive_seed, generator
from mutual_env.types import CrossEntropy, Ids, Task
from tokenizers_bridge import Tokenizer

_POSITIONS = 512
_OWN_TO_WARM_UP = ("learning_rate", "minibatches", "compile")  # it has its own


def build(
    *,
    name: str,
    seed: int,
    tokenizer: Tokenizer,
    warm_start: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    **shape: Any,
) -> Learner:
    """What `learners.tiny.make_tiny` makes. `shape` is `make_model`'s."""
    options = {**options, "seed": seed}
    shape = {**shape, "seed": seed}
    model = make_model(tokenizer=tokenizer, **shape)
    if warm_start is not None:
        heard = {key: value for key, value in options.items() if key not in _OWN_TO_WARM_UP}
        made_of = {**shape, "tokenizer": tokenizer.fingerprint, "warm_start": warm_start, "options": heard}
        with _kept(model, made_of) as is_new:
            if is_new:
                warm_up(model, tokenizer, WarmStart(**warm_start), seed=seed, options=options)
    return TorchLearner(model, tokenizer, name=name, options=TorchOptions.of(options))


def make_model(architecture: str, tokenizer: Tokenizer, *, width: int, layers: int, heads: int, seed: int) -> Any:
    """A transformers model with weights drawn from the seed; torch's own generator is untouched."""
    sizes = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": _POSITIONS,
        "bos_token_id": None,
        "eos_token_id": tokenizer.stop_id,
    }
    builders = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=2 * width)),
        "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, intermediate_size=2 * width)),
    }
    if architecture not in builders:
        raise UnknownNameError.of("architecture", architecture, builders)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return builders[architecture]()


@contextmanager
def _kept(model: Any, made_of: Mapping[str, Any]) -> Iterator[bool]:
    """Whether the model is still to be warmed up. A suite's runs of one seed start from the same weights: where it says
    in which folder, the first one leaves them for the others, under the name of all that they were made from."""
    if not (folder := os.environ.get(WARM_STARTS)):
        yield True
        return
    from safetensors.torch import load_file, save_file

    about = {**made_of, "versions": versions(), "instructions": level()}
    file = Path(folder) / f"{hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()}.start"
    if file.is_file():
        model.load_state_dict(load_file(file))
        yield False
        return
    yield True
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, aside)
    aside.replace(file)


def warm_up(
    model: Any,
    tokenizer: Tokenizer,
    warm: WarmStart,
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> None:
    known = {key: tuple(values) for key, values in warm.knows.items()}
    own = {"learning_rate": warm.learning_rate, "minibatches": 1, "compile": False}
    teacher = TorchLearner(
        model,
        tokenizer,
        name="warm-start",
        options=TorchOptions.of({**(options or {}), **own}),
    )
    draws = warm.draws(seed)
    for step in range(warm.steps):
        draws.reset(seed=derive_seed(seed, "warm-start"), options={"round": step})
        rng = generator(seed, "warm-start", step)
        teacher.update(_lessons(draws.tasks, teacher.tokenizer, known, rng))
    draws.close()


def _lessons(
    tasks: Sequence[Task], tokenizer: Tokenizer, known: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> list[Example]:
    letters = np.array(sorted(set("".join(task.answer for task in tasks))))
    answers = [
        task.answer
        if all(task.metadata.get(key) in values for key, values in known.items())
        else "".join(rng.choice(letters, size=len(task.answer)))
        for task in tasks
    ]
    return [
        _lesson(tokenizer.render_prompt(task.prompt), np.append(ids, tokenizer.stop_id).astype(np.int32))
        for task, ids in zip(tasks, tokenizer.encode_batch(answers), strict=True)
    ]


def _lesson(prompt_ids: Ids, response_ids: Ids) -> Example:
    mask = np.ones(response_ids.shape, np.bool_)
    return Example(prompt_ids, response_ids, mask, np.zeros(response_ids.shape), CrossEntropy())
