"""The data of one round, in the order in which it flows.

    Task          what is asked; drawn from a seed and a round                       (mutual_env.tasks)
    Completion    what a policy wrote after the prompt, with its trace               (learners: act)
    Reply         what the world answered to it, where an episode has several turns  (mutual_env.interaction)
    Turn          a completion and the reply to it
    Context       what a policy goes on from: the prompt and the turns so far        (mutual_env.env: observations)
    Verdict       what the verifier said of it                                       (mutual_env.verifiers)
    Experience    task + author + completion + verdict + round, and the turns before (mutual_env.env: step)
    Group         one author's experiences on one task
    Lesson        what one reader learns from one experience, and how strongly       (sharing)
      LossSpec    the term it adds: PolicyGradient, CrossEntropy, or any loss of `learners.losses` by its name
      Correction  what stands in for the author's absence: OldPolicy, AuthorPolicy, AuthorWeight, AuthorMean,
                  CompatibilityGate, TeacherMixture, TeacherDivergence, TeacherReward
    Translation   a peer's completion in the reader's tokens                         (tokenizers_bridge.types)
    Example       token ids, mask, advantages, anchors: all that a learner sees      (learners.batch)

Each stage returns a new type; nothing is filled in later. Shapes are in names: A agents, P prompts, G group, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from mutual_env.credit import Span, checked_spans
from mutual_env.errors import InvalidInputError, MisalignedError
from mutual_env.loss_specs import Aggregation as Aggregation
from mutual_env.loss_specs import CrossEntropy as CrossEntropy
from mutual_env.loss_specs import LossSpec as LossSpec
from mutual_env.loss_specs import NamedLoss as NamedLoss
from mutual_env.loss_specs import PolicyGradient as PolicyGradient
from mutual_env.loss_specs import Scalar as Scalar

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Metrics: TypeAlias = dict[str, float]
Ids: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float64]
FinishReason: TypeAlias = Literal["stop", "stop_string", "length"]
VerdictStatus: TypeAlias = Literal["ok", "wrong_format", "timeout", "crash", "error"]


class Message(TypedDict):
    """One turn of a chat prompt."""

    role: str
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked. `id` is the same for the same task in every process; `answer` never reaches a policy."""

    id: str
    prompt: Prompt
    answer: str
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What a policy wrote after the prompt.

    `token_ids` are the ids that were sampled, the stop token included where the policy stopped by itself; `logprobs`
    are theirs under the distribution that was sampled from. `tokenizer` is the fingerprint of their vocabulary.
    `finish_reason` is "stop" after a stop token, "stop_string" where the text came to hold one that ends it (and is
    part of it), "length" where it was cut off. A completion made of text alone has no trace: see `from_text`.
    """

    text: str
    token_ids: Ids
    logprobs: Floats
    finish_reason: FinishReason
    policy_version: int
    tokenizer: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", _frozen_array(self.token_ids, np.int32))
        object.__setattr__(self, "logprobs", _frozen_array(self.logprobs, np.float64))
        if self.token_ids.shape != self.logprobs.shape or self.token_ids.ndim != 1:
            raise MisalignedError.of("Completion.logprobs", "token_ids", self.token_ids.size, self.logprobs.size)

    @classmethod
    def from_text(cls, text: str, *, policy_version: int = 0) -> Completion:
        """Without a token trace: it can be verified and shared as text, but its author cannot train on it."""
        return cls(text, np.empty(0, np.int32), np.empty(0), "stop", policy_version, "")

    @classmethod
    def silence(cls) -> Completion:
        """What stands before a reply where the world speaks first. An empty text that somebody wrote was not cut."""
        return cls("", np.empty(0, np.int32), np.empty(0), "length", 0, "")

    @classmethod
    def no_room(cls, policy_version: int, tokenizer: str) -> Completion:
        """What a policy writes in a conversation that has grown too long for it: nothing, and so it ends."""
        return cls("", np.empty(0, np.int32), np.empty(0), "length", policy_version, tokenizer)

    @property
    def found_no_room(self) -> bool:
        return self.has_trace and not self.token_ids.size and self.finish_reason == "length"

    @property
    def has_trace(self) -> bool:
        return self.tokenizer != ""

    @property
    def is_silence(self) -> bool:
        """Whether nobody wrote it: see `silence`."""
        return not self.text and not self.has_trace and self.finish_reason == "length"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        return (
            self.text == other.text
            and self.finish_reason == other.finish_reason
            and self.policy_version == other.policy_version
            and self.tokenizer == other.tokenizer
            and np.array_equal(self.token_ids, other.token_ids)
            and np.array_equal(self.logprobs, other.logprobs, equal_nan=True)
        )

    def __hash__(self) -> int:
        return hash((self.text, self.tokenizer, self.policy_version, self.token_ids.tobytes()))


@dataclass(frozen=True, slots=True)
class Reply:
    """What the world answered to a turn: read by the policy, never trained on.

    `role` is the chat role it speaks in. `reward` is what the turn before it was worth, where the task says so.
    """

    text: str
    role: str = "user"
    reward: float | None = None

    def __post_init__(self) -> None:
        if self.reward is not None and not math.isfinite(self.reward):
            raise InvalidInputError(f"Reply.reward must be None or finite, got {self.reward!r}")


@dataclass(frozen=True, slots=True)
class Turn:
    """What a policy wrote, and what the world answered."""

    completion: Completion
    reply: Reply

    @property
    def is_opening(self) -> bool:
        """Whether the world speaks first: nothing was written."""
        return self.completion.is_silence


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy goes on from. The ids it has sampled in `turns` are kept as they are, never rendered again."""

    prompt: Prompt
    turns: tuple[Turn, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the policy has written nothing in it yet."""
        return all(turn.is_opening for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier said. `reward` is None exactly where no verdict was reached: never a silent zero."""

    reward: float | None
    correct: bool
    status: VerdictStatus
    elapsed: float = field(default=0.0, compare=False)
    detail: str = ""

    def __post_init__(self) -> None:
        scored = self.status in ("ok", "wrong_format")
        if scored != (self.reward is not None) or (self.correct and self.status != "ok"):
            raise InvalidInputError(
                f"Verdict: status {self.status!r} does not go with reward {self.reward!r}, correct {self.correct!r}"
            )
        if self.reward is not None and not math.isfinite(self.reward):
            raise InvalidInputError(
                f"Verdict.reward must be finite, got {self.reward!r}: return a number, or raise and say why"
            )

    @classmethod
    def scored(cls, reward: float, *, correct: bool, elapsed: float = 0.0, detail: str = "") -> Verdict:
        return cls(float(reward), correct, "ok", elapsed, detail)

    @classmethod
    def wrong_format(cls, *, elapsed: float = 0.0, detail: str = "") -> Verdict:
        """The answer could not be read: that is the policy's fault, and is worth 0."""
        return cls(0.0, False, "wrong_format", elapsed, detail)

    @classmethod
    def unscored(
        cls, status: Literal["timeout", "crash", "error"], *, elapsed: float = 0.0, detail: str = ""
    ) -> Verdict:
        """No verdict was reached: that is worth nothing, not zero."""
        return cls(None, False, status, elapsed, detail)


@dataclass(frozen=True, slots=True)
class Experience:
    """One verified sample of an episode: what was written last, and the turns before it (none, as a rule)."""

    task: Task
    author: str
    completion: Completion
    verdict: Verdict
    round: int
    earlier: tuple[Turn, ...] = ()

    @property
    def written(self) -> tuple[Completion, ...]:
        """What the author wrote, turn by turn."""
        return (*(turn.completion for turn in self.earlier), self.completion)


Group: TypeAlias = tuple[Experience, ...]


# -- what a lesson asks for -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OldPolicy:
    """The anchor is the reader's own policy at the start of the update."""


@dataclass(frozen=True, slots=True)
class AuthorPolicy:
    """The anchor is the author's behaviour policy, compared chunk by chunk (a chunk's tokens by their sums: the bridge
    knows an author of another tokenizer no better); tokens in no exact chunk are masked."""


@dataclass(frozen=True, slots=True)
class AuthorWeight:
    """The anchor is the reader's old policy, and the credit of a chunk is multiplied by w = min(π_old / β, ratio_cap),
    which has no gradient (F-TIS); tokens in no exact chunk are masked.

    A sample with A <= 0 is dropped unless its KL(author || reader), estimated over the whole sample, is at most
    `max_kl` nats.
    """

    ratio_cap: float = 2.0
    max_kl: float = math.inf


@dataclass(frozen=True, slots=True)
class AuthorMean:
    """The anchor of every token is the author's mean log-probability (HACPO).

    `lengths`: both means are over the "reader"'s tokens, so that equal policies of different tokenizers are equal; or
    each over its "own", as published, where a shorter tokenization of the same text looks less likely a token.
    """

    lengths: Literal["reader", "own"] = "reader"


@dataclass(frozen=True, slots=True)
class CompatibilityGate:
    """The anchor is the reader's old policy; the weight is multiplied by w = 1[s > floor] min(s, cap), with
    s = exp(mean log π_old - mean log β), and w = 0 drops the sample (GRAFT). `power`: of min(s, cap); 0 measures
    without weighing.

    `lengths`: as of `AuthorMean`.
    """

    floor: float = 0.8
    cap: float = 1.0
    lengths: Literal["reader", "own"] = "reader"
    power: float = 1.0


@dataclass(frozen=True, slots=True)
class TeacherMixture:
    """The anchor is alpha log π_old + (1 - alpha) log π_teacher, chunk by chunk; unaligned tokens use π_old alone
    (TRRD). The teacher counts as no further from π_old than `log_ratio_limit` on any chunk."""

    teacher: str
    alpha: float
    log_ratio_limit: float = math.inf


@dataclass(frozen=True, slots=True)
class TeacherDivergence:
    """The anchor is the reader's old policy; coefficient · KL_k3(π || π_teacher) is added on aligned chunks (KD-RL)."""

    teacher: str
    coefficient: float


@dataclass(frozen=True, slots=True)
class TeacherReward:
    """The anchor is the reader's old policy; a teacher's opinion of each aligned chunk is added to its credit (TOP-D).

    A chunk's reward is log(alpha ρ + 1 - alpha), ρ the teacher's ratio to the policy that sampled it; its return is its
    reward plus the mean of the later chunks' of its sample. Returns are centred and scaled (`std`, as of strategies)
    among all chunks of the samples of one task that ask for the same.
    """

    teacher: str
    alpha: float
    std: bool | Literal["population", "sample"] = True


Correction: TypeAlias = (
    OldPolicy
    | AuthorPolicy
    | AuthorWeight
    | AuthorMean
    | CompatibilityGate
    | TeacherMixture
    | TeacherDivergence
    | TeacherReward
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one reader learns from one experience. Higher `order` is trained on later. `spans` say what parts of the
    written texts are worth instead of `advantage`; where they overlap, the last one does.

    `aggregation`: how its loss is averaged, where that is the strategy's own affair: over the tokens of the optimizer
    step; over each sequence, then over sequences; or over sequences of a constant length. None: as the learner does.
    `note`: why it is given, for who reads the record of the run; nothing is computed from it.
    """

    experience: Experience
    advantage: float
    loss: LossSpec = field(default_factory=PolicyGradient)
    correction: Correction = field(default_factory=OldPolicy)
    weight: float = 1.0
    order: int = 0
    spans: tuple[Span, ...] = ()
    aggregation: Aggregation | None = None
    note: str = ""

    def __post_init__(self) -> None:
        _check_is("Lesson.experience", self.experience, Experience, "an Experience")
        _check_is("Lesson.loss", self.loss, LossSpec, "a LossSpec, such as PolicyGradient() or NamedLoss.of(name)")
        _check_is("Lesson.correction", self.correction, Correction, "a Correction, such as OldPolicy()")
        _check_is("Lesson.order", self.order, int, "a whole number")
        for name, value in (("Lesson.advantage", self.advantage), ("Lesson.weight", self.weight)):
            _check_is(name, value, (int, float, np.floating), "one number")
            if not math.isfinite(value):
                raise InvalidInputError(f"{name} must be finite, got {value!r}")
        if self.spans:
            object.__setattr__(self, "spans", checked_spans(self.spans, [c.text for c in self.experience.written]))
        if self.aggregation not in (None, *get_args(Aggregation)):
            raise InvalidInputError(
                f"Lesson.aggregation must be None or one of {', '.join(get_args(Aggregation))}, "
                f"got {self.aggregation!r}"
            )
        if self.weight < 0.0:
            raise InvalidInputError(
                f"Lesson.weight must be at least 0, got {self.weight!r}: "
                "give what should become less likely a negative advantage"
            )


class AgentInfo(TypedDict):
    """What `infos[agent]` holds after `step`: the env writes all but `lessons`, the sharing wrappers write that."""

    round: int
    groups: tuple[Group, ...]
    metrics: Metrics
    lessons: NotRequired[tuple[Lesson, ...]]


def _check_is(name: str, value: object, kind: Any, said: str) -> None:
    """Raise unless the value is of this kind. A bool is a number to Python alone."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidInputError(f"{name} must be {said}, got {value!r:.200}")


def _frozen_array(values: object, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] = np.array(values, dtype=dtype)  # a copy: the caller may reuse its buffer
    array.flags.writeable = False
    return array
