"""Interactions that are not inline: they answer in the pool's confined worker processes, each call in one of its own.

Whatever a call does there (it hangs, forks, floods, raises), it ends the conversations that it was to answer, with a
status, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, Interaction, InteractionSpec, Over, Wait, checked, target_of
from mutual_env.types import JSON, Reply, Task, Verdict
from mutual_env.verifiers import Outcome, VerifierPool
from mutual_env.verifiers.pool.wire import task_as_json, task_from_json

Asked: TypeAlias = Sequence[tuple[Task, Sequence[Conversation]]]
ROLES = ("user", "tool")


class Confined:
    """What an interaction derives from that is not inline. Its class is named by the spec, and built in the worker.

    `runs_code`: what was written may be run by it, and could then say anything in its name. So only texts are taken
    from it: no reward, no verdict, no role but "user" and "tool". False: its author vouches that no text makes it run
    code, and all of its answers are taken as they are.
    """

    inline: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    runs_code: ClassVar[bool] = True

    def at_once(self, task: Task, conversation: Conversation) -> Answer | None:
        """An answer that needs no worker, being cheap and safe on hostile text; None: a worker is asked. Where the
        conversations on a task are answered together, this is not."""
        return None

    @classmethod
    def answer(cls, item: Any) -> JSON:
        """What a worker process is asked: the options, the task, the conversations."""
        interaction: Any = cls(**item["options"])
        conversations = [_conversation(fields) for fields in item["conversations"]]
        answers = interaction.respond(task_from_json(item["task"]), conversations)
        return [_as_json(answer) for answer in checked(answers, conversations, cls.__name__)]


def check_confined(interaction: Interaction, spec: InteractionSpec) -> None:
    """Refuse one that says it is not inline and has nothing that a worker could call."""
    if not interaction.inline and not isinstance(interaction, Confined):
        raise InvalidInputError(
            f"interaction {spec.name!r} is not inline, so it answers in worker processes: derive its class from "
            "mutual_env.confined.Confined, or set inline = True if answering is cheap and safe on hostile text"
        )


def answers_of(interaction: Confined, spec: InteractionSpec, pool: VerifierPool, asked: Asked) -> list[list[Answer]]:
    """The answers to the conversations on each task, a call for each. A call without an outcome ends them."""
    known = [None if interaction.joint else interaction.at_once(task, said[0]) for task, said in asked]
    calls = [each for each, answer in zip(asked, known, strict=True) if answer is None]
    items: list[JSON] = [
        {"options": dict(spec.kwargs), "task": task_as_json(task), "conversations": [_said(c) for c in said]}
        for task, said in calls
    ]
    outcomes = pool.call(f"{target_of(spec)}.answer", items) if items else []
    heard = iter(
        _answers(outcome, said, trusted=not interaction.runs_code)
        for outcome, (_, said) in zip(outcomes, calls, strict=True)
    )
    return [next(heard) if answer is None else [answer] for answer in known]


def _answers(outcome: Outcome, said: Sequence[Conversation], *, trusted: bool) -> list[Answer]:
    count = len(said)
    if outcome.status != "ok":
        failure = Verdict.unscored(
            outcome.status, elapsed=outcome.elapsed, detail=f"the world's turn: {outcome.detail}"
        )
        return [Over(failure, failed=True)] * count
    try:
        found = outcome.value
        if not isinstance(found, list) or len(found) != count:
            raise InvalidInputError(f"there must be {count} answers")
        return checked([_answer(fields, trusted=trusted) for fields in found], said, "a worker's answer")
    except (InvalidInputError, TypeError, ValueError, KeyError) as cause:
        what = f"the world's turn: a worker sent what is no answer, {type(cause).__name__}: {cause}"
        return [Over(Verdict.unscored("error", detail=what[:500]), failed=True)] * count


def _answer(fields: Any, *, trusted: bool) -> Answer:
    if "waits" in fields:
        return Wait()
    if "text" not in fields:
        verdict = fields["verdict"]
        return Over(_verdict(verdict) if trusted and verdict is not None else None)
    text, role, reward = fields["text"], fields["role"], fields["reward"]
    if not isinstance(text, str) or not isinstance(role, str):
        raise InvalidInputError("a reply is a text in a role")
    text = text.encode("utf-8", "replace").decode()  # half a character is no text
    if not trusted:
        return Reply(text, role if role in ROLES else "user")
    return Reply(text, role, None if reward is None else float(reward))


def _as_json(answer: Answer) -> JSON:
    if isinstance(answer, Reply):
        return {"text": answer.text, "role": answer.role, "reward": answer.reward}
    if isinstance(answer, Wait):
        return {"waits": True}
    return {"verdict": None if answer.verdict is None else _stated(answer.verdict)}


def _said(c: Conversation) -> JSON:
    verdict = None if c.verdict is None else _stated(c.verdict)
    return [c.author, c.sample, c.text, [list(turn) for turn in c.earlier], c.is_over, verdict, c.said]


def _conversation(fields: Any) -> Conversation:
    author, sample, text, earlier, is_over, verdict, said = fields
    turns = tuple((written, said) for written, said in earlier)
    return Conversation(author, sample, text, turns, is_over, None if verdict is None else _verdict(verdict), said)


def _stated(verdict: Verdict) -> JSON:
    return [verdict.reward, verdict.correct, verdict.status, verdict.elapsed, verdict.detail]


def _verdict(fields: Any) -> Verdict:
    reward, correct, status, elapsed, detail = fields
    return Verdict(reward, correct, status, elapsed, detail)
