"""TRL's GOLD trainer with a teacher of any tokenizer: the bridge aligns, GOLD's own loss is computed.

    python examples/gold.py                    # two small untrained policies, the tokenizers of SmolLM2 and Gemma 3
    python examples/gold.py --student models/smollm2 --teacher models/gemma3

GOLD distils across tokenizers by lining up byte offsets, which it has of byte-level BPE alone: a teacher such as
Gemma 3 ends in NotImplementedError. `BridgedULDLoss` is its loss with three things exchanged: chunks come from
`align_batch`, ids pair by their bytes, and what ends a turn on one side is what ends it on the other. Needs trl 1.16.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl.experimental.gold import GOLDConfig, GOLDTrainer
from trl.experimental.gold.gold_trainer import ULDLoss

from tokenizers_bridge import VocabularyMap, align_batch, load
from tokenizers_bridge.kinds.gguf import converted_tokenizer
from tokenizers_bridge.kinds.packaged import SOURCES

ROWS = (
    ("How much is 17 + 25?", "17 + 25 = 42. The answer is 42."),
    ("Name a fruit that is yellow.", "A banana is yellow."),
    ("What is 9 * 9?", "9 * 9 = 81, so the answer is 81."),
    ("Write hello in Japanese.", "こんにちは, which is read konnichiwa."),
)


class BridgedULDLoss(ULDLoss):  # type: ignore[misc]  # TRL has no types
    """GOLD's loss over the bridge's alignment. To the trainer it is the positional one, which asks no byte offsets of
    anybody's tokenizer."""

    def __init__(self, config: GOLDConfig, student: Any, teacher: Any, device: Any = None) -> None:
        self.student, self.teacher = load(student), load(teacher)
        super().__init__(config, student, teacher, device)
        self.use_extended_uld = False

    def _initialize_vocabulary_mapping(self) -> None:
        """Ids with equal bytes, where GOLD pairs ids that are spelled alike."""
        mapped = VocabularyMap.of(self.teacher, self.student).to_reader
        paired = (mapped >= 0).nonzero()[0]
        _, first = np.unique(mapped[paired], return_index=True)  # a token of the student's has one partner
        paired = paired[np.sort(first)]
        self._vocab_mapping = dict(zip(paired.tolist(), mapped[paired].tolist(), strict=True))
        self._teacher_matched_ids, self._student_matched_ids = set(self._vocab_mapping), set(mapped[paired].tolist())
        self.mapping_tensor = torch.from_numpy(mapped.copy()).to(self.device or "cpu")

    def _compute_distillation_loss(
        self,
        student_logits: Any,
        teacher_logits: Any,
        student_labels: Any,
        teacher_labels: Any,
        student_input_ids: Any,
        teacher_input_ids: Any,
        **_: Any,
    ) -> Any:
        batch = align_batch(
            teacher_input_ids, self.teacher, student_input_ids, self.student,
            author_mask=teacher_labels != self.ignore_index, reader_mask=student_labels != self.ignore_index,
        )  # fmt: skip
        with self._extended():
            return super()._compute_distillation_loss(
                student_logits, teacher_logits, student_labels, teacher_labels, student_input_ids, teacher_input_ids,
                student_byte_offsets=_as_offsets(batch.chunk_ids("reader"), inside=1),
                teacher_byte_offsets=_as_offsets(batch.chunk_ids("author"), inside=2),
            )  # fmt: skip

    @contextmanager
    def _extended(self) -> Iterator[None]:
        self.use_extended_uld = True
        try:
            yield
        finally:
            self.use_extended_uld = False


def _as_offsets(chunks: np.ndarray, inside: int) -> torch.Tensor:
    """Chunks as (start, end) of a text in which the two sides end together at the ends of chunks alone."""
    last = np.diff(chunks, axis=1, append=-1) != 0
    ends = np.where(chunks < 0, 0, 3 * chunks + np.where(last, 3, inside))
    return torch.from_numpy(np.stack([ends, ends], axis=-1))


def untrained(tokenizer: Any, seed: int, directory: Path) -> str:
    """A small policy with this tokenizer, as a directory."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def trainer_of(student: str, teacher: str, output: Path, *, bridged: bool, **options: Any) -> GOLDTrainer:
    """GOLD's own trainer on conversations as they stand, with its loss or with the bridge's."""
    config = GOLDConfig(**{
        "output_dir": str(output), "use_cpu": True, "bf16": False, "report_to": [], "max_steps": 2, "lmbda": 0.0,
        "per_device_train_batch_size": 2, "teacher_tokenizer_name_or_path": teacher, "use_uld_loss": True,
        "max_length": 256, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True,
        "use_extended_uld": True, **options,
    })  # fmt: skip
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in ROWS]
    tokenizer = AutoTokenizer.from_pretrained(student)
    trainer = GOLDTrainer(
        model=AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32),
        teacher_model=AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32),
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )
    if bridged:
        trainer.uld_loss_fn = BridgedULDLoss(config, tokenizer, trainer.teacher_tokenizer, trainer.accelerator.device)
    return trainer


def losses(trainer: GOLDTrainer) -> list[float]:
    """Train, and the loss of each step."""
    trainer.train()
    return [float(log["loss"]) for log in trainer.state.log_history if "loss" in log]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", help="a directory of a model; default: a small one without training")
    parser.add_argument("--teacher", help="likewise")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        student = args.student or untrained(AutoTokenizer.from_pretrained(packaged("smollm2")), 0, work / "smollm2")
        teacher = args.teacher or untrained(AutoTokenizer.from_pretrained(packaged("gemma3")), 1, work / "gemma3")
        try:
            print("GOLD alone, loss by step:", losses(trainer_of(student, teacher, work, bridged=False)))
        except NotImplementedError as error:
            print(f"GOLD alone: NotImplementedError: {error}")
        print("with the bridge, loss by step:", losses(trainer_of(student, teacher, work, bridged=True)))


def packaged(name: str) -> Path:
    """The directory of a tokenizer that comes inside an ordinary package."""
    return converted_tokenizer(name, [part.path() for part in SOURCES[name].parts])


if __name__ == "__main__":
    main()
