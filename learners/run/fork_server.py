"""The process that a suite's runs are forked from: it loads once what each of them would load for seconds.

`python -m learners.run.fork_server MODULE...` and then one request a line, as JSON:

    {"start": key, "words": [...], "log": path, "environment": {...}}    a run of `mutual-env` with these words
    {"signal": key, "number": 15}                                        to a run
    {"ended": true}                                                      answered with the exit codes of those that have

Its first line says whether it forks at all: a process with several threads must not, since a lock that another thread
holds at that moment stays locked in the fork. It ends when nobody is there to ask, and its runs with it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

from learners import cli

_LEFT_TO_RUNS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what a terminal or a scheduler sends to all of a group


def main(modules: Sequence[str]) -> int:
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _LEFT_TO_RUNS}
    for name in modules:
        _load(name)
    _say({"forks": len(os.listdir("/proc/self/task")) == 1})
    gc.freeze()  # what is here now is nobody's garbage: a collection in a run would copy all of its pages
    running: dict[str, int] = {}
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "start" in request:
            running[request["start"]] = _forked(request, handlers)
        elif "signal" in request and request["signal"] in running:
            os.kill(running[request["signal"]], request["number"])
        elif "ended" in request:
            _say(_ended(running))
    return 0


def _load(name: str) -> None:
    """A module that cannot be loaded is the runs' own matter: each says so in its log."""
    try:
        import_module(name)
    except Exception:
        return


def _say(answer: Mapping[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def _forked(request: Mapping[str, Any], handlers: Mapping[signal.Signals, Any]) -> int:
    """The process id, in this process."""
    server = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_RUNS)  # none is lost before a run hears it
    child = os.fork()
    if not child:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _run(request, server)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child


def _run(request: Mapping[str, Any], server: int) -> NoReturn:
    """In the fork. By way of `SystemExit` it is left as a program is."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for file, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(file, place)
    os.environ.update(request["environment"])
    words = [*request["words"], f"--parent={server}"]
    sys.argv = [cli.__file__, *words]
    sys.orig_argv = [sys.executable, "-P", "-m", cli.__name__, *words]  # what the run records of its command
    sys.exit(cli.main(words))


def _ended(running: dict[str, int]) -> dict[str, int]:
    codes = {}
    for key, process in list(running.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            del running[key]
            codes[key] = os.waitstatus_to_exitcode(status)
    return codes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
