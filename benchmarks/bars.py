"""What is asked of each area, and where its file of figures says how much was reached."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from benchmarks.figures import leaves


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing asked for: every figure that `at` leads to (keys joined by "/", with * as in file names) must be at
    least, or at most, so much."""

    what: str
    at: str
    least: float = -math.inf
    most: float = math.inf

    def measured(self, figures: Mapping[str, Any]) -> list[float]:
        found = (value for keys, value in leaves(figures) if fnmatchcase("/".join(keys), self.at))
        return sorted(float(value) for value in found if isinstance(value, int | float))

    def holds(self, values: list[float]) -> bool:
        return bool(values) and self.least <= values[0] and values[-1] <= self.most

    @property
    def asked(self) -> str:
        return f"≥ {self.least:,g}" if self.least > -math.inf else f"≤ {self.most:,g}"


@dataclass(frozen=True, slots=True)
class Area:
    """One file of figures and the module that writes it."""

    name: str
    title: str
    bars: tuple[Bar, ...] = ()
    note: str = ""


COSTS = {"sgt": 1.05, "xgrpo": 1.05, "prp": 1.6, "graft": 1.6}
"""What a round may cost over two policies alone, on real models."""
PUBLISHED_COSTS = {"sgt": 1.78, "graft": 1.45, "hacpo": 1.58}
"""Over two independent runs, in GRAFT's table of hours."""

AREAS = (
    Area(
        "env",
        "A round of the env, and importing",
        (
            Bar(
                "env and one wrapper, µs per agent and step, 1 prompt of 1 sample", "env_and_independent_1x1*", most=50
            ),
            Bar("the same, 8 prompts of 8 samples", "env_and_independent_8x8*", most=50),
            Bar("importing all four packages, s", "import_all_four_s", most=1),
        ),
        "Apart from verification. What 8 x 8 costs is 64 completions, at 5 µs each to check, score, record and teach.",
    ),
    Area(
        "verifiers",
        "The verifier pool",
        (
            Bar("throughput per core, of inline math-verify", "pool/*/share_of_inline_per_core", least=0.8),
            Bar("clean items beside 1% that sleep, of their rate alone", "one_percent_sleeping/clean*", least=0.9),
            Bar("clean items beside 1% that spin, of their rate alone", "one_percent_spinning/clean*", least=0.9),
            Bar("the whole call with 1% that sleep", "one_percent_sleeping/call*", least=0.9),
            Bar("the whole call with 1% that spin", "one_percent_spinning/call*", least=0.9),
        ),
        "A call waits for its last item: one that sleeps keeps it for what is left of its deadline, 0.4 s, when the "
        "others are done. A spinning item is given all the CPU time that its deadline grants: "
        "[verifiers](verifiers.md) has the arithmetic that bounds the last line.",
    ),
    Area(
        "bridge",
        "The tokenizer bridge",
        (
            Bar("align and both sums, µs per token", "align_smollm2_deepseek/ours_us_per_token", most=0.3),
            Bar("times faster than TRL's groups and sums", "align_smollm2_deepseek/trl_over_ours", least=20),
            Bar("translating over the batch encoding, rows of 200 characters", "*x200_characters/*batch", most=1.25),
            Bar("the same, 3,000 characters", "*x3000_characters/*batch", most=1.25),
            Bar("the same, 14,000 characters", "*x14000_characters/*batch", most=1.25),
            Bar("over tiktoken's quickest loop, 200 characters", "*x200_characters/llama3/*quickest", most=1.3),
            Bar("over Hugging Face, 200 characters", "*x200_characters/deepseek/*quickest", most=1.15),
            Bar("beyond encoding, ns a token and side, 3,000 characters", "*x3000_characters/*/beyond*", most=25),
            Bar("the same, 14,000 characters", "*x14000_characters/*/beyond*", most=25),
            Bar("what a row of 200 takes beside its tokens, µs", "beside_tokens_us_per_short_row/*", most=4),
        ),
        "`encode batch` is the library's own call for a batch, `encode quickest` the quickest of its calls, in a loop; "
        "on one core, in processor seconds; ratios are medians of nine within one round each.",
    ),
    Area(
        "exchange",
        "The exchange",
        (
            Bar("records published a second, memory", "publish_memory_records_per_second/*", least=200_000),
            Bar("the same, SQLite, durable, 1,000 a batch", "publish_sqlite*/1000", least=20_000),
        ),
    ),
    Area(
        "agents",
        "A round as agents grow",
        (Bar("exponent of time in agents, 2 to 1,000, fixed peers", "strategies/*/exponent_round", most=1.1),),
    ),
    Area(
        "torch_sampler",
        "The torch sampler",
        (
            Bar(
                "times `model.generate`, samples of different lengths", "*/different_lengths_times_generate", least=2.5
            ),
            Bar("times `model.generate`, all to the limit", "*/to_the_limit_times_generate", least=1.5),
        ),
    ),
    Area(
        "conversations",
        "Conversations of the torch sampler",
        (
            Bar("eight turns over the same tokens in one", "*/one_turn", most=1.3),
            Bar("the eighth turn over the second, beside attention's own growth", "*/growth", most=1.3),
        ),
        "`recomputed` is the same where nothing is kept from turn to turn; `processors` is what each was measured on.",
    ),
    Area(
        "torch_trainer",
        "The torch trainer",
        (
            Bar("times the tokens a second of TRL's GRPOTrainer", "*/speedup", least=1.3),
            Bar("peak memory of TRL's, Gemma-3-270M", "gemma3/memory_share", most=0.6),
        ),
    ),
    Area(
        "corrections",
        "Chunk ratios and behaviour weights",
        (Bar("times an update without them, fastest of each", "*/times_without_fastest_of_each", most=1.03),),
    ),
    Area(
        "costs",
        "What sharing costs",
        (
            Bar("SGT's round over one of GRPO, real pair", "real/sgt/times_alone", most=COSTS["sgt"]),
            Bar("XGRPO's", "real/xgrpo/times_alone", most=COSTS["xgrpo"]),
            Bar("PRP's", "real/prp/times_alone", most=COSTS["prp"]),
            Bar("GRAFT's", "real/graft/times_alone", most=COSTS["graft"]),
        ),
        note="A round of each strategy over one of policies that share nothing, at the same rollouts: "
        "[evidence](evidence.md#what-it-costs) says where the seconds go.",
    ),
    Area(
        "rounds",
        "Whole rounds, end to end",
        note="Two runs of TRL's GRPOTrainer, one for each model, against one run of the two policies: the "
        "last of two steps. TRL runs with its defaults, gradient checkpointing among them.",
    ),
    Area(
        "sequential",
        "HACPO's sequential round",
        note="The real pair under HACPO in the order of HACPO's own code, where one policy is on the device at a time, "
        "over ours, in which both stay there: `moving` is what going and coming back takes (between two places of one "
        "memory here: on a GPU it is over the bus), `scoring its own again` is a pass that ours does without. "
        "`each on a device` is worked out of our seconds: the longer of the two policies between barriers.",
    ),
    Area("vllm_sampler", "vLLM as the sampler", (), "On a CPU: it proves the path, not speed."),
    Area(
        "resources",
        "Sharing machines",
        (
            Bar("makespan over the lower bound, median of random fleets", "random_fleets/*bound/median", most=1.15),
            Bar("the same, 99th percentile", "random_fleets/*bound/p99", most=1.3),
            Bar("fleets deadlocked or unserved", "*/deadlocked_or_unserved", most=0),
            Bar("one decision, 1,000 policies on 10,000 devices, ms, median", "large/decision_ms/median", most=1),
            Bar("rounds an hour of the serial loop's, 2 cores, processes", "overlap/times_serial/processes", least=1.4),
        ),
        "`random fleets` have at least twice the devices of their largest gang.",
    ),
    Area(
        "overlap",
        "Rounds that overlap",
        (),
        "`times in turn`: rounds one after the other over rounds at once, above 1 where overlapping is quicker. "
        "`leases overlap`: share of the time in which one acts while another, or its own copy, learns, as leases "
        "were recorded. On two cores that other programs used as well, about one core was to be had (`cores busy`): "
        "nothing was won, and these figures say little of a machine with devices to spare.",
    ),
    Area(
        "recording",
        "What a run pays for being readable",
        (
            Bar("share of a run that records and tells, tables, a log or a terminal", "arithmetic/share/*", most=0.02),
            Bar("the same, the quickstart", "quickstart/share/*", most=0.02),
        ),
        "Of its processor time: samples, lessons and evaluations kept, a log told or a terminal drawn, also where a "
        "thread of its own draws it. `times_without` is a whole run over one without any of it, round by round, and "
        "scatters more than the share on a shared machine.",
    ),
    Area(
        "checkpoints",
        "Checkpoints while a run goes on",
        (Bar("time a run stands still, of that in the foreground", "*/held_share", most=0.5),),
        "`held`: until the run goes on; `update`: of the update beside or after it; `whole`: until both are done.",
    ),
    Area("gpu", "On a GPU"),
)
