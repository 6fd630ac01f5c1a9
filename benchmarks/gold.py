"""TRL's GOLD loss with its own alignment and with the bridge's, on the same conversations and the same models.

    MUTUAL_ENV_MODELS=models python -m benchmarks.gold

The student is SmolLM2. Gemma 3 teaches, whose tokenizer GOLD's alignment refuses: what GOLD offers instead pairs the
first token with the first, the second with the second. And an untrained policy with DeepSeek's tokenizer does, which
both can align. Every figure is the loss that GOLDTrainer logs for one step over all conversations.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, write
from benchmarks.tables import put, table
from tokenizers_bridge import Tokenizer, load
from tokenizers_bridge.kinds.packaged import TOKENIZER_FILES

WAYS: dict[str, dict[str, Any]] = {
    "GOLD": {"bridged": False},
    "GOLD, by position": {"bridged": False, "use_extended_uld": False},
    "GOLD, hybrid": {"bridged": False, "uld_use_hybrid_loss": True},
    "bridge": {"bridged": True},
    "bridge, hybrid": {"bridged": True, "uld_use_hybrid_loss": True},
}


def loss_of(student: str, teacher: str, work: Path, **options: Any) -> dict[str, Any]:
    """What one step's loss is, or the error in its place."""
    from examples.gold import ROWS, losses, trainer_of

    one_step: dict[str, Any] = {"max_steps": 1, "per_device_train_batch_size": len(ROWS), "learning_rate": 0.0}
    trainer = trainer_of(student, teacher, work, **one_step, **options)
    try:
        (loss,) = losses(trainer)
    except NotImplementedError as error:
        return {"error": f"{type(error).__name__}"}
    matched = trainer.uld_loss_fn._teacher_matched_ids
    return {"loss": loss, **({"ids_that_pair": len(matched)} if matched else {})}


def same_text(student: Tokenizer, teacher: Tokenizer) -> float:
    """Share of the pairs (first, first), (second, second), ... of the answers' tokens that are the same piece of
    text."""
    from examples.gold import ROWS

    same = pairs = 0
    for _, answer in ROWS:
        spans = []
        for tokenizer in (student, teacher):
            ends = tokenizer.byte_lengths(tokenizer.encode_batch([answer])[0]).cumsum().tolist()
            spans.append(list(zip([0, *ends], ends, strict=False)))
        same += sum(a == b for a, b in zip(*spans, strict=False))
        pairs += min(map(len, spans))
    return same / pairs


def deepseek(work: Path) -> str:
    """An untrained policy with DeepSeek's tokenizer."""
    from transformers import PreTrainedTokenizerFast

    from examples.gold import untrained

    end = "<｜end▁of▁sentence｜>"
    path = str(TOKENIZER_FILES["deepseek"].path())
    return untrained(PreTrainedTokenizerFast(tokenizer_file=path, eos_token=end, pad_token=end), 1, work / "deepseek")


def gold_table(figures: dict[str, Any]) -> str:
    """A row for each way, a column for each teacher."""
    teachers = [name for name in ("deepseek", "gemma3") if name in figures]

    def cell(teacher: str, way: str) -> str:
        found = figures[teacher]["losses"][way]
        ids = f" ({found['ids_that_pair']:,} ids pair)" if "ids_that_pair" in found else ""
        return found.get("error") or f"{found['loss']:.4g}{ids}"

    rows = [[way, *(cell(teacher, way) for teacher in teachers)] for way in WAYS]
    same = ["tokens at the same place that are the same text", *(f"{figures[t]['same_text']:.2f}" for t in teachers)]
    return table(["loss of one step", *(f"SmolLM2 from {t}" for t in teachers)], [*rows, same])


def main() -> None:
    models = Path(os.environ.get("MUTUAL_ENV_MODELS", "models"))
    student, figures = str(models / "smollm2"), {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, teacher in (("deepseek", deepseek(work)), ("gemma3", str(models / "gemma3"))):
            found = {way: loss_of(student, teacher, work, **options) for way, options in WAYS.items()}
            figures[name] = {"losses": found, "same_text": same_text(load("smollm2"), load(name))}
    write("gold", {"machine": machine(("trl", "torch", "transformers", "tokenizers")), "teachers": figures})
    put("bridge.md", "gold", gold_table(figures))


if __name__ == "__main__":
    main()
