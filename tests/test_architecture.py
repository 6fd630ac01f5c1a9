"""Which way imports flow, and how long and how whole things are, read from the source files themselves."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from functools import cache
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
LONGEST_FUNCTION, LONGEST_FILE, LONGEST_LINE_OF_DOCS = 40, 400, 120
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EVERY_FILE = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in (*MAY_IMPORT, "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# What still breaks a rule, and what becomes of it. A file that no longer does must leave the list.
STILL_TOO_LONG: dict[str, str] = {}
STILL_NOT_WHOLE: dict[str, str] = {}


@cache
def trees() -> Mapping[str, ast.Module]:
    """Parsed when the first test asks, since every process collects this file and few run its tests."""
    return {module: ast.parse(path.read_text(), str(path)) for module, path in FILES.items()}


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
        for module, tree in trees().items()
        for node in ast.walk(tree)
        for name in imported(module, node)
        if name.split(".")[0] not in MAY_IMPORT[module.split(".")[0]]
    ]
    assert wrong == []


def test_our_own_code_is_imported_at_the_top_of_a_file_only() -> None:
    wrong = [
        f"{module}:{node.lineno} imports {name} in {function.name}"
        for module, tree in trees().items()
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        for name in imported(module, node)
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for node in ast.walk(tree) for name in imported(module, node) if name != module}
        for module, tree in trees().items()
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
    calls = [(m, node) for m, tree in trees().items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
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


def test_functions_fit_on_a_screen() -> None:
    wrong = [
        f"{name}: {function.name} has {length} lines"
        for name, text in EVERY_FILE.items()
        for function in ast.walk(ast.parse(text))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for length in [(function.end_lineno or 0) - function.lineno + 1]
        if length > LONGEST_FUNCTION
    ]
    assert wrong == []


def test_files_are_short_enough_to_know() -> None:
    assert {name for name, text in EVERY_FILE.items() if len(text.splitlines()) > LONGEST_FILE} == set(STILL_TOO_LONG)


def test_every_match_over_a_union_says_what_it_does_with_a_member_that_is_added_later() -> None:
    wrong = {f"{FILES[m].relative_to(ROOT)}:{line}" for m, tree in trees().items() for line in not_whole(tree)}
    known = {place for place in wrong if place.partition(":")[0] in STILL_NOT_WHOLE}
    assert wrong - known == set()
    assert {place.partition(":")[0] for place in known} == set(STILL_NOT_WHOLE)


def not_whole(tree: ast.AST) -> Iterator[int]:
    """The lines of matches over classes in which something that matches no case goes on as if nothing were."""
    blocks = [getattr(node, name, None) for node in ast.walk(tree) for name in ("body", "orelse", "finalbody")]
    for block in (block for block in blocks if isinstance(block, list)):
        for statement, following in itertools.zip_longest(block, block[1:]):
            if isinstance(statement, ast.Match) and _is_over_classes(statement):
                last = statement.cases[-1]
                whole = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
                if not (whole and _refuses(last.body[-1])) and not _refuses(following):
                    yield statement.lineno


def _is_over_classes(match: ast.Match) -> bool:
    return any(isinstance(node, ast.MatchClass) for case in match.cases for node in ast.walk(case.pattern))


def _refuses(statement: ast.stmt | None) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func) == "assert_never"
    return isinstance(statement, ast.Raise)


def test_a_match_that_lets_a_new_member_through_is_seen() -> None:
    case = "match loss:\n    case Known():\n        f()\n"
    assert list(not_whole(ast.parse(case))) == [1]
    assert list(not_whole(ast.parse(f"def g(loss):\n    {case.replace(chr(10), chr(10) + '    ')}return 0"))) == [2]
    assert list(not_whole(ast.parse(case + "    case _:\n        pass"))) == [1]
    assert list(not_whole(ast.parse(case + "    case _:\n        assert_never(loss)"))) == []
    assert list(not_whole(ast.parse(case + "raise ValueError(loss)"))) == []


def test_lines_of_the_documentation_are_short_enough_to_read() -> None:
    wrong = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text().splitlines(), start=1)
        if len(line) > LONGEST_LINE_OF_DOCS and not line.startswith("|")  # a row of a table cannot be broken
    ]
    assert wrong == []
