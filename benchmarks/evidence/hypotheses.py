"""What was expected, written down before anything of the family was run.

A hypothesis is about one family, compares one arm with another on the policies named, in one direction, on the overall
held-out accuracy after the last round. It holds where the paired difference has that sign with p (Holm) below .05, is
contradicted where it has the other sign with such a p, and is open otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EITHER: tuple[str, ...] = ()
"""All policies of the family."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`arm` is expected `direction` the baseline; `why` is the reason for which it is asked."""

    name: str
    question: str
    arm: str
    baseline: str
    direction: Literal["above", "below"]
    policies: tuple[str, ...]
    why: str
    family: str = "letters"


HYPOTHESES = (
    Hypothesis(
        "H1",
        "SGT is above GRPO, at as many rollouts of one's own",
        "sgt",
        "grpo",
        "above",
        EITHER,
        "The claim of Mutual RL. GRAFT's table has it for some pairs, from one training seed.",
    ),
    Hypothesis(
        "H2",
        "SGT is above GRPO with twice the rollouts",
        "sgt",
        "grpo-2n",
        "above",
        EITHER,
        "Two policies that share cost two; so does sampling twice. The second is also the control that gives all "
        "compute to one policy, the stronger one among them: policies that share nothing do not know of each other.",
    ),
    Hypothesis(
        "H3",
        "Pooling without correction is below GRPO",
        "naive-pooling",
        "grpo",
        "below",
        EITHER,
        "HACPO's table has it in every cell, from one seed.",
    ),
    Hypothesis(
        "H4",
        "A rescue is above a placebo that is a peer's success on another prompt",
        "sgt",
        "placebo-prompt",
        "above",
        EITHER,
        "If it is not, what helps is imitating the peer, and the gate on failed prompts is beside the point.",
    ),
    Hypothesis(
        "H5",
        "A rescue is above a placebo that is an earlier success of one's own",
        "sgt",
        "placebo-own",
        "above",
        EITHER,
        "If it is not, what helps is more cross-entropy on what is right, whoever wrote it.",
    ),
    Hypothesis(
        "H6",
        "TRRD is above KD-RL, under a teacher that has both skills",
        "trrd",
        "kdrl",
        "above",
        EITHER,
        "RLAD's table has it by 1 to 4 points, from one seed; half of its cells are within sampling error.",
    ),
    Hypothesis(
        "H7",
        "The stronger policy of the pair gains from SGT too",
        "sgt",
        "grpo",
        "above",
        ("llama",),
        "Co-RL's gain goes to the weaker policy nearly alone. Which of the two is stronger is settled here by the warm "
        "start: llama knows its skill better.",
    ),
    Hypothesis(
        "H8",
        "neox gains from a llama that does not learn",
        "sgt-frozen-llama",
        "grpo",
        "above",
        ("neox",),
        "If a frozen peer is as good, nothing mutual happens: it is distillation.",
    ),
    Hypothesis(
        "H9",
        "llama gains from a neox that does not learn",
        "sgt-frozen-neox",
        "grpo",
        "above",
        ("llama",),
        "The same, the other way.",
    ),
    Hypothesis(
        "H10",
        "neox gains more where llama learns than where it is frozen",
        "sgt",
        "sgt-frozen-llama",
        "above",
        ("neox",),
        "What is mutual in mutual reinforcement learning.",
    ),
    Hypothesis(
        "H11",
        "`auto` is at least the best single strategy",
        "auto",
        "sgt",
        "above",
        EITHER,
        "It chooses by prompt what the bandit says is best there; a tie counts as open.",
    ),
    Hypothesis(
        "H12",
        "SGT is above GRPO with dynamic sampling",
        "sgt",
        "grpo-dynamic",
        "above",
        EITHER,
        "The other answer to prompts that nobody solves is to sample them again. GRAFT's table has the two even.",
    ),
    Hypothesis(
        "H13",
        "SGT is above GRPO where neither knows anything and nothing generalises",
        "sgt",
        "grpo",
        "above",
        EITHER,
        "Tables: a success comes by chance, a rescue hands it on, and no other prompt is touched by it.",
        "sums",
    ),
    Hypothesis(
        "H14",
        "Pooling without correction is below GRPO there too",
        "naive-pooling",
        "grpo",
        "below",
        EITHER,
        "Two tables that begin alike stay close: what is wrong with pooling should be seen later, or not at all.",
        "sums",
    ),
    Hypothesis(
        "H15",
        "SGT is above GRPO on two pretrained models",
        "sgt",
        "grpo",
        "above",
        EITHER,
        "The claim of Mutual RL at the smallest size at which models are pretrained. Twenty rounds are few, and both "
        "know some sums: what is expected is the sign.",
        "real",
    ),
    Hypothesis(
        "H16",
        "SGT is above GRPO where a third policy begins with neither skill",
        "sgt",
        "grpo",
        "above",
        EITHER,
        "Two peers may rescue each; who knows nothing hears both of them and has nothing to give.",
        "triple",
    ),
    Hypothesis(
        "H17",
        "SGT is above GRPO where a second try is allowed",
        "sgt",
        "grpo",
        "above",
        EITHER,
        "A hint after a failure gives every policy more successes of its own, which leaves less to a rescue. Over "
        "four letters ([turns](turns.md)) neither policy was distinguishably better for it.",
        "retries",
    ),
    Hypothesis(
        "H18",
        "TRRD is above KD-RL, under a pretrained teacher of another family and tokenizer",
        "trrd",
        "kdrl",
        "above",
        EITHER,
        "RLAD's claim where nobody made it: all of its pairs share a tokenizer. What is carried over the bridge counts "
        "token by token, and eight rounds are few: what is expected is the sign.",
        "teacher",
    ),
    Hypothesis(
        "H19",
        "TRRD is above GRPO without a teacher there",
        "trrd",
        "grpo",
        "above",
        EITHER,
        "RLAD's larger claim, by 4 to 20 points on knights and knaves, from one seed.",
        "teacher",
    ),
    Hypothesis(
        "H20",
        "TRRD is above KD-RL on knights and knaves",
        "trrd",
        "kdrl",
        "above",
        EITHER,
        "RLAD's own task at its smallest. Where teacher and student answer at chance, there is nothing to hand on, and "
        "no difference is expected.",
        "knights",
    ),
)
