"""Which way imports flow, read from the source files themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "mutual_env": {"mutual_env"},
    "sharing": {"sharing", "mutual_env"},
    "tokenizers_bridge": {"tokenizers_bridge", "mutual_env"},
    "learners": {"learners", "sharing", "tokenizers_bridge", "mutual_env"},
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in MAY_IMPORT
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(), str(path)) for module, path in FILES.items()}


def imported(module: str, node: ast.AST) -> Iterator[str]:
    """The modules of ours that this statement imports: `from a import b` imports a.b where that is a module."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            here = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
        names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names]
    else:
        return
    yield from (name for name in names if name.split(".")[0] in MAY_IMPORT)


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 40
    assert {module.split(".")[0] for module in FILES} == set(MAY_IMPORT)


def test_no_package_imports_upward_or_sideways() -> None:
    wrong = [
        f"{module}:{node.lineno} imports {name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        for name in imported(module, node)
        if name.split(".")[0] not in MAY_IMPORT[module.split(".")[0]]
    ]
    assert wrong == []


def test_our_own_code_is_imported_at_the_top_of_a_file_only() -> None:
    wrong = [
        f"{module}:{node.lineno} imports {name} in {function.name}"
        for module, tree in TREES.items()
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        for name in imported(module, node)
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for node in ast.walk(tree) for name in imported(module, node) if name != module}
        for module, tree in TREES.items()
    }
    done: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(graph.get(module, ())):
                follow(name, (*path, module))
            done.add(module)

    for module in graph:
        follow(module, ())


def test_nothing_is_unpickled_and_no_remote_code_is_trusted() -> None:
    calls = [(m, node) for m, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    unpickled = [
        f"{module}:{call.lineno} unpickles"
        for module, call in calls
        if ast.unparse(call.func) in ("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads")
    ]
    trusted = [
        f"{module}:{call.lineno} sets {keyword.arg}"
        for module, call in calls
        for keyword in call.keywords
        if keyword.arg in ("trust_remote_code", "allow_pickle") and ast.unparse(keyword.value) != "False"
    ]
    assert unpickled + trusted == []
