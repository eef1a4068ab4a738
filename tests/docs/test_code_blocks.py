"""Code in README and docs is run: Python blocks page by page, shell blocks against the hello example, served for real."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

ROOT = Path(__file__).parents[2]
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
            exec(compile("\n" * line + text, str(page), "exec"), names)
    finally:
        for app in apps:
            if "durable" in app.extensions:
                app.extensions["durable"].close()


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Port and environment of the served hello example."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "FLASK_DURABLE_DATABASE": f"sqlite:///{tmp_path}/durable.db", "FLASK_APP": "examples/hello/app.py", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "flask", "run", "--port", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/runtime/orchestrations", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, (tmp_path / "server.log").read_text()
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.05)
            yield port, environment
        finally:
            server.terminate()
            server.wait(timeout=30)


@pytest.mark.parametrize("page", SHELL_PAGES, ids=page_name)
def test_shell_blocks_of_a_page_work_against_the_served_example(page, hello):
    port, environment = hello
    script = ["set -euo pipefail", 'curl() { command curl -fsS "$@"; echo; }']
    for _, text in blocks(page, "sh"):
        script.append(text.replace("127.0.0.1:5000", f"127.0.0.1:{port}").replace(".venv/bin/flask", "flask"))
    result = subprocess.run(["bash", "-c", "\n".join(script)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_first_answer_of_the_readme_is_as_described(hello):
    port, environment = hello
    text = blocks(ROOT / "README.md", "sh")[0][1].replace("127.0.0.1:5000", f"127.0.0.1:{port}")
    result = subprocess.run(
        ["bash", "-c", f'curl() {{ command curl -fsS "$@"; }}\n{text}'], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    answer = json.loads(result.stdout)
    described = set(re.findall(r"`(\w+Uri)`", (ROOT / "README.md").read_text()))
    assert described == {key for key in answer if key.endswith("Uri")}


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page_name(page)}: {target}"
