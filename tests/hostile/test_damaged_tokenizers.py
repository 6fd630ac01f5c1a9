"""A short form of the fuzzer of tokenizer files: in a process of its own, because a library may end the process."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from mutual_env.errors import InvalidInputError
from tests.hostile.fuzz_tokenizers import BOMBS, KINDS, TEMPLATE, damage, sound, use
from tokenizers_bridge import load
from tokenizers_bridge.kinds.templates import ChatTemplate

ROOT = Path(__file__).parents[2]
ASKED = ({"role": "user", "content": "hi"},)


@pytest.mark.long
def test_damaged_tokenizers_are_read_or_refused_in_a_sentence() -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz_tokenizers", "--cases", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_could_be_read_before(kind: str, tmp_path: Path) -> None:
    path = sound(kind, random.Random(0), tmp_path)
    use(load(path if kind == "sentencepiece" else path.parent))
    whole = path.read_bytes()
    damage(path, random.Random(1))
    assert path.read_bytes() != whole


@pytest.mark.parametrize("source", [*BOMBS, TEMPLATE[:-3]])
def test_a_template_that_takes_too_much_is_refused_and_takes_little(source: str) -> None:
    with pytest.raises(InvalidInputError, match="chat template"):
        ChatTemplate(source).render(ASKED, generation=True)


def test_a_template_that_says_why_it_refuses_is_heard() -> None:
    with pytest.raises(InvalidInputError, match="no system role here"):
        ChatTemplate("{{ raise_exception('no system role here') }}").render(ASKED, generation=False)
    long = ChatTemplate("{{ raise_exception('x' * 100000) }}")
    with pytest.raises(InvalidInputError) as caught:
        long.render(ASKED, generation=False)
    assert len(str(caught.value)) < 1000
