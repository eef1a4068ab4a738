"""Real processes, real kills, and what must hold afterwards; everything is read from the SQLite file and the ledger directly."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import chaos_app

import flask_durable
from flask_durable.core.events import ExecutionCompleted
from flask_durable.core.execution import ASKED, Execution

HERE = Path(__file__).parent
PREFIX = "/runtime/orchestrations"
TABLE: list[tuple[object, ...]] = []
"""Rows of (scenario, fault, runs, kills, expected, counted, repeated, lost, doubled, broken, remark), printed at the end of the session."""


def wait_until(is_true: Callable[[], Any], what: str, seconds: float = 30) -> float:
    """Wait for a condition; returns how long it took."""
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began


def is_alive(pid: int) -> bool:
    """Whether any thread of a process lives: a killed one keeps its files, ports and locks until its last thread has ended."""
    try:
        return any(_stat(f"{pid}/task/{thread}")[0] not in ("", "Z", "X") for thread in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return False


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def resident_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that is free now, and that no outgoing connection is given between a kill and the restart."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def _stat(pid: int | str) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[3])


class Group:
    """A process started by a test, with all its children, in a session of its own."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.began = time.monotonic()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(words),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=log.parent,
            )
        self.pid = self.process.pid

    def pids(self) -> set[int]:
        """All living processes of the group."""
        found = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        return {pid for pid in found if _stat(pid)[1] == self.pid and is_alive(pid)}

    def children(self) -> set[int]:
        return self.pids() - {self.pid}

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL for every process of the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(30)
        wait_until(lambda: not self.pids(), "the killed processes are gone")

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Snapshot:
    """The results that are recorded at one moment: they must never change."""

    results: dict[tuple[str, int, int], str]
    finished: dict[str, str]


class Effect(NamedTuple):
    """A line of the ledger; ``at`` is on the clock of :func:`time.monotonic`, which all processes share."""

    instance_id: str
    task_id: int
    token: str
    pid: int
    at: float

    @property
    def call(self) -> tuple[str, int]:
        return self.instance_id, self.task_id


@dataclass
class Findings:
    """What a check found."""

    counted: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    broken: list[str] = field(default_factory=list)


class Chaos:
    """One folder with a database and a ledger, and the processes that work on it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.database = folder / "durable.db"
        self.config = config
        self.groups: list[Group] = []
        self.port = free_port()
        self.kills = 0
        self.began = time.monotonic()
        shutil.copy(HERE / "chaos_app.py", folder / "chaos_app.py")
        self._durable: Any = None

    # -- processes

    def environment(self, **more: str) -> dict[str, str]:
        found = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "WERKZEUG_", "OTEL_"))}
        found.update(CHAOS_FOLDER=str(self.folder), CHAOS_CONFIG=json.dumps(self.config), CHAOS_PORT=str(self.port), PYTHONUNBUFFERED="1")
        found.update(PYTHONPATH=os.pathsep.join([str(self.folder), str(Path(flask_durable.__file__).parents[1])]), **more)
        return found

    def begin(self, *words: str, program: str = sys.executable, **environment: str) -> Group:
        group = Group([program, *words], self.environment(**environment), self.folder / f"log-{len(self.groups)}")
        self.groups.append(group)
        return group

    def flask(self, *words: str, **environment: str) -> Group:
        return self.begin("-m", "flask", "--app", "chaos_app", *words, **environment)

    def flask_run(self, *words: str) -> Group:
        return self.flask("run", "--port", str(self.port), *words)

    def worker(self) -> Group:
        return self.flask("durable", "worker")

    def gunicorn(self, *words: str, workers: int = 4) -> Group:
        return self.begin(
            "-m", "gunicorn", "--workers", str(workers), "--bind", f"127.0.0.1:{self.port}", "--no-control-socket", *words, "chaos_app:app"
        )

    def kill(self, group: Group) -> None:
        self.kills += len(group.pids())
        group.kill()

    def kill_one(self, pid: int) -> None:
        self.kills += 1
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for group in self.groups:
            group.kill()
        if self._durable is not None:
            self._durable.close()

    # -- the engine's client, in this process, which never becomes a worker

    @property
    def client(self) -> Any:
        if self._durable is None:
            _, self._durable = chaos_app.make_app(str(self.folder), TESTING=True)
        return self._durable.client

    # -- HTTP

    def request(self, method: str, path: str, body: Any = None, seconds: float = 30) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            text = json.dumps(body) if body is not None else None
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content[:1] in (b"{", b"[") else content.decode()
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.request("GET", "/")[0] == 200
        except OSError:
            return False

    def start_over_http(
        self, count: int, *, name: str = "Chain", steps: int = 2, seconds: float = 0.02, threads: int = 8, prefix: str = ""
    ) -> Counter[int]:
        """Start many instances from several threads; returns how often each status was answered."""

        def start(number: int) -> int:
            named = {"instanceId": f"{prefix}{number}"} if prefix else {}
            return self.request("POST", f"{PREFIX}/start/{name}", {"input": {"steps": steps, "seconds": seconds}, **named})[0]

        with ThreadPoolExecutor(threads) as pool:
            return Counter(pool.map(start, range(count)))

    # -- reading the file directly

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            try:
                return connection.execute(text, parameters).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def value(self, text: str, *parameters: Any) -> Any:
        found = self.rows(text, *parameters)
        return found[0][0] if found else None

    def unfinished(self) -> int:
        return int(self.value("SELECT COUNT(*) FROM durable_instance WHERE status <> 'Completed'") or 0)

    def finished(self) -> int:
        return int(self.value("SELECT COUNT(*) FROM durable_instance WHERE status = 'Completed'") or 0)

    def completions(self) -> int:
        return int(self.value("SELECT COUNT(*) FROM durable_history WHERE event_type = 'TaskCompleted'") or 0)

    def worker_rows(self) -> dict[str, int]:
        """Id and process of every registered worker."""
        return {str(row[0]): int(row[1]) for row in self.rows("SELECT worker_id, pid FROM durable_worker")}

    def live_workers(self) -> set[int]:
        """Processes of registered workers that are alive."""
        return {pid for pid in self.worker_rows().values() if is_alive(pid)}

    def holders(self) -> Counter[str]:
        """How many activity calls each worker holds."""
        return Counter(
            {str(row[0]): int(row[1]) for row in self.rows("SELECT worker_id, COUNT(*) FROM durable_activity WHERE worker_id IS NOT NULL GROUP BY 1")}
        )

    def held_by(self, worker_ids: Sequence[str]) -> int:
        """How many rows still name one of these workers."""
        marks = ", ".join("?" * len(worker_ids))
        return sum(
            int(self.value(f"SELECT COUNT(*) FROM {table} WHERE worker_id IN ({marks})", *worker_ids) or 0)
            for table in ("durable_worker", "durable_instance", "durable_activity")
        )

    def ledger(self, word: str) -> list[Effect]:
        """What the activities have written with that word."""
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        parts = [line.split(" ") for line in lines]
        return [Effect(instance_id, int(task_id), token, int(pid), float(at)) for verb, instance_id, task_id, token, pid, at in parts if verb == word]

    def snapshot(self) -> Snapshot:
        results = self.rows("SELECT instance_id, generation, task_id, payload FROM durable_history WHERE event_type = 'TaskCompleted'")
        finished = self.rows("SELECT instance_id, output FROM durable_instance WHERE status = 'Completed'")
        return Snapshot({(row[0], row[1], row[2]): row[3] for row in results}, dict(finished))

    # -- what must hold

    def check(self, expected: int, snapshots: Sequence[Snapshot] = ()) -> Findings:
        """Check the invariants I1 to I6 when all is quiet."""
        found = Findings()
        instances = self.rows("SELECT instance_id, status, output, sequence, worker_id, ready_at, name, input, generation FROM durable_instance")
        histories: dict[str, list[tuple[Any, ...]]] = {}
        for row in self.rows(
            "SELECT instance_id, sequence, event_type, task_id, payload FROM durable_history ORDER BY instance_id, generation, sequence"
        ):
            histories.setdefault(row[0], []).append(row[1:])
        ended: dict[tuple[str, int], set[str]] = {}
        for effect in self.ledger("ended"):
            ended.setdefault(effect.call, set()).add(effect.token)
        for instance in instances:
            self._check_instance(instance, histories.get(instance[0], []), ended, found)
        began = Counter(effect.call for effect in self.ledger("began"))
        found.counted = sum(1 for instance in instances if instance[1] == "Completed")
        found.lost = expected - found.counted
        found.repeated = sum(count - 1 for count in began.values())
        for name in ("durable_activity", "durable_message"):
            left = self.value(f"SELECT COUNT(*) FROM {name}")
            if left:
                found.broken.append(f"{left} rows left in {name}")
        self._check_snapshots(snapshots, found)
        return found

    def _check_instance(
        self, instance: tuple[Any, ...], history: list[tuple[Any, ...]], ended: dict[tuple[str, int], set[str]], found: Findings
    ) -> None:
        instance_id, status, output, sequence, worker_id, ready_at, _, input_, _ = instance
        broken = found.broken
        if status != "Completed":
            broken.append(f"{instance_id} is {status}")
            return
        if worker_id is not None or ready_at is not None:
            broken.append(f"{instance_id} is Completed, and yet held or due")
        if [row[0] for row in history] != list(range(1, sequence + 1)):
            broken.append(f"{instance_id}: the sequence has gaps or does not fit its row: {[row[0] for row in history]}")
        kinds = [row[1] for row in history]
        if kinds[0] != "ExecutionStarted" or kinds.index("ExecutionCompleted") != len(kinds) - 1:
            broken.append(f"{instance_id}: {kinds}")
        scheduled = [row[2] for row in history if row[1] == "TaskScheduled"]
        completed = Counter(row[2] for row in history if row[1] == "TaskCompleted")
        found.doubled += sum(count - 1 for count in completed.values())
        if sorted(completed) != sorted(scheduled) or len(scheduled) != json.loads(input_)["steps"]:
            broken.append(f"{instance_id}: scheduled {scheduled}, completed {dict(completed)}")
        results = {row[2]: json.loads(row[3]) for row in history if row[1] == "TaskCompleted"}
        if json.loads(output) != [results[task_id] for task_id in scheduled]:
            broken.append(f"{instance_id}: the output is not made of the recorded results")
        broken.extend(
            f"{instance_id}: the result of task {task_id} was never produced"
            for task_id, token in results.items()
            if token not in ended.get((instance_id, task_id), ())
        )

    def _check_snapshots(self, snapshots: Sequence[Snapshot], found: Findings) -> None:
        now = self.snapshot()
        for before in snapshots:
            found.broken.extend(f"the result of {key} changed" for key, token in before.results.items() if now.results.get(key) != token)
            found.broken.extend(f"the output of {key} changed" for key, output in before.finished.items() if now.finished.get(key) != output)

    def check_replay(self) -> list[str]:
        """Instances whose stored history does not lead the same code to the same decisions (I5)."""
        store = self.client._store
        registry = chaos_app.functions.registry
        wrong = []
        for instance_id, name in self.rows("SELECT instance_id, name FROM durable_instance"):
            execution = Execution(registry.orchestrator(name).function, name_of=registry.name_of)
            history = store.load_history(instance_id, 0)
            last = [recorded.event for recorded in history if recorded.at == history[-1].at]
            execution.replay(history[: -len(last)])
            turn = execution.advance(history[-1].at, [event for event in last if not isinstance(event, (*ASKED, ExecutionCompleted))])
            if turn.events != last:
                wrong.append(f"{instance_id}: replayed to {turn.events}, recorded {last}")
        return wrong

    def integrity(self) -> str:
        return str(self.value("PRAGMA integrity_check"))

    def report(self, scenario: str, fault: str, runs: int, expected: int, found: Findings, remark: str = "") -> None:
        """Add a line to the table that the session prints."""
        seconds = time.monotonic() - self.began
        TABLE.append(
            (
                scenario,
                fault,
                runs,
                self.kills,
                expected,
                found.counted,
                found.repeated,
                found.lost,
                found.doubled,
                len(found.broken),
                f"{remark} [{seconds:.1f} s]",
            )
        )

    def settle(
        self, scenario: str, fault: str, expected: int, snapshots: Sequence[Snapshot] = (), *, repeats: int, remark: str = "", runs: int = 1
    ) -> None:
        """Check everything, note it in the table, and fail unless all of it holds.

        Args:
            repeats: at most so many effects may have happened again: those that were under way at a kill.
        """
        found = self.check(expected, snapshots)
        found.broken.extend(self.check_replay())
        self.report(scenario, fault, runs, expected, found, remark)
        assert self.integrity() == "ok"
        assert found.broken == []
        assert (found.lost, found.doubled) == (0, 0)
        assert found.repeated <= repeats, f"{found.repeated} effects were repeated, at most {repeats} were under way at a kill"
