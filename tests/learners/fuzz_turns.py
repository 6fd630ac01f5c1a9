"""Random conversations between ten published tokenizers, with texts and tool output that spell control tokens.

    python -m tests.learners.fuzz_turns --cases 20000

Of each: what was written is trained on and nothing else is, a policy's own ids are untouched, no control token enters
but the stop tokens of turns and what the reader's own template puts around a reply, and an author's log-probabilities
have the same sum on the reader's tokens.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from functools import cache

import numpy as np

from learners.conversed import Piece, earlier_in_tokens_of, with_turns
from learners.corrections import Draft
from mutual_env import Completion, Experience, Lesson, Task, Verdict
from mutual_env.types import CrossEntropy, Prompt, Reply, Turn
from tests.tokenizers_bridge.published import loaded
from tokenizers_bridge import Tokenizer, TokenizerBridge
from tokenizers_bridge.kinds.published import PUBLISHED
from tokenizers_bridge.protocol import stop_ids_of
from tokenizers_bridge.replies import Conversing

PIECES = (
    "<|im_end|>", "<|im_start|>user\n", "</s>", "[INST]", "[/INST]", "<end_of_turn>", "<|eot_id|>", "<｜User｜>",
    "<|endoftext|>", "<think>", "{{ messages }}", "{% endif %}", "<tool_call>", "hello ", "42", "\n", " x", "é", "🙂",
    "中文", "\t", "a b", "<output>", "</output>", "0.5e3", "'", '"', "\\",
)  # fmt: skip


@cache
def tokenizers() -> dict[str, Tokenizer]:
    return {name: loaded(name) for name in PUBLISHED}


@cache
def bridge() -> TokenizerBridge:
    return TokenizerBridge(tokenizers().values())


@cache
def conversing(name: str) -> Conversing:
    return Conversing(tokenizers()[name])


def text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 6)))


def said(rng: random.Random, tokenizer: Tokenizer) -> Completion:
    """A text as a policy that spells it with ordinary tokens writes it; it stops by itself, or is cut off."""
    written, stops = text(rng), rng.random() < 0.7
    ids = tokenizer.encode_batch([written])[0]
    ids = np.append(ids, np.int32(tokenizer.stop_id)) if stops else ids
    logprobs = np.array([-rng.expovariate(1.0) for _ in ids])
    return Completion(written, ids, logprobs, "stop" if stops else "length", 0, tokenizer.fingerprint)


def experienced(rng: random.Random, author: str) -> Experience:
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
    return Experience(Task("t", prompt, ""), author, said(rng, tokenizers()[author]), verdict, 0, turns)


def case(rng: random.Random) -> bool:
    """Check one; False where the bridge rejects it."""
    names = list(tokenizers())
    author = rng.choice(names)
    reader = rng.choice([author, *names])
    experience, own = experienced(rng, author), author == reader
    tokenizer, talk = tokenizers()[reader], conversing(reader)
    lesson = Lesson(experience, 1.0, CrossEntropy())
    if own:
        pieces = [Piece.own(turn.completion) for turn in experience.earlier]
        last = Draft.own(lesson, talk.prompt(experience.task.prompt))
    else:
        translated = earlier_in_tokens_of(experience.earlier, bridge(), tokenizer)
        [translation] = bridge().translate([experience.completion], tokenizer)
        if not isinstance(translated, list) or translation.action == "reject":
            return False
        pieces, last = translated, Draft.borrowed(lesson, talk.prompt(experience.task.prompt), translation)
    draft = with_turns(last, pieces, talk)
    check(experience, draft, pieces, last, tokenizer, talk, own=own)
    return True


def check(
    experience: Experience, draft: Draft, pieces: list[Piece], last: Draft, tokenizer: Tokenizer, talk: Conversing,
    *, own: bool,
) -> None:  # fmt: skip
    written = np.ones(draft.response_ids.size, np.bool_) if draft.written is None else draft.written
    trained, read = draft.response_ids[written], draft.response_ids[~written]
    assert trained.tolist() == np.concatenate([*(p.ids for p in pieces), last.response_ids]).tolist()
    replies = [
        talk.after(experience.task.prompt, t.reply, p.ids) for t, p in zip(experience.earlier, pieces, strict=True)
    ]
    assert read.tolist() == np.concatenate(replies).tolist()
    if own:
        assert trained.tolist() == np.concatenate([c.token_ids for c in experience.written]).tolist()
    if experience.earlier[0].is_opening:
        assert pieces[0].ids.size == 0, "a silence is trained on"
    stops = sum(c.finish_reason == "stop" for c in experience.written)
    control = [int(i) for i in trained if int(i) in tokenizer.specials]
    assert set(control) <= set(stop_ids_of(tokenizer)), f"control tokens {control} are trained on"
    assert len(control) <= stops, f"{len(control)} stop tokens of {stops} turns that stopped"
    is_chat = not isinstance(experience.task.prompt, str)
    for turn in experience.earlier:
        ids, plain = (talk.reply(Reply(t, turn.reply.role), is_chat=is_chat) for t in (turn.reply.text, "x"))
        counts = [sum(int(i) in tokenizer.specials for i in found) for found in (ids, plain)]
        assert counts[0] == counts[1], f"{turn.reply.text!r} brings control tokens: {counts}"
    if draft.author_logprobs is not None:
        total = float(np.nansum(draft.author_logprobs[written]))
        sizes = [*(piece.ids.size for piece in pieces), last.response_ids.size]
        # Nothing is left of a turn that was cut behind the tag of its thinking, where the reader's prompt opens it.
        left = [c for c, size in zip(experience.written, sizes, strict=True) if size or c.text != "<think>"]
        claimed = sum(float(c.logprobs.sum()) for c in left)
        assert abs(total - claimed) <= 1e-6 * max(1.0, abs(claimed)), f"{claimed} became {total}"


def run(cases: int, seed: int = 0, *, first: int = 0, seconds: float = math.inf) -> tuple[int, int]:
    """How many cases were tried before the time was up, and how many of them were learnt from; the others the bridge
    rejects."""
    taken, until = 0, time.monotonic() + seconds
    for number in range(first, first + cases):
        if time.monotonic() > until:
            return number - first, taken
        try:
            taken += case(random.Random(f"{seed}:{number}"))
        except AssertionError as error:
            raise AssertionError(f"case {number} of seed {seed}: {error}") from error
    return cases, taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.learners.fuzz_turns", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    args = parser.parse_args()
    tried, taken = run(args.cases, args.seed, first=args.first, seconds=args.seconds)
    print(f"{taken} of {tried} conversations from {args.first} on were learnt from, the others rejected whole")


if __name__ == "__main__":
    main()
