"""A device and the text under which a record knows it."""

from __future__ import annotations

import pytest

from learners.resources.device import Device


@pytest.mark.parametrize("device", [Device("node0"), Device("node0", 3), Device("a/b", 0), Device("gpu1")])
def test_a_device_is_read_back_from_its_text(device: Device) -> None:
    assert Device.read(str(device)) == device


def test_the_text_is_the_one_that_records_have_always_held() -> None:
    assert (str(Device("n0", 1)), str(Device("n0"))) == ("n0/gpu1", "n0/cpu")


@pytest.mark.parametrize("text", ["local", "a/gpux", "/"])
def test_a_text_without_a_kind_is_the_cpus_of_what_it_names(text: str) -> None:
    assert Device.read(text) == Device(text)
