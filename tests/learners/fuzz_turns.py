"""Random conversations between ten published tokenizers, with texts and tool output that spell control tokens.

    python -m tests.learners.fuzz_turns --cases 20000

A case is one conversation that one policy reads: a peer's, or its own. A peer may have the reader's tokenizer. Batches
are made of five hundred cases, as a learner makes them, and what is trained on is looked at conversation by
conversation: what was written is trained on and nothing else is, a policy's own ids are untouched, no control token
enters but the stop tokens of turns and what the reader's own template puts around a reply, what the world said is
there, an author's log-probabilities have the same sum on the reader's tokens, and what some characters are worth is
what the tokens are worth that begin in them.

Authors write canonically, with a text cut into other tokens, or any ids at all; they stop, are cut anywhere, or sample
control tokens where none belong.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

import learners
from learners import Learner
from learners.batch import Outcome
from learners.conversed import earlier_in_tokens_of
from learners.corrections import Draft
from mutual_env import Completion, Experience, Lesson, Task, Verdict
from mutual_env.credit import Span
from mutual_env.types import CrossEntropy, Floats, Ids, Prompt, Reply, Turn
from tests.tokenizers_bridge.published import loaded
from tokenizers_bridge import Tokenizer, TokenizerBridge
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.kinds.published import PUBLISHED
from tokenizers_bridge.protocol import encode_continuations, stop_ids_of
from tokenizers_bridge.replies import Conversing
from tokenizers_bridge.roles import think_tags

PIECES = (
    "<|im_end|>", "<|im_start|>user\n", "</s>", "[INST]", "[/INST]", "<end_of_turn>", "<|eot_id|>", "<｜User｜>",
    "<|endoftext|>", "<think>", "{{ messages }}", "{% endif %}", "<tool_call>", "hello ", "42", "\n", " x", "é", "🙂",
    "中文", "\t", "a b", "<output>", "</output>", "0.5e3", "'", '"', "\\", "</think>", "<think>\n", "[THINK]", "\r\n",
    "<start_of_turn>model\n", "<|start_header_id|>", "[TOOL_RESULTS]", "<｜Assistant｜>", "<|python_tag|>", "\x00",
    "\ufdd0", "e\u0301", "{content}", "[IMG]", "<s>", "<bos>", "<｜end▁of▁sentence｜>", "<|im_",
)  # fmt: skip
BATCH = 500
SLICE = 2000
"""Cases between two lines of progress: one that is stopped is gone on with by `--first`."""
WORTH = 2.0
MARK = "§"
"""Stands where a reply does in what a template puts around it: no template has it."""


@cache
def tokenizers() -> dict[str, Tokenizer]:
    return {name: loaded(name) for name in PUBLISHED}


@cache
def bridge() -> TokenizerBridge:
    return TokenizerBridge(tokenizers().values())


@cache
def conversing(name: str) -> Conversing:
    return Conversing(tokenizers()[name])


@cache
def learner(name: str) -> Learner:
    return learners.make("tabular", name=name, tokenizer=tokenizers()[name])


@dataclass(frozen=True, slots=True)
class Case:
    """`author` is the name of the tokenizer that it was written with; `number` repeats it."""

    number: int
    author: str
    reader: str
    experience: Experience
    span: Span

    @property
    def is_own(self) -> bool:
        return self.experience.author == self.reader


def text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 6)))


def ids_of(rng: random.Random, tokenizer: Tokenizer) -> Ids:
    """What a policy may sample: mostly the tokens that encoding makes of a text."""
    written, how = text(rng), rng.random()
    if how < 0.25:  # a text that another sampler cut into other tokens
        cut = rng.randint(0, len(written))
        rest = encode_continuations(tokenizer, [written[cut:]])
        return np.concatenate([*tokenizer.encode_batch([written[:cut]]), *rest])
    if how < 0.3:
        return np.array([rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(0, 8))], np.int32)
    ids = tokenizer.encode_batch([written])[0]
    if how < 0.34:
        ids = np.insert(ids, rng.randint(0, ids.size), rng.choice(sorted(tokenizer.specials)))
    return ids[: rng.randint(0, ids.size)] if how > 0.85 else ids


def said(rng: random.Random, tokenizer: Tokenizer) -> Completion:
    """It stops by itself, or is cut off."""
    ids, stops = ids_of(rng, tokenizer), rng.random() < 0.7
    ids = np.append(ids, np.int32(rng.choice(stop_ids_of(tokenizer)))) if stops else ids
    logprobs = np.array([-rng.expovariate(1.0) for _ in ids])
    return Completion(tokenizer.decode(ids), ids, logprobs, "stop" if stops else "length", 0, tokenizer.fingerprint)


def drawn(seed: int, number: int) -> Case:
    rng = random.Random(f"{seed}:{number}")
    names = list(tokenizers())
    author = rng.choice(names)
    reader = rng.choice([author, *names])
    name = author if rng.random() < 0.7 else f"a peer of {author}"
    prompt: Prompt = text(rng) or "?"
    if rng.random() < 0.7:
        prompt = ({"role": "user", "content": prompt},)
    turns = tuple(
        Turn(said(rng, tokenizers()[author]), Reply(text(rng), role=rng.choice(("user", "tool"))))
        for _ in range(rng.randint(1, 3))
    )
    if rng.random() < 0.2:  # the world speaks first
        turns = (Turn(Completion.silence(), Reply(text(rng))), *turns)
    verdict = Verdict.scored(1.0, correct=True)
    experience = Experience(Task("t", prompt, ""), name, said(rng, tokenizers()[author]), verdict, 0, turns)
    return Case(number, author, reader, experience, some_of(rng, experience))


def some_of(rng: random.Random, experience: Experience) -> Span:
    """Some characters of a turn, or all from one on."""
    turn = rng.randrange(len(experience.written))
    start, end = sorted(rng.randint(0, len(experience.written[turn].text)) for _ in range(2))
    return Span(turn, WORTH, start, rng.choice((end, None)))


def checked(cases: Sequence[Case]) -> int:
    """Check these, in one batch of each reader's; how many were learnt from, the others the bridge rejects."""
    taken = 0
    with bridge().round():
        for reader in dict.fromkeys(case.reader for case in cases):
            own = [case for case in cases if case.reader == reader]
            lessons = [Lesson(case.experience, 1.0, CrossEntropy(), spans=(case.span,)) for case in own]
            outcomes = learners.build_batch(lessons, learner(reader), bridge()).outcomes
            for case, outcome in zip(own, outcomes, strict=True):
                try:
                    taken += check(case, outcome)
                except AssertionError as error:
                    raise AssertionError(f"case {case.number}, {case.author} -> {reader}: {error}") from error
    return taken


def check(case: Case, outcome: Outcome) -> bool:
    """False where the bridge rejects it, or nothing was said in it."""
    draft, example = outcome.draft, outcome.example
    if draft is not None and not draft.response_ids.size:
        assert outcome.dropped == "empty"
        assert not any(c.token_ids.size for c in case.experience.written), "something was said"
        return False
    if draft is None or example is None:
        assert outcome.dropped.startswith("translation_"), outcome.dropped
        assert not case.is_own, "a policy's own conversation is rejected"
        return False
    tokenizer = tokenizers()[case.reader]
    trained, read = example.response_ids[example.mask], example.response_ids[~example.mask]
    pieces = list(pieces_of(case, outcome))
    assert trained.tolist() == [int(i) for piece in pieces for i in piece]
    check_untouched(case, pieces)
    check_replies(case, pieces, read, tokenizer)
    check_controls(case, draft, trained, tokenizer)
    check_sum(case, draft, example.mask, pieces)
    check_credit(case, example.advantages[example.mask], pieces, tokenizer)
    return True


def pieces_of(case: Case, outcome: Outcome) -> Iterator[Ids]:
    """What was written in each turn, in the reader's tokens."""
    if case.is_own:
        yield from (c.token_ids for c in case.experience.written)
        return
    earlier = earlier_in_tokens_of(case.experience.earlier, bridge(), tokenizers()[case.reader])
    assert isinstance(earlier, list)
    yield from (piece.ids for piece in earlier)
    assert outcome.translation is not None
    yield outcome.translation.token_ids


def check_untouched(case: Case, pieces: Sequence[Ids]) -> None:
    if case.author == case.reader:
        assert [p.tolist() for p in pieces] == [c.token_ids.tolist() for c in case.experience.written]
    if case.experience.earlier[0].is_opening:
        assert pieces[0].size == 0, "a silence is trained on"


def check_replies(case: Case, pieces: Sequence[Ids], read: Ids, tokenizer: Tokenizer) -> None:
    """What is read and not trained on is each reply, in what the template puts around any reply: the same control
    tokens, and what the world said."""
    talk, prompt = conversing(case.reader), case.experience.task.prompt
    turns = case.experience.earlier
    plain = [talk.after(prompt, Reply(MARK, t.reply.role), p) for t, p in zip(turns, pieces[:-1], strict=True)]
    controls = [[int(i) for i in ids if int(i) in tokenizer.specials] for ids in (read, np.concatenate(plain))]
    assert controls[0] == controls[1], f"replies bring control tokens: {controls}"
    around = [tokenizer.token_bytes(ids).decode() for ids in plain]
    assert all(said.count(MARK) == 1 for said in around)
    wanted = "".join(said.replace(MARK, t.reply.text) for said, t in zip(around, turns, strict=True))
    heard = tokenizer.token_bytes(read).decode("utf-8", "backslashreplace")
    assert squeezed(heard) == squeezed(wanted), "replies are not what the world said"


def squeezed(said: str) -> str:
    """Without white space, which templates trim, and SentencePiece adds and writes as \u2581; in one normal form."""
    return unicodedata.normalize("NFC", "".join(said.replace("\u2581", " ").split()))


def check_controls(case: Case, draft: Draft, trained: Ids, tokenizer: Tokenizer) -> None:
    talk, prompt = conversing(case.reader), case.experience.task.prompt
    plain = talk.prompt("x" if isinstance(prompt, str) else ({"role": "user", "content": "x"},))
    asked = [[int(i) for i in ids if int(i) in tokenizer.specials] for ids in (draft.prompt_ids, plain)]
    assert asked[0] == asked[1], f"the prompt brings control tokens: {asked}"
    if case.author == case.reader:
        return  # they are what was sampled
    stops = sum(c.finish_reason == "stop" for c in case.experience.written)
    control = [int(i) for i in trained if int(i) in tokenizer.specials]
    assert set(control) <= {tokenizer.stop_id}, f"control tokens {control} are trained on"
    assert len(control) == stops, f"{len(control)} stop tokens of {stops} turns that stopped"


def check_sum(case: Case, draft: Draft, trained: np.ndarray, pieces: Sequence[Ids]) -> None:
    assert draft.author_logprobs is not None
    assert not np.any(draft.author_logprobs[~trained])
    total, claimed = float(draft.author_logprobs[trained].sum()), 0.0
    for completion, ids in zip(case.experience.written, pieces, strict=True):
        if ids.size:
            claimed += float(completion.logprobs.sum())
        elif completion.token_ids.size:
            assert nothing_is_left(completion, case), f"nothing is left of {completion.text!r}"
    assert abs(total - claimed) <= 1e-6 * max(1.0, abs(claimed)), f"{claimed} became {total}"


def nothing_is_left(completion: Completion, case: Case) -> bool:
    """Of a turn that was cut before its first character was finished, or before it said more than the reader's own
    prompt, which opens a thought. A turn that stopped has its stop token."""
    if completion.finish_reason == "stop":
        return False
    opens, opened = (declaration_of(tokenizers()[name]).boundary.opening for name in (case.reader, case.author))
    said = completion.text.rstrip("\ufffd").lstrip()
    tags = [tag for tag in think_tags("think_open") if said in (tag, f"{tag}\n")]
    return not completion.text.rstrip("\ufffd") or bool(opens and not opened and tags)


def check_credit(case: Case, credit: Floats, pieces: Sequence[Ids], tokenizer: Tokenizer) -> None:
    """Where the row ends with the text, or the text with the row, one can count from the end."""
    at = sum(ids.size for ids in pieces[: case.span.turn])
    own = credit[at : at + pieces[case.span.turn].size]
    assert (np.delete(credit, np.arange(at, at + own.size)) == 1.0).all(), "another turn is worth something else"
    text, row = case.experience.written[case.span.turn].text, tokenizer.token_bytes(pieces[case.span.turn])
    if not row.endswith(text.encode()) and not text.encode().endswith(row):
        return
    more = len(row) - len(text.encode())
    start = len(text[: case.span.start].encode())
    end = math.inf if case.span.end is None else len(text[: case.span.end].encode())
    lengths = tokenizer.byte_lengths(pieces[case.span.turn])
    begins = [max(begin - more, 0) for begin in (np.cumsum(lengths) - lengths).tolist()]
    wanted = [WORTH if start <= begin < end else 1.0 for begin in begins]
    assert own.tolist() == wanted, f"{case.span} of {text!r} is worth {own.tolist()}, not {wanted}"


def run(cases: int, seed: int = 0, *, first: int = 0) -> tuple[int, int]:
    """How many cases were tried, and how many of them were learnt from; the others the bridge rejects."""
    taken = 0
    for at in range(first, first + cases, BATCH):
        numbers = range(at, min(at + BATCH, first + cases))
        try:
            taken += checked([drawn(seed, number) for number in numbers])
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {error}") from error
    return cases, taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.learners.fuzz_turns", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    args = parser.parse_args()
    tokenizers()
    gc.freeze()  # a full collection would walk through ten vocabularies again and again
    until, tried, taken = time.monotonic() + args.seconds, 0, 0
    while tried < args.cases and time.monotonic() < until:
        more, learnt = run(min(SLICE, args.cases - tried), args.seed, first=args.first + tried)
        tried, taken = tried + more, taken + learnt
        print(f"{taken:,} of {tried:,} from {args.first} on were learnt from, the others rejected whole", flush=True)


if __name__ == "__main__":
    main()
