"""An example served by `flask run` in a process of its own, for tests that use it as a stranger would."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import until

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


class Server:
    """An example served by `flask run`, in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.app = str(EXAMPLES / name / "app.py")
        self.environment = {**os.environ, "FLASK_DURABLE_DATABASE": f"sqlite:///{folder}/durable.db", "FLASK_APP": self.app, "NO_COLOR": "1"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.environment['PATH']}"
        self.log = (folder / "server.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", self.app, "run", "--port", str(self.port)],
            env=self.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def wait_until_it_answers(self) -> None:
        until(self._answers, "the server answered", 30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def text(self) -> str:
        """What the server has printed."""
        self.log.seek(0)
        return self.log.read()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.close()

    def request(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        """Status and parsed body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(url if "://" in url else self.base + url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            with answer:
                status, text = answer.code, answer.read()
        return status, json.loads(text) if text.startswith((b"{", b"[")) else text

    def until(self, url: str, key: str, value: str) -> Any:
        """The document at an address, as soon as it has that value."""

        def document() -> Any:
            status, found = self.request("GET", url)
            assert status == 200, found
            return found if found[key] == value else None

        return until(document, f"{key} of {url} is {value}")

    def durable(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `flask durable …` for the served app."""
        return self.run([sys.executable, "-m", "flask", "--app", self.app, "durable", *words])

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder of the project, with the served app's configuration."""
        return subprocess.run(words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=400, check=False)


@contextlib.contextmanager
def served(name: str, folder: Path) -> Iterator[Server]:
    """The example of that name, serving from a fresh database in a folder."""
    server = Server(name, folder)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.close()
