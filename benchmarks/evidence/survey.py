"""Where two models differ: accuracy, kappa, complementarity and wrong agreement of each pair, family by family.

    python -m benchmarks.evidence.survey smollm2=models/smollm2 gemma3=models/gemma3 [--family ID] [--prompts 24]
    python -m benchmarks.evidence.survey smollm2=models/smollm2 gemma3=models/gemma3 qwen=models/qwen --as teacher

Each family is asked with three of its own training tasks as examples, the same for every model; a model writes one
line. A pair is worth training on a family where somebody is between 5 and 95 %, and the pair's complementarity is what
there is to learn. A family is asked again only where models, prompts or samples are others than in the result file;
`--as`: into a result file of its own, for other models.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mutual_env
from benchmarks.figures import DATA, machine
from learners.evaluation.agreement import agreements
from learners.evaluation.measures import measure
from learners.evaluation.outcomes import Answered
from learners.evaluation.sampling import answers
from learners.numerics import PINNED, begin_again, environment
from learners.protocol import Learner
from learners.run.build import make_learner
from learners.run.config import EnvConfig, EvaluationConfig, PolicyConfig, RunConfig
from mutual_env.prompts import text_of
from mutual_env.verifiers import VerifierPool

FILE = DATA / "evidence-survey.json"
LOW, HIGH = 0.05, 0.95
SEED, SHOTS, LONGEST = 0, 3, 24
KNIGHTS = "knights and knaves, 2 people"

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "arithmetic, 1 digit": ("mutual/arithmetic-v0", {"digits": 1}),
    "arithmetic, 2 digits": ("mutual/arithmetic-v0", {"digits": 2}),
    "chain_sum": ("reasoning_gym/chain_sum-v0", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
    "basic_arithmetic": ("reasoning_gym/basic_arithmetic-v0", {"min_terms": 2, "max_terms": 3, "max_digits": 1}),
    "gcd": ("reasoning_gym/gcd-v0", {"max_value": 30}),
    "lcm": ("reasoning_gym/lcm-v0", {"max_value": 12}),
    "products": ("reasoning_gym/products-v0", {"max_digits": 1}),
    "leg_counting": ("reasoning_gym/leg_counting-v0", {"min_animals": 1, "max_animals": 2}),
    "letter_counting": ("reasoning_gym/letter_counting-v0", {"max_words": 5}),
    "number_sorting": ("reasoning_gym/number_sorting-v0", {"max_numbers": 4}),
    "spell_backward": ("reasoning_gym/spell_backward-v0", {"max_word_len": 5}),
    "count_bits": ("reasoning_gym/count_bits-v0", {"max_n": 64}),
    "coin_flip": ("reasoning_gym/coin_flip-v0", {}),
    KNIGHTS: (
        "logic/knights-knaves-v0",
        {"people": 2, "system": "", "verifier": {"name": "exact", "kwargs": {"extraction": "line"}}},
    ),
}
"""Short answers of one line, at sizes where models of some hundred million weights are neither lost nor perfect."""


def survey(
    models: Mapping[str, str], families: Sequence[str], prompts: int, samples: int, file: Path = FILE
) -> dict[str, Any]:
    """What each model makes of each family, and each pair. Written after every family, so that it can be stopped."""
    about = {"models": sorted(models), "prompts": prompts, "samples": samples, "shots": SHOTS, "seed": SEED}
    kept = json.loads(file.read_text()) if file.is_file() else {}
    found: dict[str, Any] = kept.get("families", {}) if kept.get("about") == about else {}
    missing = [name for name in families if name not in found]
    with ExitStack() as stack:
        pool, policies = stack.enter_context(VerifierPool()), policies_of(models) if missing else {}
        learners = [stack.enter_context(closing(make_learner(*policy, SEED))) for policy in policies.items()]
        for name in missing:
            found[name] = family(name, learners, pool, prompts, samples)
            content = {"machine": machine(("torch", "transformers")), "about": about, "families": found}
            file.write_text(json.dumps(content, indent=1) + "\n")
            print(name, json.dumps(found[name]["accuracy"]), flush=True)
    return found


def policies_of(models: Mapping[str, str]) -> dict[str, PolicyConfig]:
    """Each writes one line, with no chat around it."""
    own = {"prompt": {"chat": False}, "stop": ["\n"], "max_new_tokens": LONGEST}
    return {model: PolicyConfig("torch", {"path": path, **own}) for model, path in models.items()}


def family(name: str, learners: Sequence[Learner], pool: VerifierPool, prompts: int, samples: int) -> dict[str, Any]:
    """What they make of one family, each and in pairs."""
    env_id, options = FAMILIES[name]
    template = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in _examples(env_id, options))
    shape = {"template": f"{template}Question: {{prompt}}\nAnswer:", "chat": False}
    config = RunConfig(
        name="survey",
        seed=SEED,
        env=EnvConfig(id=env_id, options={**options, "prompt": shape}),
        policies={learner.name: PolicyConfig("torch", {}) for learner in learners},
        evaluation=EvaluationConfig(every=1, prompts=prompts, samples=samples),
    )
    return _figures({learner.name: list(answers(learner, config, pool)) for learner in learners})


def _examples(env_id: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    with closing(mutual_env.make(env_id, agents=1, group_size=1, prompts_per_round=SHOTS, seed=SEED, **options)) as env:
        env.reset(seed=SEED, options={"round": 0})
        return [
            (text_of(task.prompt), " ".join(task.answer.split()))  # one line
            for task in env.tasks
        ]


def _figures(by_model: Mapping[str, Sequence[Answered]]) -> dict[str, Any]:
    measured = {
        m.policy: m for of in by_model.values() for m in measure(of) if m.name.startswith("mean@") and not m.part
    }
    pairs = [{k: _short(v) for k, v in asdict(pair).items()} for pair in agreements(by_model)]
    for pair in pairs:
        pair["complementarity"] = _short(float(pair["only_first"]) + float(pair["only_second"]))
    return {
        "accuracy": {model: _short(m.value) for model, m in measured.items()},
        "interval": {model: [_short(end) for end in m.bootstrap] for model, m in measured.items()},
        "pairs": pairs,
        "worth_it": any(LOW <= m.value <= HIGH for m in measured.values()),
    }


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence.survey",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="NAME=DIRECTORY")
    parser.add_argument("--family", action="append", default=[], choices=list(FAMILIES), help="default: all")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--as", dest="name", default="")
    args = parser.parse_args()
    models = dict(word.split("=", 1) for word in args.models)
    begin_again(environment(PINNED, args.threads))  # the same answers on every processor with AVX2
    file = FILE.with_stem(f"{FILE.stem}-{args.name}") if args.name else FILE
    survey(models, args.family or list(FAMILIES), args.prompts, args.samples, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
