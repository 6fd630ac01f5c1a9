"""Peers in another process or in a stored run teach like peers in the same env."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mutual_env
import sharing
from learners.batch import build_batch
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError, InvalidInputError
from sharing import Independent, InMemoryExchange, ReplayExchange, Shared, SharingWrapper, Situation, SQLiteExchange
from sharing.testing import check_strategy
from tests.sharing.toys import BAD, GOOD, REQUIRED, ScriptedEnv, play, rollout, success
from tokenizers_bridge import TokenizerBridge, WordTokenizer

_SPAWN = multiprocessing.get_context("fork")
ROUNDS = 5
SHARING = [name for name in sharing.registry.OWN if name not in ("independent", "trrd", "kdrl", "topd", "frozen")]
ANSWERS = {"policy_0": [[BAD, BAD], [GOOD, BAD]], "policy_1": [[GOOD, BAD], [BAD, "yes, b"]]}


def _policy(name: str, path: Path, results: Any) -> None:
    """One policy with an env of its own, meeting the other at each round through the file."""
    exchange = SQLiteExchange(path)
    other = "policy_1" if name == "policy_0" else "policy_0"
    env = sharing.make("prp", ScriptedEnv([name]), exchange=exchange, peers=[other], wait=60.0)
    told = [play(env, ANSWERS, round=r)[name]["lessons"] for r in range(ROUNDS)]
    results.put((name, [[(x.experience.author, x.experience.completion.text, x.advantage) for x in r] for r in told]))
    exchange.close()


def test_two_processes_learn_through_a_file_what_they_learn_in_one_env(tmp_path: Path) -> None:
    results = _SPAWN.Queue()
    path = tmp_path / "x.sqlite"
    processes = [_SPAWN.Process(target=_policy, args=(name, path, results)) for name in ANSWERS]
    for process in processes:
        process.start()
    apart = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    env = sharing.make("prp", ScriptedEnv(list(ANSWERS)))
    for r in range(ROUNDS):
        for name, info in play(env, ANSWERS, round=r).items():
            told = [(x.experience.author, x.experience.completion.text, x.advantage) for x in info["lessons"]]
            assert apart[name][r] == told


@pytest.mark.parametrize("name", SHARING)
def test_a_file_and_memory_teach_the_same_bit_for_bit(tmp_path: Path, name: str) -> None:
    options = REQUIRED.get(name, {})
    exchange = SQLiteExchange(tmp_path / "x.sqlite")
    envs = [
        sharing.make(name, ScriptedEnv(list(ANSWERS)), exchange=place, **options)
        for place in (exchange, InMemoryExchange())
    ]
    for r in range(ROUNDS):
        stored, remembered = (play(env, ANSWERS, round=r) for env in envs)
        for agent in ANSWERS:
            assert stored[agent]["lessons"] == remembered[agent]["lessons"]
            assert stored[agent]["metrics"] == remembered[agent]["metrics"]
    exchange.close()


@pytest.mark.parametrize("name", SHARING)
def test_the_two_halves_of_a_step_teach_what_a_step_teaches(name: str) -> None:
    options = REQUIRED.get(name, {})
    whole, halves = (sharing.make(name, ScriptedEnv(list(ANSWERS)), **options) for _ in range(2))
    for r in range(ROUNDS):
        expected = play(whole, ANSWERS, round=r)
        halves.reset(seed=7, options={"round": r})
        sampled = halves.sample(ANSWERS)
        assert len(list(halves.exchange.scan())) == len(list(whole.exchange.scan())), "the first half publishes"
        assert halves.teach(sampled) == expected


@pytest.mark.parametrize(("strategy", "options"), [("sgt", {}), ("graft", {"stored": True}), ("prp", {})])
def test_a_recording_takes_the_place_of_live_peers(tmp_path: Path, strategy: str, options: dict[str, Any]) -> None:
    path = tmp_path / "x.sqlite"
    recording = SQLiteExchange(path)
    live = sharing.make(strategy, ScriptedEnv(list(ANSWERS)), exchange=recording, publish=["rollout"], **options)
    lessons = [play(live, ANSWERS, round=r)["policy_0"]["lessons"] for r in range(ROUNDS)]
    recording.close()
    replay = ReplayExchange(stored=SQLiteExchange(path, readonly=True), live=InMemoryExchange())
    toy = ScriptedEnv(["policy_0"])
    alone = sharing.make(strategy, toy, exchange=replay, **options)
    assert [play(alone, ANSWERS, round=r)["policy_0"]["lessons"] for r in range(ROUNDS)] == lessons
    assert toy.verified > 0  # strangers' rewards are verified again
    replay.close()


def test_a_stored_graft_is_not_balanced_and_a_live_one_is() -> None:
    # policy_0 failed where the peer was partly right, and the reverse never happened: m = min(1, 0) = 0.
    exchange = InMemoryExchange()
    exchange.publish([rollout("t0.0", "peer", text, index=i) for i, text in enumerate((GOOD, BAD))])
    for options, grafted in (({}, 0.0), ({"balance": False}, 1.0), ({"stored": True}, 1.0)):
        env = sharing.make("graft", ScriptedEnv(["policy_0"], fixed=True), exchange=exchange, **options)
        infos = play(env, {"policy_0": [[BAD, BAD], [GOOD, GOOD]]})
        assert infos["policy_0"]["metrics"]["share/grafted"] == grafted


def test_graft_keeps_the_best_and_every_tie_of_the_last() -> None:
    # Peer's successes of 4 on five prompts that the reader failed: 3, 2, 2, 1, 4 (all right: never moves).
    # The reader is partly right on two prompts that the peer failed: m = 2, so 3 and, tied for second, both 2s.
    solved = [3, 2, 2, 1, 4, 0, 0]
    answers = {
        "policy_0": [[BAD] * 4] * 5 + [[GOOD, BAD, BAD, BAD]] * 2,
        "policy_1": [[GOOD] * n + [BAD] * (4 - n) for n in solved],
    }
    env = sharing.make("graft", ScriptedEnv(list(answers), prompts=7, group=4))
    infos = play(env, answers)["policy_0"]
    grafted = sorted({x.experience.task.id for x in infos["lessons"] if x.experience.author == "policy_1"})
    assert grafted == ["t0.0", "t0.1", "t0.2"]
    assert (infos["metrics"]["share/candidates"], infos["metrics"]["share/grafted"]) == (4.0, 3.0)


def test_hacpo_counts_capabilities_from_past_steps_only() -> None:
    env = sharing.make("hacpo", ScriptedEnv(list(ANSWERS), prompts=1))
    answers = {"policy_0": [[GOOD, BAD]], "policy_1": [[GOOD, GOOD]]}
    ratios = [play(env, answers, round=r)["policy_0"]["metrics"]["share/capability_ratio/policy_1"] for r in (0, 1)]
    assert ratios == [1.0, 0.5]  # nothing is known in round 0; then 1/2 of policy_0's and all of policy_1's


def test_text_that_spells_control_tokens_reaches_the_reader_as_plain_text() -> None:
    tokenizer = WordTokenizer(["yes"])
    reader = TabularLearner(tokenizer, name="policy_0")
    exchange = InMemoryExchange()
    exchange.publish([success("t0.0", text="yes<eos></s><bos>")])
    env = sharing.make("sgt", ScriptedEnv(["policy_0"], prompts=1), exchange=exchange)
    own = reader.act(["t0.0?"], 2, seed=1)
    env.reset(seed=0, options={"round": 0})
    lessons = env.step({"policy_0": [list(group) for group in own]})[-1]["policy_0"]["lessons"]
    examples = build_batch(lessons, reader, TokenizerBridge([tokenizer])).examples
    taught = examples[-1].response_ids
    assert tokenizer.token_bytes(taught) == b"yes<eos></s><bos>"
    assert np.isin(taught[:-1], list(tokenizer.specials)).sum() == 0  # the stop token at the end is the reader's own
    assert taught[-1] == tokenizer.stop_id


def test_the_real_env_verifies_a_strangers_claim() -> None:
    exchange = InMemoryExchange()
    env = sharing.make(
        "sgt", mutual_env.make("mutual/arithmetic-v0", agents=["policy_0"], group_size=1), exchange=exchange
    )
    try:
        env.reset(seed=3, options={"round": 0})
        right, wrong, *_ = env.unwrapped.tasks
        exchange.publish([success(right.id, text=right.answer), success(wrong.id, text="I am right")])
        info = env.step({"policy_0": [["?"]] * len(env.unwrapped.tasks)})[-1]["policy_0"]
    finally:
        env.close()
    assert [x.experience.task for x in info["lessons"] if x.experience.author == "stranger"] == [right]
    assert info["metrics"]["share/refused/false_claim"] == 1.0


class Foreign(Independent):
    """A strategy of another package."""


def test_a_strategy_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "outsider-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mutual_env.strategies]\nforeign-strategy = outsider_strategy:Foreign\n")
    (tmp_path / "outsider_strategy.py").write_text("import sharing\nclass Foreign(sharing.Independent):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "foreign-strategy" in sharing.names()
    made = sharing.make("foreign-strategy", ScriptedEnv())
    assert (type(made).__module__, type(made).__name__) == ("outsider_strategy", "Foreign")


def test_registering_what_is_no_strategy_or_a_taken_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="subclass"):
        sharing.register("nothing", int)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="taken"):
        sharing.register("sgt", Foreign)


def test_the_check_that_ships_says_what_a_strategy_broke() -> None:
    class Counting(SharingWrapper):
        """What it teaches depends on how often it was asked."""

        asked = 0.0

        def share(self, situation: Situation) -> Shared:
            Counting.asked += 1.0
            own = list(Independent.share(self._independent, situation).lessons)
            return Shared(tuple(own[: int(Counting.asked) % 7]), {})

        def __init__(self, env: Any, **common: Any) -> None:
            super().__init__(env, **common)
            self._independent = Independent(env.unwrapped)

    with pytest.raises(AssertionError, match="the same seed gave other lessons"):
        check_strategy(Counting)
