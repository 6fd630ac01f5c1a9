"""Runs command lines of `mutual-env` in a process that has no network: `python -m tests.runs.cut_off FILE`.

The process leaves for a network namespace of its own, where nothing is connected, if the machine lets it; in any case
a hook refuses and tells of every name that Python code looks up and every address beyond this machine that it calls.
FILE is JSON: a list of command lines. Printed is JSON: `cut` (whether the namespace was to be had), `codes`, `asked`.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import socket
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
LOOKED_UP = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex", "socket.gethostbyaddr")
CALLED = ("socket.connect", "socket.sendto", "socket.sendmsg")
HERE = ("localhost", "127.0.0.1", "::1")


def cut() -> bool:
    """Into a network namespace: as root at once, as anybody else by way of a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NETWORK) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_USER | NEW_NETWORK) != 0:
        return False
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path(f"/proc/self/{name}").write_text(content)
    return True


def watch(asked: list[str]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in LOOKED_UP:
            where: object = arguments[0]
        elif event in CALLED and arguments[0].family != socket.AF_UNIX:
            where = arguments[1]
        else:
            return
        host = where[0] if isinstance(where, tuple) else where
        if host not in HERE:
            who = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[-8:-1]]
            asked.append(f"{event} {where} from {' < '.join(reversed(who))}")
            raise OSError(errno.ENETUNREACH, "the network is cut")

    sys.addaudithook(hook)


def main() -> None:
    commands = json.loads(Path(sys.argv[1]).read_text())
    was_cut, asked = cut(), list[str]()
    watch(asked)
    from learners.cli import main as mutual_env  # in the namespace: importing must not ask for anything either

    codes, said = [], []
    for words in commands:
        with redirect_stdout(io.StringIO()) as out:
            codes.append(mutual_env(words))
        said.append(out.getvalue())
    print(json.dumps({"cut": was_cut, "codes": codes, "asked": asked, "said": said}))


if __name__ == "__main__":
    main()
