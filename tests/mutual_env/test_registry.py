from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pettingzoo
import pytest

import mutual_env
from mutual_env import EnvSpec, Task, VerifierSpec
from mutual_env.errors import ConfigError, InvalidInputError, UnknownNameError
from mutual_env.tasks.reasoning_gym_names import DATASET_NAMES


class Doubling:
    """A third party's task family."""

    verifier = VerifierSpec("numeric")

    def __init__(self, *, limit: int = 100) -> None:
        self.limit = limit

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"test/doubling-v0:{i}", f"2*{i}=", str(2 * i)) for i in range(round, round + n)]


def test_pettingzoo_makes_what_mutual_env_makes() -> None:
    ours = mutual_env.make("mutual/arithmetic-v0", agents=3, group_size=2, digits=3, seed=4)
    theirs = pettingzoo.make("parallel", "mutual/arithmetic-v0", agents=3, group_size=2, digits=3, seed=4)
    assert theirs.spec == ours.spec
    assert theirs.reset() == ours.reset()


def test_every_family_is_listed_and_nothing_of_pettingzoo() -> None:
    ids = set(mutual_env.ids())
    assert {"mutual/arithmetic-v0", "mutual/letters-v0", "math/jsonl-v0"} <= ids
    assert {f"reasoning_gym/{name}-v0" for name in DATASET_NAMES} <= ids
    assert "classic/rps-v2" not in ids


@pytest.mark.parametrize(
    ("id", "nearest"),
    [
        ("mutual/arithmetic-v1", "mutual/arithmetic-v0"),
        ("mutual/aritmetic-v0", "mutual/arithmetic-v0"),
        ("reasoning_gym/knight_knaves-v0", "reasoning_gym/knights_knaves-v0"),
        ("math/json-v0", "math/jsonl-v0"),
        ("not an id at all/", "unknown env id"),
    ],
)
def test_an_unknown_id_is_answered_with_the_nearest(id: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=nearest):
        mutual_env.make(id)


@pytest.mark.parametrize(
    ("option", "nearest"),
    [({"digts": 2}, "digits"), ({"group_sise": 2}, "group_size"), ({"prompts_per_rond": 1}, "prompts_per_round")],
)
def test_an_unknown_option_is_answered_with_the_nearest(option: dict[str, int], nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=nearest):
        mutual_env.make("mutual/arithmetic-v0", **option)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"agents": 0}, "agents must be a whole number of at least 1, got 0"),
        ({"agents": []}, "at least one"),
        ({"agents": ["a", "a"]}, "different names"),
        ({"agents": "alice"}, "single string 'alice'"),
        ({"agents": ["a", 3]}, "non-empty strings, got 3"),
        ({"agents": True}, "agents must be"),
        ({"group_size": 0}, "group_size must be a whole number of at least 1, got 0"),
        ({"prompts_per_round": 2.5}, "prompts_per_round must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"max_chars": 0}, "max_chars"),
        ({"unscored_limit": 1.5}, "unscored_limit"),
        ({"unscored_limit": float("nan")}, "unscored_limit"),
        ({"on_unscored": "dropp"}, "did you mean 'drop'"),
        ({"verifier": {"kwargs": {}}}, "'name'"),
        ({"verifier": {"name": "exact", "kwarg": {}}}, "'kwarg'"),
        ({"verifier": "numerik"}, "did you mean 'numeric'"),
        ({"verifier": VerifierSpec("numeric", {"abstol": 1})}, "abs_tol"),
    ],
)
def test_a_bad_option_is_refused_by_make_and_named(option: dict[str, object], says: str) -> None:
    with pytest.raises((InvalidInputError, UnknownNameError), match=says):
        mutual_env.make("mutual/arithmetic-v0", **option)  # type: ignore[arg-type]


def test_a_family_registered_from_outside_is_made_like_ours() -> None:
    mutual_env.register("test/doubling-v0", Doubling, limit=7)
    env = mutual_env.make("test/doubling-v0", agents=["a"], group_size=1, prompts_per_round=2)
    observations, _ = env.reset(options={"round": 3})
    assert observations["a"]["prompts"] == ("2*3=", "2*4=")
    assert env.step({"a": [["6"], ["7"]]})[1] == {"a": 0.5}
    assert env.spec.task == {"limit": 7}
    assert pettingzoo.make("parallel", "test/doubling-v0").reset()[0]["policy_0"]["prompts"][1] == "2*1="
    with pytest.raises(UnknownNameError, match="limit"):
        mutual_env.make("test/doubling-v0", limits=3)
    with pytest.raises(InvalidInputError, match="'test/doubling-v0' is taken"):
        mutual_env.register("test/doubling-v0", Doubling)
    mutual_env.register("test/doubling-v0", f"{Doubling.__module__}:Doubling", limit=7)  # the same, by its place


def test_a_whole_env_registered_from_outside_is_made_with_the_arguments_of_make() -> None:
    def arena(agents: int = 2, **options: object) -> object:
        return mutual_env.make("mutual/arithmetic-v0", agents=agents + 1, group_size=1)

    mutual_env.register_env("test/arena-v0", arena)
    assert len(mutual_env.make("test/arena-v0", agents=4).possible_agents) == 5


@pytest.mark.parametrize("id", ["", "two words-v0", "a/b/c-v0"])
def test_a_malformed_id_is_not_registered(id: str) -> None:
    with pytest.raises(InvalidInputError, match="malformed"):
        mutual_env.register(id, Doubling)


ACME = (
    "from mutual_env import Task, VerifierSpec, make\n"
    "class Riddles:\n"
    "    verifier = VerifierSpec('exact')\n"
    "    def __init__(self, *, hard: bool = False): self.hard = hard\n"
    "    def draw(self, seed, round, n): return [Task(f'r{i}', f'riddle {i}', str(i)) for i in range(n)]\n"
    "def arena(**options): return make('acme/riddles-v0', agents=['gladiator_0'])\n"
)
USES_ACME = (
    "import warnings\n"
    "with warnings.catch_warnings(record=True) as seen:\n"
    "    warnings.simplefilter('always')\n"
    "    import mutual_env, pettingzoo\n"
    "import sys; assert 'acme_riddles' not in sys.modules\n"
    "print([str(w.message)[:38] for w in seen if 'entry point' in str(w.message)])\n"
    "env = mutual_env.make('acme/riddles-v0', hard=True)\n"
    "print(env.reset()[0]['policy_0']['prompts'][0], env.spec.task)\n"
    "print(pettingzoo.make('parallel', 'acme/riddles-v0').possible_agents)\n"
    "print(mutual_env.make('acme/arena-v0').possible_agents)\n"
)


def test_installed_plug_ins_are_found_by_both_makes_and_a_broken_one_only_warns(tmp_path: Path) -> None:
    """A distribution on the path with entry points, as pip leaves it."""
    meta = tmp_path / "acme_riddles-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-riddles\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(
        "[mutual_env.tasks]\nacme/riddles-v0 = acme_riddles:Riddles\nno good id = acme_riddles:Riddles\n"
        "[mutual_env.envs]\nacme/arena-v0 = acme_riddles:arena\n"
    )
    (tmp_path / "acme_riddles.py").write_text(ACME)
    done = subprocess.run(
        [sys.executable, "-c", USES_ACME],
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "[\"entry point 'no good id' of the group \"]",
        "riddle 0 {'hard': True}",
        "['policy_0', 'policy_1']",
        "['gladiator_0']",
    ]


def test_a_verifier_is_a_name_a_spec_or_a_mapping_as_a_configuration_file_has_it() -> None:
    spec = VerifierSpec("exact", {"ignore_case": True})
    for given in (spec, {"name": "exact", "kwargs": {"ignore_case": True}}):
        assert mutual_env.make("mutual/arithmetic-v0", verifier=given).spec.verifier == spec
    assert mutual_env.make("mutual/arithmetic-v0", verifier="exact").verifier_id == "exact"
    assert mutual_env.make("mutual/arithmetic-v0", verifier={"name": "exact"}).verifier_id == "exact"


def test_a_spec_survives_json_and_makes_the_same_env_again() -> None:
    env = mutual_env.make(
        "mutual/arithmetic-v0", agents=["a", "b"], seed=9, verifier=VerifierSpec("numeric", {"abs_tol": 0.5}), digits=1
    )
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    again = mutual_env.make_from(spec)
    assert again.spec == spec
    assert again.reset() == env.reset()


def test_a_spec_with_an_option_that_json_lacks_says_so() -> None:
    spec = EnvSpec(id="x-v0", verifier=VerifierSpec("exact"), task={"path": Path("x")})  # type: ignore[dict-item]
    with pytest.raises(InvalidInputError, match="no JSON form"):
        spec.to_json()


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "x"}', '{"id": "x", "verifier": {"name": "exact"}, "agent": 1}'])
def test_a_torn_or_foreign_spec_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="spec"):
        EnvSpec.from_json(text)
