"""Real processes, real kills, and what must hold afterwards; everything is read from the database and the ledger directly."""

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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import chaos_app
import invariants
from reading import PREFIX, Reader, check_rendering
from table import TABLE, note

import flask_durable
from flask_durable.core.events import TaskCompleted
from flask_durable.core.execution import Execution
from flask_durable.storage.interface import InstanceRecord

__all__ = [
    "PREFIX",
    "TABLE",
    "Chaos",
    "Effect",
    "Findings",
    "Group",
    "cpu_seconds",
    "free_port",
    "is_alive",
    "resident_bytes",
    "threads_of",
    "wait_until",
]

HERE = Path(__file__).parent


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


def resources_of(pid: int) -> dict[str, int]:
    """Threads, descriptors, and connections: those to a database file, and sockets."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
        targets = []
        for name in names:
            with contextlib.suppress(OSError):
                targets.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        connections = sum(target.startswith("socket:") or target.endswith(".db") for target in targets)
        return {"threads": threads_of(pid), "descriptors": len(targets), "connections": connections}
    except OSError:
        return {}


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
                # A shell that runs the tests in the background has them ignore it, and what they start too
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
    execution_id: str
    task_id: int
    token: str
    pid: int
    at: float

    @property
    def call(self) -> tuple[str, int]:
        return self.execution_id, self.task_id


@dataclass
class Findings:
    """What a check found; all but ``broken`` are effects."""

    expected: int = 0
    counted: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    broken: list[str] = field(default_factory=list)


class Chaos:
    """One folder with a ledger, a database, and the processes that work on it.

    Args:
        folder: for all files.
        url: an empty database; a SQLite file in the folder by default.
        config: configuration keys of the app.
    """

    without_effects: tuple[str, ...] = ()
    """Orchestrators whose activities write no effects."""

    def __init__(self, folder: Path, url: str | None = None, **config: Any) -> None:
        self.folder = folder
        self.database = folder / "durable.db"
        self.url = url or f"sqlite:///{self.database}"
        self.reader = Reader(self.url)
        self.config = config
        self.accepted: set[str] = set()
        """Ids whose start was acknowledged."""
        self.raised: dict[str, list[tuple[str, Any]]] = {}
        """Name and data (JSON text) of the events that were acknowledged, by instance, in order."""
        self.maybe: dict[str, set[Any]] = {}
        """Data of events whose raising gave no clear answer."""
        self.effects: dict[str, int] = {}
        """How many effects Mixed instances must have, by id: a later generation does not tell."""
        self._before: dict[int, dict[str, int]] = {}
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
        found.update(CHAOS_DATABASE=self.url)
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

    def freeze(self, group: Group) -> None:
        """Stop a process where it is, but on SQLite outside of transactions: there it would keep the right to write, which nobody can take away."""

        def is_frozen() -> bool:
            group.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: _stat(group.pid)[0] == "T", "it has stopped")
            if not self.reader.is_sqlite or self.can_be_written():
                return True
            group.process.send_signal(signal.SIGCONT)
            return False

        wait_until(is_frozen, "it is stopped outside of a transaction")

    def can_be_written(self) -> bool:
        """Whether nobody has the right to write to the SQLite file for long."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=0.3, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
            return True

    def close(self) -> None:
        for group in self.groups:
            group.kill()
        if self._durable is not None:
            self._durable.close()
        self.reader.close()

    # -- the engine's client, in this process, which never becomes a worker

    @property
    def client(self) -> Any:
        """The client; what it acknowledges is noted for the checks."""
        if self._durable is None:
            self._app, self._durable = chaos_app.make_app(str(self.folder), self.url, TESTING=True)
            client = self._durable.client
            start = client.start

            def noting(*arguments: Any, **options: Any) -> str:
                instance_id = str(start(*arguments, **options))
                self.accepted.add(instance_id)
                return instance_id

            client.start = noting
        return self._durable.client

    def raise_event(self, instance_id: str, name: str, data: Any) -> None:
        """Raise an event, data different from all others', and note it."""
        self.client.raise_event(instance_id, name, data)
        self.raised.setdefault(instance_id, []).append((name, json.dumps(data)))

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
            status, answer = self.request("POST", f"{PREFIX}/start/{name}", {"input": {"steps": steps, "seconds": seconds}, **named})
            if status == 202:
                self.accepted.add(answer["id"])
            return status

        with ThreadPoolExecutor(threads) as pool:
            return Counter(pool.map(start, range(count)))

    # -- reading the database directly

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.reader.rows(text, *parameters) if not self.reader.is_sqlite or self.database.exists() else []

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
        return [Effect(line[0], line[1], int(line[2]), line[3], int(line[4]), float(line[5])) for line in self.ledger_lines(word)]

    def ledger_lines(self, word: str) -> list[list[str]]:
        """The lines that begin with that word, without it."""
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [parts[1:] for line in lines if (parts := line.split(" "))[0] == word]

    def snapshot(self) -> Snapshot:
        results = self.rows("SELECT instance_id, generation, task_id, payload FROM durable_history WHERE event_type = 'TaskCompleted'")
        finished = self.rows("SELECT instance_id, output FROM durable_instance WHERE status = 'Completed'")
        return Snapshot({(row[0], row[1], row[2]): row[3] for row in results}, dict(finished))

    # -- what must hold

    def check(self, expected: int, snapshots: Sequence[Snapshot] = (), *, is_over: bool = True) -> Findings:
        """Check the invariants I1 to I13 when all is quiet, and count the effects.

        Args:
            expected: how many instances were started.
            snapshots: what was recorded at earlier moments.
            is_over: whether every instance must be Completed.
        """
        found = Findings()
        state = self.reader.state()
        client = self.client  # before the app is used
        violations = invariants.check(state, self.execution_of)
        violations += invariants.check_accepted(state, self.accepted)
        violations += invariants.check_events(state, self.raised, maybe=self.maybe, seen=self._seen(state))
        violations += invariants.check_fencing(*self.commits())
        violations += check_rendering(self._app.test_client(), state)
        violations += self._check_resources()
        found.broken += map(str, violations)
        roots = [record for record in state.instances.values() if record.parent_instance_id is None]
        if len(roots) != expected:
            found.broken.append(f"I1: {expected} instances were started, there are {len(roots)}")
        assert client is not None
        if is_over:
            found.broken += [f"{record.instance_id} is {record.status}" for record in state.instances.values() if record.status != "Completed"]
            found.broken += [f"{len(state.calls)} calls are left"] if state.calls else []
            found.broken += [f"messages are left for {sorted(state.messages)}"] if state.messages else []
        self._count_effects(roots, found)
        self._check_results(state, found)
        self._check_snapshots(state, snapshots, found)
        return found

    def execution_of(self, record: InstanceRecord) -> Execution:
        """Fresh code of an instance."""
        registry = chaos_app.functions.registry
        function = registry.orchestrator(record.name, record.version).function
        return Execution(
            function, name_of=registry.name_of, options_of=registry.options_of, function_of=registry.function_of, exceptions=registry.exceptions
        )

    def commits(self) -> tuple[list[invariants.Commit], dict[str, float]]:
        """What the processes have noted of their commits and of dead workers, if CHAOS_WATCH is set."""
        commits = [invariants.Commit(line[0], float(line[1]), float(line[3]), line[2]) for line in self.ledger_lines("commit")]
        return commits, {line[0]: float(line[1]) for line in self.ledger_lines("reaped")}

    def _seen(self, state: invariants.HubState) -> dict[str, list[tuple[str, Any]]]:
        """The events that ended instances tell of."""
        over = [record for record in state.instances.values() if record.name == "Mixed" and record.output is not None]
        return {record.instance_id: [("Go", json.dumps(data)) for data in json.loads(record.output or "")["events"]] for record in over}

    def _count_effects(self, roots: Sequence[InstanceRecord], found: Findings) -> None:
        tokens: Counter[str] = Counter()
        for record in roots:
            found.expected += chaos_app.effects_of(record.name, json.loads(record.input or "null")) if record.generation == 0 else 0
            if record.generation:
                found.expected += self.effects[record.instance_id]
            if record.status == "Completed":
                tokens.update(chaos_app.tokens_in(record.name, json.loads(record.output or "null")))
        ended = {effect.token: effect for effect in self.ledger("ended")}
        found.counted = len(tokens)
        found.lost = found.expected - len(tokens)
        found.doubled = tokens.total() - len(tokens)
        found.broken += [f"the result {token} was never produced" for token in tokens if token not in ended]
        calls = Counter(ended[token].call for token in tokens if token in ended)
        found.doubled += sum(count - 1 for count in calls.values())
        began = Counter(effect.call for effect in self.ledger("began"))
        found.repeated = sum(count - 1 for count in began.values())

    def _check_results(self, state: invariants.HubState, found: Findings) -> None:
        """What is recorded as a result was produced by that very call."""
        ended = {(effect.call, effect.token) for effect in self.ledger("ended")}
        for instance_id, history in state.histories.items():
            execution_id = state.instances[instance_id].execution_id
            if state.instances[instance_id].name in self.without_effects:
                continue
            for _, _, event in history:
                if isinstance(event, TaskCompleted) and ((execution_id, event.task_id), json.loads(event.result or "null")) not in ended:
                    found.broken.append(f"{instance_id}: the result of call {event.task_id} was never produced")

    def _check_snapshots(self, state: invariants.HubState, snapshots: Sequence[Snapshot], found: Findings) -> None:
        now = self.snapshot()
        for before in snapshots:
            for key, token in before.results.items():
                record = state.instances.get(key[0])
                if now.results.get(key) != token and (record is None or record.generation == key[1]):
                    found.broken.append(f"I2: the result of {key} changed")
            found.broken.extend(f"I2: the output of {key} changed" for key, output in before.finished.items() if now.finished.get(key) != output)

    # -- I12

    def note_resources(self, pids: Iterable[int]) -> None:
        """Remember what these processes use while nothing is under way; the next check compares."""
        self._before = {pid: resources_of(pid) for pid in pids}

    def _check_resources(self) -> list[invariants.Violation]:
        found: list[invariants.Violation] = []
        for pid, before in self._before.items():
            if is_alive(pid) and before:
                with contextlib.suppress(AssertionError):
                    wait_until(lambda pid=pid, before=before: not invariants.check_resources(before, resources_of(pid)), "it is back", 15)  # type: ignore[misc]
                found += invariants.check_resources(before, resources_of(pid))
        return found

    def integrity(self) -> str:
        return str(self.value("PRAGMA integrity_check")) if self.reader.is_sqlite else "ok"

    def report(self, scenario: str, fault: str, runs: int, found: Findings, remark: str = "") -> None:
        """Add a line to the table that the session prints."""
        figures = {name: getattr(found, name) for name in ("expected", "counted", "repeated", "lost", "doubled")}
        remark = f"{remark} [{time.monotonic() - self.began:.1f} s]".strip()
        note(scenario, fault, runs=runs, kills=self.kills, broken=len(found.broken), remark=remark, **figures)

    def settle(
        self, scenario: str, fault: str, expected: int, snapshots: Sequence[Snapshot] = (), *, repeats: int, remark: str = "", runs: int = 1
    ) -> None:
        """Check everything, note it in the table, and fail unless all of it holds.

        Args:
            repeats: at most so many effects may have happened again: those that were under way at a kill.
        """
        found = self.check(expected, snapshots)
        self.report(scenario, fault, runs, found, remark)
        assert self.integrity() == "ok"
        assert not found.broken, "\n".join([f"{len(found.broken)} are broken:", *found.broken[:20]])
        assert (found.lost, found.doubled) == (0, 0)
        assert found.repeated <= repeats, f"{found.repeated} effects were repeated, at most {repeats} were under way at a kill"
