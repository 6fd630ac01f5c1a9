"""What torch.compile needs of a machine. Looked for, not tried: nothing is compiled here."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path

import torch

from learners.torch.devices import device_of
from mutual_env.errors import InvalidInputError


def require_compiler(device: torch.device) -> None:
    """Raise where torch could not compile for it, with what is missing."""
    if problem := lacking(device.type):
        raise InvalidInputError(f"compile=True cannot be had on this machine: {problem}; or leave compile out")


def require_compiler_for(device: str) -> None:
    """The same, of a device by its name."""
    require_compiler(device_of(device))


def lacking(device: str) -> str:
    """What torch.compile lacks for this type of device, and how to get it; empty where it lacks nothing."""
    from torch._dynamo.eval_frame import check_if_dynamo_supported
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        check_if_dynamo_supported()
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch finds no C++ compiler: install g++, or name another in CXX"
    except RuntimeError as error:
        return f"{str(error).splitlines()[0].rstrip('.')}: use another Python"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers (Python.h) are not there: install python3-dev"
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "there is no triton, with which torch compiles for a GPU: pip install triton"
    return ""
