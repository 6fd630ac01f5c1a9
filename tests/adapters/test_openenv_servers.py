"""OpenEnv's real server and client over loopback, played in our env."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

pytest.importorskip("openenv")
import uvicorn
from openenv.core.env_server import create_fastapi_app
from pettingzoo.test import parallel_api_test

import mutual_env
from mutual_env.adapters.openenv import OpenEnvTasks
from mutual_env.errors import InvalidInputError
from mutual_env.testing import check_env, seed_test
from tests.adapters.lights import Lamps, Lights, MoodyLights, Switch

pytestmark = pytest.mark.adapters
LIGHTS = "test/lights-v0"
mutual_env.register(LIGHTS, "mutual_env.adapters.openenv:OpenEnvTasks")


def served(env: type[Lights]) -> Iterator[str]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_fastapi_app(env, Switch, Lamps, max_concurrent_envs=4), log_level="error")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10.0)
    listening.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    yield from served(Lights)


@pytest.fixture
def moody_url() -> Iterator[str]:
    yield from served(MoodyLights)


def test_an_episode_is_played_to_the_end_that_the_server_gives_it(url: str) -> None:
    env = mutual_env.make(LIGHTS, url=url, agents=1, group_size=2, prompts_per_round=2, turns=4)
    observations, _ = env.reset(seed=0)
    lit = [int(prompt.split()[0]) for prompt in observations["policy_0"]["prompts"]]
    infos, turns = {}, 0
    while env.agents:
        contexts = [group[0] for group in observations["policy_0"]["conversations"]]
        for context, left in zip(contexts, lit, strict=True):
            if context is not None and context.turns:
                assert context.turns[-1].reply.text == f"{left - len(context.turns)} lit\n"
        observations, _, _, _, infos = env.step({"policy_0": [["off", "nothing"]] * 2})
        turns += 1
    assert turns == 4  # who does nothing goes on to the last turn
    groups = infos["policy_0"]["groups"]
    assert [[e.verdict.reward for e in group] for group in groups] == [[1.0, 0.0]] * 2
    assert [[e.verdict.correct for e in group] for group in groups] == [[True, False]] * 2
    assert [len(group[0].written) for group in groups] == lit


def test_a_server_that_hangs_or_breaks_ends_one_conversation_with_a_status(url: str) -> None:
    env = mutual_env.make(
        LIGHTS, url=url, agents=1, group_size=3, prompts_per_round=1, turns=1, timeout=0.5, on_unscored="drop"
    )
    env.reset(seed=0)
    *_, infos = env.step({"policy_0": [["wait", "break", "nothing"]]})
    metrics = infos["policy_0"]["metrics"]
    assert (metrics["verify/timeout"], metrics["verify/error"], metrics["verify/ok"]) == (1.0, 1.0, 1.0)
    assert metrics["turns/failed_share"] == pytest.approx(2 / 3)
    assert [e.completion.text for e in infos["policy_0"]["groups"][0]] == ["nothing"]


def test_a_server_without_a_seed_is_found_out(moody_url: str) -> None:
    env = mutual_env.make(LIGHTS, url=moody_url, agents=1, group_size=1, prompts_per_round=1, turns=4)
    env.reset(seed=0)
    env.step({"policy_0": [["nothing"]]})
    *_, infos = env.step({"policy_0": [["nothing"]]})
    assert infos["policy_0"]["metrics"]["verify/error"] == 1.0


def test_episodes_hold_the_contract(url: str) -> None:
    def make() -> mutual_env.ReasoningEnv:
        return mutual_env.make(LIGHTS, url=url, agents=2, group_size=1, prompts_per_round=1, turns=2)

    check_env(make)
    seed_test(make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(is not a|should be) .*(Box|numpy).*")
        parallel_api_test(make(), num_cycles=3)


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    tasks = OpenEnvTasks(url="http://127.0.0.1:1", timeout=1.0)
    with pytest.raises(InvalidInputError, match="began no episode"):
        tasks.draw(0, 0, 1)
