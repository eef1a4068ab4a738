"""The commands in processes of their own, as from a shell: worker, signals, a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import until

APP = """
import time
from pathlib import Path
from flask import Flask
from flask_durable import FlaskDurable

here = Path(__file__).parent
app = Flask("shop", instance_path=str(here))
app.config.update(DURABLE_DATABASE=f"sqlite:///{here}/durable.db", DURABLE_SHUTDOWN_GRACE=20)
durable = FlaskDurable(app)

@durable.activity
def linger(seconds):
    (here / "began").touch()
    if seconds == "until told":
        while not (here / "go").exists():
            time.sleep(0.02)
        return "done"
    time.sleep(seconds)
    return "done"

@durable.orchestrator(name="Linger")
def linger_on(ctx, seconds):
    return (yield ctx.call_activity(linger, seconds))
"""


class Shop:
    """An app in a folder, and `flask durable …` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(APP)
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.environment.pop("FLASK_DEBUG", None)
        self.running: list[subprocess.Popen[str]] = []

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "flask", "--app", str(self.folder / "shop.py"), "durable", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*words), capture_output=True, text=True, env=self.environment, timeout=60, check=False)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(self.words(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        self.running.append(process)
        return process

    def begin_worker(self) -> subprocess.Popen[str]:
        process = self.begin("worker")
        line = process.stderr.readline()
        assert line.startswith("Worker started: app 'shop', database sqlite:///"), line
        return process

    def close(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture
def process_shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path)
    yield found
    found.close()


def test_no_command_but_worker_does_any_work(process_shop):
    result = process_shop.run("start", "Linger", "--input", "0", "--instance-id", "x", "--wait", "--timeout", "1.5")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Started x" in result.stderr
    assert json.loads(process_shop.run("status", "x", "--json").stdout)["runtimeStatus"] == "Pending"
    assert json.loads(process_shop.run("doctor", "--json").stdout)["workers"] == []


def ending(worker):
    """The signal that a worker names while it ends in order, and nothing else is said."""
    out, said = worker.communicate(timeout=30)
    found = re.fullmatch(
        "(SIG[A-Z]+): the worker ends when its running activities have ended; another signal ends it at once\nWorker stopped\n", said
    )
    assert found, said
    assert out == ""
    return found[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_works_until_a_signal_and_ends_in_order(process_shop, number):
    worker = process_shop.begin_worker()
    assert len(json.loads(process_shop.run("doctor", "--json").stdout)["workers"]) == 1
    result = process_shop.run("start", "Linger", "--input", "0", "--wait", "--timeout", "30", "--json")
    assert json.loads(result.stdout)["output"] == "done"
    worker.send_signal(number)
    assert ending(worker) == signal.Signals(number).name
    assert worker.returncode == 0
    assert json.loads(process_shop.run("doctor", "--json").stdout)["workers"] == []


def test_a_signal_lets_a_running_activity_finish(process_shop):
    worker = process_shop.begin_worker()
    process_shop.run("start", "Linger", "--input", "1.5", "--instance-id", "x")
    until((process_shop.folder / "began").exists)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert worker.returncode == 0
    process_shop.begin_worker()
    events = json.loads(process_shop.run("status", "x", "--watch", "--history", "--json").stdout)["history"]
    assert [event["EventType"] for event in events] == ["ExecutionStarted", "TaskScheduled", "TaskCompleted", "ExecutionCompleted"]


def test_a_second_signal_ends_it_at_once(process_shop):
    worker = process_shop.begin_worker()
    process_shop.run("start", "Linger", "--input", "60")
    until((process_shop.folder / "began").exists)
    worker.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while worker.poll() is None and time.monotonic() - began < 10:
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert worker.returncode == 128 + signal.SIGTERM


def test_watching_ends_when_the_instance_ends(process_shop):
    process_shop.run("start", "Linger", "--input", "0", "--instance-id", "x")
    watching = process_shop.begin("status", "x", "--watch", "--json")
    assert "Pending" in watching.stderr.readline()
    process_shop.begin_worker()
    output, notes = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert json.loads(output)["output"] == "done"
    assert "Completed" in notes


def test_in_a_real_terminal_there_are_colours_and_questions(process_shop):
    process_shop.run("start", "Linger", "--instance-id", "x")
    process_shop.run("terminate", "x")
    master, slave = pty.openpty()
    environment = {name: value for name, value in process_shop.environment.items() if name != "NO_COLOR"}
    process = subprocess.Popen(process_shop.words("list"), stdin=slave, stdout=slave, stderr=slave, env=environment)
    shown = _read(master, b"Terminated", process)
    assert b"\x1b[31mTerminated" in shown
    process = subprocess.Popen(process_shop.words("purge", "--status", "Terminated"), stdin=slave, stdout=slave, stderr=slave, env=environment)
    assert b"Delete 1 instance with their histories? [y/N]" in _read(master, b"[y/N]", None)
    os.write(master, b"y\n")
    assert b"Deleted 1 instance" in _read(master, b"Deleted 1 instance", process)
    os.close(slave)
    os.close(master)


def _read(terminal: int, wanted: bytes, process: subprocess.Popen[bytes] | None) -> bytes:
    shown = b""
    while wanted not in shown:
        assert select.select([terminal], [], [], 30)[0], f"{wanted!r} did not appear, only {shown!r}"
        shown += os.read(terminal, 4096)
    if process is not None:
        assert process.wait(timeout=30) == 0
    return shown


def test_a_worker_is_limited_to_names(process_shop):  # WRK-5
    # Given a worker that thinks and one that acts
    for options in (("--orchestration", "Linger", "--no-activities"), ("--no-orchestrations", "--activity", "linger")):
        assert process_shop.begin("worker", *options).stderr.readline().startswith("Worker started")

        # Then one alone does not bring the work to its end
        if "--no-activities" in options:
            process_shop.run("start", "Linger", "--input", "0", "--instance-id", "x")
            until(lambda: json.loads(process_shop.run("status", "x", "--json").stdout)["runtimeStatus"] == "Running")
    assert json.loads(process_shop.run("status", "x", "--watch", "--json").stdout)["output"] == "done"


def test_a_worker_is_limited_to_names_or_to_none(process_shop):  # WRK-5
    result = process_shop.run("worker", "--activity", "linger", "--no-activities")
    assert (result.returncode, "--activity or --no-activities" in result.stderr) == (2, True)


def test_a_worker_answers_for_its_health(process_shop):
    worker = process_shop.begin("worker", "--health", "0")
    line = worker.stderr.readline()
    url = line.partition("health at ")[2].partition(". Ctrl")[0]
    assert url.startswith("http://127.0.0.1:"), line
    for path in ("live", "ready"):
        with urllib.request.urlopen(f"{url}/{path}", timeout=10) as answer:
            assert json.load(answer) == {"live": True, "ready": True, "reason": None}
    process_shop.run("start", "Linger", "--input", '"until told"')
    until((process_shop.folder / "began").exists)
    worker.send_signal(signal.SIGTERM)

    def reason() -> object:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=10).close()
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)["reason"]
        return None

    until(lambda: reason() == "the worker stops")
    (process_shop.folder / "go").touch()
    assert ending(worker) == "SIGTERM"


def test_a_worker_that_has_done_enough_ends_in_order(process_shop):
    worker = process_shop.begin("worker", "--max-calls", "2")
    assert worker.stderr.readline().startswith("Worker started")
    for _ in range(2):
        process_shop.run("start", "Linger", "--input", "0")
    said = worker.communicate(timeout=30)[1]
    assert "The worker ends: 2 activity calls have ended (--max-calls 2)\nWorker stopped\n" in said
    assert worker.returncode == 0


def test_a_worker_that_has_run_long_enough_ends_in_order(process_shop):
    result = process_shop.run("worker", "--max-seconds", "0.1")
    assert (result.returncode, result.stdout) == (0, "")
    assert "The worker ends: it has run long enough (--max-seconds 0.1)\nWorker stopped\n" in result.stderr


@pytest.mark.parametrize("words", [("--max-calls", "0"), ("--max-seconds", "0"), ("--max-memory", "-1"), ("--health", "host")])
def test_limits_that_make_no_sense_are_refused(process_shop, words):
    result = process_shop.run("worker", *words)
    assert result.returncode == 2
    assert words[0] in result.stderr
