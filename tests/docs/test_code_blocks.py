"""Code in README and docs is run: Python blocks page by page, shell blocks against the hello example, served for real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from served import ROOT, Server, served

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL_PAGES = [page for page in PAGES if "\n```sh\n" in page.read_text()]
PYTHON_PAGES = [page for page in PAGES if "\n```python\n" in page.read_text()]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of each block of that language."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start(1)), found.group(1)) for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=page_name)
def test_python_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "shown_in_the_docs"}
    apps: list[Flask] = []
    make = Flask.__init__

    def remember(app: Flask, *arguments: object, **options: object) -> None:
        make(app, *arguments, **options)
        apps.append(app)

    monkeypatch.setattr(Flask, "__init__", remember)
    try:
        for line, text in blocks(page, "python"):
            exec(compile("\n" * line + text, str(page), "exec", dont_inherit=True), names)
    finally:
        for app in apps:
            if "durable" in app.extensions:
                app.extensions["durable"].close()


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[Server]:
    with served("hello", tmp_path) as server:
        yield server


def run(server: Server, *texts: str) -> str:
    """Run shell blocks in one shell that stops at the first failure; returns what they print."""
    script = ["set -euo pipefail", 'curl() { command curl -fsS "$@"; echo; }']
    script += [text.replace("http://127.0.0.1:5000", server.base).replace(".venv/bin/flask", "flask") for text in texts]
    result = server.run(["bash", "-c", "\n".join(script)])
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("page", SHELL_PAGES, ids=page_name)
def test_shell_blocks_of_a_page_work_against_the_served_example(page, hello):
    assert run(hello, *(text for _, text in blocks(page, "sh")))


def test_the_first_answer_of_the_readme_is_as_described(hello):
    answer = json.loads(run(hello, blocks(ROOT / "README.md", "sh")[0][1]))
    described = set(re.findall(r"`(\w+Uri)`", (ROOT / "README.md").read_text()))
    assert described == {key for key in answer if key.endswith("Uri")}


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page_name(page)}: {target}"


def test_the_index_lists_every_page():
    text = (ROOT / "docs" / "README.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert [page for page in pages if f"]({page})" not in text] == []
