"""The cases of TRL's tests of GOLD's loss, asked of its loss over the bridge's alignment (`examples/gold.py`).

Theirs give the loss byte offsets or groups; here the bridge finds what belongs together.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.tokenizers_bridge.published import loaded
from tests.tokenizers_bridge.test_cases_of_others import LETTERS, SPLIT, WORDS, ids
from tokenizers_bridge import Tokenizer, VocabularyMap, align

pytestmark = [pytest.mark.torch, pytest.mark.long]  # importing trl takes seconds
torch = pytest.importorskip("torch")


def bridged(student: Tokenizer, teacher: Tokenizer, **changed: Any) -> Any:
    from examples.gold import BridgedULDLoss

    config = {
        "uld_crossentropy_weight": 0.0,
        "uld_distillation_weight": 1.0,
        "uld_student_temperature": 1.0,
        "uld_teacher_temperature": 1.0,
        "uld_skip_student_eos": False,
        "uld_skip_teacher_eos": False,
        "use_extended_uld": True,
        "uld_token_merge_strategy": "observed",
        "uld_use_hybrid_loss": False,
        "uld_hybrid_matched_weight": None,
        "uld_hybrid_unmatched_weight": None,
        "beta": 0.5,
    }
    return BridgedULDLoss(SimpleNamespace(**{**config, **changed}), student, teacher)


class Row:
    """One side: a prompt, which labels leave out, its answer, and what a model might say."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], answer: list[int], width: int, seed: int) -> None:
        row = [*prompt, *answer]
        padding = width - len(row)
        self.ids = torch.tensor([row + [tokenizer.stop_id] * padding])
        self.labels = torch.tensor([[-100] * len(prompt) + answer + [-100] * padding])
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(1, width, tokenizer.vocab_size, generator=generator, requires_grad=True)
        self.probs = self.logits[0].softmax(-1)


def loss_of(loss: Any, student: Row, teacher: Row) -> Any:
    """Without byte offsets: nobody needs them."""
    return loss(student.logits, teacher.logits, student.labels, teacher.labels, student.ids, teacher.ids)


def distance(student: Any, teacher: Any) -> Any:
    """GOLD's distance of two distributions in any order of their tokens."""
    ordered = [side.sort(-1, descending=True).values for side in (student, teacher)]
    width = max(side.shape[-1] for side in ordered)
    padded = [torch.nn.functional.pad(side, (0, width - side.shape[-1])) for side in ordered]
    return (padded[0] - padded[1]).abs().sum(-1).mean()


@pytest.mark.parametrize("strategy", ["observed", "bayesian"])
def test_a_split_token_is_merged_by_the_chain_rule(strategy: str) -> None:
    he, llo = ids(SPLIT, "He", "llo")
    student = Row(WORDS, ids(WORDS, "abc"), ids(WORDS, "Hello"), 3, 0)
    teacher = Row(SPLIT, ids(SPLIT, "abc"), [he, llo], 4, 1)
    if strategy == "observed":  # the first place's distribution, and the token that followed
        expected = distance(student.probs[1], teacher.probs[1] * teacher.probs[2, llo])
    else:  # a place earlier: the last place's distribution, and the token before it
        expected = distance(student.probs[0], teacher.probs[1] * teacher.probs[0, he])
    found = loss_of(bridged(WORDS, SPLIT, uld_token_merge_strategy=strategy), student, teacher)
    torch.testing.assert_close(found, expected)


def test_an_answer_that_begins_a_row_has_no_place_before_its_first_chunk() -> None:
    answer = (ids(WORDS, "Hello", " world"), ids(SPLIT, "He", "llo", " world"))
    student, teacher = Row(WORDS, [], answer[0], 2, 0), Row(SPLIT, [], answer[1], 3, 1)
    found = loss_of(bridged(WORDS, SPLIT, uld_token_merge_strategy="bayesian"), student, teacher)
    torch.testing.assert_close(found, distance(student.probs[0], teacher.probs[1]))  # " world" alone is left


def test_an_answer_of_that_chunk_alone_costs_nothing() -> None:
    student, teacher = Row(WORDS, [], ids(WORDS, "Hello"), 2, 0), Row(SPLIT, [], ids(SPLIT, "He", "llo"), 3, 1)
    assert loss_of(bridged(WORDS, SPLIT, uld_token_merge_strategy="bayesian"), student, teacher) == 0


def test_ids_pair_by_what_they_spell() -> None:
    loss = bridged(WORDS, LETTERS, uld_use_hybrid_loss=True)
    for letter in ("H", "e", " ", "!"):
        (mine,), (theirs,) = ids(WORDS, letter), ids(LETTERS, letter)
        assert loss._vocab_mapping[theirs] == mine
        assert mine in loss._student_matched_ids
        assert theirs in loss._teacher_matched_ids
    assert not set(ids(WORDS, "Hello", "abc")) & loss._student_matched_ids


@pytest.mark.real_tokenizers
@pytest.mark.parametrize(
    ("name", "weights", "completion"),
    [
        ("llama3", (0.6, 0.4), "Assistant: Llamas are taller while alpacas have softer wool."),
        ("smollm2", (0.5, 0.5), "Assistant: SmolLM3 is a compact yet capable language model."),
        ("llama3", (0.0, 1.0), "Assistant: GOLD merges aligned subwords and applies hybrid ULD loss."),
        ("mistral-spm", (0.5, 0.5), "Assistant: there, NotImplementedError."),
    ],
)
def test_students_of_other_families_learn_from_qwen(name: str, weights: tuple[float, float], completion: str) -> None:
    tokenizers = loaded(name), loaded("qwen")
    encoded = [
        [t.encode_batch([text])[0].tolist() for text in ("User: Say something.", completion)] for t in tokenizers
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in encoded) + 2
    student, teacher = (
        Row(t, prompt, answer, width, seed)
        for seed, (t, (prompt, answer)) in enumerate(zip(tokenizers, encoded, strict=True))
    )
    loss = bridged(
        *tokenizers,
        uld_use_hybrid_loss=True,
        uld_hybrid_matched_weight=weights[0],
        uld_hybrid_unmatched_weight=weights[1],
        beta=0.0 if weights[0] == 0 else 0.5,
    )
    found = loss_of(loss, student, teacher)
    assert found.dim() == 0
    assert torch.isfinite(found)
    torch.testing.assert_close(found, weights[0] * loss.last_matched_loss + weights[1] * loss.last_unmatched_loss)


@pytest.mark.real_tokenizers
def test_ends_of_sampled_ids_are_the_offsets_that_encoding_gives() -> None:
    from trl.experimental.utils import encode_with_byte_offsets

    tokenizer = loaded("smollm2")
    backend = tokenizer._encoder.tokenizer  # type: ignore[attr-defined]
    [(row, offsets)] = encode_with_byte_offsets(backend, ["hello 你好 😊"], add_special_tokens=False)
    ends = tokenizer.byte_lengths(row).cumsum()
    assert [tuple(offset) for offset in offsets] == list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


@pytest.mark.real_tokenizers
def test_a_completion_that_was_cut_in_front_aligns_from_its_cut_on() -> None:
    student, teacher = loaded("llama3"), loaded("qwen")
    kept = student.encode_batch(["word " * 300])[0][-32:]
    again = teacher.encode_batch([student.decode(kept)])[0]
    alignment = align(again, teacher, kept, student)
    assert alignment.exact.all()
    assert alignment.reader_counts.sum() == 32
    assert alignment.author_counts.sum() == again.size


def test_a_map_of_ids_leaves_no_id_of_either_side_twice() -> None:
    # NeMo RL: where several of one side stand for one of the other's, the lowest is taken
    mapped = VocabularyMap.of(WORDS, LETTERS).to_reader
    pairs = bridged(LETTERS, WORDS, uld_use_hybrid_loss=True)._vocab_mapping
    assert len(set(pairs.values())) == len(pairs)
    assert all(mapped[theirs] == mine for theirs, mine in pairs.items())
    assert np.unique(mapped[mapped >= 0]).size == len(pairs)
