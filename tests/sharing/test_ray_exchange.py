"""The exchange behind a Ray actor keeps the contract, between processes and with a bounded wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mutual_env.errors import StorageError
from sharing import KINDS, Exchange, RayExchange
from sharing.exchange.testing import CONTRACT
from tests.sharing.toys import success

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


@pytest.fixture(params=["memory", "sqlite"])
def exchange(cluster: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RayExchange]:
    path = tmp_path / "x.sqlite" if request.param == "sqlite" else ""
    made = RayExchange(f"exchange-{request.node.name}", path=path)
    yield made
    made.stop()


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_it_keeps_the_contract_of_every_exchange(check: Callable[[Exchange], None], exchange: RayExchange) -> None:
    check(exchange)


def test_every_process_that_names_the_actor_meets_there(cluster: Any, exchange: RayExchange, request: Any) -> None:
    @cluster.remote
    def elsewhere(name: str, path: str) -> int:
        from sharing import Origin, RayExchange, Success

        there = RayExchange(name, path=path)
        return len(there.publish([Success(Origin("t", "far", 0, 0, "", ""), 0, "yes", "stop", 1.0)]))

    assert cluster.get(elsewhere.remote(f"exchange-{request.node.name}", ""), timeout=60) == 1
    assert [s.record.origin.author for s in exchange.read("me", ["t"], KINDS, round=0).records] == ["far"]


def test_an_actor_that_is_gone_is_a_storage_error(cluster: Any) -> None:
    exchange = RayExchange("exchange-gone")
    exchange.stop()
    with pytest.raises(StorageError, match="gone"):
        exchange.publish([success("t")])
