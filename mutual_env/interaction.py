"""The world between two turns of an episode: tools, hints, opponents, other policies.

A task source that has an `interaction` makes its env one of several turns; a source without one ends after the first.
An interaction is named by an `InteractionSpec`, as a verifier is by a `VerifierSpec`: it is built where it runs.

    class Hints:
        inline, joint, max_turns = True, False, 3

        def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Reply | Over]:
            return [Over() if c.text == task.answer else Reply("no") for c in conversations]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeGuard, runtime_checkable

from mutual_env.catalogue import Catalogue, load
from mutual_env.errors import InvalidInputError
from mutual_env.options import check_options
from mutual_env.types import JSON, Metrics, Prompt, Reply, Task, Verdict
from mutual_env.verifiers.spec import spec_id


@dataclass(frozen=True, slots=True)
class Conversation:
    """One sample of an episode as the world sees it: texts alone. `text` is what was written last; `earlier` holds what
    was written and answered before. The group's samples are numbered by `sample`. `verdict` is what the env's
    verifier says of `text`, where the interaction needs that (see `Judging`) and it was just written; `said` what the
    policy in the interaction's seat says to it (see `Seated`)."""

    author: str
    sample: int
    text: str
    earlier: tuple[tuple[str, str], ...] = ()
    is_over: bool = False
    verdict: Verdict | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Over:
    """The conversation ends here. `verdict`: what it came to, where the interaction knows (a game that was won); None:
    the env's verifier reads what was written last. `failed`: it ends because the interaction hung or broke on it, and
    `verdict` has the status."""

    verdict: Verdict | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Others have to write before this conversation is answered: see `TakingTurns`."""


Answer: TypeAlias = Reply | Over | Wait


@runtime_checkable
class Interaction(Protocol):
    """What answers. It depends on its arguments alone, and says the same to the same texts in every process."""

    @property
    def inline(self) -> bool:
        """True where answering is cheap and safe on hostile text, so that no worker process is needed. One that is not
        derives from `mutual_env.confined.Confined`, and answers in the pool's worker processes."""

    @property
    def joint(self) -> bool:
        """True where the conversations of all agents on a task are answered together (debates, games); False where
        each is answered by itself, and what one does to the world cannot touch another."""

    @property
    def max_turns(self) -> int:
        """How often a policy writes, at most."""

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> Sequence[Answer]:
        """An answer to each conversation, in their order. Those that are over are there to be read: whatever is
        answered to them is ignored."""


@runtime_checkable
class Judging(Interaction, Protocol):
    """An interaction whose answers follow from what the env's verifier says of each text. It is asked in its pool,
    whatever it does there, and `Conversation.verdict` holds what it said."""

    @property
    def needs_verdicts(self) -> bool: ...


@runtime_checkable
class Seated(Interaction, Protocol):
    """An interaction with a seat for a policy that is not trained: a judge, a user. Who sits there is given to the env
    (`make(..., seats={seat: speaker})`); it is asked before `respond`, and `Conversation.said` holds what it said."""

    @property
    def seat(self) -> str: ...

    def asks(self, task: Task, conversation: Conversation) -> Prompt | None:
        """What the one in the seat reads; None: it is not asked about this."""


Speaker: TypeAlias = Callable[[Sequence[Prompt], int], Sequence[str]]
"""Who sits in a seat: from prompts and a seed to what is said to each. It depends on these alone."""


@runtime_checkable
class TakingTurns(Interaction, Protocol):
    """A joint interaction whose agents write one after the other, such as a game. Conversations of one sample on a
    task belong together.

    It speaks first: when a round begins it is asked with nothing written. Whoever is to write gets a `Reply`, the
    others `Wait`: they are asked for nothing, and their conversations come again, as they are, when somebody has
    written.
    """

    @property
    def takes_turns(self) -> bool:
        """True."""

    @property
    def players(self) -> int:
        """How many agents there must be."""


def takes_turns(interaction: Interaction) -> TypeGuard[TakingTurns]:
    """Whether its agents write one after the other."""
    return isinstance(interaction, TakingTurns) and interaction.takes_turns


@runtime_checkable
class Measured(Interaction, Protocol):
    """An interaction that has something to say about a round's conversations."""

    def measure(self, author: str, conversations: Sequence[Conversation]) -> Metrics:
        """About what this author did in the conversations on one task. Means over the tasks become its metrics."""


@dataclass(frozen=True, slots=True, eq=False)
class InteractionSpec:
    """An interaction as data: a registered name or "module:attribute", and options. `id` tells specs apart."""

    name: str
    kwargs: Mapping[str, JSON] = field(default_factory=dict)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kwargs", dict(self.kwargs))
        object.__setattr__(self, "id", spec_id(self.name, self.kwargs))


_CATALOGUE: Catalogue[str] = Catalogue(
    "interaction",
    "mutual_env.interactions",
    {
        "guess": "mutual_env.tasks.guess:HigherLower",
        "retries": "mutual_env.tasks.retries:TryAgain",
        "calculator": "mutual_env.tasks.tools:Calculator",
        "python": "mutual_env.tasks.python_tool:PythonTool",
        "wasm_python": "mutual_env.tasks.python_tool:WasmPythonTool",
        "debate": "mutual_env.tasks.debate:Debate",
        "undercut": "mutual_env.tasks.undercut:UndercutTable",
        "judge": "mutual_env.tasks.seats:Judge",
        "user": "mutual_env.tasks.seats:User",
    },
)


def register(name: str, target: str) -> None:
    """Name an interaction: `target` is the "module:attribute" of a class or function that returns one."""
    _CATALOGUE.register(name, target)


def names() -> list[str]:
    return _CATALOGUE.names()


def target_of(spec: InteractionSpec) -> str:
    """The "module:attribute" behind a spec's name."""
    return spec.name if ":" in spec.name else str(_CATALOGUE.target(spec.name))


def make(spec: InteractionSpec) -> Interaction:
    """The interaction that `spec` names."""
    what = f"interaction {spec.name!r}"
    factory = load(what, target_of(spec))
    check_options(what, factory, spec.kwargs)
    made = factory(**spec.kwargs)
    if not isinstance(made, Interaction):
        raise InvalidInputError(
            f"{what} is a {type(made).__name__}, which is no interaction: that has `inline`, `joint`, `max_turns` and "
            "`respond`"
        )
    return made


def checked(answers: Sequence[Answer], conversations: Sequence[Conversation], what: str) -> list[Answer]:
    """The answers, if there is one of the right kind for each conversation, and nobody waits for ever."""
    given = list(answers)
    if len(given) != len(conversations) or not all(isinstance(a, Answer) for a in given):
        raise InvalidInputError(
            f"{what}: respond must return a Reply, Over or Wait for each of {len(conversations)} conversations, "
            f"got {given!r:.200}"
        )
    open_ones = [(c.sample, a) for c, a in zip(conversations, given, strict=True) if not c.is_over]
    waited_for = {sample for sample, answer in open_ones if isinstance(answer, Reply)}
    for sample, answer in open_ones:
        if isinstance(answer, Wait) and sample not in waited_for:
            raise InvalidInputError(
                f"{what}: respond lets sample {sample} wait and asks nobody of it: answer Reply to whoever is to write"
            )
    return given
