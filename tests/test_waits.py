"""No wait anywhere in the four packages is without a limit.

Each rule is a call that can wait for ever, told by its name, its arguments and what the file speaks of. Reading from a
pipe is allowed in a function that polls it with a limit. Our own methods do not take these names. What is bounded by
other means is listed in `BOUNDED_OTHERWISE`, with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mutual_env", "sharing", "tokenizers_bridge", "learners")

# method -> (how many positional arguments come with a limit, the name of the limit). `join` and the like are also
# methods of str and Path; those always have a positional argument, and fall out by that.
METHODS = {
    "join": (1, "timeout"),  # Thread, Process
    "wait": (1, "timeout"),  # Event, Condition, Popen, Barrier
    "wait_for": (2, "timeout"),  # Condition
    "communicate": (2, "timeout"),  # Popen
    "result": (1, "timeout"),  # Future
    "exception": (1, "timeout"),  # Future
    "acquire": (2, "timeout"),  # Lock, Semaphore
    "poll": (1, "timeout"),  # Connection: poll() itself does not wait, but poll(None) does
}
FUNCTIONS = {
    "ray.get": (99, "timeout"),
    "ray.wait": (99, "timeout"),
    "subprocess.run": (99, "timeout"),
    "subprocess.call": (99, "timeout"),
    "subprocess.check_call": (99, "timeout"),
    "subprocess.check_output": (99, "timeout"),
    "socket.create_connection": (2, "timeout"),
    "urllib.request.urlopen": (3, "timeout"),
    "urlopen": (3, "timeout"),
    "requests.get": (99, "timeout"),
    "requests.post": (99, "timeout"),
    "httpx.get": (99, "timeout"),
    "httpx.post": (99, "timeout"),
    "http.client.HTTPConnection": (3, "timeout"),
    "HTTPConnection": (3, "timeout"),
    "sqlite3.connect": (2, "timeout"),
    "select.select": (4, "timeout"),
    "concurrent.futures.wait": (2, "timeout"),
    "as_completed": (2, "timeout"),
    "multiprocessing.connection.wait": (2, "timeout"),
    "connection.wait": (2, "timeout"),
}
WITHOUT_ARGUMENTS = {"recv", "recv_bytes", "accept"}  # wait for the other side; fine right after `poll(limit)`
BOUNDED_OTHERWISE = {
    ("learners/run/saving.py", "pending.result"): "what is written there is files here, or a worker's within its limit",
    ("learners/run/evaluating.py", "found.result"): "of what is done",
    ("mutual_env/verifiers/pool/directories.py", "ended.wait"): "a process of its own: nobody waits for its end",
    ("learners/vllm/server.py", "future.result"): "each future is one HTTP request, which has a limit of its own",
    ("learners/vllm/local.py", "future.result"): "after a wait with a limit, which found it done",
    ("learners/vllm/local.py", "self._calls.put"): "a queue of any length: putting never waits",
    ("learners/vllm/local.py", "self._calls.get"): "an idle daemon thread, which nobody waits for, waits for work",
}
QUEUES = {"Queue", "SimpleQueue", "LifoQueue", "PriorityQueue", "JoinableQueue"}


def unbounded(source: str) -> Iterator[tuple[int, str]]:
    """(line, call) of each call in the source that may wait for ever."""
    tree = ast.parse(source)
    queues = any(name in source for name in QUEUES)
    for function in [
        tree,
        *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)),
    ]:
        calls = [node for node in _own(function) if isinstance(node, ast.Call)]
        polled = any(_name(call).endswith((".poll", ".select", "wait", ".settimeout")) for call in calls)
        for call in calls:
            name = _name(call)
            if not _is_bounded(call, name, polled=polled, queues=queues):
                yield call.lineno, name


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions within it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


def _name(call: ast.Call) -> str:
    """ "ray.get", "self._ray.get" as "ray.get", "?.join" for a method of something computed."""
    parts: list[str] = []
    node: ast.expr = call.func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "?")
    return ".".join(reversed(parts))


def _is_bounded(call: ast.Call, name: str, *, polled: bool, queues: bool) -> bool:
    bare = ".".join(part.lstrip("_") for part in name.split(".") if part not in ("self", "cls"))
    method = bare.rsplit(".", 1)[-1] if "." in name else ""
    for function, rule in FUNCTIONS.items():
        if bare == function or bare.endswith("." + function):
            return _has_limit(call, *rule)
    if method in METHODS:
        return _has_limit(call, *METHODS[method]) or (method == "poll" and not call.args and not call.keywords)
    if method in WITHOUT_ARGUMENTS and (method != "recv" or not call.args):
        return polled
    if method in ("get", "put") and queues:
        return _is_bounded_queue_call(call, method)
    return True


def _is_bounded_queue_call(call: ast.Call, method: str) -> bool:
    """`q.get()` and `q.put(x)` wait; `d.get(key)` of a dictionary has an argument, and is none of them."""
    if method == "get":
        return bool(call.args) or _has_limit(call, 2, "timeout") or _is_false(call, "block")
    return len(call.args) != 1 or _has_limit(call, 3, "timeout") or _is_false(call, "block")


def _has_limit(call: ast.Call, position: int, keyword: str) -> bool:
    given = [item.value for item in call.keywords if item.arg == keyword]
    given += call.args[position - 1 : position]
    splat = any(item.arg is None for item in call.keywords)
    not_waiting = any(item.arg == "blocking" and _false(item.value) for item in call.keywords)
    if call.args and position == 2 and keyword == "timeout" and _false(call.args[0]):
        not_waiting = True  # acquire(False)
    return not_waiting or splat or any(not (isinstance(v, ast.Constant) and v.value is None) for v in given)


def _is_false(call: ast.Call, keyword: str) -> bool:
    return any(item.arg == keyword and _false(item.value) for item in call.keywords)


def _false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_no_wait_is_without_a_limit() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {call}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, call in unbounded(path.read_text(encoding="utf-8"))
        if (str(path.relative_to(ROOT)), call) not in BOUNDED_OTHERWISE
    ]
    assert not found, "waits without a limit (give each a timeout):\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "ray.get(reference)",
        "self._ray.get(reference)",
        "ray.wait([reference], num_returns=1)",
        "thread.join()",
        "process.wait()",
        "condition.wait_for(lambda: done)",
        "future.result()",
        "future.result(timeout=None)",
        "lock.acquire()",
        "process.communicate(data)",
        "subprocess.run(['ls'], check=True)",
        "Queue; jobs.get()",
        "Queue; jobs.put(job)",
        "pipe.recv()",
        "urlopen(address)",
        "socket.create_connection(('host', 1))",
        "sqlite3.connect(path)",
    ],
)
def test_the_lint_sees(line: str) -> None:
    assert list(unbounded(f"def f():\n    {line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "ray.get(reference, timeout=5.0)",
        "thread.join(timeout=1.0)",
        "thread.join(1.0)",
        "', '.join(names)",
        "future.result(3.0)",
        "lock.acquire(timeout=1.0)",
        "lock.acquire(False)",
        "Queue; options.get('key')",
        "Queue; jobs.get(timeout=1.0)",
        "Queue; jobs.put(job, timeout=1.0)",
        "pipe.poll(1.0); pipe.recv()",
        "process.poll()",
        "subprocess.run(['ls'], timeout=3)",
    ],
)
def test_the_lint_lets_pass(line: str) -> None:
    assert not list(unbounded(f"def f():\n    {line}\n"))
