"""Which device a torch policy computes on. What CUDA says of its devices has no twin on a CPU: it is made up here."""

from __future__ import annotations

import pytest

from learners.placement import placed
from learners.torch.devices import device_of
from mutual_env.errors import InvalidInputError

torch = pytest.importorskip("torch")


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("name", "gpus", "device"),
    [
        ("auto", None, "cuda"),
        ("auto", (2,), "cuda:2"),
        ("cuda", (3, 1), "cuda:3"),
        ("auto", (), "cpu"),
        ("cpu", (2,), "cpu"),
    ],
)
def test_a_policy_computes_on_the_gpu_that_it_was_given(name: str, gpus: tuple[int, ...] | None, device: str) -> None:
    with placed(gpus):
        assert str(device_of(name)) == device


@pytest.mark.usefixtures("four_gpus")
def test_a_gpu_that_was_given_to_somebody_else_is_refused() -> None:
    with placed((2,)), pytest.raises(InvalidInputError, match=r"device 'cuda:1' is not what `resources` gives.*\[2\]"):
        device_of("cuda:1")


def test_without_cuda_a_policy_with_a_gpu_computes_on_the_cpu() -> None:
    with placed((0,)):
        assert str(device_of("auto")) == "cpu"
