"""The shape of the project, kept by its tests: layers, sizes, public names, documentation, and what must never be in it."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import flask_durable
from flask_durable.config import OPTIONS
from flask_durable.core.events import EVENT_TYPES
from flask_durable.errors import DurableError
from flask_durable.http.documents import DIGESTED_EVENTS
from flask_durable.http.errors import STATUS_OF_CODE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flask_durable"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
SHIPPED = [*MODULES, *sorted((ROOT / "examples").rglob("*.py"))]

MOST_LINES_OF_A_MODULE = 500
MOST_LINES_OF_A_FUNCTION = 70

UNSAFE_MODULES = {"marshal", "pickle", "shelve", "cPickle", "dill", "cloudpickle", "jsonpickle", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
IMPORTS_BY_NAME = {"flask_durable/storage/database.py"}
"""It imports one of three drivers, named in the code."""

HOSTS_IN_TEXTS = {"127.0.0.1", "localhost", "0.0.0.0", "example.com", "your-app", "evil.example", "h", "host", "db", "shop.example.com"}
"""Hosts that texts may name: examples, and this machine. Anything else is a dependency on somebody's site."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_layers_point_downwards_and_every_library_has_one_door():
    result = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_functions_stay_small(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES_OF_A_MODULE
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert own_lines(node) <= MOST_LINES_OF_A_FUNCTION, node.name


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without those of the classes that it makes (tables bound to one database)."""
    made = [node for node in ast.walk(function) if isinstance(node, ast.ClassDef)]
    return function.end_lineno - function.lineno + 1 - sum(node.end_lineno - node.lineno + 1 for node in made)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(TREES[path])


def test_public_names_are_sorted_and_exist():
    assert flask_durable.__all__ == sorted(flask_durable.__all__)
    assert len(set(flask_durable.__all__)) == len(flask_durable.__all__)
    for public in flask_durable.__all__:
        assert hasattr(flask_durable, public), public


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"], ids=name)
def test_names_offered_by_a_module_are_sorted_and_exist(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    offered = getattr(module, "__all__", [])
    assert list(offered) == sorted(offered)
    assert [each for each in offered if not hasattr(module, each)] == []


def test_every_event_has_a_place_in_the_digest_that_http_answers():
    assert set(EVENT_TYPES.values()) == DIGESTED_EVENTS


def test_every_error_has_a_code_of_its_own_and_an_http_status():
    kinds = list(all_kinds(DurableError))
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= set(STATUS_OF_CODE)


def all_kinds(kind: type[DurableError]):
    yield kind
    for child in kind.__subclasses__():
        is_written = getattr(sys.modules[child.__module__], child.__qualname__, None) is child  # others are made for registered exceptions
        if child.__module__.startswith("flask_durable") and is_written:
            yield from all_kinds(child)


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_data_never_becomes_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & UNSAFE_MODULES
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.module.partition(".")[0] not in UNSAFE_MODULES
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
            assert called not in UNSAFE_CALLS, f"line {node.lineno}"
            assert called != "importlib.import_module" or name(path) in IMPORTS_BY_NAME, f"line {node.lineno}"


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_nothing_is_left_to_be_done(path):
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())


def documents() -> list[Path]:
    folders = [ROOT / "docs", ROOT / "examples", PACKAGE]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".md", ".py", ".html", ".toml")]
    return sorted([*found, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.cfg"), ROOT / ".ci" / "run"])


@pytest.mark.parametrize("path", documents(), ids=name)
def test_texts_name_no_hosts_but_examples(path):
    hosts = set(re.findall(r"(?:https?|postgres(?:ql)?|mysql|mariadb)://(?:[^/@\s'\"`]+@)?([A-Za-z0-9.\-]+)", path.read_text()))
    assert hosts <= HOSTS_IN_TEXTS


def test_the_documentation_has_every_configuration_key():
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert [key for key in OPTIONS if f"`{key}`" not in text] == []


def test_setup_cfg_holds_the_contracts_and_nothing_else():
    sections = re.findall(r"^\[(.+)\]$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert all(section.split(":")[0] == "importlinter" for section in sections)


def test_nothing_has_an_upper_bound_but_what_is_known_to_break():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [each for each in project["dependencies"] if "<" in each] == ["APScheduler>=3.11,<4"]


def test_the_changelog_knows_the_present_version_or_what_is_unreleased():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in text or "## [Unreleased]" in text
