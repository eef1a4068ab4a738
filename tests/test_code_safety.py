"""What the code must not do, read from the code itself: data becoming code, and values becoming SQL text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flask_durable"
MODULES = sorted(PACKAGE.rglob("*.py"))
STORAGE = sorted((PACKAGE / "storage").rglob("*.py"))

LOADERS = {
    "attrgetter", "import_module", "import_object", "import_string", "locate", "load_module", "loads_pickle", "methodcaller", "resolve_name",
    "run_module", "run_path", "exec_module", "spec_from_file_location", "unpickle", "find_class", "full_load", "unsafe_load",
}  # fmt: skip
"""Functions that make something out of a name or of bytes."""

ALLOWED_LOADERS = {("storage/database.py", "import_module")}
"""One of three drivers, named in the code."""

ALLOWED_SUBSCRIPTS = {"sys.modules", "globals()", "vars()", "locals()", "__builtins__"}

SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|SET|FROM|ORDER BY|LIMIT|VALUES|LIKE|SUBSTR|ALTER|DROP)\b|\b(AND|IN|IS)\b |= \?")

REVIEWED = {"text", "source", "tail", "column", "columns", "self.max_length", "self.now_text", "text.removesuffix('IN')", "len(wanted.id_prefix)",
            "self.column", "self._sign.column"}  # fmt: skip
"""Expressions inside SQL text that look like values of a caller and are none: clauses handed from one function to the next, and lengths."""


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_is_loaded_by_a_name_or_made_from_bytes(path: Path) -> None:  # S5
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
            assert called not in LOADERS or (name(path), called) in ALLOWED_LOADERS, f"line {node.lineno}: {called}"
            if called in ("getattr", "setattr", "hasattr") and isinstance(node.func, ast.Name):
                assert not isinstance(node.args[0], ast.Call) or ast.unparse(node.args[0].func) != "importlib.import_module", f"line {node.lineno}"
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ALLOWED_SUBSCRIPTS:
            assert isinstance(node.slice, ast.Constant), f"line {node.lineno}: what it finds must be named in the code"
        if isinstance(node, ast.FunctionDef):
            assert node.name not in ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__"), f"line {node.lineno}"


def interpolated(tree: ast.AST) -> Iterator[tuple[int, ast.expr, set[str]]]:
    """Every expression that is put into a text which looks like SQL: its line, itself, and the parameters of the function around it."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        around = {each.arg for function in functions if function.lineno <= getattr(node, "lineno", 0) <= (function.end_lineno or 0)
                  for each in (*function.args.args, *function.args.kwonlyargs)}  # fmt: skip
        if isinstance(node, ast.JoinedStr) and SQL.search("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))):
            yield from ((node.lineno, part.value, around) for part in node.values if isinstance(part, ast.FormattedValue))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod) and is_sql(node):
            parts = [part for part in (node.left, node.right) if not isinstance(part, ast.Constant | ast.JoinedStr | ast.BinOp)]
            yield from ((node.lineno, part, around) for part in parts)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "format_map"):
            yield from ((node.lineno, value, around) for value in [*node.args, *(keyword.value for keyword in node.keywords)])


def is_sql(node: ast.BinOp) -> bool:
    return bool(SQL.search("".join(part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))))


def may_be_a_value(expression: ast.expr, parameters: set[str]) -> bool:
    """Whether that may come from a caller: what a function was handed, and what is read from a record, a command or a filter."""
    if ast.unparse(expression) in REVIEWED:
        return False
    match expression:
        case ast.Name(name_):
            return name_ in parameters
        case ast.Attribute(value=owner):
            return ast.unparse(owner) not in ("self._sql", "sql")
        case ast.IfExp(body=one, orelse=other):
            return may_be_a_value(one, parameters) or may_be_a_value(other, parameters)
        case ast.Subscript(value=owner):
            return may_be_a_value(owner, parameters)
    return False


@pytest.mark.parametrize("path", STORAGE, ids=name)
def test_no_value_becomes_sql_text(path: Path) -> None:  # S12
    found = [(line, ast.unparse(each)) for line, each, around in interpolated(ast.parse(path.read_text())) if may_be_a_value(each, around)]
    assert found == [], "give it to the statement as a parameter; or look whether it can hold a caller's value, and add it to REVIEWED"


def test_the_look_at_sql_sees_what_it_should() -> None:
    bad = ast.parse(
        "def find(instance_id, record, rows):\n"
        "    a = f'SELECT x FROM t WHERE id = {instance_id}'\n"
        "    b = 'SELECT x FROM t WHERE id = ' + instance_id\n"
        "    c = 'SELECT x FROM t WHERE id = %s' % record.instance_id\n"
        "    d = 'SELECT x FROM t WHERE id = {}'.format(rows[0])\n"
        "    e = f' AND name = {record.name}'\n"
        "    f = f'SELECT x FROM t{self._sql.for_update} WHERE {_CONSTANT}'\n"
    )
    assert [line for line, each, around in interpolated(bad) if may_be_a_value(each, around)] == [2, 3, 4, 5, 6]
