"""The conformance suite of learners: what every backend, ours or a third party's, must hold.

    from learners.testing import check_learner

    def test_my_learner_conforms():
        check_learner(lambda: MyLearner(name="mine", dtype="float32"))

Losses have a check of their own: `check_loss(MyLoss(0.5))`.

`make_learner` builds a fresh learner, the same each time, that computes in float32, samples from all tokens and takes
one optimizer step an update.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from learners.example import Example
from learners.losses.testing import check_loss
from learners.protocol import HandsOn, Learner
from mutual_env.errors import ConformanceError, InvalidInputError
from mutual_env.types import Completion, CrossEntropy, Floats, Ids, LossSpec, PolicyGradient, Prompt
from tokenizers_bridge.protocol import stop_ids_of

__all__ = ["ConformanceError", "MakeLearner", "check_learner", "check_loss"]

MakeLearner = Callable[[], Learner]

AGREEMENT = 1e-4
"""Between the sampler's log-probabilities and the trainer's, in float32."""

SPLIT = 1e-6
"""Relative, between log-probabilities after an update in one micro-batch and after the same in many."""


def check_learner(
    make_learner: MakeLearner,
    *,
    prompts: Sequence[Prompt] = ("1+2=", "3+4=", "12+34="),
    split: tuple[MakeLearner, MakeLearner] | None = None,
) -> None:
    """Run every check; raises on the first that fails.

    `split` builds one learner twice, with the largest and with the smallest micro-batches: it is checked that cutting a
    batch changes nothing. Give both a learning rate of 1e-4 or less: Adam makes a full step of a gradient that is zero
    but for rounding. A learner without micro-batches leaves it out.
    """
    check_sampling(make_learner, prompts)
    check_agreement(make_learner, prompts)
    check_overfits(make_learner, prompts)
    check_nothing_to_learn(make_learner, prompts)
    check_resume(make_learner, prompts)
    check_refusals(make_learner, prompts)
    check_copies_agree(make_learner, prompts)
    if split is not None:
        check_split(*split, prompts)


def check_sampling(make_learner: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """Groups have the asked shape; the same seed gives the same samples, whatever else is in the call; seeds differ."""
    with _learner(make_learner) as learner:
        groups = learner.act(prompts, 4, seed=1)
        shape = [len(group) for group in groups]
        _require(shape == [4] * len(prompts), "act must return n completions for each prompt")
        for completion in (c for group in groups for c in group):
            _check_completion(learner, completion)
        again = learner.act(prompts, 4, seed=1)
        _require(groups == again, "act must return the same samples for the same seed")
        texts = [[c.text for c in group] for group in groups]
        alone = [c.text for c in learner.act(prompts[1:2], 2, seed=1)[0]]
        _require(alone == texts[1][:2], "a sample must not depend on what else is in the call")
        other = [[c.text for c in group] for group in learner.act(prompts, 4, seed=2)]
        _require(texts != other, "act must sample anew for another seed")
        twice = learner.act([prompts[0], prompts[0]], 4, seed=1)
        _require(twice[0] != twice[1], "two occurrences of one prompt must not share their samples")
        _require(learner.act([], 4, seed=1) == [], "act on no prompts must return no groups")
        if isinstance(learner, HandsOn):
            told: dict[int, tuple[Completion, ...]] = {}
            found = learner.act_and_tell(prompts, 4, told.__setitem__, seed=1)
            _require(found == groups, "act_and_tell must return what act returns")
            _require(told.items() <= dict(enumerate(groups)).items(), "act_and_tell must tell of what it returns")


def check_agreement(make_learner: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """`score` gives the log-probabilities that the sampler recorded."""
    with _learner(make_learner) as learner:
        prompt_ids, completions = _sampled(learner, prompts, 4, seed=3)
        scores = learner.score(prompt_ids, [c.token_ids for c in completions])
        for completion, score in zip(completions, scores, strict=True):
            _require(score.shape == completion.logprobs.shape, "score must return one number for each response token")
            worst = float(np.abs(score - completion.logprobs).max(initial=0.0))
            _require(worst <= AGREEMENT, f"score and sampler must agree to {AGREEMENT}, they differ by {worst}")
        _require(learner.score([], []) == [], "score of nothing must be nothing")
        empty = learner.score(prompt_ids[:1], [np.empty(0, np.int32)])
        _require([e.size for e in empty] == [0], "score of an empty response must be empty")


def check_overfits(make_learner: MakeLearner, prompts: Sequence[Prompt], steps: int = 30) -> None:
    """Cross entropy and positive advantages raise a batch's likelihood, negative ones lower it; versions count."""
    with _learner(make_learner) as learner:
        examples = _examples(learner, prompts, CrossEntropy(), advantage=0.0)
        before = _likelihood(learner, examples)
        for step in range(steps):
            metrics = learner.update(examples)
            _require(all(math.isfinite(v) for v in metrics.values()), f"metrics must be finite, got {metrics}")
            _require(learner.version == step + 1, "version must rise by one with each update")
        after = _likelihood(learner, examples)
        rose = f"mean log π went from {before:.4f} to {after:.4f}"
        _require(after > before + 0.1, f"{steps} updates on one batch must overfit it: {rose}")
    for advantage in (1.0, -1.0):
        with _learner(make_learner) as learner:
            examples = _examples(learner, prompts, PolicyGradient(clip_low=0.9, clip_high=9.0), advantage=advantage)
            before = _likelihood(learner, examples)
            learner.update(examples)
            moved = _likelihood(learner, examples) - before
            _require(moved * advantage > 0.0, f"advantage {advantage} must move log π its way, it moved by {moved}")


def check_nothing_to_learn(make_learner: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """No examples, zero advantages, empty masks, zero weights: no bit of the policy changes, and the version rises."""
    with _learner(make_learner) as learner:
        learner.update(_examples(learner, prompts, PolicyGradient(), advantage=1.0))  # so that momentum is not zero
        real = _examples(learner, prompts, PolicyGradient(), advantage=1.0)
        nothing = {
            "no examples": [],
            "zero advantages": [replace(e, advantages=np.zeros_like(e.advantages)) for e in real],
            "empty masks": [replace(e, mask=np.zeros_like(e.mask)) for e in real],
            "zero weights": [replace(e, weight=0.0) for e in real],
        }
        before = _scores(learner, real)
        for why, examples in nothing.items():
            version = learner.version
            learner.update(examples)
            _require(learner.version == version + 1, f"version must rise by one with {why}")
            same = all(np.array_equal(a, b) for a, b in zip(before, _scores(learner, real), strict=True))
            _require(same, f"an update with {why} must not change the policy")


def check_split(make_whole: MakeLearner, make_split: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """Cutting a batch into micro-batches changes nothing."""
    with _learner(make_whole) as whole, _learner(make_split) as split:
        for _ in range(2):
            examples = _mixed_examples(whole, prompts)
            metrics, split_metrics = whole.update(examples), split.update(examples)
            for name in {"loss", "gradient_norm"} & metrics.keys():
                off = abs(metrics[name] - split_metrics[name])
                _require(off <= SPLIT * max(1.0, abs(metrics[name])), f"micro-batches must not change {name}: by {off}")
            before, after = np.concatenate(_scores(whole, examples)), np.concatenate(_scores(split, examples))
            worst = float(np.abs(before - after).max() / max(1.0, np.abs(before).max()))
            _require(worst <= SPLIT, f"micro-batches must not change log π by more than {SPLIT}, they do by {worst}")


def check_resume(make_learner: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """Save, load into a fresh learner, go on: the same as going on."""
    with tempfile.TemporaryDirectory() as folder, _learner(make_learner) as first, _learner(make_learner) as second:
        examples = _examples(first, prompts, PolicyGradient(), advantage=1.0)
        first.update(examples)
        first.save(Path(folder) / "saved")
        second.load(Path(folder) / "saved")
        _require(second.version == first.version == 1, "load must restore the version")
        same = first.act(prompts, 2, seed=5) == second.act(prompts, 2, seed=5)
        _require(same, "a loaded learner must sample the same")
        for _ in range(2):
            _require(first.update(examples) == second.update(examples), "a loaded learner must report the same metrics")
        pairs = zip(_scores(first, examples), _scores(second, examples), strict=True)
        _require(all(np.array_equal(a, b) for a, b in pairs), "save, load and step must equal step, bit for bit")


def check_copies_agree(make_learner: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """Two learners built alike and taught alike are alike; neither disturbs the other."""
    with _learner(make_learner) as first, _learner(make_learner) as second:
        examples = _mixed_examples(first, prompts)
        first.update(examples)
        untouched = second.version
        _require(untouched == 0, "one learner's update must not touch another")
        second.update(examples)
        pairs = zip(_scores(first, examples), _scores(second, examples), strict=True)
        _require(all(np.array_equal(a, b) for a, b in pairs), "the same updates must give the same policy")


def check_refusals(make_learner: MakeLearner, prompts: Sequence[Prompt]) -> None:
    """What does not fit is refused by name, and changes nothing."""
    with _learner(make_learner) as learner:
        example = _examples(learner, prompts[:1], PolicyGradient(), advantage=1.0)[0]
        size = example.response_ids.size
        for field in ("mask", "advantages", "anchor", "reference"):
            _refuses(field, partial(_one_longer, example, field, size + 1))
        beyond = np.full(size, learner.tokenizer.vocab_size + 10**6, dtype=np.int32)
        _refuses("response_ids", lambda: learner.update([replace(example, response_ids=beyond)]))
        _refuses("response_ids", lambda: learner.score([example.prompt_ids], []))
        _refuses("prompt_ids", lambda: learner.score([np.empty(0, np.int32)], [example.response_ids]))
        _refuses("n", lambda: learner.act(prompts, 0, seed=0))
        _require(learner.version == 0, "a refused update must not count")


def _check_completion(learner: Learner, completion: Completion) -> None:
    signed = completion.tokenizer == learner.tokenizer.fingerprint
    _require(signed, "a completion must carry its tokenizer's fingerprint")
    _require(completion.policy_version == learner.version, "a completion must carry the version that wrote it")
    _require(completion.token_ids.size > 0, "a completion must have at least one token")
    decoded = learner.tokenizer.decode(completion.token_ids)
    _require(completion.text == decoded, "a completion's text must be its tokens' text")
    finite = bool(np.isfinite(completion.logprobs).all() and (completion.logprobs <= 1e-6).all())
    _require(finite, f"log-probabilities must be finite and not positive, got {completion.logprobs}")
    stops = stop_ids_of(learner.tokenizer)
    stopped = int(completion.token_ids[-1]) in stops
    says = completion.finish_reason == "stop"
    _require(says == stopped, "finish_reason must be 'stop' exactly where the stop token is last")
    inside = set(stops).isdisjoint(completion.token_ids[:-1].tolist())
    _require(inside, "nothing may be sampled after the stop token")


def _one_longer(example: Example, field: str, size: int) -> Example:
    changes: dict[str, Any] = {field: np.zeros(size, dtype=np.bool_ if field == "mask" else np.float64)}
    return replace(example, **changes)


def _sampled(learner: Learner, prompts: Sequence[Prompt], n: int, *, seed: int) -> tuple[list[Ids], list[Completion]]:
    groups = learner.act(prompts, n, seed=seed)
    prompt_ids = [learner.tokenizer.render_prompt(prompt) for prompt in prompts for _ in range(n)]
    return prompt_ids, [completion for group in groups for completion in group]


def _examples(learner: Learner, prompts: Sequence[Prompt], loss: LossSpec, *, advantage: float) -> list[Example]:
    prompt_ids, completions = _sampled(learner, prompts, 2, seed=7)
    return [
        Example(p, c.token_ids, np.ones(c.token_ids.size, np.bool_), np.full(c.token_ids.size, advantage), loss)
        for p, c in zip(prompt_ids, completions, strict=True)
    ]


def _mixed_examples(learner: Learner, prompts: Sequence[Prompt]) -> list[Example]:
    """Uneven lengths, weights, masks, losses, an anchor and a reference."""
    prompt_ids, completions = _sampled(learner, prompts, 4, seed=11)
    numbers = np.random.default_rng(0)
    examples = []
    for index, (prompt, completion) in enumerate(zip(prompt_ids, completions, strict=True)):
        size = completion.token_ids.size
        examples.append(
            Example(
                prompt,
                completion.token_ids,
                np.arange(size) % 3 != index % 3 if size > 1 else np.ones(size, np.bool_),
                np.full(size, numbers.normal()),
                CrossEntropy() if index % 4 == 3 else PolicyGradient(ratio="sequence" if index % 4 == 2 else "token"),
                weight=0.5 + 0.25 * (index % 3),
                anchor=completion.logprobs - 0.05 if index % 2 else None,
                reference=np.where(np.arange(size) % 2, np.nan, completion.logprobs - 0.1),
                kl_weight=0.01,
            )
        )
    return examples


def _scores(learner: Learner, examples: Sequence[Example]) -> list[Floats]:
    return learner.score([e.prompt_ids for e in examples], [e.response_ids for e in examples])


def _likelihood(learner: Learner, examples: Sequence[Example]) -> float:
    return float(np.concatenate(_scores(learner, examples)).mean())


@contextmanager
def _learner(make_learner: MakeLearner) -> Iterator[Learner]:
    with closing(make_learner()) as learner:
        yield learner


_require = ConformanceError.unless


def _refuses(name: str, call: Callable[[], object]) -> None:
    try:
        call()
    except InvalidInputError as error:
        _require(name in str(error), f"the refusal must name {name!r}, it says: {error}")
    else:
        raise ConformanceError(f"a wrong {name} must raise InvalidInputError")
